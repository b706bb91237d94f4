//! Which sink has which bit in the records on disk, across changes of the settings: a small table in
//! `data/buffer/sinks`, replaced by rename when it changes.
//!
//! A sink that leaves the settings frees its bit once no kept record can carry it: when every lane has
//! moved past the place where it ended at that time.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use portcullis_core::{
    limits::SINKS_MAX,
    record::{Lane, SinkSet},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// A sink as the buffer knows it: its cursors live under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Unique.
    pub name: String,
    /// What it reads.
    pub lanes: Vec<Lane>,
}

/// The table as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    sinks: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    name: String,
    bit: usize,
    /// Where each lane ended when the sink left, highest priority first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_at: Option<[u64; 3]>,
}

impl Table {
    /// Reads the table; what cannot be read is rebuilt from what the cursors say, name and bit.
    pub(super) fn read(dir: &Path, cursors: impl Fn() -> Vec<(String, u8)>) -> io::Result<Self> {
        let text = match fs::read(path(dir)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        if let Ok(table) = serde_json::from_slice::<Self>(&text)
            && table.sinks.iter().all(|row| row.bit < SINKS_MAX)
        {
            return Ok(table);
        }
        let mut table = Self::default();
        for (name, bit) in cursors() {
            if table.row(&name).is_none() {
                table.sinks.push(Row {
                    name,
                    bit: usize::from(bit),
                    left_at: None,
                });
            }
        }
        if !text.is_empty() {
            warn!("The table of sinks is damaged; it is made anew from the cursors.");
        }
        Ok(table)
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.sinks.iter().find(|row| row.name == name)
    }

    /// Gives every sink its bit, and writes the table if it changed. `ends` and `starts` are where the
    /// lanes end and what they still hold.
    pub(super) fn update(
        &mut self,
        dir: &Path,
        sinks: &[Sink],
        (starts, ends): ([u64; 3], [u64; 3]),
    ) -> io::Result<Vec<usize>> {
        let before = self.clone();
        for row in &mut self.sinks {
            let is_there = sinks.iter().any(|sink| sink.name == row.name);
            row.left_at = match row.left_at {
                _ if is_there => None,
                None => Some(ends),
                left_at => left_at,
            };
        }
        // No kept record carries the bit any more.
        self.sinks.retain(|row| {
            row.left_at.is_none_or(|left_at| {
                !left_at
                    .iter()
                    .zip(starts)
                    .all(|(left, start)| *left <= start)
            })
        });
        let mut bits = Vec::new();
        for sink in sinks {
            if let Some(row) = self.row(&sink.name) {
                bits.push(row.bit);
                continue;
            }
            let free = (0..SINKS_MAX).find(|bit| self.sinks.iter().all(|row| row.bit != *bit));
            let Some(bit) = free else {
                return Err(io::Error::other(
                    "records of sinks that are gone still take every bit; wait until they are delivered",
                ));
            };
            self.sinks.push(Row {
                name: sink.name.clone(),
                bit,
                left_at: None,
            });
            bits.push(bit);
        }
        if *self != before || !path(dir).exists() {
            self.write(dir)?;
        }
        Ok(bits)
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join("sinks.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(new, path(dir))?;
        File::open(dir)?.sync_all()
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("sinks")
}

/// Translates the sets of drafts, whose bits are places in the settings, to those on disk.
pub(super) fn translate(sinks: SinkSet, bits: &[usize]) -> SinkSet {
    if sinks == SinkSet::ALL {
        return SinkSet::ALL;
    }
    let mut set = SinkSet::EMPTY;
    for (index, bit) in bits.iter().enumerate() {
        if sinks.contains(index) {
            set.insert(*bit);
        }
    }
    set
}

const CURSOR: &str = "cursor-";

/// The file of a sink's cursor in the directory of a lane.
pub(super) fn cursor_path(lane_dir: &Path, name: &str) -> PathBuf {
    let mut file = CURSOR.to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            file.push(char::from(byte));
        } else {
            file.push_str(&format!("%{byte:02x}"));
        }
    }
    lane_dir.join(file)
}

/// The sinks that have a cursor in the directory of a lane.
pub(super) fn list_cursors(lane_dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(lane_dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.and_then(|name| decode_name(name.strip_prefix(CURSOR)?)) {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

fn decode_name(file: &str) -> Option<String> {
    let mut name = Vec::new();
    let mut bytes = file.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            name.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sinks(names: &[&str]) -> Vec<Sink> {
        let sink = |name: &&str| Sink {
            name: (*name).to_owned(),
            lanes: vec![Lane::Events],
        };
        names.iter().map(sink).collect()
    }

    #[test]
    fn a_bit_is_given_again_only_when_no_kept_record_carries_it() {
        let dir = tempfile::tempdir().unwrap();
        let update = |names: &[&str], start: u64, end: u64| {
            let mut table = Table::read(dir.path(), Vec::new).unwrap();
            let lanes = ([1, start, 1], [1, end, 1]);
            table.update(dir.path(), &sinks(names), lanes).unwrap()
        };
        assert_eq!(update(&["a", "b"], 1, 1), [0, 1]);
        assert_eq!(
            update(&["b", "a"], 1, 50),
            [1, 0],
            "the order does not matter"
        );
        assert_eq!(update(&["b"], 1, 100), [1]);
        assert_eq!(
            update(&["b", "c"], 99, 200),
            [1, 2],
            "record 99 may be for a"
        );
        assert_eq!(update(&["b", "a"], 99, 200), [1, 0], "a is back");
        assert_eq!(update(&["b"], 99, 200), [1]);
        assert_eq!(update(&["b", "d"], 200, 300), [1, 0]);
    }

    #[test]
    fn a_damaged_table_is_made_from_the_cursors() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), "{").unwrap();
        let cursors = || vec![("b".to_owned(), 1), ("b".to_owned(), 1)];
        let mut table = Table::read(dir.path(), cursors).unwrap();
        let bits = table.update(dir.path(), &sinks(&["a", "b"]), ([1; 3], [9; 3]));
        assert_eq!(bits.unwrap(), [0, 1]);
    }

    #[test]
    fn names_of_sinks_are_names_of_files_and_back() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kinesis", "logs/a b", "ü.new", ".."] {
            fs::write(cursor_path(dir.path(), name), "").unwrap();
        }
        let found = list_cursors(dir.path()).unwrap();
        let names: Vec<_> = found.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["..", "kinesis", "logs/a b", "ü.new"]);
    }
}
