//! Retained messages: the last one of a topic, for whoever subscribes later.
//!
//! In memory for now, lost with the process; bounded in number, at the bound a message for a
//! further topic is not retained and counted.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use portcullis_core::{
    limits::RETAINED_MESSAGES_MAX,
    topic::{TopicFilter, TopicName},
};

use super::bus::Message;

/// The retained messages of all topics.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: Mutex<HashMap<TopicName, Message>>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Kept,
    /// The bound is reached; see the module.
    Full,
}

impl Retained {
    /// Keeps `message` for its topic; an empty payload forgets the topic (MQTT 5.0, 3.3.1.3).
    pub(super) fn keep(&self, message: Message) -> Kept {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if message.payload.is_empty() {
            messages.remove(&message.topic);
        } else if messages.len() < RETAINED_MESSAGES_MAX || messages.contains_key(&message.topic) {
            messages.insert(message.topic.clone(), message);
        } else {
            return Kept::Full;
        }
        Kept::Kept
    }

    /// The messages of all topics that `filter` takes.
    pub(super) fn matching(&self, filter: &TopicFilter) -> Vec<Message> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages
            .values()
            .filter(|message| filter.matches(&message.topic))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use portcullis_core::event::Qos;

    use super::*;

    fn message(topic: &str, payload: &'static str) -> Message {
        Message {
            topic: TopicName::parse(topic).unwrap(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: Qos::AtMostOnce,
            retain: true,
            publisher: 1,
            properties: None,
        }
    }

    fn payloads(retained: &Retained, filter: &str) -> Vec<Bytes> {
        retained
            .matching(&TopicFilter::parse(filter).unwrap())
            .into_iter()
            .map(|m| m.payload)
            .collect()
    }

    #[test]
    fn the_last_message_of_a_topic_is_kept_until_an_empty_one_comes() {
        let retained = Retained::default();
        retained.keep(message("a/b", "1"));
        retained.keep(message("a/b", "2"));
        assert_eq!(payloads(&retained, "a/+"), ["2"]);
        retained.keep(message("a/b", ""));
        assert!(payloads(&retained, "#").is_empty());
    }

    #[test]
    fn beyond_the_bound_only_known_topics_are_kept() {
        let retained = Retained::default();
        for n in 0..RETAINED_MESSAGES_MAX {
            assert_eq!(retained.keep(message(&format!("t/{n}"), "x")), Kept::Kept);
        }
        assert_eq!(retained.keep(message("t/new", "x")), Kept::Full);
        assert_eq!(retained.keep(message("t/0", "y")), Kept::Kept);
    }
}
