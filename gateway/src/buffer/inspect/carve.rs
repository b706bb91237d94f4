//! Finding records in the files of a generation without the engine: whole records, compressed chunks
//! and shares of large records, each by its own checksum.

use std::{collections::BTreeMap, fs, io, ops::ControlFlow};

use bytes::Bytes;
use crc32fast::Hasher;
use portcullis_core::{
    limits::{CHUNK_BYTES_MAX, RECORD_CARVE_BYTES_MAX},
    record::Record,
};
use zstd::zstd_safe::find_frame_compressed_size;

use super::{Generation, Reading};
use crate::buffer::chunk::{
    COMPRESSED, CRC_BYTES, PLACE_BYTES, RAW_LENGTH_BYTES, SHARE, SHARE_COMPRESSED, Unpacker,
};

impl Generation {
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
                    if !reading.holds(record.place) {
                        found.insert(record.place, record);
                    }
                });
            }
        }
        for (place, record) in found {
            reading.good.push((place, place));
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

/// The parts of a large record that were found, by place.
type Shares = BTreeMap<u64, BTreeMap<u32, Bytes>>;

/// Finds whole records anywhere in `bytes`.
fn carve(mut bytes: Bytes, mut each: impl FnMut(Record)) {
    let mut unpacker = Unpacker::default();
    let mut shares = Shares::new();
    while !bytes.is_empty() {
        if looks_like_a_record(&bytes)
            && let Ok(record) = Record::decode(&mut bytes)
        {
            each(record);
        } else if let Some(length) = compressed_chunk(&bytes) {
            unpacker.unpack(&[], &bytes.split_to(length), &mut each);
        } else if let Some((place, part, length)) = share(&bytes) {
            let value = bytes.split_to(length);
            shares.entry(place).or_default().insert(part, value);
        } else {
            drop(bytes.split_to(1));
        }
    }
    for value in shares.values().flat_map(BTreeMap::values) {
        unpacker.unpack(&[], value, &mut each);
    }
}

/// Cheaply, so that few checksums are computed in vain: version, kind and lengths as they are written,
/// and a body that begins as all do.
fn looks_like_a_record(bytes: &[u8]) -> bool {
    let header_bytes = match bytes.first() {
        Some(1) => 18,
        Some(2) => 38,
        _ => return false,
    };
    let length = |at: usize| {
        let field = bytes.get(at..at + 4)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*field)).ok()
    };
    let (Some(key_bytes), Some(body_bytes)) = (length(header_bytes - 8), length(header_bytes - 4))
    else {
        return false;
    };
    key_bytes < RECORD_CARVE_BYTES_MAX
        && body_bytes < RECORD_CARVE_BYTES_MAX
        && bytes.get(header_bytes + key_bytes) == Some(&b'{')
}

const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How long the compressed chunk is that begins here, if one does.
fn compressed_chunk(bytes: &[u8]) -> Option<usize> {
    if *bytes.first()? != COMPRESSED {
        return None;
    }
    let block_at = PLACE_BYTES + RAW_LENGTH_BYTES;
    let block = bytes.get(block_at..)?;
    if !block.starts_with(&FRAME_MAGIC) {
        return None;
    }
    let block = &block[..block.len().min(CHUNK_BYTES_MAX)];
    let crc_at = block_at + find_frame_compressed_size(block).ok()?;
    let length = crc_at + CRC_BYTES;
    let crc = bytes.get(crc_at..length)?.first_chunk()?;
    (crc32fast::hash(&bytes[..crc_at]) == u32::from_le_bytes(*crc)).then_some(length)
}

/// Place, part and length of the share that begins here, if one does. Nothing says how long it is but
/// its checksum.
fn share(bytes: &[u8]) -> Option<(u64, u32, usize)> {
    const HEADER_BYTES: usize = PLACE_BYTES + 2 * 4;
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let number = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?));
    let place = u64::from_le_bytes(*header.get(1..)?.first_chunk()?);
    let (part, parts) = (number(PLACE_BYTES)?, number(PLACE_BYTES + 4)?);
    let shares_max = u32::try_from(RECORD_CARVE_BYTES_MAX / CHUNK_BYTES_MAX + 2).ok()?;
    if ![SHARE, SHARE_COMPRESSED].contains(&header[0]) || part >= parts || parts > shares_max {
        return None;
    }
    let value = &bytes[..bytes.len().min(CHUNK_BYTES_MAX)];
    let is_good = |crc_at: usize, crc: u32| {
        let expected = value.get(crc_at..).and_then(|rest| rest.first_chunk());
        expected.is_some_and(|expected| crc == u32::from_le_bytes(*expected))
    };
    let whole_at = CHUNK_BYTES_MAX - CRC_BYTES;
    if value.len() == CHUNK_BYTES_MAX && is_good(whole_at, crc32fast::hash(&value[..whole_at])) {
        return Some((place, part, CHUNK_BYTES_MAX));
    }
    // All but the last one are full.
    if part + 1 < parts {
        return None;
    }
    let mut hasher = Hasher::new();
    hasher.update(header);
    for (at, byte) in value.iter().enumerate().skip(HEADER_BYTES) {
        hasher.update(&[*byte]);
        if is_good(at + 1, hasher.clone().finalize()) {
            return Some((place, part, at + 1 + CRC_BYTES));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use portcullis_core::record::{Kind, SinkSet};

    use super::*;
    use crate::buffer::chunk::Packer;

    fn record(place: u64, text: &str) -> Record {
        Record {
            seq: place + 100,
            place,
            kind: Kind::Event,
            sinks: SinkSet::ALL,
            at_millis: 7,
            partition_key: "thing".into(),
            body: Bytes::from(format!("{{\"place\":{place},\"text\":\"{text}\"}}")),
        }
    }

    fn carved(bytes: Vec<u8>) -> Vec<Record> {
        let mut found = Vec::new();
        carve(bytes.into(), |record| found.push(record));
        found
    }

    fn noise(bytes: usize) -> String {
        let mut random = fastrand::Rng::with_seed(bytes as u64);
        (0..bytes).map(|_| random.alphanumeric()).collect()
    }

    #[test]
    fn whole_records_are_found_between_anything() {
        let mut bytes = b"\x01\x00 anything".to_vec();
        for place in [3, 4] {
            record(place, "").encode(&mut bytes);
            bytes.extend([1, 0, 0, 0]);
        }
        let damaged_at = bytes.len() + 20;
        record(5, "").encode(&mut bytes);
        bytes[damaged_at] ^= 1;
        record(6, "").encode(&mut bytes);
        // The first release's record 9.
        let mut old = vec![1, 0];
        old.extend(9_u64.to_le_bytes());
        old.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        old.extend(b"k{}");
        let crc = crc32fast::hash(&old);
        bytes.extend([old, crc.to_le_bytes().to_vec()].concat());
        let found = carved(bytes);
        assert_eq!(found[..3], [record(3, ""), record(4, ""), record(6, "")]);
        assert_eq!((found.len(), found[3].place, found[3].seq), (4, 9, 9));
    }

    #[test]
    fn compressed_chunks_and_shares_are_found_between_anything_and_damaged_ones_are_not() {
        let records: Vec<_> = (1..=300)
            .map(|place| match place % 100 {
                // In parts: what does not shrink much, and what does not at all.
                50 => record(place, &noise(3 * CHUNK_BYTES_MAX)),
                _ => record(place, "the same over and over again"),
            })
            .collect();
        let values = Packer::default().pack(&records);
        assert!(values.iter().any(|value| value[0] == COMPRESSED));
        assert!(values.iter().any(|value| value[0] == SHARE_COMPRESSED));
        let between = |values: &[Vec<u8>]| values.join(&b"\x03\x04\x05\x00\x02 between"[..]);
        assert_eq!(carved(between(&values)).len(), records.len());
        for damaged in 0..values.len() {
            let mut values = values.clone();
            let middle = values[damaged].len() / 2;
            values[damaged][middle] ^= 0x10;
            let found = carved(between(&values));
            assert!(found.len() < records.len());
            let is_written = |record| records.contains(record);
            assert!(found.iter().all(is_written), "nothing is made up");
        }
    }
}
