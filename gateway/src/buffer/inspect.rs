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
    fs,
    io::{self, ErrorKind},
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use bytes::Bytes;
use flume::{RecvTimeoutError, Sender};
use portcullis_core::{
    limits::{RECORD_CARVE_BYTES_MAX, SALVAGE_TRIES_MAX, SCAN_PATIENCE},
    record::Record,
};

use super::{
    chunk::{self, Unpacker},
    engine::{Database, EngineError, directory_bytes},
    generation::{DAMAGED, PREFIX},
    mark::Mark,
};
use crate::chain::chain;

/// A lane as it is on disk.
#[derive(Debug)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// The numbers that are kept beside the generations, by the name of their file.
    pub marks: BTreeMap<String, u64>,
    /// Oldest first.
    pub generations: Vec<Generation>,
    /// What was damaged and is kept for salvage, oldest first.
    pub set_aside: Vec<Generation>,
}

/// A generation as it is on disk.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The number of its first record.
    pub first: u64,
    /// What it takes on disk.
    pub bytes: u64,
    /// Where it stands.
    pub dir: PathBuf,
}

/// What a generation gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// First and last number of each run of records without a gap.
    pub good: Vec<(u64, u64)>,
    /// What the engine said when it failed.
    pub failures: Vec<String>,
}

impl Reading {
    /// How many records there were.
    pub fn records(&self) -> u64 {
        self.good.iter().map(|(first, last)| last - first + 1).sum()
    }

    fn note(&mut self, number: u64) {
        match self.good.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.good.push((number, number)),
        }
    }

    fn holds(&self, number: u64) -> bool {
        let mut runs = self.good.iter();
        runs.any(|(first, last)| (*first..=*last).contains(&number))
    }

    fn last(&self) -> Option<u64> {
        self.good.last().map(|(_, last)| *last)
    }
}

/// The lane of a buffer without lanes.
const ONLY_LANE: &str = "events";

/// The lanes below the buffer's directory; none if there is no buffer yet.
pub fn lanes(dir: &Path) -> io::Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    if !dir.exists() {
        return Ok(lanes);
    }
    let own = lane(ONLY_LANE, dir)?;
    if !own.generations.is_empty() || !own.set_aside.is_empty() || !own.marks.is_empty() {
        lanes.push(own);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !name.starts_with(PREFIX) {
            lanes.push(lane(&name, &entry.path())?);
        }
    }
    lanes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(lanes)
}

fn lane(name: &str, dir: &Path) -> io::Result<Lane> {
    let mut lane = Lane {
        name: name.to_owned(),
        marks: BTreeMap::new(),
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
    /// The last number that every sink has accepted.
    pub fn cursor(&self) -> u64 {
        let cursors = self.marks.iter();
        let cursors = cursors.filter(|(name, _)| name.starts_with("cursor"));
        cursors.map(|(_, value)| *value).min().unwrap_or(0)
    }

    /// The number after the last that the generation at `at` may hold, as far as that is known: where
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

impl Generation {
    /// Hands out the records from number `from` on, in order, each number once; where the engine fails
    /// it goes on behind. `None`: the generation is not there any more.
    pub fn read(
        &self,
        from: u64,
        mut each: impl FnMut(Record) -> ControlFlow<()>,
    ) -> io::Result<Option<Reading>> {
        let scratch = tempfile::Builder::new()
            .prefix("portcullis-buffer-")
            .tempdir()?;
        match copy(&self.dir, scratch.path()) {
            Ok(()) => {}
            // Drained meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut reading = Reading::default();
        let (mut at, mut stride) = (from, 1);
        for _ in 0..SALVAGE_TRIES_MAX {
            let before = reading.last();
            let ended = scan(scratch.path(), at, |record| {
                let number = record.seq;
                if number < at || reading.last().is_some_and(|last| number <= last) {
                    return ControlFlow::Continue(());
                }
                reading.note(number);
                each(record)
            });
            let Err(failure) = ended else {
                break;
            };
            if !reading.failures.contains(&failure) {
                reading.failures.push(failure);
            }
            // Behind what it failed at, in growing steps, for nobody knows how far the damage goes.
            stride = if reading.last() == before {
                stride * 2
            } else {
                1
            };
            let reached = reading.last().map_or(at, |last| (last + 1).max(at));
            at = reached.saturating_add(stride);
        }
        Ok(Some(reading))
    }

    /// Like [`Self::read`] from the beginning; then whatever whole records the files hold beside that,
    /// in order. What the engine cannot find is found by its checksum.
    pub fn salvage(&self, mut each: impl FnMut(Record)) -> io::Result<Option<Reading>> {
        let read = self.read(0, |record| {
            each(record);
            ControlFlow::Continue(())
        })?;
        let Some(mut reading) = read else {
            return Ok(None);
        };
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.is_file() {
                carve(fs::read(path)?.into(), |record| {
                    if !reading.holds(record.seq) {
                        found.insert(record.seq, record);
                    }
                });
            }
        }
        for (number, record) in found {
            reading.good.push((number, number));
            each(record);
        }
        reading.good.sort_unstable();
        let runs = std::mem::take(&mut reading.good);
        for (first, last) in runs {
            match reading.good.last_mut() {
                Some((_, end)) if *end + 1 == first => *end = last,
                _ => reading.good.push((first, last)),
            }
        }
        Ok(Some(reading))
    }
}

/// Copies files and directories.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            match fs::copy(entry.path(), &target) {
                Ok(_) => {}
                // The engine's snapshots come and go.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    // Removed while it was copied?
    fs::metadata(from).map(drop)
}

/// Hands out what the engine finds in the copy from number `from` on; why it stopped before the end.
fn scan(
    dir: &Path,
    from: u64,
    mut each: impl FnMut(Record) -> ControlFlow<()>,
) -> Result<(), String> {
    let (sender, receiver) = flume::bounded(SCAN_AHEAD);
    let dir = dir.to_owned();
    let scanning = thread::Builder::new()
        .name("buffer-scan".into())
        .spawn(move || scan_here(&dir, from, &sender))
        .map_err(|error| error.to_string())?;
    loop {
        match receiver.recv_timeout(SCAN_PATIENCE) {
            Ok(record) => {
                if each(record).is_break() {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => return Err("the engine hangs".to_owned()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match scanning.join() {
        Ok(ended) => ended.map_err(|error| chain(&error)),
        Err(_) => Err("the engine panicked".to_owned()),
    }
}

fn scan_here(dir: &Path, from: u64, records: &Sender<Record>) -> Result<(), EngineError> {
    let database = Database::open_copy(dir)?;
    let start = database
        .at_or_before(chunk::key(from, u32::MAX))?
        .and_then(|key| chunk::split_key(&key))
        .map_or(from, |(number, _)| number);
    let mut unpacker = Unpacker::default();
    database.scan(chunk::key(start, 0), |key, value| {
        let mut is_wanted = true;
        unpacker.unpack(key, value, |record| {
            is_wanted &= records.send(record).is_ok();
        });
        if is_wanted {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })
}

/// Records that are read ahead of who wants them.
const SCAN_AHEAD: usize = 256;

/// Finds whole records anywhere in `bytes`.
fn carve(mut bytes: Bytes, mut each: impl FnMut(Record)) {
    while !bytes.is_empty() {
        if looks_like_a_record(&bytes)
            && let Ok(record) = Record::decode(&mut bytes)
        {
            each(record);
        } else {
            drop(bytes.split_to(1));
        }
    }
}

/// Cheaply, so that few checksums are computed in vain: version, kind and lengths as they are written,
/// and a body that begins as all do.
fn looks_like_a_record(bytes: &[u8]) -> bool {
    const FIXED_BYTES: usize = 18;
    let Some(header) = bytes.first_chunk::<FIXED_BYTES>() else {
        return false;
    };
    let length = |at: usize| {
        let field = header.get(at..at + 4)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*field)).ok()
    };
    let (Some(key_bytes), Some(body_bytes)) = (length(10), length(14)) else {
        return false;
    };
    header[0] == 1
        && key_bytes < RECORD_CARVE_BYTES_MAX
        && body_bytes < RECORD_CARVE_BYTES_MAX
        && bytes.get(FIXED_BYTES + key_bytes) == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use portcullis_core::record::Kind;

    use super::*;

    fn record(seq: u64) -> Record {
        Record {
            seq,
            kind: Kind::Event,
            partition_key: "thing".into(),
            body: Bytes::from(format!("{{\"seq\":{seq}}}")),
        }
    }

    #[test]
    fn whole_records_are_found_between_anything() {
        let mut bytes = b"\x01\x00 anything".to_vec();
        for seq in [3, 4] {
            record(seq).encode(&mut bytes);
            bytes.extend([1, 0, 0, 0]);
        }
        let damaged_at = bytes.len() + 20;
        record(5).encode(&mut bytes);
        bytes[damaged_at] ^= 1;
        record(6).encode(&mut bytes);
        let mut found = Vec::new();
        carve(bytes.into(), |record| found.push(record));
        assert_eq!(found, [record(3), record(4), record(6)]);
    }

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
