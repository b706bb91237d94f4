//! The buffer seen from outside, for commands: what stands in it, what of it can be read, and what can
//! be had from what was set aside.
//!
//! Nothing here changes the buffer, whether a gateway runs on it or not. The engine writes when it
//! opens a database, so each generation is copied to a directory of its own first, one at a time, and
//! opened there. It may panic on damage, or never come back: it works on a thread of its own behind
//! `catch_unwind`, and who reads gives up after [`SCAN_PATIENCE`] without a record. Marks are read
//! without opening them for writing; whether a gateway runs is asked of the kernel's list of locks,
//! for taking the lock, were it only for a moment, could keep one from starting.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use portcullis_core::record::Lane as LaneName;

use super::{
    engine::directory_bytes,
    generation::{DAMAGED, PREFIX},
    mark::Mark,
};

mod account;
mod carve;
mod scan;

pub use account::{Cursor, accounts};

/// A lane as it is on disk.
#[derive(Debug)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// The numbers that are kept beside the generations, by the name of their file.
    pub marks: BTreeMap<String, u64>,
    /// By sink.
    pub cursors: Vec<Cursor>,
    /// Oldest first.
    pub generations: Vec<Generation>,
    /// What was damaged and is kept for salvage, oldest first.
    pub set_aside: Vec<Generation>,
}

/// A generation as it is on disk.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The place of its first record.
    pub first: u64,
    /// What it takes on disk.
    pub bytes: u64,
    /// Where it stands.
    pub dir: PathBuf,
}

/// What a generation gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// First and last place of each run of records without a gap.
    pub good: Vec<(u64, u64)>,
    /// What the engine said when it failed.
    pub failures: Vec<String>,
}

impl Reading {
    /// How many records there were.
    pub fn records(&self) -> u64 {
        self.good.iter().map(|(first, last)| last - first + 1).sum()
    }

    fn note(&mut self, place: u64) {
        match self.good.last_mut() {
            Some((_, last)) if *last + 1 == place => *last = place,
            _ => self.good.push((place, place)),
        }
    }

    fn holds(&self, place: u64) -> bool {
        let mut runs = self.good.iter();
        runs.any(|(first, last)| (*first..=*last).contains(&place))
    }

    fn last(&self) -> Option<u64> {
        self.good.last().map(|(_, last)| *last)
    }
}

/// The lanes below the buffer's directory, highest priority first; none if there is no buffer yet.
pub fn lanes(dir: &Path) -> io::Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    if !dir.exists() {
        return Ok(lanes);
    }
    // What an older release left, and no gateway of this one has moved yet.
    let own = lane(LaneName::Events.name(), dir)?;
    if !own.generations.is_empty() || !own.set_aside.is_empty() {
        lanes.push(own);
    }
    for name in LaneName::ALL.map(LaneName::name) {
        let path = dir.join(name);
        if path.is_dir() {
            lanes.push(lane(name, &path)?);
        }
    }
    Ok(lanes)
}

fn lane(name: &str, dir: &Path) -> io::Result<Lane> {
    let mut lane = Lane {
        name: name.to_owned(),
        marks: BTreeMap::new(),
        cursors: account::cursors(dir)?,
        generations: Vec::new(),
        set_aside: Vec::new(),
    };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        // What a running gateway has removed since is not there.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_file() {
            if let Some(value) = Mark::peek(&path) {
                lane.marks.insert(name.into_owned(), value);
            }
            continue;
        }
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let (list, first) = match rest.strip_suffix(DAMAGED) {
            Some(first) => (&mut lane.set_aside, first),
            None => (&mut lane.generations, rest),
        };
        if let Ok(first) = first.parse() {
            list.push(Generation {
                first,
                bytes: directory_bytes(&path),
                dir: path,
            });
        }
    }
    lane.generations.sort_by_key(|generation| generation.first);
    lane.set_aside.sort_by_key(|generation| generation.first);
    Ok(lane)
}

impl Lane {
    /// Every sink that has a cursor is done with what is up to here; with none, nobody is.
    pub fn cursor(&self) -> u64 {
        let old = self.marks.get("cursor").copied();
        let places = self.cursors.iter().map(|cursor| cursor.place);
        places.chain(old).min().unwrap_or(0)
    }

    /// How many records wait for the sink that has most before it, as far as that is known.
    pub fn undelivered(&self) -> Option<u64> {
        let kept = self.cursors.iter().map(|cursor| cursor.account.kept);
        kept.max().or_else(|| {
            let end = self.marks.get("end")?;
            Some(end.saturating_sub(self.cursor() + 1))
        })
    }

    /// The place after the last that the generation at `at` may hold, as far as that is known: where
    /// the next one begins, or where the gateway noted the end.
    pub fn end_of(&self, at: usize) -> Option<u64> {
        let next = self.generations.get(at + 1);
        next.map(|next| next.first)
            .or_else(|| self.marks.get("end").copied())
    }
}

/// Whether a gateway runs on the buffer in `dir`, by the kernel's list of locks. One in another
/// container is not seen.
pub fn is_in_use(dir: &Path) -> bool {
    let Ok(lock) = fs::metadata(dir.join("lock")) else {
        return false;
    };
    let inode = format!(":{}", lock.ino());
    fs::read_to_string("/proc/locks").is_ok_and(|locks| {
        locks.lines().any(|line| {
            let mut words = line.split_ascii_whitespace();
            words.any(|word| word == "FLOCK") && words.any(|word| word.ends_with(&inode))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_somebody_holds_is_seen_without_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_in_use(dir.path()));
        let lock = fs::File::create(dir.path().join("lock")).unwrap();
        assert!(!is_in_use(dir.path()));
        lock.try_lock().unwrap();
        assert!(is_in_use(dir.path()));
    }
}
