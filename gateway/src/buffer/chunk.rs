//! Records cut into values that sled keeps in its log: whole records packed together, compressed
//! where that helps, or one large record in numbered parts.
//!
//! ```text
//! value = 2 | place u64 | record | record | … | crc u32                 whole records, in order
//!       | 3 | place u64 | raw_bytes u32 | block | crc u32               the same, compressed
//!       | 4 | place u64 | part u32 | parts u32 | share | crc u32        a share of one record
//!       | 5 | place u64 | part u32 | parts u32 | share | crc u32        … of raw_bytes u32 | block
//! ```
//! Little-endian; `place` is that of the first record, a block is a frame of Zstandard, and the
//! CRC-32 covers what stands before it. The key is the number of the value in its generation (see slots.rs). What
//! the first release wrote is read, not written:
//!
//! ```text
//! key   = place of the first record (u64) | part (u32)     big-endian
//! value = 0 | record | record | …                          whole records, in order
//!       | 1 | parts u32 | a share of one record            part 0 to parts - 1
//! ```
//! Unpacking never fails: what does not decode, or is not where its number says, yields nothing,
//! and the reader's own count notices what is missing. It takes no more memory than the limits say,
//! whatever a value claims.

use std::fmt;

use bytes::Bytes;
use portcullis_core::{
    limits::{CHUNK_BYTES_MAX, CHUNK_RAW_BYTES_MAX, LARGE_RECORD_RAW_BYTES_MAX},
    record::Record,
};
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::compress_bound,
};

const OLD_WHOLE: u8 = 0;
const OLD_SHARE: u8 = 1;
const WHOLE: u8 = 2;
pub(super) const COMPRESSED: u8 = 3;
pub(super) const SHARE: u8 = 4;
pub(super) const SHARE_COMPRESSED: u8 = 5;

pub(super) const PLACE_BYTES: usize = 1 + 8;
pub(super) const CRC_BYTES: usize = 4;
/// What a chunk of whole records has besides them.
const FRAME_BYTES: usize = PLACE_BYTES + CRC_BYTES;
pub(super) const RAW_LENGTH_BYTES: usize = 4;
const SHARE_BYTES_MAX: usize = CHUNK_BYTES_MAX - FRAME_BYTES - 2 * 4;

/// Whether a value holds a share of a record and is worth nothing without the others.
pub(super) fn is_share(value: &[u8]) -> bool {
    matches!(value.first(), Some(&(SHARE | SHARE_COMPRESSED)))
}

/// How many raw bytes are tried for the first value: JSON shrinks at least so far.
const RAW_AIM_FIRST: usize = 3 * CHUNK_BYTES_MAX;

/// Higher levels gain nothing on records. Lower ones (-1) take as long: what they save, sled spends on
/// half as much again of values.
const LEVEL: i32 = 1;

/// Fills values with as many records as fit, which only compressing them tells.
pub(super) struct Packer {
    values: Vec<Vec<u8>>,
    /// Made when it is first needed; without one (no memory) values stay raw.
    compressor: Option<Compressor<'static>>,
    /// Records as they are encoded, and where each ends.
    raw: Vec<u8>,
    ends: Vec<usize>,
    block: Vec<u8>,
    /// How many raw bytes will probably fit, going by the last value.
    raw_aim: usize,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            compressor: None,
            raw: Vec::new(),
            ends: Vec::new(),
            block: Vec::new(),
            raw_aim: RAW_AIM_FIRST,
        }
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer")
            .field("raw_aim", &self.raw_aim)
            .finish_non_exhaustive()
    }
}

impl Packer {
    /// Cuts records with consecutive places into values, in order.
    pub(super) fn pack(&mut self, records: &[Record]) -> Vec<Vec<u8>> {
        let mut rest = records;
        while let Some(first) = rest.first() {
            let taken = self.pack_some(first.place, rest);
            rest = &rest[taken..];
        }
        // A large record leaves no large buffers behind.
        self.raw.clear();
        self.raw.shrink_to(CHUNK_RAW_BYTES_MAX);
        self.block.clear();
        self.block.shrink_to(CHUNK_RAW_BYTES_MAX);
        std::mem::take(&mut self.values)
    }

    /// Makes the next value (or all those of a large record); how many records went into it.
    fn pack_some(&mut self, place: u64, records: &[Record]) -> usize {
        self.encode(records);
        loop {
            let count = self.ends.len();
            let raw_bytes = self.raw.len();
            let is_smaller = self.compress();
            let bytes = FRAME_BYTES + RAW_LENGTH_BYTES + self.block.len();
            if !is_smaller {
                self.raw_aim = CHUNK_BYTES_MAX;
                return self.push_raw(place);
            }
            // A little less than the last value could have held, so that the next one fits at once.
            let fitting = raw_bytes.saturating_mul(CHUNK_BYTES_MAX) / bytes / 16 * 15;
            self.raw_aim = fitting.clamp(CHUNK_BYTES_MAX, CHUNK_RAW_BYTES_MAX);
            if bytes <= CHUNK_BYTES_MAX && raw_bytes <= CHUNK_RAW_BYTES_MAX {
                self.push_block(place);
                return count;
            }
            if count == 1 {
                let raw_length = length(raw_bytes).to_le_bytes();
                let whole = [&raw_length, self.block.as_slice()].concat();
                self.cut(SHARE_COMPRESSED, place, &whole);
                return 1;
            }
            let fewer = self.ends.partition_point(|end| *end <= fitting);
            self.keep(fewer.clamp(1, count - 1));
        }
    }

    /// Encodes records up to what will probably fit, but at least one.
    fn encode(&mut self, records: &[Record]) {
        self.raw.clear();
        self.ends.clear();
        for record in records {
            let end = self.raw.len() + record.encoded_bytes();
            if !self.ends.is_empty() && end > self.raw_aim {
                break;
            }
            record.encode(&mut self.raw);
            self.ends.push(end);
        }
    }

    fn keep(&mut self, count: usize) {
        self.ends.truncate(count);
        self.raw.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Compresses what is encoded; whether that is worth it.
    fn compress(&mut self) -> bool {
        let raw_bytes = self.raw.len();
        if !(COMPRESSED_BYTES_MIN..=LARGE_RECORD_RAW_BYTES_MAX).contains(&raw_bytes) {
            return false;
        }
        if self.compressor.is_none() {
            self.compressor = Compressor::new(LEVEL).ok();
        }
        let Some(compressor) = &mut self.compressor else {
            return false;
        };
        self.block.resize(compress_bound(raw_bytes), 0);
        let Ok(bytes) = compressor.compress_to_buffer(&self.raw, &mut self.block[..]) else {
            return false;
        };
        self.block.truncate(bytes);
        bytes + RAW_LENGTH_BYTES <= raw_bytes / 16 * 15
    }

    /// As they are; how many fit.
    fn push_raw(&mut self, place: u64) -> usize {
        let room = CHUNK_BYTES_MAX - FRAME_BYTES;
        let count = self.ends.partition_point(|end| *end <= room);
        if count == 0 {
            self.keep(1);
            let whole = std::mem::take(&mut self.raw);
            self.cut(SHARE, place, &whole);
            return 1;
        }
        self.keep(count);
        let mut value = framed(WHOLE, place, self.raw.len());
        value.extend_from_slice(&self.raw);
        self.values.push(sealed(value));
        count
    }

    fn push_block(&mut self, place: u64) {
        let mut value = framed(COMPRESSED, place, RAW_LENGTH_BYTES + self.block.len());
        value.extend_from_slice(&length(self.raw.len()).to_le_bytes());
        value.extend_from_slice(&self.block);
        self.values.push(sealed(value));
    }

    fn cut(&mut self, form: u8, place: u64, whole: &[u8]) {
        let parts = length(whole.len().div_ceil(SHARE_BYTES_MAX));
        for (part, share) in (0..parts).zip(whole.chunks(SHARE_BYTES_MAX)) {
            let mut value = framed(form, place, 2 * 4 + share.len());
            value.extend_from_slice(&part.to_le_bytes());
            value.extend_from_slice(&parts.to_le_bytes());
            value.extend_from_slice(share);
            self.values.push(sealed(value));
        }
    }
}

/// Nothing below is smaller for being compressed.
const COMPRESSED_BYTES_MIN: usize = 64;

fn framed(form: u8, place: u64, content_bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(FRAME_BYTES + content_bytes);
    value.push(form);
    value.extend_from_slice(&place.to_le_bytes());
    value
}

fn sealed(mut value: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a record is far below 4 GiB, so are its parts")
}

/// Where a value stands: the place of its first record, and which part of that it is.
pub(super) fn position(value: &[u8]) -> Option<(u64, u32)> {
    match Chunk::open(&[], value)? {
        Chunk::Whole { place, .. } | Chunk::Compressed { place, .. } => Some((place, 0)),
        Chunk::Share { place, part, .. } => Some((place, part)),
    }
}

/// The key that the first release gave to a chunk.
pub(super) fn old_key(place: u64, part: u32) -> [u8; OLD_KEY_BYTES] {
    let mut key = [0; OLD_KEY_BYTES];
    key[..8].copy_from_slice(&place.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// The place and part of a key of the first release.
pub(super) fn split_old_key(key: &[u8]) -> Option<(u64, u32)> {
    let (place, part) = key.split_first_chunk::<8>()?;
    let part = <[u8; 4]>::try_from(part).ok()?;
    Some((u64::from_be_bytes(*place), u32::from_be_bytes(part)))
}

/// How long those keys are.
pub(super) const OLD_KEY_BYTES: usize = 8 + 4;

/// A value whose checksum matches, if its form has one.
enum Chunk<'a> {
    Whole {
        place: u64,
        records: &'a [u8],
    },
    Compressed {
        place: u64,
        /// The length of the records, and the block.
        content: &'a [u8],
    },
    Share {
        place: u64,
        part: u32,
        parts: u32,
        share: &'a [u8],
        is_compressed: bool,
    },
}

impl<'a> Chunk<'a> {
    fn open(key: &[u8], value: &'a [u8]) -> Option<Self> {
        let (&form, rest) = value.split_first()?;
        match form {
            OLD_WHOLE => {
                let (place, _) = split_old_key(key)?;
                Some(Self::Whole {
                    place,
                    records: rest,
                })
            }
            OLD_SHARE => {
                let (place, part) = split_old_key(key)?;
                let (parts, share) = split_u32(rest)?;
                Some(Self::Share {
                    place,
                    part,
                    parts,
                    share,
                    is_compressed: false,
                })
            }
            _ => Self::open_checked(form, value),
        }
    }

    fn open_checked(form: u8, value: &'a [u8]) -> Option<Self> {
        let (covered, crc) = value.split_last_chunk::<CRC_BYTES>()?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (place, content) = covered.get(1..)?.split_first_chunk::<8>()?;
        let place = u64::from_le_bytes(*place);
        match form {
            WHOLE => Some(Self::Whole {
                place,
                records: content,
            }),
            COMPRESSED => Some(Self::Compressed { place, content }),
            SHARE | SHARE_COMPRESSED => {
                let (part, content) = split_u32(content)?;
                let (parts, share) = split_u32(content)?;
                Some(Self::Share {
                    place,
                    part,
                    parts,
                    share,
                    is_compressed: form == SHARE_COMPRESSED,
                })
            }
            _ => None,
        }
    }
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// Puts chunks together again, in the order of their keys.
#[derive(Default)]
pub(super) struct Unpacker {
    parts: Option<Parts>,
    /// Made when it is first needed.
    decompressor: Option<Decompressor<'static>>,
}

#[derive(Debug)]
struct Parts {
    place: u64,
    next: u32,
    whole: Vec<u8>,
}

impl Unpacker {
    /// Takes a chunk and hands out the records that it completes.
    pub(super) fn unpack(&mut self, key: &[u8], value: &[u8], mut each: impl FnMut(Record)) {
        let open = self.parts.take();
        match Chunk::open(key, value) {
            Some(Chunk::Whole { place, records }) => {
                decode_run(Bytes::copy_from_slice(records), place, &mut each);
            }
            Some(Chunk::Compressed { place, content }) => {
                if let Some(records) = self.decompressed(content, CHUNK_RAW_BYTES_MAX) {
                    decode_run(records, place, &mut each);
                }
            }
            Some(Chunk::Share {
                place,
                part,
                parts,
                share,
                is_compressed,
            }) => {
                let Some(mut open) = follow(open, place, part) else {
                    return;
                };
                open.whole.extend_from_slice(share);
                open.next += 1;
                if open.next < parts {
                    self.parts = Some(open);
                    return;
                }
                let whole = if is_compressed {
                    self.decompressed(&open.whole, LARGE_RECORD_RAW_BYTES_MAX)
                } else {
                    Some(open.whole.into())
                };
                if let Some(whole) = whole {
                    decode_run(whole, place, each);
                }
            }
            None => {}
        }
    }

    /// The records of `raw_bytes u32 | block`, if they are as many bytes as it says and no more than
    /// `bytes_max`.
    fn decompressed(&mut self, content: &[u8], bytes_max: usize) -> Option<Bytes> {
        let (raw_bytes, block) = split_u32(content)?;
        let raw_bytes = usize::try_from(raw_bytes).ok()?;
        if raw_bytes > bytes_max {
            return None;
        }
        if self.decompressor.is_none() {
            self.decompressor = Decompressor::new().ok();
        }
        let mut raw = vec![0; raw_bytes];
        let bytes = self
            .decompressor
            .as_mut()?
            .decompress_to_buffer(block, &mut raw[..])
            .ok()?;
        (bytes == raw_bytes).then(|| raw.into())
    }
}

/// The parts so far, if this one comes next.
fn follow(open: Option<Parts>, place: u64, part: u32) -> Option<Parts> {
    if part == 0 {
        return Some(Parts {
            place,
            next: 0,
            whole: Vec::new(),
        });
    }
    open.filter(|open| open.place == place && open.next == part)
}

/// Decodes records from `place` on, up to the first that is damaged.
fn decode_run(mut input: Bytes, place: u64, mut each: impl FnMut(Record)) {
    let mut expected = place;
    while let Ok(record) = Record::decode(&mut input) {
        if record.place != expected {
            return;
        }
        expected += 1;
        each(record);
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
