//! One generation: a directory with a database of its own, dropped whole when drained, because sled
//! gives no disk back otherwise.
//!
//! It is made under a name of its own (`gen-N.new`), synced, and renamed, so that a directory called
//! `gen-N` was once complete; one that does not open is damaged, not half-made. It is removed under
//! that name as well, so that it is not half-removed either. Its handles close
//! before the directory goes: both happen when the last holder lets go of the [`Generation`].
//!
//! Its values stand in slots (see slots.rs), in the order of the places of their records. The first
//! release had them under the places themselves; such a generation is read until it is drained.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    fs::{self, File},
    io,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use portcullis_core::{batch::BatchLimits, limits::DAMAGED_GENERATIONS_MAX, record::Record};
use tracing::{error, warn};

use super::{
    chunk::{self, Packer, Unpacker},
    engine::{Database, EngineError, directory_bytes, sync_directory},
    slots::{self, Slots},
};

pub(super) const PREFIX: &str = "gen-";
const NEW: &str = ".new";
pub(super) const DAMAGED: &str = ".damaged";
pub(super) const BASE: &str = "base";

/// See the module.
pub(super) struct Generation {
    /// The place of its first record, which is its name.
    pub(super) first_seq: u64,
    dir: PathBuf,
    open: Mutex<Option<Arc<Open>>>,
    disk_bytes: AtomicU64,
    damaged: AtomicBool,
    fate: AtomicU8,
}

/// What is in memory of a generation that is read or appended to.
struct Open {
    database: Database,
    /// Whether the first release wrote it.
    is_old: bool,
    /// Nothing until it is first asked for: reads from the end back.
    slots: Mutex<Option<Slots>>,
    packer: Mutex<Packer>,
    /// Where reads ended lately: the place that comes next, and a slot at or before it.
    hints: Mutex<VecDeque<(u64, u32)>>,
}

/// Readers that go on where they were: a backlog and what is live, of some sinks.
const HINTS_MAX: usize = 16;

const KEEP: u8 = 0;
const REMOVE: u8 = 1;
const SET_ASIDE: u8 = 2;

impl Generation {
    /// Makes an empty generation, durably, with what the lane had counted before it in a file of its
    /// own: it can be read without opening the database.
    pub(super) fn create(parent: &Path, first_seq: u64, base: &[u8]) -> Result<Self, EngineError> {
        let dir = parent.join(name(first_seq));
        let new = parent.join(name(first_seq) + NEW);
        let io = |source| EngineError::Io {
            path: new.clone(),
            source,
        };
        match fs::remove_dir_all(&new) {
            // An earlier attempt found no space.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        fs::create_dir(&new).map_err(io)?;
        // Synced with the database.
        fs::write(new.join(BASE), base).map_err(io)?;
        // It stays open over its renaming: sled asks for paths when it opens only, and a log that it
        // opens a second time it fills with zeros up to the end of a segment first.
        let database = Database::open(&new)?;
        // A log that is overwritten with anything else opens as an empty one: a generation is never
        // empty, its first slots are reserved.
        reserve(&database, Slots::default().missing(0))?;
        database.commit()?;
        let open = Open::new(database)?;
        fs::rename(&new, &dir).map_err(io)?;
        sync_directory(parent)?;
        let mut generation = Self::closed(dir, first_seq);
        generation.open = Mutex::new(Some(Arc::new(open)));
        Ok(generation)
    }

    /// What it was made with, if that can be read.
    pub(super) fn base(&self) -> Option<Vec<u8>> {
        fs::read(self.dir.join(BASE)).ok()
    }

    /// A generation that is on disk, not opened yet.
    pub(super) fn closed(dir: PathBuf, first_seq: u64) -> Self {
        Self {
            first_seq,
            disk_bytes: AtomicU64::new(directory_bytes(&dir)),
            dir,
            open: Mutex::new(None),
            damaged: AtomicBool::new(false),
            fate: AtomicU8::new(KEEP),
        }
    }

    /// The open database; opened now if it is not.
    fn open(&self) -> Result<Arc<Open>, EngineError> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*slot {
            return Ok(open.clone());
        }
        // Without a file it was half removed, which nobody waits for.
        let has_log = directory_bytes(&self.dir) > 0;
        let database = Database::open(&self.dir)?;
        if has_log && database.key_bytes()?.is_none() {
            return Err(EngineError::Hollow);
        }
        let open = Arc::new(Open::new(database)?);
        *slot = Some(open.clone());
        Ok(open)
    }

    /// Closes the database unless somebody reads it: a backlog of many generations must not hold
    /// each one's memory.
    pub(super) fn close_if_idle(&self) {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if slot
            .as_ref()
            .is_some_and(|open| Arc::strong_count(open) == 1)
        {
            *slot = None;
        }
    }

    /// Appends records with consecutive places, durably.
    pub(super) fn append(&self, records: &[Record]) -> Result<(), EngineError> {
        let open = self.open()?;
        open.append(records)?;
        open.database.commit()?;
        self.disk_bytes
            .store(open.database.disk_bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Records with places from `from` up to below `end`, under the limits but at least one. The
    /// places are consecutive; if the first is above `from`, those before it are lost. Empty: all are.
    pub(super) fn read(
        &self,
        from: u64,
        end: u64,
        limits: BatchLimits,
    ) -> Result<Vec<Record>, EngineError> {
        let open = self.open()?;
        let start = open.key_before(from)?;
        let mut unpacker = Unpacker::default();
        let mut records: Vec<Record> = Vec::new();
        let mut room = limits.room();
        let mut full = false;
        let mut at = None;
        open.database.scan(&start, |key, value| {
            unpacker.unpack(key, value, |record| {
                let follows = records
                    .last()
                    .is_none_or(|last| last.place + 1 == record.place);
                if full || record.place < from {
                    return;
                }
                full =
                    record.place >= end || !follows || !room.take(&record) && !records.is_empty();
                if !full {
                    records.push(record);
                }
            });
            if !records.is_empty() && !value.is_empty() {
                at = slots::split_key(key);
            }
            if full {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if let (Some(last), Some(slot)) = (records.last(), at) {
            open.remember(last.place + 1, slot);
        }
        Ok(records)
    }

    /// Where the generation ends.
    pub(super) fn end(&self) -> Result<End, EngineError> {
        let Some(last_start) = self.open()?.last_place()? else {
            return Ok(End::Empty);
        };
        let all = BatchLimits {
            records_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let records = self.read(last_start, u64::MAX, all)?;
        Ok(match records.last() {
            Some(record) => End::At(record.place),
            None => End::Unreadable,
        })
    }

    /// What it takes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Notes that part of it cannot be read: once drained it is set aside instead of removed.
    /// Whether this is news.
    pub(super) fn mark_damaged(&self) -> bool {
        !self.damaged.swap(true, Ordering::Relaxed)
    }

    /// Decides what happens to the directory when the last holder lets go.
    pub(super) fn retire(&self, fate: Fate) {
        let fate = match fate {
            Fate::Drained if !self.damaged.load(Ordering::Relaxed) => REMOVE,
            Fate::Drained | Fate::SetAside => SET_ASIDE,
        };
        self.fate.store(fate, Ordering::Relaxed);
    }
}

impl Open {
    fn new(database: Database) -> Result<Self, EngineError> {
        Ok(Self {
            is_old: database.key_bytes()? == Some(chunk::OLD_KEY_BYTES),
            database,
            slots: Mutex::default(),
            packer: Mutex::default(),
            hints: Mutex::default(),
        })
    }

    fn append(&self, records: &[Record]) -> Result<(), EngineError> {
        let mut packer = self.packer.lock().unwrap_or_else(PoisonError::into_inner);
        let values = packer.pack(records);
        let mut slots = self.lock_slots()?;
        let slots = slots.get_or_insert_default();
        let count = u32::try_from(values.len()).expect("a commit is far below 4 G values");
        let missing = slots.missing(count);
        slots.reserved = missing.end;
        reserve(&self.database, missing)?;
        let needs_all = values.iter().any(|value| chunk::is_share(value));
        let entries = (slots.used..).map(slots::key).zip(values);
        if needs_all {
            self.database.put_together(entries)?;
        } else {
            self.database.put(entries)?;
        }
        slots.used += count;
        Ok(())
    }

    /// The slots, looked for at the end if nobody did yet.
    fn lock_slots(&self) -> Result<MutexGuard<'_, Option<Slots>>, EngineError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_none() {
            *slots = Some(Slots::of(&self.database)?);
        }
        Ok(slots)
    }

    /// A key at or before that of the value that holds `place`.
    fn key_before(&self, place: u64) -> Result<Vec<u8>, EngineError> {
        if self.is_old {
            let key = self
                .database
                .at_or_before(&chunk::old_key(place, u32::MAX))?;
            let first = key.and_then(|key| chunk::split_old_key(&key));
            let first = first.map_or(place, |(first, _)| first);
            return Ok(chunk::old_key(first, 0).to_vec());
        }
        let used = self.lock_slots()?.unwrap_or_default().used;
        let search = |from| slots::find(place, from, used, |slot| self.position(slot));
        let found = match (search(self.hint(place))?, self.hint(place)) {
            // After damage a hint may stand behind the place.
            (None, 1..) => search(0)?,
            (found, _) => found,
        };
        // Nothing that early: what comes first.
        Ok(slots::key(found.unwrap_or(0)).to_vec())
    }

    fn position(&self, slot: u32) -> Result<Option<(u64, u32)>, EngineError> {
        let position = self.database.get(&slots::key(slot), chunk::position)?;
        Ok(position.flatten())
    }

    fn hint(&self, place: u64) -> u32 {
        let hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        let before = hints.iter().filter(|(at, _)| *at <= place);
        before.max().map_or(0, |(_, slot)| *slot)
    }

    fn remember(&self, place: u64, slot: u32) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        hints.push_back((place, slot));
        if hints.len() > HINTS_MAX {
            hints.pop_front();
        }
    }

    /// The place where the last value begins, or a place after all if it does not say.
    fn last_place(&self) -> Result<Option<u64>, EngineError> {
        if self.is_old {
            let key = self
                .database
                .at_or_before(&chunk::old_key(u64::MAX, u32::MAX))?;
            return Ok(key
                .and_then(|key| chunk::split_old_key(&key))
                .map(|(place, _)| place));
        }
        let used = self.lock_slots()?.unwrap_or_default().used;
        let Some(last) = used.checked_sub(1) else {
            return Ok(None);
        };
        let position = self.position(last)?;
        Ok(Some(position.map_or(u64::MAX, |(place, _)| place)))
    }
}

fn reserve(database: &Database, slots: Range<u32>) -> Result<(), EngineError> {
    database.put(slots.map(|slot| (slots::key(slot), Vec::new())))
}

/// Why a generation is taken out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Everything in it was accepted (or it holds nothing). Removed, unless it is damaged.
    Drained,
    /// It cannot be read. Kept for salvage.
    SetAside,
}

/// Where a generation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has no record.
    Empty,
    /// Its last record has this number.
    At(u64),
    /// There is something at the end that is no record any more.
    Unreadable,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let slot = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The handles first, or the disk would not come back.
        drop(slot.take());
        let done = match *self.fate.get_mut() {
            REMOVE => unname(&self.dir).and_then(fs::remove_dir_all),
            SET_ASIDE => set_aside(&self.dir),
            _ => Ok(()),
        };
        if let Err(error) = done {
            warn!(dir = %self.dir.display(), %error, "A drained generation could not be removed.");
        }
    }
}

fn name(first_seq: u64) -> String {
    format!("{PREFIX}{first_seq:020}")
}

/// The generations in `parent`, oldest first. What was being made or removed when the process ended
/// holds nothing that anybody waits for, and is removed.
pub(super) fn list(parent: &Path) -> io::Result<Vec<Generation>> {
    let mut generations = Vec::new();
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if rest.ends_with(NEW) {
            fs::remove_dir_all(&path)?;
        } else if let Ok(first_seq) = rest.parse() {
            generations.push(Generation::closed(path, first_seq));
        }
    }
    generations.sort_by_key(|generation| generation.first_seq);
    Ok(generations)
}

/// Takes a drained generation's name away before it is removed. Should the process end in the
/// middle, what is left of it must not look like a generation that lost its records.
fn unname(dir: &Path) -> io::Result<PathBuf> {
    let mut new = dir.as_os_str().to_owned();
    new.push(NEW);
    let new = PathBuf::from(new);
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::rename(dir, &new)?;
    if let Some(parent) = dir.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(new)
}

/// The first numbers of the generations that were set aside in `parent` and are still kept.
pub(super) fn list_set_aside(parent: &Path) -> io::Result<BTreeSet<u64>> {
    let mut first_seqs = BTreeSet::new();
    for entry in fs::read_dir(parent)? {
        let name = entry?.file_name();
        let first_seq = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(DAMAGED))
            .and_then(|first_seq| first_seq.parse::<u64>().ok());
        first_seqs.extend(first_seq);
    }
    Ok(first_seqs)
}

/// Renames a damaged generation out of the way, for salvage, and keeps the number of such bounded.
fn set_aside(dir: &Path) -> io::Result<()> {
    let parent = dir
        .parent()
        .expect("a generation stands in the buffer's directory");
    let mut target = dir.as_os_str().to_owned();
    target.push(DAMAGED);
    if Path::new(&target).exists() {
        // The same number was lost before: what is kept of it is the newer.
        fs::remove_dir_all(&target)?;
    }
    fs::rename(dir, &target)?;
    error!(dir = %Path::new(&target).display(), "A damaged generation was set aside.");
    let mut damaged: Vec<_> = fs::read_dir(parent)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "damaged")
        })
        .collect();
    damaged.sort();
    let surplus = damaged.len().saturating_sub(DAMAGED_GENERATIONS_MAX);
    damaged[..surplus].iter().try_for_each(fs::remove_dir_all)
}

#[cfg(test)]
mod tests {
    use portcullis_core::record::{Kind, SinkSet};

    use super::*;

    const ALL: BatchLimits = BatchLimits {
        records_max: usize::MAX,
        bytes_max: usize::MAX,
    };

    /// Records with bodies that no compression makes smaller.
    fn records(places: std::ops::Range<u64>, bytes: impl Fn(u64) -> usize) -> Vec<Record> {
        let body = |place| {
            let mut random = fastrand::Rng::with_seed(place);
            std::iter::repeat_with(|| random.u8(..))
                .take(bytes(place))
                .collect()
        };
        places
            .map(|place| Record {
                seq: place,
                place,
                kind: Kind::Event,
                sinks: SinkSet::ALL,
                at_millis: 0,
                partition_key: "thing".into(),
                body: body(place),
            })
            .collect()
    }

    #[test]
    fn a_value_is_written_once() {
        let parent = tempfile::tempdir().unwrap();
        let generation = Generation::create(parent.path(), 1, &[]).unwrap();
        let records = records(1..601, |_| 7000);
        let mut given = 0;
        for commit in records.chunks(20) {
            generation.append(commit).unwrap();
            given += commit.iter().map(Record::encoded_bytes).sum::<usize>();
        }
        let given = u64::try_from(given).unwrap();
        // The last segment of sled's log is not full.
        let written = generation.disk_bytes() - 512 * 1024;
        assert!(written < given * 11 / 10, "{written} for {given}");
        assert_eq!(generation.read(1, 601, ALL).unwrap(), records);
    }

    #[test]
    fn reading_starts_anywhere_also_after_a_restart_and_within_a_large_record() {
        let parent = tempfile::tempdir().unwrap();
        let large = |place| if place % 50 == 0 { 30_000 } else { 900 };
        let records = records(10..410, large);
        let mut generation = Generation::create(parent.path(), 10, &[]).unwrap();
        let limits = BatchLimits {
            records_max: 3,
            ..ALL
        };
        for round in 0..2 {
            if round == 0 {
                for commit in records.chunks(13) {
                    generation.append(commit).unwrap();
                }
            }
            let mut random = fastrand::Rng::with_seed(round);
            for _ in 0..200 {
                let from = random.u64(10..410);
                let at = usize::try_from(from - 10).unwrap();
                let expected = &records[at..(at + 3).min(records.len())];
                assert_eq!(generation.read(from, 410, limits).unwrap(), expected);
            }
            assert!(generation.read(410, 500, ALL).unwrap().is_empty());
            assert_eq!(generation.end().unwrap(), End::At(409));
            drop(generation);
            generation = list(parent.path()).unwrap().pop().unwrap();
        }
    }

    #[test]
    fn a_generation_of_the_first_release_is_read() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join(name(7));
        fs::create_dir(&dir).unwrap();
        let records = records(7..12, |_| 100);
        let mut value = vec![0];
        records.iter().for_each(|record| record.encode(&mut value));
        let database = Database::open(&dir).unwrap();
        database.put([(chunk::old_key(7, 0), value)]).unwrap();
        drop(database);
        let generation = list(parent.path()).unwrap().pop().unwrap();
        assert_eq!(generation.end().unwrap(), End::At(11));
        assert_eq!(generation.read(9, 12, ALL).unwrap(), records[2..]);
    }

    #[test]
    fn a_log_that_was_overwritten_is_damage_and_not_an_empty_generation() {
        let parent = tempfile::tempdir().unwrap();
        drop(Generation::create(parent.path(), 1, &[]).unwrap());
        let generation = list(parent.path()).unwrap().pop().unwrap();
        assert_eq!(generation.end().unwrap(), End::Empty);
        drop(generation);
        fs::write(parent.path().join(name(1)).join("db"), [0x5a; 700_000]).unwrap();
        let generation = list(parent.path()).unwrap().pop().unwrap();
        let error = generation.end().unwrap_err();
        assert!(error.is_damage(), "{error}");
    }

    #[test]
    fn what_was_half_removed_is_no_generation_any_more() {
        let parent = tempfile::tempdir().unwrap();
        drop(Generation::create(parent.path(), 1, b"").unwrap());
        let left = unname(&parent.path().join(name(1))).unwrap();
        assert!(left.join("db").exists());
        assert!(list(parent.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
