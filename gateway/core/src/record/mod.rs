//! The durable form of what goes upstream.
//!
//! [`event_draft`] builds the JSON members of an accepted publish, the buffer gives the sequence
//! number and [`Record::new`] closes the object; [`Record::encode`] and [`Record::decode`] are the
//! binary form in the buffer, with a checksum of its own because the engine below is not trusted
//! to notice damage. Nothing here reads a clock, makes an id or knows where records are kept.

use std::sync::Arc;

use bytes::Bytes;

mod codec;
mod event;
mod json;

pub use codec::DecodeError;
pub use event::{Clock, Shaped, event_draft};

/// Which contract a record follows; also its lane of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `portcullis.event/1`.
    Event,
    /// `portcullis.violation/1`.
    Violation,
}

impl Kind {
    /// The `schema` member.
    pub const fn schema(self) -> &'static str {
        match self {
            Self::Event => "portcullis.event/1",
            Self::Violation => "portcullis.violation/1",
        }
    }
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

impl Record {
    /// Closes the JSON object: `schema`, `gateway_id`, `boot_id`, `seq`, then the draft's members.
    pub fn new(draft: &Draft, seq: u64, gateway_id: &str, boot_id: &str) -> Self {
        let mut body = Vec::with_capacity(
            draft.members.len() + gateway_id.len() + boot_id.len() + ENVELOPE_BYTES,
        );
        body.extend_from_slice(b"{\"schema\":");
        json::push_string(&mut body, draft.kind.schema());
        body.extend_from_slice(b",\"gateway_id\":");
        json::push_string(&mut body, gateway_id);
        body.extend_from_slice(b",\"boot_id\":");
        json::push_string(&mut body, boot_id);
        body.extend_from_slice(b",\"seq\":");
        body.extend_from_slice(seq.to_string().as_bytes());
        body.push(b',');
        body.extend_from_slice(&draft.members);
        body.push(b'}');
        Self {
            seq,
            kind: draft.kind,
            partition_key: draft.partition_key.clone(),
            body: body.into(),
        }
    }

    /// What the limits of a request count: the body and the partition key (specification D.1).
    pub fn wire_bytes(&self) -> usize {
        self.body.len() + self.partition_key.len()
    }
}

/// The names of the first four members with their punctuation, and a sequence number.
const ENVELOPE_BYTES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_comes_first_and_the_body_is_one_json_object() {
        let draft = Draft {
            kind: Kind::Violation,
            partition_key: "sensor-7".into(),
            members: Bytes::from_static(b"\"event_id\":\"e\",\"n\":1"),
        };
        let record = Record::new(&draft, 4711, "gw \"1\"", "b-1");
        assert_eq!(
            std::str::from_utf8(&record.body).unwrap(),
            r#"{"schema":"portcullis.violation/1","gateway_id":"gw \"1\"","boot_id":"b-1","seq":4711,"event_id":"e","n":1}"#
        );
        assert_eq!(record.wire_bytes(), record.body.len() + 8);
    }
}
