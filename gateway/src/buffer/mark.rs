//! A number that only grows, kept durably: the bounds of the numbers that were given away.
//!
//! A file of two slots, overwritten in place in turn and synced. A power cut can tear the slot that
//! is being written, never the other, so the last number that was synced is always readable. No
//! rename: overwriting allocates nothing, so the cursor moves (and gives disk back) on a full disk,
//! and costs one `fdatasync`. Not in sled: a number must survive the databases that it is about.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

const MAGIC: [u8; 4] = *b"PMK1";
const SLOT_BYTES: usize = 4 + 8 + 4;
/// Slots stand in different blocks of the file system and sectors of the disk.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
const FILE_BYTES: usize = 8192;

/// See the module.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    value: u64,
    synced: u64,
    next_slot: usize,
}

/// What was found at opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No file: the first start, or somebody removed it.
    Nothing,
    /// A good number.
    Value,
    /// A file without a good slot; the number starts over.
    Damaged,
}

impl Mark {
    /// Opens or makes the file.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Found)> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let (file, fresh) = match opened {
            Ok(file) => (file, false),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create_new(true).open(path)?;
                (file, true)
            }
            Err(error) => return Err(error),
        };
        let slots = SLOT_OFFSETS.map(|offset| read_slot(&file, offset));
        if slots.iter().any(Option::is_none) {
            // All blocks exist before anything relies on overwriting them.
            let mut image = vec![0; FILE_BYTES];
            for (slot, offset) in slots.iter().zip([0, 4096]) {
                let bytes = encode(slot.unwrap_or(slots[0].or(slots[1]).unwrap_or(0)));
                image[offset..offset + SLOT_BYTES].copy_from_slice(&bytes);
            }
            file.write_all_at(&image, 0)?;
            file.sync_all()?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        let found = match slots {
            _ if fresh => Found::Nothing,
            [None, None] => Found::Damaged,
            _ => Found::Value,
        };
        let next_slot = usize::from(slots[0] > slots[1]);
        // Synced above if it was made or mended; else by whoever wrote it, or soon by `raise`.
        let mark = Self {
            file,
            value: slots[0].max(slots[1]).unwrap_or(0),
            synced: 0,
            next_slot,
        };
        Ok((mark, found))
    }

    /// The number in a file that stays as it is; `None` if it is no mark, or a damaged one.
    pub(super) fn peek(path: &Path) -> Option<u64> {
        let file = File::open(path).ok()?;
        let slots = SLOT_OFFSETS.map(|offset| read_slot(&file, offset));
        slots[0].max(slots[1])
    }

    /// The number.
    pub(super) fn value(&self) -> u64 {
        self.value
    }

    /// Moves the number up to `value`, durably; a smaller one changes nothing.
    pub(super) fn raise(&mut self, value: u64) -> io::Result<()> {
        if value <= self.synced {
            return Ok(());
        }
        self.note(value)?;
        self.file.sync_data()?;
        self.synced = self.value;
        Ok(())
    }

    /// Moves the number up to `value` without waiting for the disk: it survives a kill, and a power
    /// cut if the system got round to it.
    pub(super) fn note(&mut self, value: u64) -> io::Result<()> {
        if value <= self.value {
            return Ok(());
        }
        self.file
            .write_all_at(&encode(value), SLOT_OFFSETS[self.next_slot])?;
        self.value = value;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

fn encode(value: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..4].copy_from_slice(&MAGIC);
    slot[4..12].copy_from_slice(&value.to_le_bytes());
    let crc = crc32fast::hash(&slot[..12]);
    slot[12..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn read_slot(file: &File, offset: u64) -> Option<u64> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, offset).ok()?;
    let value = u64::from_le_bytes(*slot[4..].first_chunk()?);
    (encode(value) == slot).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_survives_reopening_and_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let (mut mark, found) = Mark::open(&path).unwrap();
        assert_eq!((mark.value(), found), (0, Found::Nothing));
        for value in [3, 9, 5, 12] {
            mark.raise(value).unwrap();
            let (again, found) = Mark::open(&path).unwrap();
            assert_eq!((again.value(), found), (mark.value(), Found::Value));
        }
        assert_eq!(mark.value(), 12);
    }

    #[test]
    fn a_torn_write_leaves_the_number_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let (mut mark, _) = Mark::open(&path).unwrap();
        for value in 1..20 {
            mark.raise(value).unwrap();
            let torn = mark.next_slot;
            mark.file.write_all_at(b"torn", SLOT_OFFSETS[torn]).unwrap();
            let (again, found) = Mark::open(&path).unwrap();
            assert_eq!((again.value(), found), (value, Found::Value));
            mark = again;
        }
    }

    #[test]
    fn damage_in_both_slots_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        std::fs::write(&path, "garbage").unwrap();
        let (mark, found) = Mark::open(&path).unwrap();
        assert_eq!((mark.value(), found), (0, Found::Damaged));
    }
}
