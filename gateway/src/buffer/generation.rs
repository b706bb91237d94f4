//! One generation: a directory with a database of its own, dropped whole when drained, because sled
//! gives no disk back otherwise.
//!
//! It is made under a name of its own (`gen-N.new`), synced, and renamed, so that a directory called
//! `gen-N` was once complete; one that does not open is damaged, not half-made. It is removed under
//! that name as well, so that it is not half-removed either. Its handles close
//! before the directory goes: both happen when the last holder lets go of the [`Generation`].

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use portcullis_core::{batch::BatchLimits, limits::DAMAGED_GENERATIONS_MAX, record::Record};
use tracing::{error, warn};

use super::{
    chunk::{self, Unpacker},
    engine::{Database, EngineError, directory_bytes, sync_directory},
};

pub(super) const PREFIX: &str = "gen-";
const NEW: &str = ".new";
pub(super) const DAMAGED: &str = ".damaged";

/// See the module.
pub(super) struct Generation {
    /// The sequence number of its first record, which is its name.
    pub(super) first_seq: u64,
    dir: PathBuf,
    database: Mutex<Option<Arc<Database>>>,
    disk_bytes: AtomicU64,
    damaged: AtomicBool,
    fate: AtomicU8,
}

const KEEP: u8 = 0;
const REMOVE: u8 = 1;
const SET_ASIDE: u8 = 2;

impl Generation {
    /// Makes an empty generation, durably.
    pub(super) fn create(parent: &Path, first_seq: u64) -> Result<Self, EngineError> {
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
        drop(Database::open(&new)?);
        fs::rename(&new, &dir).map_err(io)?;
        sync_directory(parent)?;
        Ok(Self::closed(dir, first_seq))
    }

    /// A generation that is on disk, not opened yet.
    pub(super) fn closed(dir: PathBuf, first_seq: u64) -> Self {
        Self {
            first_seq,
            disk_bytes: AtomicU64::new(directory_bytes(&dir)),
            dir,
            database: Mutex::new(None),
            damaged: AtomicBool::new(false),
            fate: AtomicU8::new(KEEP),
        }
    }

    /// The open database; opened now if it is not.
    pub(super) fn database(&self) -> Result<Arc<Database>, EngineError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*slot {
            return Ok(database.clone());
        }
        let database = Arc::new(Database::open(&self.dir)?);
        *slot = Some(database.clone());
        Ok(database)
    }

    /// Closes the database unless somebody reads it: a backlog of many generations must not hold
    /// each one's memory.
    pub(super) fn close_if_idle(&self) {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if slot
            .as_ref()
            .is_some_and(|database| Arc::strong_count(database) == 1)
        {
            *slot = None;
        }
    }

    /// Appends records with consecutive numbers, durably.
    pub(super) fn append(&self, records: &[Record]) -> Result<(), EngineError> {
        let database = self.database()?;
        database.put(chunk::pack(records))?;
        database.commit()?;
        self.disk_bytes
            .store(database.disk_bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Records numbered from `from` up to below `end`, under the limits but at least one. The
    /// numbers are consecutive; if the first is above `from`, those before it are lost. Empty: all are.
    pub(super) fn read(
        &self,
        from: u64,
        end: u64,
        limits: BatchLimits,
    ) -> Result<Vec<Record>, EngineError> {
        let database = self.database()?;
        let start = database
            .at_or_before(chunk::key(from, u32::MAX))?
            .and_then(|key| chunk::split_key(&key))
            .map_or(from, |(seq, _)| seq);
        let mut unpacker = Unpacker::default();
        let mut records: Vec<Record> = Vec::new();
        let mut room = limits.room();
        let mut full = false;
        database.scan(chunk::key(start, 0), |key, value| {
            unpacker.unpack(key, value, |record| {
                let follows = records.last().is_none_or(|last| last.seq + 1 == record.seq);
                if full || record.seq < from {
                    return;
                }
                full = record.seq >= end || !follows || !room.take(&record) && !records.is_empty();
                if !full {
                    records.push(record);
                }
            });
            if full {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(records)
    }

    /// Where the generation ends.
    pub(super) fn end(&self) -> Result<End, EngineError> {
        let last_key = self
            .database()?
            .at_or_before(chunk::key(u64::MAX, u32::MAX))?;
        let Some((last_start, _)) = last_key.and_then(|key| chunk::split_key(&key)) else {
            return Ok(End::Empty);
        };
        let all = BatchLimits {
            records_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let records = self.read(last_start, u64::MAX, all)?;
        Ok(match records.last() {
            Some(record) => End::At(record.seq),
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
        let slot = self
            .database
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
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
    use super::*;

    #[test]
    fn what_was_half_removed_is_no_generation_any_more() {
        let parent = tempfile::tempdir().unwrap();
        drop(Generation::create(parent.path(), 1).unwrap());
        let left = unname(&parent.path().join(name(1))).unwrap();
        assert!(left.join("db").exists());
        assert!(list(parent.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
