//! Topic aliases (MQTT 5.0, 3.3.2.3.4) of one connection: numbers that stand for topics on the wire
//! and nowhere else. The session sees whole topics, and never an alias.
//!
//! Both directions are bounded by [`TOPIC_ALIASES_MAX`] topics of at most `TOPIC_BYTES_MAX` bytes,
//! whatever the peer would allow.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
};

use bytes::Bytes;
use portcullis_core::limits::{TOPIC_ALIASES_MAX, TOPIC_BYTES_MAX};
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};

use super::DecodeError;

/// A topic that is no longer than this gains nothing by an alias: the property takes three bytes,
/// and may make the length of the properties one byte longer.
const SHORT_TOPIC_BYTES: usize = 4;

/// What the client's aliases stand for.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// As long as the largest alias that was used.
    topics: Vec<Option<Bytes>>,
}

impl Incoming {
    /// Gives the publish its whole topic and takes its alias away.
    pub(super) fn resolve(&mut self, publish: &mut Publish) -> Result<(), DecodeError> {
        let given = publish.properties.as_mut();
        let Some(alias) = given.and_then(|given| given.topic_alias.take()) else {
            return if publish.topic.is_empty() {
                Err(DecodeError::Protocol(
                    "a publish without topic and without topic alias".into(),
                ))
            } else {
                Ok(())
            };
        };
        if publish.properties == Some(PublishProperties::default()) {
            publish.properties = None;
        }
        if alias == 0 || alias > TOPIC_ALIASES_MAX {
            return Err(DecodeError::AliasInvalid(alias));
        }
        let index = usize::from(alias - 1);
        if publish.topic.is_empty() {
            let known = self.topics.get(index).cloned().flatten();
            publish.topic = known.ok_or_else(|| {
                DecodeError::Protocol("a topic alias that stands for nothing".into())
            })?;
        } else if publish.topic.len() <= TOPIC_BYTES_MAX {
            if self.topics.len() <= index {
                self.topics.resize(index + 1, None);
            }
            // A copy: a slice would keep the whole packet in memory.
            self.topics[index] = Some(Bytes::copy_from_slice(&publish.topic));
        }
        // The session ends over a longer topic.
        Ok(())
    }
}

/// How a topic goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// As it is.
    Whole,
    /// With an alias that stands for it from then on, once [`Outgoing::establish`] is told that the
    /// packet could be written.
    New(u16),
    /// As its alias.
    Known(u16),
}

#[derive(Clone, Copy, Debug)]
struct Alias {
    number: u16,
    /// The publish that used it last.
    used: u64,
}

/// What our aliases stand for. A topic gets one while there are some left; when all are taken, the
/// one that was not used for longest goes over to a topic that comes again soon.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    max: u16,
    aliases: HashMap<Bytes, Alias>,
    /// Hashes of topics that lately went out whole. Two topics with the same one cost an alias that
    /// is not worth it, nothing else.
    recent: VecDeque<u64>,
    hasher: RandomState,
    /// Publishes so far.
    count: u64,
}

impl Outgoing {
    /// The client's Topic Alias Maximum.
    pub(super) fn allow(&mut self, max: u16) {
        self.max = max.min(TOPIC_ALIASES_MAX);
    }

    /// Whether the client takes any.
    pub(super) fn is_in_use(&self) -> bool {
        self.max > 0
    }

    pub(super) fn choose(&mut self, topic: &[u8]) -> Choice {
        if self.max == 0 || topic.len() <= SHORT_TOPIC_BYTES || topic.len() > TOPIC_BYTES_MAX {
            return Choice::Whole;
        }
        self.count += 1;
        if let Some(alias) = self.aliases.get_mut(topic) {
            alias.used = self.count;
            return Choice::Known(alias.number);
        }
        if self.aliases.len() < usize::from(self.max) {
            return Choice::New(self.next());
        }
        let hash = self.hasher.hash_one(topic);
        if self.recent.contains(&hash) {
            return Choice::New(self.next());
        }
        if self.recent.len() == usize::from(TOPIC_ALIASES_MAX) {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
        Choice::Whole
    }

    /// From now on `number` stands for `topic`.
    pub(super) fn establish(&mut self, topic: &Bytes, number: u16) {
        self.aliases.retain(|_, alias| alias.number != number);
        let used = self.count;
        self.aliases
            .insert(Bytes::copy_from_slice(topic), Alias { number, used });
    }

    /// The next free number, or the one that was not used for longest.
    fn next(&self) -> u16 {
        match u16::try_from(self.aliases.len()) {
            Ok(taken) if taken < self.max => taken + 1,
            _ => self
                .aliases
                .values()
                .min_by_key(|alias| alias.used)
                .map_or(1, |alias| alias.number),
        }
    }
}
