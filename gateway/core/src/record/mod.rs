//! The durable form of what goes upstream.
//!
//! [`event_draft`] builds the JSON members of an accepted publish, the buffer gives the sequence
//! number and [`Envelope`] closes the object; [`Record::encode`] and [`Record::decode`] are the
//! binary form in the buffer, with a checksum of its own because the engine below is not trusted
//! to notice damage. Nothing here reads a clock, makes an id or knows where records are kept.

use std::sync::Arc;

use bytes::Bytes;

use crate::limits::SINKS_MAX;

mod codec;
mod event;
mod json;
mod settled;

pub use codec::DecodeError;
pub use event::{Clock, Shaped, event_draft};
pub use settled::{Part, Tally};

/// A part of the buffer with bounds and a policy of its own, in order of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// What must not be missed: violations, findings, mitigations, the ledger.
    Critical,
    /// What devices publish.
    Events,
    /// What is nice to have: metrics and logs.
    Bulk,
}

impl Lane {
    /// Highest priority first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Events, Self::Bulk];

    /// Its name in settings, metrics and on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Events => "events",
            Self::Bulk => "bulk",
        }
    }
}

/// Which contract a record follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `portcullis.event/1`.
    Event,
    /// `portcullis.violation/1`.
    Violation,
    /// `portcullis.finding/1`.
    Finding,
    /// `portcullis.mitigation/1`.
    Mitigation,
    /// `portcullis.ledger/1`.
    Ledger,
    /// `portcullis.metric/1`.
    Metric,
    /// `portcullis.log/1`.
    Log,
}

impl Kind {
    /// In the order of their numbers on disk.
    pub const ALL: [Self; 7] = [
        Self::Event,
        Self::Violation,
        Self::Finding,
        Self::Mitigation,
        Self::Ledger,
        Self::Metric,
        Self::Log,
    ];

    /// The `schema` member.
    pub const fn schema(self) -> &'static str {
        match self {
            Self::Event => "portcullis.event/1",
            Self::Violation => "portcullis.violation/1",
            Self::Finding => "portcullis.finding/1",
            Self::Mitigation => "portcullis.mitigation/1",
            Self::Ledger => "portcullis.ledger/1",
            Self::Metric => "portcullis.metric/1",
            Self::Log => "portcullis.log/1",
        }
    }

    /// Where the buffer keeps it.
    pub const fn lane(self) -> Lane {
        match self {
            Self::Violation | Self::Finding | Self::Mitigation | Self::Ledger => Lane::Critical,
            Self::Event => Lane::Events,
            Self::Metric | Self::Log => Lane::Bulk,
        }
    }
}

/// For which sinks: bit n is the nth sink of the table that the buffer was opened with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SinkSet(u32);

impl SinkSet {
    /// For nobody.
    pub const EMPTY: Self = Self(0);
    /// For everybody, whoever there is.
    pub const ALL: Self = Self(u32::MAX);

    /// For one. Panics from `SINKS_MAX` on, which settings exclude.
    pub const fn single(index: usize) -> Self {
        assert!(index < SINKS_MAX, "there are no more sinks than bits");
        Self(1 << index)
    }

    /// Whether it is for this one.
    pub const fn contains(self, index: usize) -> bool {
        index < SINKS_MAX && self.0 & (1 << index) != 0
    }

    /// For this one too. Panics as [`SinkSet::single`] does.
    pub const fn insert(&mut self, index: usize) {
        self.0 |= Self::single(index).0;
    }

    /// For all of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is for nobody.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As it is stored.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From what was stored.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// What is to be appended: everything but the numbers, which the buffer gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Which contract it follows.
    pub kind: Kind,
    /// Partition key upstream: the thing's name, else the client id.
    pub partition_key: Arc<str>,
    /// The members of the JSON object **after** `schema`, `gateway_id`, `boot_id` and `seq`,
    /// without braces, never empty: `"event_id":"…","received_at":"…",…`.
    pub members: Bytes,
    /// Who is to have it.
    pub sinks: SinkSet,
}

/// A draft with its place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What goes upstream: grows by one per gateway over all lanes, across restarts, from 1.
    pub seq: u64,
    /// Its place in its lane: grows by one in the lane. What cursors count.
    pub place: u64,
    /// See [`Draft::kind`].
    pub kind: Kind,
    /// See [`Draft::sinks`].
    pub sinks: SinkSet,
    /// When it was committed, in milliseconds of Unix time; for age bounds. 0: unknown.
    pub at_millis: u64,
    /// See [`Draft::partition_key`].
    pub partition_key: Arc<str>,
    /// The whole JSON object as it goes upstream.
    pub body: Bytes,
}

/// What stands before the number in every record of one run of the gateway: `schema`, `gateway_id`,
/// `boot_id`.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// In the order of [`Kind::ALL`].
    prefixes: [Box<[u8]>; Kind::ALL.len()],
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
            prefixes: Kind::ALL.map(of),
        }
    }

    /// Closes the JSON objects of drafts of one lane, numbered from `first_seq` and `first_place` on.
    /// Their bodies stand in one buffer, which is there until the last of them is dropped.
    pub fn close<'a>(
        &self,
        drafts: impl Iterator<Item = &'a Draft> + Clone,
        first_seq: u64,
        first_place: u64,
        at_millis: u64,
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
            .zip(first_place..)
            .zip(drafts.zip(ends))
            .map(|((seq, place), (draft, end))| Record {
                seq,
                place,
                kind: draft.kind,
                sinks: draft.sinks,
                at_millis,
                partition_key: draft.partition_key.clone(),
                body: bodies.split_to(end - std::mem::replace(&mut start, end)),
            })
            .collect()
    }

    fn prefix(&self, kind: Kind) -> &[u8] {
        &self.prefixes[codec::number(kind)]
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
    /// Closes the JSON object of one draft, as if its lane were the only one; see [`Envelope`].
    pub fn new(draft: &Draft, seq: u64, gateway_id: &str, boot_id: &str) -> Self {
        let envelope = Envelope::new(gateway_id, boot_id);
        let mut records = envelope.close([draft].into_iter(), seq, seq, 0);
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
            sinks: SinkSet::ALL,
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
            sinks: SinkSet::single(3),
        };
        let drafts = [
            draft(Kind::Event, "\"a\":1"),
            draft(Kind::Violation, "\"b\":{}"),
            draft(Kind::Event, "\"c\":\"\""),
        ];
        for first_seq in [1, 8, 99, u64::MAX - 9] {
            let together = Envelope::new("g", "b").close(drafts.iter(), first_seq, first_seq, 0);
            let alone: Vec<_> = (first_seq..=u64::MAX)
                .zip(&drafts)
                .map(|(seq, draft)| Record::new(draft, seq, "g", "b"))
                .collect();
            assert_eq!(together, alone);
        }
    }

    #[test]
    fn places_count_in_the_lane_and_the_commit_gives_the_time() {
        let draft = Draft {
            kind: Kind::Metric,
            partition_key: "gw".into(),
            members: Bytes::from_static(b"\"n\":1"),
            sinks: SinkSet::single(2),
        };
        let records = Envelope::new("g", "b").close([&draft, &draft].into_iter(), 70, 5, 1234);
        let seen: Vec<_> = records
            .iter()
            .map(|r| (r.seq, r.place, r.at_millis, r.sinks))
            .collect();
        let sinks = SinkSet::single(2);
        assert_eq!(seen, [(70, 5, 1234, sinks), (71, 6, 1234, sinks)]);
    }

    #[test]
    fn a_set_holds_the_sinks_that_were_put_in() {
        let mut set = SinkSet::EMPTY;
        assert!(set.is_empty());
        set.insert(0);
        set.insert(31);
        assert_eq!(set, SinkSet::single(0).union(SinkSet::single(31)));
        assert_eq!(SinkSet::from_bits(set.bits()), set);
        for index in 0..100 {
            assert_eq!(set.contains(index), index == 0 || index == 31);
            assert_eq!(SinkSet::ALL.contains(index), index < SINKS_MAX);
        }
    }

    #[test]
    fn every_kind_has_a_schema_and_a_lane_of_its_own_or_shared() {
        let critical = [
            Kind::Violation,
            Kind::Finding,
            Kind::Mitigation,
            Kind::Ledger,
        ];
        for kind in Kind::ALL {
            assert_eq!(kind.lane() == Lane::Critical, critical.contains(&kind));
            let prefix = Envelope::new("g", "b").prefix(kind).to_vec();
            let schema = format!("{{\"schema\":\"{}\"", kind.schema());
            assert!(prefix.starts_with(schema.as_bytes()));
        }
        assert_eq!(Kind::Event.lane(), Lane::Events);
        assert!(Lane::ALL.is_sorted());
        assert_eq!(Lane::ALL.map(Lane::name), ["critical", "events", "bulk"]);
    }
}
