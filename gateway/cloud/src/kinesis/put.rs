//! `PutRecords` and `PutRecord`: what is in the request, and taking it.
//!
//! Strings of the body are borrowed where JSON allows it, data of all records are decoded into one
//! allocation, and nothing of that happens while the cloud is locked.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use md5::{Digest, Md5};
use serde::Deserialize;

use super::{
    Kinesis,
    stream::{RECORD_BYTES_MAX, Record},
};
use crate::{
    ACCOUNT,
    counters::Counters,
    fault::{Course, THROUGHPUT},
    refusal::Refusal,
    settings::{Keep, Seen, Settings},
};

const RECORDS_MAX: usize = 500;
const REQUEST_BYTES_MAX: usize = 10 << 20;
const KEY_CHARS_MAX: usize = 256;

/// Borrowed from the body unless it has escapes.
#[derive(Debug, Default, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecords<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    dry_run: Option<bool>,
    #[serde(borrow)]
    records: Option<Vec<Tried<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tried<'a> {
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    partition_key: Option<Text<'a>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecord<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    partition_key: Option<Text<'a>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Text<'a>>,
}

/// A request that is as its model says.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) stream: Cow<'a, str>,
    is_single: bool,
    is_dry: bool,
    entries: Vec<Entry<'a>>,
    data: Bytes,
}

#[derive(Debug)]
struct Entry<'a> {
    key: Cow<'a, str>,
    hash: u128,
    is_explicit: bool,
    /// Where its data are; nowhere if they were not decoded.
    from: usize,
    to: usize,
    /// Data and key.
    bytes: usize,
}

impl<'a> Batch<'a> {
    /// Reads the body; without `decode`, it looks at the size of data only.
    pub(crate) fn parse(operation: &str, body: &'a [u8], decode: bool) -> Result<Self, Refusal> {
        let malformed =
            |_| Refusal::serialization("Start of structure or map found where not expected.");
        let is_single = operation == "PutRecord";
        let request = if is_single {
            let one: PutRecord<'_> = serde_json::from_slice(body).map_err(malformed)?;
            PutRecords {
                stream_name: one.stream_name,
                stream_arn: one.stream_arn,
                dry_run: None,
                records: Some(vec![Tried {
                    data: one.data,
                    partition_key: one.partition_key,
                    explicit_hash_key: one.explicit_hash_key,
                }]),
            }
        } else {
            serde_json::from_slice(body).map_err(malformed)?
        };
        let name = request.stream_name.map(|text| text.0);
        let stream = super::named(name, request.stream_arn.map(|text| text.0))?;
        let tried = request.records.ok_or_else(|| null("records"))?;
        if tried.is_empty() || tried.len() > RECORDS_MAX {
            let bound = match tried.is_empty() {
                true => "greater than or equal to 1",
                false => "less than or equal to 500",
            };
            return Err(Refusal::validation(format!(
                "Value '[...]' at 'records' failed to satisfy constraint: Member must have length {bound}"
            )));
        }
        let mut batch = Self {
            stream,
            is_single,
            is_dry: request.dry_run == Some(true),
            entries: Vec::with_capacity(tried.len()),
            data: Bytes::new(),
        };
        let mut data = Vec::with_capacity(if decode { body.len() / 4 * 3 } else { 0 });
        for (at, record) in tried.into_iter().enumerate() {
            let place = || match is_single {
                true => String::new(),
                false => format!("records.{}.member.", at + 1),
            };
            batch
                .entries
                .push(entry(record, &place, decode, &mut data)?);
        }
        batch.data = data.into();
        Ok(batch)
    }

    fn data(&self, entry: &Entry<'_>) -> Bytes {
        self.data.slice(entry.from..entry.to)
    }

    /// Partition keys and data.
    pub(crate) fn tried(&self) -> Vec<(String, Bytes)> {
        let entries = self.entries.iter();
        entries
            .map(|entry| (entry.key.clone().into_owned(), self.data(entry)))
            .collect()
    }

    /// Why the script refuses it for what is in it.
    pub(crate) fn poison<'c>(&self, course: &'c Course) -> Option<&'c Refusal> {
        let mut entries = self.entries.iter();
        entries.find_map(|entry| course.refuses(&self.data[entry.from..entry.to]))
    }
}

fn null(place: &str) -> Refusal {
    Refusal::validation(format!(
        "Value null at '{place}' failed to satisfy constraint: Member must not be null"
    ))
}

fn entry<'a>(
    record: Tried<'a>,
    place: &dyn Fn() -> String,
    decode: bool,
    data: &mut Vec<u8>,
) -> Result<Entry<'a>, Refusal> {
    let key = record.partition_key;
    let Text(key) = key.ok_or_else(|| null(&format!("{}partitionKey", place())))?;
    let encoded = record
        .data
        .ok_or_else(|| null(&format!("{}data", place())))?
        .0;
    // Keys of no more bytes have no more characters.
    if key.is_empty() || (key.len() > KEY_CHARS_MAX && key.chars().count() > KEY_CHARS_MAX) {
        let bound = match key.is_empty() {
            true => "greater than or equal to 1",
            false => "less than or equal to 256",
        };
        return Err(Refusal::validation(format!(
            "Value '{key}' at '{}partitionKey' failed to satisfy constraint: Member must have length {bound}",
            place()
        )));
    }
    let from = data.len();
    let data_bytes = if decode {
        let done = BASE64_STANDARD.decode_vec(encoded.as_bytes(), data);
        done.map_err(|_| Refusal::serialization("Unable to decode base64 data"))?;
        data.len() - from
    } else {
        let padding = encoded.bytes().rev().take_while(|b| *b == b'=').count();
        (encoded.len() / 4 * 3).saturating_sub(padding)
    };
    if data_bytes > RECORD_BYTES_MAX {
        return Err(Refusal::validation(format!(
            "Value at '{}data' failed to satisfy constraint: Member must have length less than or equal to {RECORD_BYTES_MAX}",
            place()
        )));
    }
    let explicit = record.explicit_hash_key;
    Ok(Entry {
        hash: match &explicit {
            Some(Text(text)) => explicit_hash(text, place)?,
            None => u128::from_be_bytes(Md5::digest(key.as_bytes()).into()),
        },
        is_explicit: explicit.is_some(),
        bytes: data_bytes + key.len(),
        key,
        from,
        to: data.len(),
    })
}

/// A decimal of 0 to 2^128 - 1 without leading zeros.
fn explicit_hash(text: &str, place: &dyn Fn() -> String) -> Result<u128, Refusal> {
    let digits = (1..=39).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits || (text.starts_with('0') && text != "0") {
        return Err(Refusal::validation(format!(
            "Value '{text}' at '{}explicitHashKey' failed to satisfy constraint: Member must satisfy regular expression pattern: 0|([1-9]\\d{{0,38}})",
            place()
        )));
    }
    text.parse().map_err(|_| {
        Refusal::argument(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })
}

/// What taking a batch needs besides the streams.
#[derive(Debug)]
pub(crate) struct Taking<'a> {
    pub(crate) request: u64,
    pub(crate) now_micros: u64,
    pub(crate) settings: &'a Settings,
    pub(crate) counters: &'a mut Counters,
    pub(crate) course: &'a mut Course,
}

impl Kinesis {
    /// Takes what it can of the batch. The answer, and how many records failed.
    pub(crate) fn put(
        &mut self,
        batch: &Batch<'_>,
        mut taking: Taking<'_>,
    ) -> Result<(String, usize), Refusal> {
        let stream = self.writable(&batch.stream, taking.now_micros)?;
        let mut total = 0;
        for entry in &batch.entries {
            total += entry.bytes;
            if entry.bytes > stream.record_bytes_max {
                return Err(Refusal::argument(format!(
                    "Record of {} bytes exceeds the maximum record size of stream {}, {} bytes",
                    entry.bytes, stream.name, stream.record_bytes_max
                )));
            }
        }
        if total > REQUEST_BYTES_MAX {
            return Err(Refusal::argument("Records size exceeds 10 MB limit"));
        }
        if batch.is_dry {
            return Err(Refusal::bad(
                "DryRunOperationException",
                "Request would have succeeded, but DryRun flag is set.",
            ));
        }
        let mut out = String::with_capacity(batch.entries.len() * 128 + 64);
        out.push_str("{\"Records\":[");
        let mut failed = 0;
        for (at, entry) in batch.entries.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            let shard = stream.shard_of(entry.hash);
            if let Some((code, message)) = taking.fails(stream, shard, at, entry, batch) {
                if batch.is_single {
                    let status = if code == "InternalFailure" { 500 } else { 400 };
                    taking.counters.records_failed += 1;
                    return Err(Refusal::new(status, code, message));
                }
                failed += 1;
                out.push_str("{\"ErrorCode\":\"");
                out.push_str(code);
                out.push_str("\",\"ErrorMessage\":\"");
                out.push_str(&message);
                out.push_str("\"}");
                continue;
            }
            out.push_str("{\"SequenceNumber\":\"");
            let from = out.len();
            stream.shards[shard].number(&mut out);
            taking.take(
                stream,
                shard,
                entry,
                batch,
                out.get(from..).unwrap_or_default(),
            );
            out.push_str(&stream.shards[shard].outcome_end);
        }
        taking.counters.records_failed += u64::try_from(failed).unwrap_or(u64::MAX);
        if batch.is_single {
            let only = out.split_off("{\"Records\":[".len());
            return Ok((only, 0));
        }
        out.push_str("],\"EncryptionType\":\"NONE\",\"FailedRecordCount\":");
        out.push_str(&failed.to_string());
        out.push('}');
        Ok((out, failed))
    }
}

impl Taking<'_> {
    /// Why a record is not taken.
    fn fails(
        &mut self,
        stream: &mut super::stream::Stream,
        shard: usize,
        at: usize,
        entry: &Entry<'_>,
        batch: &Batch<'_>,
    ) -> Option<(&'static str, String)> {
        let rate_exceeded = |shard: &super::stream::Shard, stream: &str| {
            let shard = &shard.info.id;
            format!("Rate exceeded for shard {shard} in stream {stream} under account {ACCOUNT}.")
        };
        if !self.course.spares_records() {
            let data = &batch.data[entry.from..entry.to];
            match self.course.fails(at, data) {
                Some(code) if code == THROUGHPUT => {
                    let message = rate_exceeded(&stream.shards[shard], &stream.name);
                    return Some((code, message));
                }
                Some(code) => return Some((code, "Internal service failure.".to_owned())),
                None => {}
            }
        }
        let limits = self.settings.shard_limits?;
        let into = &mut stream.shards[shard];
        if into.lets_in(limits, self.now_micros, entry.bytes) {
            return None;
        }
        self.counters.records_over_limit += 1;
        Some((THROUGHPUT, rate_exceeded(into, &stream.name)))
    }

    fn take(
        &mut self,
        stream: &mut super::stream::Stream,
        shard: usize,
        entry: &Entry<'_>,
        batch: &Batch<'_>,
        number: &str,
    ) {
        self.counters.records += 1;
        self.counters.record_bytes += u64::try_from(entry.bytes).unwrap_or(u64::MAX);
        stream.shards[shard].info.records += 1;
        if let Some(number_of) = self.settings.numbered {
            let number = number_of(&batch.data[entry.from..entry.to]);
            stream.order.take(&entry.key, number);
        }
        let keep = self.settings.keep;
        if keep == Keep::None && self.settings.observer.is_none() {
            return;
        }
        let record = Record {
            request: self.request,
            shard: stream.shards[shard].info.id.clone(),
            sequence_number: number.to_owned(),
            partition_key: entry.key.clone().into_owned(),
            explicit_hash_key: entry.is_explicit.then_some(entry.hash),
            at_millis: self.now_micros / 1000,
            data: batch.data(entry),
        };
        if let Some(observer) = &self.settings.observer {
            observer.tell(Seen::Record {
                stream: &stream.name,
                record: &record,
            });
        }
        if keep != Keep::None {
            stream.remember(shard, record, keep);
        }
    }
}
