//! The binary form of a record in the buffer.
//!
//! ```text
//! version u8 = 1 | kind u8 | seq u64 | key_bytes u32 | body_bytes u32 | key | body | crc u32
//! ```
//! Little-endian; the CRC-32 covers everything before it. Records stand one after the other in a
//! chunk, so decoding takes one from the front and leaves the rest.

use std::sync::Arc;

use bytes::Bytes;

use super::{Kind, Record};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 1 + 8 + 4 + 4;
const CRC_BYTES: usize = 4;

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
    #[error("a record has format version {0}, this release reads {VERSION}")]
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
        let kind = match self.kind {
            Kind::Event => 0,
            Kind::Violation => 1,
        };
        out.extend_from_slice(&[VERSION, kind]);
        out.extend_from_slice(&self.seq.to_le_bytes());
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
        let version = *input.first().ok_or(DecodeError::Truncated)?;
        let header = input
            .first_chunk::<HEADER_BYTES>()
            .ok_or(DecodeError::Truncated)?;
        let key_bytes = u32_at(header, 10)?;
        let body_bytes = u32_at(header, 14)?;
        let crc_at = HEADER_BYTES
            .checked_add(key_bytes)
            .and_then(|bytes| bytes.checked_add(body_bytes))
            .ok_or(DecodeError::Truncated)?;
        let crc = input
            .get(crc_at..)
            .and_then(|rest| rest.first_chunk::<CRC_BYTES>())
            .ok_or(DecodeError::Truncated)?;
        if crc32fast::hash(&input[..crc_at]) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Checksum);
        }
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let kind = match header[1] {
            0 => Kind::Event,
            1 => Kind::Violation,
            _ => return Err(DecodeError::Contents),
        };
        let seq = header[2..].first_chunk().ok_or(DecodeError::Truncated)?;
        let body_at = HEADER_BYTES + key_bytes;
        let key = std::str::from_utf8(&input[HEADER_BYTES..body_at])
            .map_err(|_| DecodeError::Contents)?;
        let record = Self {
            seq: u64::from_le_bytes(*seq),
            kind,
            partition_key: Arc::from(key),
            body: input.slice(body_at..crc_at),
        };
        drop(input.split_to(crc_at + CRC_BYTES));
        Ok(record)
    }
}

fn u32_at(header: &[u8; HEADER_BYTES], at: usize) -> Result<usize, DecodeError> {
    let bytes = header[at..].first_chunk().ok_or(DecodeError::Truncated)?;
    usize::try_from(u32::from_le_bytes(*bytes)).map_err(|_| DecodeError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(seq: u64, key: &str, body: &[u8]) -> Record {
        Record {
            seq,
            kind: Kind::Violation,
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

    #[test]
    fn every_truncation_is_noticed() {
        let whole = encoded(&record(7, "thing", b"{\"a\":1}"));
        for bytes in 0..whole.len() {
            let mut input = Bytes::copy_from_slice(&whole[..bytes]);
            assert_eq!(Record::decode(&mut input), Err(DecodeError::Truncated));
            assert_eq!(input.len(), bytes, "the input is left alone");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = encoded(&record(7, "thing", b"{\"a\":1}"));
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&mut damaged.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_release_is_named_as_such() {
        let mut other = encoded(&record(7, "thing", b"{}"));
        let crc_at = other.len() - CRC_BYTES;
        other[0] = 2;
        let crc = crc32fast::hash(&other[..crc_at]);
        other[crc_at..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            Record::decode(&mut other.into()),
            Err(DecodeError::Version(2))
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
