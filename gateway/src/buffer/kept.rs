//! A few bytes kept durably under one name: a cursor with its counts.
//!
//! As a [`Mark`](super::mark::Mark), a file of two slots that are overwritten in place: the slot that
//! was synced last is never touched before the other one is synced, so a power cut leaves one of the
//! two whole. What was written and not synced survives a kill. Overwriting allocates nothing, so a
//! cursor moves on a full disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

use super::mark::Found;

const MAGIC: [u8; 4] = *b"PSL1";
const HEADER_BYTES: usize = 4 + 8 + 4;
const CRC_BYTES: usize = 4;
const SLOT_BYTES: usize = 4096;
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
/// What a slot holds at most.
pub(super) const PAYLOAD_BYTES_MAX: usize = SLOT_BYTES - HEADER_BYTES - CRC_BYTES;

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    serial: u64,
    /// The one that is written; the other is synced.
    slot: usize,
}

impl Slots {
    /// Opens or makes the file; what it holds.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<Vec<u8>>, Found)> {
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
        if file.metadata()?.len() < 2 * SLOT_BYTES as u64 {
            // All blocks exist before anything relies on overwriting them.
            let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
            file.write_all_at(&vec![0; 2 * SLOT_BYTES - length], length as u64)?;
            file.sync_all()?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        let found = match &slots {
            _ if fresh => Found::Nothing,
            [None, None] => Found::Damaged,
            _ => Found::Value,
        };
        let serial_of = |slot: &Option<(u64, Vec<u8>)>| slot.as_ref().map(|(serial, _)| *serial);
        let newest = usize::from(serial_of(&slots[1]) > serial_of(&slots[0]));
        let [first, second] = slots;
        let (serial, payload) = match if newest == 1 { second } else { first } {
            Some((serial, payload)) => (serial, Some(payload)),
            None => (0, None),
        };
        // The newest may not be synced yet; it counts from here on.
        file.sync_data()?;
        let this = Self {
            file,
            serial,
            slot: 1 - newest,
        };
        Ok((this, payload, found))
    }

    /// What a file holds that stays as it is; `None` if nothing or nothing good.
    pub(super) fn peek(path: &Path) -> Option<Vec<u8>> {
        let file = File::open(path).ok()?;
        let slots = SLOT_OFFSETS.map(|offset| read_slot(&file, offset));
        let newest = slots
            .into_iter()
            .flatten()
            .max_by_key(|(serial, _)| *serial);
        newest.map(|(_, payload)| payload)
    }

    /// Exchanges the file: one that is open for reading only fails every write.
    #[cfg(test)]
    pub(super) fn exchange_file(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    /// Writes without waiting for the disk.
    pub(super) fn note(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "too large for a slot",
            ));
        }
        let slot = encode(self.serial + 1, payload);
        self.file.write_all_at(&slot, SLOT_OFFSETS[self.slot])?;
        self.serial += 1;
        Ok(())
    }

    /// Writes durably.
    pub(super) fn store(&mut self, payload: &[u8]) -> io::Result<()> {
        self.note(payload)?;
        self.file.sync_data()?;
        self.slot = 1 - self.slot;
        Ok(())
    }
}

fn encode(serial: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut slot = MAGIC.to_vec();
    slot.extend_from_slice(&serial.to_le_bytes());
    slot.extend_from_slice(&length.to_le_bytes());
    slot.extend_from_slice(payload);
    let crc = crc32fast::hash(&slot);
    slot.extend_from_slice(&crc.to_le_bytes());
    slot
}

fn read_slot(file: &File, offset: u64) -> Option<(u64, Vec<u8>)> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, offset).ok()?;
    let serial = u64::from_le_bytes(*slot[4..].first_chunk()?);
    let length = u32::from_le_bytes(*slot[12..].first_chunk()?);
    let end = HEADER_BYTES.checked_add(usize::try_from(length).ok()?)?;
    let payload = slot.get(HEADER_BYTES..end)?;
    let whole = encode(serial, payload);
    slot.starts_with(&whole).then(|| (serial, payload.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        let (mut slots, payload, found) = Slots::open(&path).unwrap();
        assert_eq!((payload, found), (None, Found::Nothing));
        for n in 0_usize..20 {
            let written = vec![7; n * 10];
            if n % 3 == 0 {
                slots.store(&written).unwrap();
            } else {
                slots.note(&written).unwrap();
            }
            let (again, payload, found) = Slots::open(&path).unwrap();
            assert_eq!((payload, found), (Some(written), Found::Value));
            slots = again;
        }
        assert!(slots.note(&vec![0; PAYLOAD_BYTES_MAX + 1]).is_err());
        slots.store(&vec![1; PAYLOAD_BYTES_MAX]).unwrap();
        let (_, payload, _) = Slots::open(&path).unwrap();
        assert_eq!(payload, Some(vec![1; PAYLOAD_BYTES_MAX]));
    }

    #[test]
    fn a_torn_write_leaves_what_was_synced_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        let (mut slots, _, _) = Slots::open(&path).unwrap();
        for n in 1_u8..20 {
            slots.store(&[n; 9]).unwrap();
            // However often it was written without a sync.
            for _ in 0..n % 4 {
                slots.note(&[99; 3]).unwrap();
            }
            let torn = SLOT_OFFSETS[slots.slot];
            slots.file.write_all_at(b"torn", torn).unwrap();
            let (again, payload, _) = Slots::open(&path).unwrap();
            assert_eq!(payload, Some(vec![n; 9]));
            slots = again;
        }
    }

    #[test]
    fn damage_in_both_slots_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        std::fs::write(&path, "garbage").unwrap();
        let (_, payload, found) = Slots::open(&path).unwrap();
        assert_eq!((payload, found), (None, Found::Damaged));
    }
}
