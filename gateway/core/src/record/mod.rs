//! The durable form of what goes upstream.
//!
//! [`event_draft`] builds the JSON members of an accepted publish, the buffer gives the sequence
//! number and [`Envelope`] closes the object; [`Record::encode`] and [`Record::decode`] are the
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

/// What stands before the number in every record of one run of the gateway: `schema`, `gateway_id`,
/// `boot_id`.
#[derive(Clone, Debug)]
pub struct Envelope {
    event: Box<[u8]>,
    violation: Box<[u8]>,
}

impl Envelope {
    /// Written once, for all records.
    pub fn new(gateway_id: &str, boot_id: &str) -> Self {
        let of = |kind: Kind| {
            let mut out = b"{\"schema\":".to_vec();
            json::push_string(&mut out, kind.schema());
            out.extend_from_slice(b",\"gateway_id\":");
            json::push_string(&mut out, gateway_id);
            out.extend_from_slice(b",\"boot_id\":");
            json::push_string(&mut out, boot_id);
            out.extend_from_slice(b",\"seq\":");
            out.into()
        };
        Self {
            event: of(Kind::Event),
            violation: of(Kind::Violation),
        }
    }

    /// Closes the JSON objects of drafts, numbered from `first_seq` on. Their bodies stand in one
    /// buffer, which is there until the last of them is dropped.
    pub fn close<'a>(
        &self,
        drafts: impl Iterator<Item = &'a Draft> + Clone,
        first_seq: u64,
    ) -> Vec<Record> {
        let (mut count, mut bytes) = (0, 0);
        for draft in drafts.clone() {
            count += 1;
            bytes += self.prefix(draft.kind).len() + SEQ_DIGITS_MAX + 2 + draft.members.len();
        }
        let mut bodies = Vec::with_capacity(bytes);
        let mut ends = Vec::with_capacity(count);
        for (seq, draft) in (first_seq..).zip(drafts.clone()) {
            bodies.extend_from_slice(self.prefix(draft.kind));
            push_number(&mut bodies, seq);
            bodies.push(b',');
            bodies.extend_from_slice(&draft.members);
            bodies.push(b'}');
            ends.push(bodies.len());
        }
        let mut bodies = Bytes::from(bodies);
        let mut start = 0;
        (first_seq..)
            .zip(drafts.zip(ends))
            .map(|(seq, (draft, end))| Record {
                seq,
                kind: draft.kind,
                partition_key: draft.partition_key.clone(),
                body: bodies.split_to(end - std::mem::replace(&mut start, end)),
            })
            .collect()
    }

    fn prefix(&self, kind: Kind) -> &[u8] {
        match kind {
            Kind::Event => &self.event,
            Kind::Violation => &self.violation,
        }
    }
}

/// Digits of the largest number.
const SEQ_DIGITS_MAX: usize = 20;

fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; SEQ_DIGITS_MAX];
    let (mut at, mut rest) = (SEQ_DIGITS_MAX, number);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

impl Record {
    /// Closes the JSON object of one draft; see [`Envelope`].
    pub fn new(draft: &Draft, seq: u64, gateway_id: &str, boot_id: &str) -> Self {
        let mut records = Envelope::new(gateway_id, boot_id).close([draft].into_iter(), seq);
        records.pop().expect("a draft makes a record")
    }

    /// What the limits of a request count: the body and the partition key (specification D.1).
    pub fn wire_bytes(&self) -> usize {
        self.body.len() + self.partition_key.len()
    }
}

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

    #[test]
    fn records_that_share_a_buffer_are_those_made_one_by_one() {
        let draft = |kind, members: &'static str| Draft {
            kind,
            partition_key: "d".into(),
            members: Bytes::from_static(members.as_bytes()),
        };
        let drafts = [
            draft(Kind::Event, "\"a\":1"),
            draft(Kind::Violation, "\"b\":{}"),
            draft(Kind::Event, "\"c\":\"\""),
        ];
        for first_seq in [1, 8, 99, u64::MAX - 9] {
            let together = Envelope::new("g", "b").close(drafts.iter(), first_seq);
            let alone: Vec<_> = (first_seq..=u64::MAX)
                .zip(&drafts)
                .map(|(seq, draft)| Record::new(draft, seq, "g", "b"))
                .collect();
            assert_eq!(together, alone);
        }
    }
}
