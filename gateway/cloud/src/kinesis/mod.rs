//! Kinesis Data Streams: streams and their shards ([`stream`]), the producer's calls ([`put`]), the
//! consumer's ([`read`]). What is not here: consumers with fan-out, encryption, retention, tags.

mod put;
mod read;
mod stream;

pub(crate) use put::{Batch, Taking};
pub use stream::{Record, ShardInfo};

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use self::stream::{RECORD_BYTES_MAX, Stream};
use crate::{ACCOUNT, order::Order, refusal::Refusal};

const SHARDS_MAX: u64 = 10_000;
const ON_DEMAND_SHARDS: u32 = 4;

/// The service.
#[derive(Debug, Default)]
pub(crate) struct Kinesis {
    streams: BTreeMap<String, Stream>,
}

impl Kinesis {
    /// Any call but puts.
    pub(crate) fn call(
        &mut self,
        operation: &str,
        input: &Value,
        now_micros: u64,
        creation_takes: Duration,
    ) -> Result<Value, Refusal> {
        match operation {
            "CreateStream" => self.create_stream(input, now_micros, creation_takes),
            "DeleteStream" => {
                let name = self.of(input)?.name.clone();
                self.streams.remove(&name);
                Ok(Value::Null)
            }
            "ListStreams" => {
                let names: Vec<_> = self.streams.keys().collect();
                Ok(json!({ "StreamNames": names, "HasMoreStreams": false }))
            }
            "DescribeStreamSummary" => {
                Ok(json!({ "StreamDescriptionSummary": self.of(input)?.summary(now_micros) }))
            }
            "DescribeStream" => self.describe_stream(input, now_micros),
            "ListShards" => self.list_shards(input),
            "GetShardIterator" => self.get_shard_iterator(input, now_micros),
            "GetRecords" => self.get_records(input, now_micros),
            "SplitShard" => {
                let shard = member(input, "ShardToSplit")?.to_owned();
                let at = member(input, "NewStartingHashKey")?.parse().map_err(|_| {
                    Refusal::validation("Value at 'newStartingHashKey' failed to satisfy constraint: Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38})")
                })?;
                let stream = self.of_mut(input)?;
                stream.split(&shard, at, now_micros).map(|()| Value::Null)
            }
            "MergeShards" => {
                let one = member(input, "ShardToMerge")?.to_owned();
                let other = member(input, "AdjacentShardToMerge")?.to_owned();
                let stream = self.of_mut(input)?;
                stream.merge(&one, &other, now_micros).map(|()| Value::Null)
            }
            "UpdateMaxRecordSize" => {
                let bytes = record_bytes(input)?;
                self.of_mut(input)?.record_bytes_max = bytes;
                Ok(Value::Null)
            }
            _ => Err(Refusal::bad("UnknownOperationException", "")),
        }
    }

    /// Makes a stream, or leaves the one that there is.
    pub(crate) fn ensure(&mut self, name: &str, shards: u32, now_micros: u64) {
        if !self.streams.contains_key(name) {
            let stream = Stream::new(name, shards, now_micros, Duration::ZERO);
            self.streams.insert(name.to_owned(), stream);
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.streams.remove(name);
    }

    pub(crate) fn records(&self, name: &str) -> Vec<Record> {
        let stream = self.streams.get(name);
        stream.map_or_else(Vec::new, |stream| stream.log().cloned().collect())
    }

    pub(crate) fn order(&self, name: &str) -> Order {
        let stream = self.streams.get(name);
        stream
            .map(|stream| stream.order.clone())
            .unwrap_or_default()
    }

    pub(crate) fn shards(&self, name: &str) -> Vec<ShardInfo> {
        let stream = self.streams.get(name);
        stream.map_or_else(Vec::new, |stream| {
            stream.shards.iter().map(|s| s.info.clone()).collect()
        })
    }

    fn get(&self, name: &str) -> Result<&Stream, Refusal> {
        self.streams.get(name).ok_or_else(|| not_found(name))
    }

    /// The stream that a request names.
    fn of(&self, input: &Value) -> Result<&Stream, Refusal> {
        self.get(&name_in(input)?)
    }

    fn of_mut(&mut self, input: &Value) -> Result<&mut Stream, Refusal> {
        let name = name_in(input)?;
        self.streams.get_mut(&*name).ok_or_else(|| not_found(&name))
    }

    /// The stream, if it takes records.
    fn writable(&mut self, name: &str, now_micros: u64) -> Result<&mut Stream, Refusal> {
        let stream = self.streams.get_mut(name).ok_or_else(|| not_found(name))?;
        if now_micros < stream.active_micros {
            // A stream that is being made is not there for producers.
            return Err(not_found(name));
        }
        Ok(stream)
    }

    fn create_stream(
        &mut self,
        input: &Value,
        now: u64,
        takes: Duration,
    ) -> Result<Value, Refusal> {
        let name = member(input, "StreamName")?;
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !(1..=128).contains(&name.len()) || !name.chars().all(is_allowed) {
            return Err(Refusal::validation(format!(
                "Value '{name}' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
            )));
        }
        if self.streams.contains_key(name) {
            return Err(Refusal::bad(
                "ResourceInUseException",
                format!("Stream {name} under account {ACCOUNT} already exists."),
            ));
        }
        let on_demand = input["StreamModeDetails"]["StreamMode"] == "ON_DEMAND";
        let shards = match number(input, "ShardCount") {
            None if on_demand => u64::from(ON_DEMAND_SHARDS),
            None => {
                return Err(Refusal::validation(
                    "Value null at 'shardCount' failed to satisfy constraint: Member must not be null",
                ));
            }
            Some(0) => {
                return Err(Refusal::validation(
                    "Value '0' at 'shardCount' failed to satisfy constraint: Member must have value greater than or equal to 1",
                ));
            }
            Some(count) => count,
        };
        if shards > SHARDS_MAX {
            return Err(Refusal::bad(
                "LimitExceededException",
                format!("This request would exceed the shard limit for the account {ACCOUNT}."),
            ));
        }
        let shards = u32::try_from(shards).expect("compared above");
        let mut stream = Stream::new(name, shards, now, takes);
        stream.on_demand = on_demand;
        if input
            .get("MaxRecordSizeInKiB")
            .is_some_and(|v| !v.is_null())
        {
            stream.record_bytes_max = record_bytes(input)?;
        }
        self.streams.insert(name.to_owned(), stream);
        Ok(Value::Null)
    }

    fn describe_stream(&self, input: &Value, now_micros: u64) -> Result<Value, Refusal> {
        let stream = self.of(input)?;
        let mut description = stream.summary(now_micros);
        let mut shards = stream.shards.iter();
        if let Some(after) = input["ExclusiveStartShardId"].as_str() {
            shards = stream.shards[stream.position(after)? + 1..].iter();
        }
        let limit = number(input, "Limit").unwrap_or(100);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = shards.len() > limit;
        let shards: Vec<_> = shards.take(limit).map(stream::Shard::to_json).collect();
        description["Shards"] = shards.into();
        description["HasMoreShards"] = has_more.into();
        Ok(json!({ "StreamDescription": description }))
    }

    fn list_shards(&self, input: &Value) -> Result<Value, Refusal> {
        let (stream, mut from) = match input["NextToken"].as_str() {
            Some(token) => {
                let invalid = || Refusal::argument("NextToken is invalid");
                let text = BASE64_STANDARD.decode(token).ok();
                let text = text.and_then(|text| String::from_utf8(text).ok());
                let text = text.ok_or_else(invalid)?;
                let (name, from) = text.split_once('\n').ok_or_else(invalid)?;
                (self.get(name)?, from.parse().map_err(|_| invalid())?)
            }
            None => (self.of(input)?, 0),
        };
        if let Some(after) = input["ExclusiveStartShardId"].as_str() {
            from = stream.position(after)? + 1;
        }
        let filter = &input["ShardFilter"];
        if filter["Type"] == "AFTER_SHARD_ID" {
            from = stream.position(member(filter, "ShardId")?)? + 1;
        }
        let only_open = filter["Type"] == "AT_LATEST";
        let most = number(input, "MaxResults").unwrap_or(1000);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let (mut shards, mut at) = (Vec::new(), from);
        while at < stream.shards.len() && shards.len() < most {
            let shard = &stream.shards[at];
            if shard.info.open || !only_open {
                shards.push(shard.to_json());
            }
            at += 1;
        }
        let mut answer = json!({ "Shards": shards });
        if at < stream.shards.len() {
            let token = BASE64_STANDARD.encode(format!("{}\n{at}", stream.name));
            answer["NextToken"] = token.into();
        }
        Ok(answer)
    }
}

impl Stream {
    fn summary(&self, now_micros: u64) -> Value {
        let status = match now_micros < self.active_micros {
            true => "CREATING",
            false => "ACTIVE",
        };
        let mode = match self.on_demand {
            true => "ON_DEMAND",
            false => "PROVISIONED",
        };
        json!({
            "StreamName": self.name,
            "StreamARN": format!("arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{}", self.name),
            "StreamStatus": status,
            "StreamModeDetails": { "StreamMode": mode },
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": seconds(self.created_micros),
            "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
            "EncryptionType": "NONE",
            "OpenShardCount": self.open_shards(),
            "ConsumerCount": 0,
            "MaxRecordSizeInKiB": self.record_bytes_max / 1024,
        })
    }

    fn children(&self, parent: &str) -> Value {
        let is_child = |shard: &&stream::Shard| {
            let parents = [&shard.info.parent, &shard.info.adjacent_parent];
            parents.into_iter().flatten().any(|id| **id == *parent)
        };
        let child = |shard: &stream::Shard| {
            let parents = [&shard.info.parent, &shard.info.adjacent_parent];
            let parents: Vec<_> = parents
                .into_iter()
                .flatten()
                .map(|id| id.to_string())
                .collect();
            json!({
                "ShardId": *shard.info.id,
                "ParentShards": parents,
                "HashKeyRange": shard.hash_key_range(),
            })
        };
        self.shards.iter().filter(is_child).map(child).collect()
    }
}

impl stream::Shard {
    fn hash_key_range(&self) -> Value {
        json!({
            "StartingHashKey": self.info.start.to_string(),
            "EndingHashKey": self.info.end.to_string(),
        })
    }

    fn to_json(&self) -> Value {
        let mut range = json!({ "StartingSequenceNumber": self.first_number() });
        if !self.info.open {
            range["EndingSequenceNumber"] = self.latest_number().into();
        }
        let mut shard = json!({
            "ShardId": *self.info.id,
            "HashKeyRange": self.hash_key_range(),
            "SequenceNumberRange": range,
        });
        if let Some(parent) = &self.info.parent {
            shard["ParentShardId"] = parent.to_string().into();
        }
        if let Some(parent) = &self.info.adjacent_parent {
            shard["AdjacentParentShardId"] = parent.to_string().into();
        }
        shard
    }
}

fn not_found(name: &str) -> Refusal {
    Refusal::bad(
        "ResourceNotFoundException",
        format!("Stream {name} under account {ACCOUNT} not found."),
    )
}

/// A stream's name, from itself or from its ARN.
fn named<'a>(
    name: Option<Cow<'a, str>>,
    arn: Option<Cow<'a, str>>,
) -> Result<Cow<'a, str>, Refusal> {
    if let Some(name) = name {
        return Ok(name);
    }
    let missing = || Refusal::argument("Either StreamName or StreamARN must be provided.");
    let arn = arn.ok_or_else(missing)?;
    let (_, name) = arn.split_once(":stream/").ok_or_else(missing)?;
    Ok(name.to_owned().into())
}

fn name_in(input: &Value) -> Result<Cow<'_, str>, Refusal> {
    let text = |member: &str| input[member].as_str().map(Cow::Borrowed);
    named(text("StreamName"), text("StreamARN"))
}

fn record_bytes(input: &Value) -> Result<usize, Refusal> {
    let kib = number(input, "MaxRecordSizeInKiB").and_then(|kib| usize::try_from(kib).ok());
    kib.map(|kib| kib.saturating_mul(1024))
        .filter(|bytes| (1 << 20..=RECORD_BYTES_MAX).contains(bytes))
        .ok_or_else(|| Refusal::validation("Value at 'maxRecordSizeInKiB' failed to satisfy constraint: Member must have value from 1024 to 10240"))
}

/// A text that must be there.
fn member<'a>(input: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    input[name].as_str().ok_or_else(|| {
        let mut letters = name.chars();
        let first: String = letters
            .next()
            .into_iter()
            .flat_map(char::to_lowercase)
            .collect();
        let name = first + letters.as_str();
        Refusal::validation(format!(
            "Value null at '{name}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

fn number(input: &Value, name: &str) -> Option<u64> {
    input[name].as_u64()
}

/// As JSON has timestamps.
fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}
