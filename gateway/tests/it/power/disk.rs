//! A disk that may lose what was not synced: it is fed with the recorder's entries, and at any moment
//! says what could be there after a power cut.
//!
//! Contents are durable after `fsync` or `fdatasync` of their file, up to what was written when it
//! began. Names are durable after `fsync` of their directory ([`Names::Strict`], as POSIX has it), or
//! after any sync, for that commits the journal that all names are in ([`Names::Journal`], as ext4
//! does it). What is not durable is there, or not, or partly: see [`Keep`].

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::log::Entry;
use crate::tree::Tree;

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// When names are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Names {
    Strict,
    Journal,
}

/// What of the unsynced is there after the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keep {
    /// Nothing.
    Nothing,
    /// All.
    All,
    /// All but an end of the last write.
    Torn,
    /// Each page by chance, as after any number of the writes to it; names and sizes up to a moment
    /// before the cut that chance chooses as well.
    Pages,
}

type Id = usize;

#[derive(Clone, Debug)]
pub(super) struct Disk {
    names: Names,
    nodes: Vec<Node>,
    by_inode: HashMap<u64, Id>,
    syncs: HashMap<u64, Sync>,
    /// How many names were ever changed.
    edits: usize,
    last_write: Option<(Id, usize)>,
}

#[derive(Clone, Debug)]
enum Node {
    File(Queue<Vec<u8>, Change>),
    Dir {
        entries: Queue<BTreeMap<OsString, Id>, (usize, Edit)>,
        now: BTreeMap<OsString, Id>,
    },
}

/// Something durable, and the changes after it.
#[derive(Clone, Debug)]
struct Queue<T, C> {
    durable: T,
    pending: VecDeque<C>,
    /// How many changes are in `durable`.
    done: usize,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Clone, Debug)]
enum Edit {
    Put(OsString, Id),
    Remove(OsString),
    Move(OsString, OsString, Id),
}

/// What a sync covers: up to which change of which node.
#[derive(Clone, Debug)]
struct Sync(Vec<(Id, usize)>);

impl<T, C> Queue<T, C> {
    fn new(durable: T) -> Self {
        Self {
            durable,
            pending: VecDeque::new(),
            done: 0,
        }
    }

    fn count(&self) -> usize {
        self.done + self.pending.len()
    }

    fn settle(&mut self, upto: usize, apply: impl Fn(&mut T, &C)) {
        while self.done < upto {
            let change = self.pending.pop_front().unwrap();
            apply(&mut self.durable, &change);
            self.done += 1;
        }
    }
}

impl Change {
    fn apply(file: &mut Vec<u8>, change: &Self) {
        match change {
            Self::Resize(bytes) => file.resize(*bytes, 0),
            Self::Write(at, data) => {
                let end = at + data.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*at..end].copy_from_slice(data);
            }
        }
    }
}

impl Edit {
    fn apply(entries: &mut BTreeMap<OsString, Id>, edit: &Self) {
        match edit {
            Self::Put(name, id) => drop(entries.insert(name.clone(), *id)),
            Self::Remove(name) => drop(entries.remove(name)),
            Self::Move(from, to, id) => {
                entries.remove(from);
                entries.insert(to.clone(), *id);
            }
        }
    }
}

impl Disk {
    /// The directory as it is, all of it durable.
    pub(super) fn load(dir: &Path, names: Names) -> Self {
        let mut disk = Self {
            names,
            nodes: Vec::new(),
            by_inode: HashMap::new(),
            syncs: HashMap::new(),
            edits: 0,
            last_write: None,
        };
        disk.load_dir(dir);
        disk
    }

    fn load_dir(&mut self, dir: &Path) -> Id {
        let id = self.add(fs::metadata(dir).unwrap().ino(), dir_node());
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let child = if meta.is_dir() {
                self.load_dir(&entry.path())
            } else {
                let contents = fs::read(entry.path()).unwrap();
                self.add(meta.ino(), Node::File(Queue::new(contents)))
            };
            let Node::Dir { entries, now } = &mut self.nodes[id] else {
                unreachable!("made above");
            };
            entries.durable.insert(entry.file_name(), child);
            now.insert(entry.file_name(), child);
        }
        id
    }

    fn add(&mut self, inode: u64, node: Node) -> Id {
        self.nodes.push(node);
        self.by_inode.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// The same disk with names durable in the other way.
    pub(super) fn with_names(&self, names: Names) -> Self {
        Self {
            names,
            ..self.clone()
        }
    }

    /// What happened next.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Create { inode, name } => {
                let id = self.add(*inode, Node::File(Queue::new(Vec::new())));
                self.put(name, id);
            }
            Entry::MakeDir { inode, name } => {
                let id = self.add(*inode, dir_node());
                self.put(name, id);
            }
            Entry::Write { inode, at, data } => {
                let id = self.by_inode[inode];
                self.change(id, Change::Write(*at, data.clone()));
                let Node::File(file) = &self.nodes[id] else {
                    unreachable!("it was written to");
                };
                self.last_write = Some((id, file.count()));
            }
            Entry::Resize { inode, bytes } => {
                self.change(self.by_inode[inode], Change::Resize(*bytes));
            }
            Entry::Rename { from, to } => self.rename(from, to),
            Entry::Remove { name } => {
                let dir = self.parent(name);
                self.edit(dir, Edit::Remove(last(name)));
            }
            Entry::SyncBegins { inode, number } => {
                let sync = self.covered(self.by_inode[inode]);
                self.syncs.insert(*number, sync);
            }
            Entry::SyncEnds { number } => {
                for (id, upto) in self.syncs.remove(number).unwrap().0 {
                    match &mut self.nodes[id] {
                        Node::File(file) => file.settle(upto, Change::apply),
                        Node::Dir { entries, .. } => {
                            entries.settle(upto, |names, (_, edit)| Edit::apply(names, edit));
                        }
                    }
                }
            }
            Entry::Unknown(what) => panic!("the recorder cannot follow {what}"),
            Entry::Mark(_) => {}
        }
    }

    fn covered(&self, id: Id) -> Sync {
        let count = |id: Id| match &self.nodes[id] {
            Node::File(file) => file.count(),
            Node::Dir { entries, .. } => entries.count(),
        };
        let is_dir = |id: &Id| matches!(self.nodes[*id], Node::Dir { .. });
        let mut covered = vec![(id, count(id))];
        if self.names == Names::Journal {
            let dirs = (0..self.nodes.len()).filter(is_dir);
            covered.extend(dirs.map(|dir| (dir, count(dir))));
        }
        Sync(covered)
    }

    fn change(&mut self, id: Id, change: Change) {
        let Node::File(file) = &mut self.nodes[id] else {
            panic!("a directory was written to");
        };
        file.pending.push_back(change);
    }

    fn edit(&mut self, dir: Id, edit: Edit) {
        self.edits += 1;
        let ordinal = self.edits;
        let Node::Dir { entries, now } = &mut self.nodes[dir] else {
            panic!("a file has no entries");
        };
        Edit::apply(now, &edit);
        entries.pending.push_back((ordinal, edit));
    }

    fn put(&mut self, name: &Path, id: Id) {
        let dir = self.parent(name);
        self.edit(dir, Edit::Put(last(name), id));
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let (from_dir, to_dir) = (self.parent(from), self.parent(to));
        let Node::Dir { now, .. } = &self.nodes[from_dir] else {
            unreachable!("a parent is a directory");
        };
        let id = now[&last(from)];
        if from_dir == to_dir {
            self.edit(from_dir, Edit::Move(last(from), last(to), id));
        } else {
            self.edit(to_dir, Edit::Put(last(to), id));
            self.edit(from_dir, Edit::Remove(last(from)));
        }
    }

    /// The directory that a name stands in.
    fn parent(&self, name: &Path) -> Id {
        let mut at = 0;
        for part in name.parent().unwrap() {
            let Node::Dir { now, .. } = &self.nodes[at] else {
                panic!("{}: not below a directory", name.display());
            };
            at = now[part];
        }
        at
    }

    /// What a power cut leaves.
    pub(super) fn after_cut(&self, keep: Keep, random: &mut fastrand::Rng) -> Tree {
        let mut tree = Tree::default();
        let moment = random.usize(0..=self.edits);
        self.collect(0, Path::new(""), keep, moment, random, &mut tree);
        tree
    }

    fn collect(
        &self,
        dir: Id,
        path: &Path,
        keep: Keep,
        moment: usize,
        random: &mut fastrand::Rng,
        tree: &mut Tree,
    ) {
        let Node::Dir { entries, .. } = &self.nodes[dir] else {
            unreachable!("only directories are collected");
        };
        let pending = entries.pending.len();
        let kept = match keep {
            Keep::Nothing => 0,
            Keep::All | Keep::Torn => pending,
            Keep::Pages if self.names == Names::Strict => random.usize(0..=pending),
            Keep::Pages => {
                let until = entries.pending.iter();
                until.take_while(|(ordinal, _)| *ordinal <= moment).count()
            }
        };
        let mut names = entries.durable.clone();
        for (_, edit) in entries.pending.iter().take(kept) {
            Edit::apply(&mut names, edit);
        }
        for (name, id) in names {
            let name: PathBuf = path.join(name);
            match &self.nodes[id] {
                Node::Dir { .. } => {
                    tree.0.insert(name.clone(), None);
                    self.collect(id, &name, keep, moment, random, tree);
                }
                Node::File(file) => {
                    let torn = self.last_write.filter(|(torn, _)| *torn == id);
                    let contents = file.after_cut(keep, torn.map(|(_, at)| at), random);
                    tree.0.insert(name, Some(contents));
                }
            }
        }
    }
}

impl Queue<Vec<u8>, Change> {
    /// `torn`: how many changes there were after the last write to the disk, if it was to this file.
    fn after_cut(&self, keep: Keep, torn: Option<usize>, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut file = self.durable.clone();
        match keep {
            Keep::Nothing => {}
            Keep::All | Keep::Torn => {
                for (number, change) in (self.done + 1..).zip(&self.pending) {
                    match change {
                        Change::Write(at, data) if keep == Keep::Torn && torn == Some(number) => {
                            let mut bytes = random.usize(0..=data.len());
                            if random.bool() {
                                bytes -= bytes % SECTOR_BYTES;
                            }
                            Change::apply(&mut file, &Change::Write(*at, data[..bytes].to_vec()));
                        }
                        _ => Change::apply(&mut file, change),
                    }
                }
            }
            Keep::Pages => self.keep_pages(&mut file, random),
        }
        file
    }

    fn keep_pages(&self, file: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let sized = random.usize(0..=self.pending.len());
        let mut bytes = file.len();
        for change in self.pending.iter().take(sized) {
            bytes = match change {
                Change::Resize(to) => *to,
                Change::Write(at, data) => bytes.max(at + data.len()),
            };
        }
        file.resize(bytes, 0);
        // What each page went through.
        let mut changes: BTreeMap<usize, Vec<&Change>> = BTreeMap::new();
        for change in &self.pending {
            let pages = match change {
                Change::Write(at, data) => at / PAGE_BYTES..(at + data.len()).div_ceil(PAGE_BYTES),
                Change::Resize(to) => to / PAGE_BYTES..bytes.div_ceil(PAGE_BYTES),
            };
            for page in pages {
                changes.entry(page).or_default().push(change);
            }
        }
        for (page, changes) in changes {
            let kept = match random.u8(0..3) {
                0 => 0,
                1 => changes.len(),
                _ => random.usize(0..=changes.len()),
            };
            let start = page * PAGE_BYTES;
            let end = (start + PAGE_BYTES).min(bytes);
            for change in &changes[..kept] {
                match change {
                    Change::Resize(to) => {
                        let from = (*to).clamp(start, end.max(start));
                        if from < end {
                            file[from..end].fill(0);
                        }
                    }
                    Change::Write(at, data) => {
                        let (from, to) = (start.max(*at), end.min(at + data.len()));
                        if from < to {
                            file[from..to].copy_from_slice(&data[from - at..to - at]);
                        }
                    }
                }
            }
        }
    }
}

fn dir_node() -> Node {
    Node::Dir {
        entries: Queue::new(BTreeMap::new()),
        now: BTreeMap::new(),
    }
}

fn last(name: &Path) -> OsString {
    name.file_name().unwrap().to_owned()
}
