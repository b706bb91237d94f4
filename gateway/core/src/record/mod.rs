//! The durable form of what goes upstream.

use std::sync::Arc;

use bytes::Bytes;

/// Which contract a record follows; also its lane of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `portcullis.event/1`.
    Event,
    /// `portcullis.violation/1`.
    Violation,
}

/// What is to be appended: everything but the sequence number, which the buffer gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Which contract it follows.
    pub kind: Kind,
    /// Partition key upstream: the thing's name, else the client id.
    pub partition_key: Arc<str>,
    /// The members of the JSON object **after** `schema`, `gateway_id`, `boot_id` and `seq`,
    /// without braces, never empty: `"event_id":"…","received_at":"…",…`.
    pub members: Bytes,
}

/// A draft with its place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Grows by one per gateway and stream, across restarts, from 1.
    pub seq: u64,
    /// See [`Draft::kind`].
    pub kind: Kind,
    /// See [`Draft::partition_key`].
    pub partition_key: Arc<str>,
    /// The whole JSON object as it goes upstream.
    pub body: Bytes,
}
