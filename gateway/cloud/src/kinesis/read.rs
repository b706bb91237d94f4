//! `GetShardIterator` and `GetRecords`: the consumer's side.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Kinesis, member, number, seconds};
use crate::refusal::Refusal;

const RECORDS_MAX: u64 = 10_000;
const ANSWER_BYTES_MAX: usize = 10 << 20;
const ITERATOR_LIVES_MICROS: u64 = 300 * 1_000_000;

/// Where a consumer is.
struct Position {
    stream: String,
    shard: usize,
    /// How many records of the shard are before it.
    from: u64,
    made_micros: u64,
}

impl Position {
    fn to_text(&self) -> String {
        let Self {
            stream,
            shard,
            from,
            made_micros,
        } = self;
        BASE64_STANDARD.encode(format!("{stream}\n{shard}\n{from}\n{made_micros}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()?;
        let mut parts = text.split('\n');
        Some(Self {
            stream: parts.next()?.to_owned(),
            shard: parts.next()?.parse().ok()?,
            from: parts.next()?.parse().ok()?,
            made_micros: parts.next()?.parse().ok()?,
        })
    }
}

impl Kinesis {
    pub(super) fn get_shard_iterator(&self, input: &Value, now: u64) -> Result<Value, Refusal> {
        let stream = self.of(input)?;
        let shard = stream.position(member(input, "ShardId")?)?;
        let forgotten = stream.shards[shard].forgotten;
        // Numbers of one shard are of one length, so that text compares as numbers do.
        let after_those_that = |before: &dyn Fn(&super::Record) -> bool| {
            let count = stream.of_shard(shard, 0).take_while(|r| before(r)).count();
            forgotten + u64::try_from(count).unwrap_or(u64::MAX)
        };
        let from = match member(input, "ShardIteratorType")? {
            "TRIM_HORIZON" => forgotten,
            "LATEST" => stream.shards[shard].taken(),
            "AT_SEQUENCE_NUMBER" => {
                let at = member(input, "StartingSequenceNumber")?;
                after_those_that(&|record| *record.sequence_number < *at)
            }
            "AFTER_SEQUENCE_NUMBER" => {
                let after = member(input, "StartingSequenceNumber")?;
                after_those_that(&|record| *record.sequence_number <= *after)
            }
            "AT_TIMESTAMP" => {
                let at = input.get("Timestamp").and_then(Value::as_f64);
                let at = at.ok_or_else(|| {
                    Refusal::argument(
                        "Must specify timestamp parameter for iterator of type AT_TIMESTAMP.",
                    )
                })?;
                after_those_that(&|record| seconds(record.at_millis * 1000) < at)
            }
            other => {
                return Err(Refusal::validation(format!(
                    "Value '{other}' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]"
                )));
            }
        };
        let iterator = Position {
            stream: stream.name.clone(),
            shard,
            from,
            made_micros: now,
        };
        Ok(json!({ "ShardIterator": iterator.to_text() }))
    }

    pub(super) fn get_records(&self, input: &Value, now: u64) -> Result<Value, Refusal> {
        let text = member(input, "ShardIterator")?;
        let iterator = Position::parse(text);
        let iterator = iterator.ok_or_else(|| Refusal::argument("Invalid ShardIterator."))?;
        if now.saturating_sub(iterator.made_micros) > ITERATOR_LIVES_MICROS {
            return Err(Refusal::bad(
                "ExpiredIteratorException",
                "Iterator expired. The iterator was created more than 5 minutes ago.",
            ));
        }
        let limit = number(input, "Limit").unwrap_or(RECORDS_MAX);
        if !(1..=RECORDS_MAX).contains(&limit) {
            return Err(Refusal::validation(format!(
                "Value '{limit}' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000"
            )));
        }
        let stream = self.get(&iterator.stream)?;
        let shard = stream.shards.get(iterator.shard);
        let shard = shard.ok_or_else(|| Refusal::argument("Invalid ShardIterator."))?;
        let (mut records, mut bytes, mut latest) = (Vec::new(), 0, now);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        for record in stream.of_shard(iterator.shard, iterator.from).take(limit) {
            bytes += record.data.len() + record.partition_key.len();
            if bytes > ANSWER_BYTES_MAX && !records.is_empty() {
                break;
            }
            latest = record.at_millis * 1000;
            records.push(json!({
                "SequenceNumber": record.sequence_number,
                "ApproximateArrivalTimestamp": seconds(record.at_millis * 1000),
                "Data": BASE64_STANDARD.encode(&record.data),
                "PartitionKey": record.partition_key,
                "EncryptionType": "NONE",
            }));
        }
        let from = iterator.from.max(shard.forgotten);
        let next = from + u64::try_from(records.len()).unwrap_or(u64::MAX);
        let is_at_tip = next >= shard.taken();
        let behind = if is_at_tip {
            0
        } else {
            now.saturating_sub(latest) / 1000
        };
        let mut answer = json!({ "Records": records, "MillisBehindLatest": behind });
        if shard.info.open || !is_at_tip {
            let next = Position {
                from: next,
                made_micros: now,
                ..iterator
            };
            answer["NextShardIterator"] = next.to_text().into();
        } else {
            answer["ChildShards"] = stream.children(&shard.info.id);
        }
        Ok(answer)
    }
}
