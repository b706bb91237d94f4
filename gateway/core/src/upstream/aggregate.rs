//! Several records as one, in the format of the Kinesis Producer Library (specification D.7).
//!
//! ```text
//! F3 89 9A C2 | protobuf AggregatedRecord | MD5 of the protobuf (16 bytes)
//! ```
//! Consumers that know it (KCL, Firehose, enhanced fan-out to Lambda) unpack it; others see a blob.
//! Only records of one shard may travel together: who unpacks drops what belongs elsewhere.

use std::collections::HashMap;

use md5::{Digest, Md5};

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const MD5_BYTES: usize = 16;

/// A record that is being filled.
#[derive(Debug, Default)]
pub struct Aggregate {
    keys: Vec<u8>,
    /// Where each stands in the table of keys.
    indices: HashMap<Box<str>, u64>,
    records: Vec<u8>,
    count: usize,
}

impl Aggregate {
    /// Adds a record if the whole stays within `bytes_max`; the first one always is.
    pub fn add(&mut self, partition_key: &str, data: &[u8], bytes_max: usize) -> bool {
        let known = self.indices.get(partition_key).copied();
        let index = known.unwrap_or(u64::try_from(self.indices.len()).unwrap_or(u64::MAX));
        let inner = 1 + varint_bytes(index) + 1 + length_bytes(data.len());
        let mut grows = 1 + length_bytes(inner);
        if known.is_none() {
            grows += 1 + length_bytes(partition_key.len());
        }
        if self.count > 0 && self.bytes() + grows > bytes_max {
            return false;
        }
        if known.is_none() {
            self.keys.push(0x0a);
            push_bytes(&mut self.keys, partition_key.as_bytes());
            self.indices.insert(partition_key.into(), index);
        }
        self.records.push(0x1a);
        push_varint(&mut self.records, u64::try_from(inner).unwrap_or(u64::MAX));
        self.records.push(0x08);
        push_varint(&mut self.records, index);
        self.records.push(0x1a);
        push_bytes(&mut self.records, data);
        self.count += 1;
        true
    }

    /// How many records are in it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What [`Self::finish`] gives.
    pub fn bytes(&self) -> usize {
        MAGIC.len() + self.keys.len() + self.records.len() + MD5_BYTES
    }

    /// The data of the one record.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.keys);
        out.extend_from_slice(&self.records);
        let digest = Md5::digest(&out[MAGIC.len()..]);
        out.extend_from_slice(&digest);
        out
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_varint(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(bytes);
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Bytes of a length and of what it counts.
fn length_bytes(bytes: usize) -> usize {
    varint_bytes(u64::try_from(bytes).unwrap_or(u64::MAX)) + bytes
}

fn varint_bytes(number: u64) -> usize {
    let bits = usize::try_from(64 - (number | 1).leading_zeros()).unwrap_or(64);
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads it as a consumer does.
    fn unpack(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
        let body = bytes.strip_prefix(&MAGIC)?;
        let (body, digest) = body.split_at_checked(body.len().checked_sub(MD5_BYTES)?)?;
        if Md5::digest(body).as_slice() != digest {
            return None;
        }
        let (mut keys, mut records) = (Vec::new(), Vec::new());
        for (field, value) in fields(body)? {
            match field {
                1 => keys.push(String::from_utf8(value.to_vec()).ok()?),
                3 => records.push(value),
                _ => return None,
            }
        }
        let unpacked = records.into_iter().map(|mut record| {
            assert_eq!(record[0], 8);
            record = &record[1..];
            let index = varint(&mut record)?;
            let data = fields(record)?.pop()?;
            assert_eq!(data.0, 3);
            Some((keys[usize::try_from(index).ok()?].clone(), data.1.to_vec()))
        });
        unpacked.collect()
    }

    fn fields(mut rest: &[u8]) -> Option<Vec<(u8, &[u8])>> {
        let mut fields = Vec::new();
        while let Some((tag, after)) = rest.split_first() {
            rest = after;
            assert_eq!(tag & 7, 2, "only lengths at this level");
            let bytes = usize::try_from(varint(&mut rest)?).ok()?;
            let (value, after) = rest.split_at_checked(bytes)?;
            fields.push((tag >> 3, value));
            rest = after;
        }
        Some(fields)
    }

    fn varint(rest: &mut &[u8]) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, after) = rest.split_first()?;
            *rest = after;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    #[test]
    fn the_vector_of_the_specification_unpacks_and_ours_is_the_same() {
        let hex = "f3899ac20a056465762d310a056465762d321a0b08001a077b2261223a317d1a0b08011a077b2262223a327d1a0b08001a077b2261223a337d412b134000a5d9afa5efe66565998364";
        let vector: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap())
            .collect();
        let records = [
            ("dev-1", "{\"a\":1}"),
            ("dev-2", "{\"b\":2}"),
            ("dev-1", "{\"a\":3}"),
        ];
        let expected: Vec<_> = records
            .iter()
            .map(|(key, data)| ((*key).to_owned(), data.as_bytes().to_vec()))
            .collect();
        assert_eq!(unpack(&vector).unwrap(), expected);
        let mut ours = Aggregate::default();
        for (key, data) in records {
            assert!(ours.add(key, data.as_bytes(), 1000));
        }
        assert_eq!(ours.finish(), vector);
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out_and_the_bound_holds(
            records in proptest::collection::vec(("[a-c]{1,200}", proptest::collection::vec(any::<u8>(), 0..300)), 1..40),
            bytes_max in 100_usize..3000,
        ) {
            let mut aggregate = Aggregate::default();
            let mut taken = Vec::new();
            for (key, data) in records {
                if !aggregate.add(&key, &data, bytes_max) {
                    break;
                }
                taken.push((key, data));
            }
            prop_assert_eq!(aggregate.count(), taken.len());
            let bytes = aggregate.bytes();
            let packed = aggregate.finish();
            prop_assert_eq!(packed.len(), bytes);
            prop_assert!(bytes <= bytes_max || taken.len() == 1);
            prop_assert_eq!(unpack(&packed).unwrap(), taken);
        }
    }
}
