//! Retained messages: the last one of a topic, for whoever subscribes later.
//!
//! Bounded in number and in bytes: at the bound a message is not retained, and counted; the one that
//! the topic had is forgotten all the same, because it is not the last one any more. A message whose
//! expiry interval has passed is gone, and what is left of the interval goes with the others (MQTT
//! 5.0, 3.3.2.3.3). They survive a restart in the session log.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use portcullis_core::{
    limits::{RETAINED_BYTES_MAX, RETAINED_MESSAGES_MAX},
    timestamp::Timestamp,
    topic::{TopicFilter, TopicName},
};

use crate::broker::message::Message;

/// The retained messages of all topics.
#[derive(Debug, Default)]
pub(in crate::broker) struct Retained {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    messages: BTreeMap<TopicName, Stored>,
    bytes: usize,
}

#[derive(Debug)]
struct Stored {
    message: Arc<Message>,
    /// Its number in the log.
    id: u64,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Kept {
    Kept,
    /// The bound is reached; see the module.
    Full,
}

impl Retained {
    /// Keeps `message` for its topic; an empty payload forgets the topic (MQTT 5.0, 3.3.1.3). `note`
    /// writes down what became of it, in the order in which it happens.
    pub(in crate::broker) fn keep(
        &self,
        message: &Arc<Message>,
        id: u64,
        note: impl FnOnce(Kept),
    ) -> Kept {
        let mut shelf = self.lock();
        shelf.forget(&message.topic);
        let kept = if message.payload.is_empty() {
            Kept::Kept
        } else {
            shelf.put(message, id)
        };
        note(kept);
        kept
    }

    /// The messages of all topics that `filter` takes, by topic.
    pub(in crate::broker) fn matching(
        &self,
        filter: &TopicFilter,
        now: Timestamp,
    ) -> Vec<Arc<Message>> {
        let mut shelf = self.lock();
        let mut expired = Vec::new();
        let mut matching = Vec::new();
        for (topic, stored) in shelf.below(filter) {
            if !filter.matches(topic) {
                continue;
            }
            if stored.message.is_expired(now) {
                expired.push(topic.clone());
            } else {
                matching.push(Arc::clone(&stored.message));
            }
        }
        expired.iter().for_each(|topic| shelf.forget(topic));
        matching
    }

    /// Every topic with a message.
    pub(in crate::broker) fn topics(&self) -> Vec<TopicName> {
        self.lock().messages.keys().cloned().collect()
    }

    /// Looks at the message of a topic, which does not change meanwhile.
    pub(in crate::broker) fn with(&self, topic: &TopicName, look: impl FnOnce(u64, &Message)) {
        let shelf = self.lock();
        if let Some(stored) = shelf.messages.get(topic) {
            look(stored.id, &stored.message);
        }
    }

    /// How many there are, and their bytes.
    pub(in crate::broker) fn size(&self) -> (usize, usize) {
        let shelf = self.lock();
        (shelf.messages.len(), shelf.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn put(&mut self, message: &Arc<Message>, id: u64) -> Kept {
        let bytes = message.bytes();
        if self.messages.len() >= RETAINED_MESSAGES_MAX || self.bytes + bytes > RETAINED_BYTES_MAX {
            return Kept::Full;
        }
        self.bytes += bytes;
        let stored = Stored {
            message: Arc::clone(message),
            id,
        };
        self.messages.insert(message.topic.clone(), stored);
        Kept::Kept
    }

    fn forget(&mut self, topic: &TopicName) {
        if let Some(stored) = self.messages.remove(topic) {
            self.bytes -= stored.message.bytes();
        }
    }

    /// The topics that begin as the filter does before its first wildcard; some others may be among
    /// them.
    fn below(&self, filter: &TopicFilter) -> impl Iterator<Item = (&TopicName, &Stored)> {
        let text = filter.as_str();
        let literal = text.split(['+', '#']).next().unwrap_or_default();
        // `a/#` takes `a` as well.
        let prefix = literal.strip_suffix('/').unwrap_or(literal);
        let range = self
            .messages
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        range.take_while(move |(topic, _)| topic.as_str().starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use portcullis_core::event::Qos;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn message(topic: &str, payload: &'static str) -> Message {
        Message {
            topic: TopicName::parse(topic).unwrap(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: Qos::AtMostOnce,
            retain: true,
            publisher: 1,
            properties: None,
            expires_at: None,
        }
    }

    fn keep(retained: &Retained, message: Message) -> Kept {
        retained.keep(&Arc::new(message), 0, |_| {})
    }

    fn payloads(retained: &Retained, filter: &str) -> Vec<Bytes> {
        retained
            .matching(&TopicFilter::parse(filter).unwrap(), NOW)
            .into_iter()
            .map(|m| m.payload.clone())
            .collect()
    }

    #[test]
    fn the_last_message_of_a_topic_is_kept_until_an_empty_one_comes() {
        let retained = Retained::default();
        keep(&retained, message("a/b", "1"));
        keep(&retained, message("a/b", "2"));
        assert_eq!(payloads(&retained, "a/+"), ["2"]);
        keep(&retained, message("a/b", ""));
        assert!(payloads(&retained, "#").is_empty());
    }

    #[test]
    fn every_filter_finds_what_it_takes() {
        let retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "a0", "ab", "b", "$s/a", "/a"] {
            keep(&retained, message(topic, "x"));
        }
        for filter in [
            "#", "+", "a/#", "a/+", "a/b", "+/b", "a", "$s/#", "/+", "+/+/c",
        ] {
            let filter = TopicFilter::parse(filter).unwrap();
            let found: Vec<_> = retained
                .matching(&filter, NOW)
                .into_iter()
                .map(|m| m.topic.clone())
                .collect();
            let expected: Vec<_> = retained
                .topics()
                .into_iter()
                .filter(|topic| filter.matches(topic))
                .collect();
            assert_eq!(found, expected, "{filter}");
        }
    }

    #[test]
    fn beyond_the_bounds_nothing_more_is_kept() {
        let retained = Retained::default();
        for n in 0..RETAINED_MESSAGES_MAX {
            let kept = keep(&retained, message(&format!("t/{n}"), "x"));
            assert_eq!(kept, Kept::Kept);
        }
        assert_eq!(keep(&retained, message("t/new", "x")), Kept::Full);
        assert_eq!(keep(&retained, message("t/0", "y")), Kept::Kept);

        let retained = Retained::default();
        let large = Bytes::from(vec![0; RETAINED_BYTES_MAX]);
        let large = Message {
            payload: large,
            ..message("t", "")
        };
        assert_eq!(keep(&retained, large), Kept::Full);
        assert_eq!(keep(&retained, message("t", "x")), Kept::Kept);
    }

    #[test]
    fn an_expired_message_is_gone() {
        let retained = Retained::default();
        for (topic, end) in [("t/gone", NOW), ("t/here", NOW.plus_millis(1))] {
            keep(
                &retained,
                Message {
                    expires_at: Some(end),
                    ..message(topic, "x")
                },
            );
        }
        let filter = TopicFilter::parse("t/+").unwrap();
        let matching = retained.matching(&filter, NOW);
        let topics: Vec<_> = matching.iter().map(|m| m.topic.to_string()).collect();
        assert_eq!(topics, ["t/here"]);
        assert_eq!(retained.topics().len(), 1);
    }
}
