//! What the cloud counts, and what it remembers of requests.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests whose head was read.
    pub requests: u64,
    /// Requests by operation.
    pub operations: BTreeMap<String, u64>,
    /// Records that were taken, duplicates too.
    pub records: u64,
    /// Their data and keys.
    pub record_bytes: u64,
    /// Records that failed in an answer of 200.
    pub records_failed: u64,
    /// Of these, for a shard's limits.
    pub records_over_limit: u64,
    /// Data points of metrics.
    pub datums: u64,
    /// Log events that were taken.
    pub log_events: u64,
    /// Log events that were too new, too old or expired.
    pub log_events_rejected: u64,
    /// Refused requests by the error's name.
    pub refused: BTreeMap<String, u64>,
    /// Requests that took effect, and whose answer was not sent, or not whole.
    pub replies_lost: u64,
    /// Requests that were cut off before they took effect.
    pub cut_before: u64,
    /// Requests that got no answer, ever.
    pub stalled: u64,
}

/// A request, as it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// From 1, in the order in which heads were read.
    pub number: u64,
    /// `PutRecords`.
    pub operation: String,
    /// The stream, the namespace, or the log group and stream with `:` between.
    pub target: String,
    /// When its head was read, in Unix time by the cloud's clock.
    pub at_millis: u64,
    /// As it came over the wire.
    pub body_bytes: usize,
    /// What it tried to put into a stream: partition key and data. With [`crate::Keep::None`] none.
    pub records: Vec<(String, Bytes)>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200.
    Done {
        /// Records that failed.
        failed: usize,
        /// Whether the answer was sent whole.
        answered: bool,
    },
    /// Another status, with the error's name.
    Refused {
        /// HTTP.
        status: u16,
        /// `ValidationException`.
        code: String,
    },
    /// The connection was closed, reset or left hanging before anything took effect.
    Cut,
}

impl Counters {
    /// For people.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "connections": self.connections,
            "requests": self.requests,
            "operations": self.operations,
            "records": self.records,
            "recordBytes": self.record_bytes,
            "recordsFailed": self.records_failed,
            "recordsOverLimit": self.records_over_limit,
            "datums": self.datums,
            "logEvents": self.log_events,
            "logEventsRejected": self.log_events_rejected,
            "refused": self.refused,
            "repliesLost": self.replies_lost,
            "cutBefore": self.cut_before,
            "stalled": self.stalled,
        })
    }
}
