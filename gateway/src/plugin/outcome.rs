//! What a rule decided about a batch, checked.

use bytes::Bytes;
use portcullis_core::{detect::Severity, topic::TopicName};

/// The answer to one batch. Indices are those of the batch and in range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What happens to each event: as many as the batch has.
    pub verdicts: Vec<Verdict>,
    /// Further messages, in the order in which they are to be sent.
    pub emissions: Vec<Emission>,
    /// What an operator should know.
    pub violations: Vec<Violation>,
}

/// What happens to one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, changed or not: see [`PluginEvent::apply`](super::PluginEvent::apply).
    Keep(Changes),
    /// It goes no further.
    Drop {
        /// One word of lower-case letters, digits and `-`.
        reason: String,
    },
}

/// What a rule changed about an event; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The new payload.
    pub payload: Option<Bytes>,
    /// Tags to set, in order.
    pub tags: Vec<(String, String)>,
}

impl Changes {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.payload.is_none() && self.tags.is_empty()
    }
}

/// A further message, under the name of the device of event `after`, on a topic that the
/// operator granted to the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// The event after which it comes.
    pub after: usize,
    /// Where to.
    pub topic: TopicName,
    /// What.
    pub payload: Bytes,
}

/// Something worth telling an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The event that gave rise to it.
    pub event: usize,
    /// Name of the rule: `[a-zA-Z0-9:_-]`, as AWS's behavior names.
    pub rule: String,
    /// How urgent.
    pub severity: Severity,
    /// One sentence for a person.
    pub message: String,
    /// Measured value or anomaly score; finite.
    pub value: Option<f64>,
    /// Further facts.
    pub labels: Vec<(String, String)>,
}
