//! Records cut into values that sled keeps in its log: whole records packed together, or one large
//! record in numbered parts.
//!
//! ```text
//! key   = sequence number of the first record (u64) | part (u32)     big-endian
//! value = 0 | record | record | …                                    whole records, in order
//!       | 1 | parts u32 | a share of one record                      part 0 to parts - 1
//! ```
//! Unpacking never fails: what does not decode, or is not where its number says, yields nothing,
//! and the reader's own count notices what is missing.

use bytes::Bytes;
use portcullis_core::{limits::CHUNK_BYTES_MAX, record::Record};

use super::engine::Key;

const WHOLE: u8 = 0;
const PART: u8 = 1;
const PART_HEADER_BYTES: usize = 1 + 4;
const PART_BYTES_MAX: usize = CHUNK_BYTES_MAX - PART_HEADER_BYTES;

/// The key of a chunk.
pub(super) fn key(seq: u64, part: u32) -> Key {
    let mut key = Key::default();
    key[..8].copy_from_slice(&seq.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// The sequence number and part of a key.
pub(super) fn split_key(key: &[u8]) -> Option<(u64, u32)> {
    let (seq, part) = key.split_first_chunk::<8>()?;
    let part = <[u8; 4]>::try_from(part).ok()?;
    Some((u64::from_be_bytes(*seq), u32::from_be_bytes(part)))
}

/// Cuts records with consecutive sequence numbers into chunks.
pub(super) fn pack(records: &[Record]) -> Vec<(Key, Vec<u8>)> {
    let mut chunks = Vec::new();
    let mut open: Option<(Key, Vec<u8>)> = None;
    for record in records {
        let bytes = record.encoded_bytes();
        if let Some((_, value)) = &mut open
            && value.len() + bytes <= CHUNK_BYTES_MAX
        {
            record.encode(value);
            continue;
        }
        chunks.extend(open.take());
        if bytes < CHUNK_BYTES_MAX {
            let mut value = Vec::with_capacity(CHUNK_BYTES_MAX);
            value.push(WHOLE);
            record.encode(&mut value);
            open = Some((key(record.seq, 0), value));
        } else {
            cut(record, &mut chunks);
        }
    }
    chunks.extend(open);
    chunks
}

fn cut(record: &Record, chunks: &mut Vec<(Key, Vec<u8>)>) {
    let mut whole = Vec::with_capacity(record.encoded_bytes());
    record.encode(&mut whole);
    let parts = u32::try_from(whole.len().div_ceil(PART_BYTES_MAX))
        .expect("a record is far below 4 GiB, so are its parts");
    for (part, share) in (0..parts).zip(whole.chunks(PART_BYTES_MAX)) {
        let mut value = Vec::with_capacity(PART_HEADER_BYTES + share.len());
        value.push(PART);
        value.extend_from_slice(&parts.to_le_bytes());
        value.extend_from_slice(share);
        chunks.push((key(record.seq, part), value));
    }
}

/// Puts chunks together again, in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    seq: u64,
    next: u32,
    whole: Vec<u8>,
}

impl Unpacker {
    /// Takes a chunk and hands out the records that it completes.
    pub(super) fn unpack(&mut self, key: &[u8], value: &[u8], mut each: impl FnMut(Record)) {
        let Some((seq, part)) = split_key(key) else {
            return;
        };
        match value.split_first() {
            Some((&WHOLE, records)) => {
                self.parts = None;
                decode_run(Bytes::copy_from_slice(records), seq, &mut each);
            }
            Some((&PART, rest)) => self.take_part(seq, part, rest, each),
            _ => self.parts = None,
        }
    }

    fn take_part(&mut self, seq: u64, part: u32, rest: &[u8], each: impl FnMut(Record)) {
        let Some((parts, share)) = rest.split_first_chunk::<4>() else {
            self.parts = None;
            return;
        };
        if part == 0 {
            self.parts = Some(Parts {
                seq,
                next: 0,
                whole: Vec::new(),
            });
        }
        let Some(open) = self
            .parts
            .as_mut()
            .filter(|open| open.seq == seq && open.next == part)
        else {
            self.parts = None;
            return;
        };
        open.whole.extend_from_slice(share);
        open.next += 1;
        if open.next == u32::from_le_bytes(*parts) {
            let whole = std::mem::take(&mut open.whole);
            self.parts = None;
            decode_run(whole.into(), seq, each);
        }
    }
}

/// Decodes records numbered from `seq` on, up to the first that is damaged.
fn decode_run(mut input: Bytes, seq: u64, mut each: impl FnMut(Record)) {
    let mut expected = seq;
    while let Ok(record) = Record::decode(&mut input) {
        if record.seq != expected {
            return;
        }
        expected += 1;
        each(record);
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::record::{Kind, SinkSet};
    use proptest::prelude::*;

    use super::*;

    fn records(sizes: &[usize]) -> Vec<Record> {
        (7..)
            .zip(sizes)
            .map(|(seq, bytes)| Record {
                seq,
                place: seq,
                kind: Kind::Event,
                sinks: SinkSet::ALL,
                at_millis: 0,
                partition_key: "thing".into(),
                body: vec![b'x'; *bytes].into(),
            })
            .collect()
    }

    fn unpack(chunks: &[(Key, Vec<u8>)]) -> Vec<Record> {
        let mut unpacker = Unpacker::default();
        let mut out = Vec::new();
        for (key, value) in chunks {
            unpacker.unpack(key, value, |record| out.push(record));
        }
        out
    }

    #[test]
    fn a_missing_part_costs_its_record_alone() {
        let records = records(&[10, 20_000, 10]);
        let mut chunks = pack(&records);
        chunks.remove(2);
        assert_eq!(unpack(&chunks), [records[0].clone(), records[2].clone()]);
    }

    #[test]
    fn damage_in_a_chunk_never_shows_a_wrong_record() {
        let records = records(&[300; 5]);
        let chunks = pack(&records);
        assert_eq!(chunks.len(), 1);
        for at in 0..chunks[0].1.len() {
            let mut damaged = chunks.clone();
            damaged[0].1[at] ^= 0x10;
            let seen = unpack(&damaged);
            assert_eq!(seen, records[..seen.len()]);
            assert!(seen.len() < records.len());
        }
    }

    proptest! {
        #[test]
        fn records_survive_packing(sizes in proptest::collection::vec(
            prop_oneof![0_usize..1000, 7000_usize..7500, 0_usize..40_000], 0..20)
        ) {
            let records = records(&sizes);
            let chunks = pack(&records);
            prop_assert!(chunks.iter().all(|(_, value)| value.len() <= CHUNK_BYTES_MAX));
            prop_assert!(chunks.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert_eq!(unpack(&chunks), records);
        }
    }
}
