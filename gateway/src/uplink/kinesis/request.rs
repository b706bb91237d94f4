//! The body of a PutRecords request, written in one pass into one buffer.

use base64::{Engine, prelude::BASE64_STANDARD};
use portcullis_core::{
    limits::AGGREGATE_BYTES_MAX, record::Record, upstream::aggregate::Aggregate,
};

/// A body that is being written.
#[derive(Debug, Default)]
pub(super) struct Body {
    records: Vec<u8>,
    count: usize,
}

/// What stands around a record's data and key.
const PUNCTUATION_BYTES: usize = 40;

impl Body {
    /// The records one by one.
    pub(super) fn plain(batch: &[Record]) -> Self {
        let bytes = batch.iter().map(|record| {
            record.body.len() / 3 * 4 + record.partition_key.len() + PUNCTUATION_BYTES
        });
        let mut body = Self {
            records: Vec::with_capacity(bytes.sum::<usize>() + PUNCTUATION_BYTES),
            count: 0,
        };
        for record in batch {
            body.push(&record.partition_key, &record.body);
        }
        body
    }

    fn push(&mut self, partition_key: &str, data: &[u8]) {
        if self.count > 0 {
            self.records.push(b',');
        }
        self.count += 1;
        self.records.extend_from_slice(b"{\"Data\":\"");
        let start = self.records.len();
        let encoded = data.len().div_ceil(3) * 4;
        self.records.resize(start + encoded, 0);
        BASE64_STANDARD
            .encode_slice(data, &mut self.records[start..])
            .expect("the room is what base64 takes");
        self.records.extend_from_slice(b"\",\"PartitionKey\":");
        push_string(&mut self.records, partition_key);
        self.records.push(b'}');
    }

    /// How many records the service will see.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The whole body.
    pub(super) fn finish(self, stream: &str) -> bytes::Bytes {
        let mut out = Vec::with_capacity(self.records.len() + stream.len() + PUNCTUATION_BYTES);
        out.extend_from_slice(b"{\"Records\":[");
        out.extend_from_slice(&self.records);
        out.extend_from_slice(b"],\"StreamName\":");
        push_string(&mut out, stream);
        out.push(b'}');
        out.into()
    }
}

/// Puts records of one shard together, in their order; `shard_of` says where each belongs, `None` if
/// nobody knows, which travels alone. Also which of the batch went into each, and for which shard.
pub(super) fn aggregated(
    batch: &[Record],
    shard_of: impl Fn(usize) -> Option<usize>,
) -> (Body, Vec<Group>) {
    let mut open: Vec<(Group, Aggregate)> = Vec::new();
    let mut closed: Vec<(Group, Aggregate)> = Vec::new();
    for (at, record) in batch.iter().enumerate() {
        let shard = shard_of(at);
        let fits = open.iter_mut().position(|(group, aggregate)| {
            shard.is_some()
                && group.shard == shard
                && aggregate.add(&record.partition_key, &record.body, AGGREGATE_BYTES_MAX)
        });
        if let Some(found) = fits {
            open[found].0.members.push(at);
            continue;
        }
        if let Some(full) = open
            .iter()
            .position(|(group, _)| shard.is_some() && group.shard == shard)
        {
            closed.push(open.remove(full));
        }
        let mut aggregate = Aggregate::default();
        aggregate.add(&record.partition_key, &record.body, AGGREGATE_BYTES_MAX);
        let group = Group {
            shard,
            members: vec![at],
        };
        if shard.is_some() {
            open.push((group, aggregate));
        } else {
            closed.push((group, aggregate));
        }
    }
    closed.extend(open);
    let mut body = Body::default();
    let mut groups = Vec::with_capacity(closed.len());
    for (group, aggregate) in closed {
        let first = &batch[group.members[0]];
        if aggregate.count() == 1 {
            body.push(&first.partition_key, &first.body);
        } else {
            body.push(&first.partition_key, &aggregate.finish());
        }
        groups.push(group);
    }
    (body, groups)
}

/// Records of a batch that travel as one.
#[derive(Debug)]
pub(super) struct Group {
    /// Which shard they were put together for.
    pub(super) shard: Option<usize>,
    /// Their places in the batch.
    pub(super) members: Vec<usize>,
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        let quoted = serde_json::Value::from(text).to_string();
        out.extend_from_slice(quoted.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::record::{Kind, SinkSet};
    use serde_json::Value;

    use super::*;

    fn record(key: &str, body: &[u8]) -> Record {
        Record {
            seq: 1,
            place: 1,
            kind: Kind::Event,
            sinks: SinkSet::ALL,
            at_millis: 0,
            partition_key: key.into(),
            body: bytes::Bytes::copy_from_slice(body),
        }
    }

    fn read(body: Body) -> Vec<(String, Vec<u8>)> {
        let value: Value = serde_json::from_slice(&body.finish("s\"1")).unwrap();
        assert_eq!(value["StreamName"], "s\"1");
        let records = value["Records"].as_array().unwrap().iter();
        records
            .map(|record| {
                let data = BASE64_STANDARD.decode(record["Data"].as_str().unwrap());
                let key = record["PartitionKey"].as_str().unwrap();
                (key.to_owned(), data.unwrap())
            })
            .collect()
    }

    #[test]
    fn any_key_and_any_bytes_arrive_as_they_are() {
        let batch = [
            record("a", b""),
            record("a\"\\\n\u{1}ü", b"x"),
            record("b", &(0..=255).collect::<Vec<u8>>()),
        ];
        let body = Body::plain(&batch);
        assert_eq!(body.count(), 3);
        let expected = batch.map(|r| (r.partition_key.to_string(), r.body.to_vec()));
        assert_eq!(read(body), expected);
    }

    #[test]
    fn only_records_of_one_shard_travel_together_and_up_to_a_size() {
        let large = vec![b'x'; 30_000];
        let batch = [
            record("a", b"1"),
            record("b", b"2"),
            record("a", b"3"),
            record("c", b"4"),
            record("a", &large),
            record("a", &large),
        ];
        let shards = [Some(0), Some(1), Some(0), None, Some(0), Some(0)];
        let (body, groups) = aggregated(&batch, |at| shards[at]);
        let members: Vec<_> = groups.iter().map(|group| group.members.clone()).collect();
        assert_eq!(members, [vec![3], vec![0, 2, 4], vec![1], vec![5]]);
        let records = read(body);
        assert_eq!(records[0], ("c".to_owned(), b"4".to_vec()));
        assert_eq!(records[1].0, "a");
        assert!(records[1].1.starts_with(&[0xf3, 0x89, 0x9a, 0xc2]));
        assert_eq!(
            records[2],
            ("b".to_owned(), b"2".to_vec()),
            "alone it is plain"
        );
    }
}
