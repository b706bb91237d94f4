//! How many records of a lane were for whom, from its first record on.
//!
//! Only differences are ever used (what came since a sink joined, what lies between a cursor and the
//! end), so a bit that changes its owner needs no reset. A generation carries the counts that it
//! began with, so dropping or losing it whole still says how many of its records were for whom.

use portcullis_core::{limits::SINKS_MAX, record::SinkSet};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Records for every sink, whoever there is.
    everyone: u64,
    /// Records for some, by bit.
    some: [u64; SINKS_MAX],
}

impl Counts {
    /// Of `records` that were for every sink.
    pub(super) fn of_everyone(records: u64) -> Self {
        Self {
            everyone: records,
            ..Self::default()
        }
    }

    /// Adds one record.
    pub(super) fn add(&mut self, sinks: SinkSet) {
        if sinks == SinkSet::ALL {
            self.everyone += 1;
        } else if !sinks.is_empty() {
            for (bit, count) in self.some.iter_mut().enumerate() {
                *count += u64::from(sinks.contains(bit));
            }
        }
    }

    /// Adds records of which nobody knows whom they were for: they count for everyone.
    pub(super) fn add_unknown(&mut self, records: u64) {
        self.everyone += records;
    }

    /// Records for the sink with this bit.
    pub(super) fn of(&self, bit: usize) -> u64 {
        self.everyone + self.some.get(bit).copied().unwrap_or(0)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.everyone);
        let counted = || (0_u8..).zip(self.some).filter(|(_, count)| *count > 0);
        out.push(u8::try_from(counted().count()).unwrap_or(u8::MAX));
        for (bit, count) in counted() {
            out.push(bit);
            put_u64(out, count);
        }
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Option<Self> {
        let mut counts = Self::of_everyone(input.u64()?);
        for _ in 0..input.u8()? {
            let bit = input.u8()?;
            *counts.some.get_mut(usize::from(bit))? = input.u64()?;
        }
        Some(counts)
    }
}

/// What a generation begins with, kept in a file beside its database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    /// When it was made: everything in the generations before it is older.
    pub(super) at_millis: u64,
    /// Of all records before it.
    pub(super) counts: Counts,
}

impl Base {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = BASE_MAGIC.to_vec();
        put_u64(&mut out, self.at_millis);
        self.counts.encode(&mut out);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut input = Input(content.strip_prefix(&BASE_MAGIC)?);
        Some(Self {
            at_millis: input.u64()?,
            counts: Counts::decode(&mut input)?,
        })
    }
}

const BASE_MAGIC: [u8; 4] = *b"PBS1";

/// The counts at a place, as they are noted after every commit.
pub(super) fn encode_noted(end: u64, counts: &Counts) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, end);
    counts.encode(&mut out);
    out
}

/// See [`encode_noted`].
pub(super) fn decode_noted(bytes: &[u8]) -> Option<(u64, Counts)> {
    let mut input = Input(bytes);
    Some((input.u64()?, Counts::decode(&mut input)?))
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// A short text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
}

/// What is left to decode.
#[derive(Debug)]
pub(super) struct Input<'i>(pub(super) &'i [u8]);

impl Input<'_> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_and_damage_is_noticed() {
        let mut counts = Counts::of_everyone(7);
        counts.add(SinkSet::ALL);
        counts.add(SinkSet::single(0).union(SinkSet::single(31)));
        counts.add(SinkSet::single(31));
        assert_eq!([counts.of(0), counts.of(1), counts.of(31)], [9, 8, 10]);
        let base = Base {
            at_millis: 5,
            counts: counts.clone(),
        };
        let bytes = base.encode();
        assert_eq!(Base::decode(&bytes), Some(base));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(Base::decode(&damaged), None);
        }
        let noted = encode_noted(12, &counts);
        assert_eq!(decode_noted(&noted), Some((12, counts)));
    }
}
