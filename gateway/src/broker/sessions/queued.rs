//! What waits for a client, and how it asked for it.

use std::sync::Arc;

use smallvec::SmallVec;

use portcullis_core::{event::Qos, timestamp::Timestamp, topic::Subscribed};

use crate::broker::message::Message;

/// How a filter is subscribed to (MQTT 5.0, 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Options {
    pub(in crate::broker) qos: Qos,
    pub(in crate::broker) no_local: bool,
    pub(in crate::broker) retain_as_published: bool,
    pub(in crate::broker) identifier: Option<u32>,
}

/// A message for the client of one session.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Queued {
    pub(in crate::broker) message: Arc<Message>,
    /// Its number in the log.
    pub(super) id: u64,
    /// RETAIN as it is to be delivered.
    pub(in crate::broker) retain: bool,
    /// The subscriptions that it came for, and their identifiers.
    pub(in crate::broker) subscribed: SmallVec<[Arc<Subscribed>; 1]>,
    pub(in crate::broker) identifiers: Vec<u32>,
}

impl Options {
    /// Whether No Local keeps a message from the session of this number: it is the one that published it
    /// (MQTT 5.0, 3.8.3.1).
    pub(in crate::broker) fn excludes(&self, publisher: u64, number: u64) -> bool {
        self.no_local && publisher == number
    }
}

impl Queued {
    /// Those as they are written.
    pub(super) fn filters(&self) -> Vec<String> {
        self.subscribed
            .iter()
            .map(|subscribed| subscribed.to_string())
            .collect()
    }
}

/// What goes to the client next.
#[derive(Debug)]
pub(in crate::broker) enum Outbound {
    Publish {
        /// 0 at QoS 0.
        pkid: u16,
        number: u64,
        dup: bool,
        qos: Qos,
        queued: Queued,
    },
    Release {
        pkid: u16,
    },
}

/// A will that waits for its delay to pass (MQTT 5.0, 3.1.3.2.2).
#[derive(Clone, Debug)]
pub(super) struct DelayedWill {
    pub(super) message: Arc<Message>,
    pub(super) due: Timestamp,
}
