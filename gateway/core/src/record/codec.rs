//! The binary form of a record in the buffer.
//!
//! ```text
//! version u8 = 2 | kind u8 | seq u64 | place u64 | at_millis u64 | sinks u32
//!                | key_bytes u32 | body_bytes u32 | key | body | crc u32
//! version u8 = 1 | kind u8 | seq u64 | key_bytes u32 | body_bytes u32 | key | body | crc u32
//! ```
//! Little-endian; the CRC-32 covers everything before it. Records stand one after the other in a
//! chunk, so decoding takes one from the front and leaves the rest. Version 1 is read, not written:
//! its place is its number, it is for every sink, and nobody knows when it came.

use std::sync::Arc;

use bytes::Bytes;

use super::{Kind, Record, SinkSet};

const VERSION: u8 = 2;
const HEADER_BYTES: usize = 1 + 1 + 3 * 8 + 3 * 4;
const VERSION_1: u8 = 1;
const HEADER_1_BYTES: usize = 1 + 1 + 8 + 2 * 4;
const CRC_BYTES: usize = 4;

/// The number of a kind on disk.
pub(super) const fn number(kind: Kind) -> usize {
    kind as usize
}

/// Why bytes are no record. Nothing of the record may be used then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the record does.
    #[error("a record is cut short")]
    Truncated,
    /// The checksum does not match.
    #[error("a record's checksum does not match")]
    Checksum,
    /// Written by another release.
    #[error("a record has format version {0}, this release reads up to {VERSION}")]
    Version(u8),
    /// The checksum matches, but the contents are none that we write.
    #[error("a record has contents that no release writes")]
    Contents,
}

impl Record {
    /// How many bytes [`Record::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + self.wire_bytes() + CRC_BYTES
    }

    /// Appends the binary form. Panics if key or body have 4 GiB, which the limits exclude.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let bytes_u32 = |bytes: usize| u32::try_from(bytes).expect("a record is far below 4 GiB");
        let start = out.len();
        let kind = u8::try_from(number(self.kind)).expect("there are few kinds");
        out.extend_from_slice(&[VERSION, kind]);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.place.to_le_bytes());
        out.extend_from_slice(&self.at_millis.to_le_bytes());
        out.extend_from_slice(&self.sinks.bits().to_le_bytes());
        out.extend_from_slice(&bytes_u32(self.partition_key.len()).to_le_bytes());
        out.extend_from_slice(&bytes_u32(self.body.len()).to_le_bytes());
        out.extend_from_slice(self.partition_key.as_bytes());
        out.extend_from_slice(&self.body);
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Takes one record from the front of `input`, which is left alone on an error. The body shares
    /// `input`'s memory.
    pub fn decode(input: &mut Bytes) -> Result<Self, DecodeError> {
        let header = Header::read(input)?;
        let body_at = header
            .bytes
            .checked_add(header.key_bytes)
            .ok_or(DecodeError::Truncated)?;
        let crc_at = body_at
            .checked_add(header.body_bytes)
            .ok_or(DecodeError::Truncated)?;
        let crc = input
            .get(crc_at..)
            .and_then(|rest| rest.first_chunk::<CRC_BYTES>())
            .ok_or(DecodeError::Truncated)?;
        if crc32fast::hash(&input[..crc_at]) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Checksum);
        }
        let kind = *Kind::ALL
            .get(usize::from(header.kind))
            .ok_or(DecodeError::Contents)?;
        let key = std::str::from_utf8(&input[header.bytes..body_at])
            .map_err(|_| DecodeError::Contents)?;
        let record = Self {
            seq: header.seq,
            place: header.place,
            kind,
            sinks: header.sinks,
            at_millis: header.at_millis,
            partition_key: Arc::from(key),
            body: input.slice(body_at..crc_at),
        };
        drop(input.split_to(crc_at + CRC_BYTES));
        Ok(record)
    }
}

/// What stands before the key; nothing of it is checked yet.
struct Header {
    bytes: usize,
    kind: u8,
    seq: u64,
    place: u64,
    at_millis: u64,
    sinks: SinkSet,
    key_bytes: usize,
    body_bytes: usize,
}

impl Header {
    fn read(input: &[u8]) -> Result<Self, DecodeError> {
        match input.first() {
            None => Err(DecodeError::Truncated),
            Some(&VERSION) => {
                let header = front::<HEADER_BYTES>(input)?;
                Ok(Self {
                    bytes: HEADER_BYTES,
                    kind: header[1],
                    seq: u64_at(header, 2)?,
                    place: u64_at(header, 10)?,
                    at_millis: u64_at(header, 18)?,
                    sinks: SinkSet::from_bits(u32_at(header, 26)?),
                    key_bytes: length_at(header, 30)?,
                    body_bytes: length_at(header, 34)?,
                })
            }
            Some(&VERSION_1) => {
                let header = front::<HEADER_1_BYTES>(input)?;
                let seq = u64_at(header, 2)?;
                Ok(Self {
                    bytes: HEADER_1_BYTES,
                    kind: header[1],
                    seq,
                    place: seq,
                    at_millis: 0,
                    sinks: SinkSet::ALL,
                    key_bytes: length_at(header, 10)?,
                    body_bytes: length_at(header, 14)?,
                })
            }
            Some(&other) => Err(DecodeError::Version(other)),
        }
    }
}

fn front<const BYTES: usize>(input: &[u8]) -> Result<&[u8], DecodeError> {
    input.get(..BYTES).ok_or(DecodeError::Truncated)
}

fn u64_at(header: &[u8], at: usize) -> Result<u64, DecodeError> {
    let bytes = header[at..].first_chunk().ok_or(DecodeError::Truncated)?;
    Ok(u64::from_le_bytes(*bytes))
}

fn u32_at(header: &[u8], at: usize) -> Result<u32, DecodeError> {
    let bytes = header[at..].first_chunk().ok_or(DecodeError::Truncated)?;
    Ok(u32::from_le_bytes(*bytes))
}

fn length_at(header: &[u8], at: usize) -> Result<usize, DecodeError> {
    usize::try_from(u32_at(header, at)?).map_err(|_| DecodeError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(seq: u64, key: &str, body: &[u8]) -> Record {
        Record {
            seq,
            place: seq / 2,
            kind: Kind::Violation,
            sinks: SinkSet::from_bits(0x8000_0005),
            at_millis: 1_795_341_600_123,
            partition_key: key.into(),
            body: Bytes::copy_from_slice(body),
        }
    }

    fn encoded(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.encode(&mut out);
        assert_eq!(out.len(), record.encoded_bytes());
        out
    }

    /// What the first release wrote, byte for byte.
    const VERSION_1_GOLDEN: &str = concat!(
        "01010700000000000000090000002b00000073656e736f722dc3bc7b22736368656d61223a22706f",
        "727463756c6c69732e76696f6c6174696f6e2f31222c22736571223a377dd4f0fcbb",
    );

    fn golden() -> Vec<u8> {
        VERSION_1_GOLDEN
            .as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn what_the_first_release_wrote_is_read() {
        let mut input = Bytes::from([golden(), encoded(&record(8, "k", b"{}"))].concat());
        let expected = Record {
            seq: 7,
            place: 7,
            kind: Kind::Violation,
            sinks: SinkSet::ALL,
            at_millis: 0,
            partition_key: "sensor-ü".into(),
            body: Bytes::from_static(b"{\"schema\":\"portcullis.violation/1\",\"seq\":7}"),
        };
        assert_eq!(Record::decode(&mut input), Ok(expected));
        assert_eq!(Record::decode(&mut input), Ok(record(8, "k", b"{}")));
    }

    #[test]
    fn every_kind_comes_back() {
        for kind in Kind::ALL {
            let record = Record {
                kind,
                ..record(1, "k", b"{}")
            };
            let mut input = encoded(&record).into();
            assert_eq!(Record::decode(&mut input).unwrap().kind, kind);
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        for whole in [golden(), encoded(&record(7, "thing", b"{\"a\":1}"))] {
            for bytes in 0..whole.len() {
                let mut input = Bytes::copy_from_slice(&whole[..bytes]);
                assert_eq!(Record::decode(&mut input), Err(DecodeError::Truncated));
                assert_eq!(input.len(), bytes, "the input is left alone");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for whole in [golden(), encoded(&record(7, "thing", b"{\"a\":1}"))] {
            for bit in 0..whole.len() * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Record::decode(&mut damaged.into()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_of_another_release_is_named_as_such() {
        let mut other = encoded(&record(7, "thing", b"{}"));
        let crc_at = other.len() - CRC_BYTES;
        other[0] = 3;
        let crc = crc32fast::hash(&other[..crc_at]);
        other[crc_at..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            Record::decode(&mut other.into()),
            Err(DecodeError::Version(3))
        );
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were_one_after_the_other(
            parts in proptest::collection::vec((any::<u64>(), "\\PC{0,20}", proptest::collection::vec(any::<u8>(), 0..300)), 1..8)
        ) {
            let records: Vec<_> = parts.iter().map(|(seq, key, body)| record(*seq, key, body)).collect();
            let mut input: Bytes = records.iter().flat_map(encoded).collect();
            for expected in &records {
                prop_assert_eq!(&Record::decode(&mut input).unwrap(), expected);
            }
            prop_assert!(input.is_empty());
        }

        #[test]
        fn decoding_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = Bytes::from(bytes);
            while Record::decode(&mut input).is_ok() {}
        }
    }
}
