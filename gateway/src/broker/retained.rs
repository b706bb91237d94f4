//! Retained messages: the last one of a topic, for whoever subscribes later.
//!
//! In memory for now, lost with the process; bounded in number and in bytes: at the bound a message
//! is not retained, and counted. A message whose expiry interval has passed is gone, and what is
//! left of the interval goes with the others (MQTT 5.0, 3.3.2.3.3).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use portcullis_core::{
    limits::{RETAINED_BYTES_MAX, RETAINED_MESSAGES_MAX},
    topic::{TopicFilter, TopicName},
};

use super::message::{Message, property_bytes};

/// The retained messages of all topics.
#[derive(Debug, Default)]
pub(super) struct Retained {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    messages: HashMap<TopicName, Stored>,
    bytes: usize,
}

#[derive(Debug)]
struct Stored {
    message: Message,
    since: Instant,
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
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.forget(&message.topic);
        if message.payload.is_empty() {
            return Kept::Kept;
        }
        let bytes = bytes_of(&message);
        if shelf.messages.len() >= RETAINED_MESSAGES_MAX || shelf.bytes + bytes > RETAINED_BYTES_MAX
        {
            return Kept::Full;
        }
        shelf.bytes += bytes;
        let stored = Stored {
            message,
            since: Instant::now(),
        };
        shelf.messages.insert(stored.message.topic.clone(), stored);
        Kept::Kept
    }

    /// The messages of all topics that `filter` takes.
    pub(super) fn matching(&self, filter: &TopicFilter) -> Vec<Message> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let mut expired = Vec::new();
        let mut matching = Vec::new();
        for (topic, stored) in &shelf.messages {
            if filter.matches(topic) {
                match stored.fresh() {
                    Some(message) => matching.push(message),
                    None => expired.push(topic.clone()),
                }
            }
        }
        expired.iter().for_each(|topic| shelf.forget(topic));
        matching
    }
}

impl Shelf {
    fn forget(&mut self, topic: &TopicName) {
        if let Some(stored) = self.messages.remove(topic) {
            self.bytes -= bytes_of(&stored.message);
        }
    }
}

impl Stored {
    /// The message with what is left of its expiry interval; `None` if nothing is.
    fn fresh(&self) -> Option<Message> {
        let mut message = self.message.clone();
        let interval = message
            .properties
            .as_mut()
            .and_then(|given| given.message_expiry_interval.as_mut());
        if let Some(secs) = interval {
            let passed = u32::try_from(self.since.elapsed().as_secs()).unwrap_or(u32::MAX);
            *secs = secs.checked_sub(passed).filter(|left| *left > 0)?;
        }
        Some(message)
    }
}

fn bytes_of(message: &Message) -> usize {
    let properties = message.properties.as_ref().map_or(0, property_bytes);
    message.payload.len() + message.topic.as_str().len() + properties
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
            expires_at: None,
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
    fn beyond_the_bounds_nothing_more_is_kept() {
        let retained = Retained::default();
        for n in 0..RETAINED_MESSAGES_MAX {
            assert_eq!(retained.keep(message(&format!("t/{n}"), "x")), Kept::Kept);
        }
        assert_eq!(retained.keep(message("t/new", "x")), Kept::Full);
        assert_eq!(retained.keep(message("t/0", "y")), Kept::Kept);

        let retained = Retained::default();
        let large = Bytes::from(vec![0; RETAINED_BYTES_MAX]);
        let large = Message {
            payload: large,
            ..message("t", "")
        };
        assert_eq!(retained.keep(large), Kept::Full);
        assert_eq!(retained.keep(message("t", "x")), Kept::Kept);
    }

    #[test]
    fn an_expired_message_is_gone() {
        let retained = Retained::default();
        for (topic, secs) in [("t/gone", 0), ("t/here", 60)] {
            let properties = rumqttc::v5::mqttbytes::v5::PublishProperties {
                message_expiry_interval: Some(secs),
                ..Default::default()
            };
            retained.keep(Message {
                properties: Some(properties),
                ..message(topic, "x")
            });
        }
        let filter = TopicFilter::parse("t/+").unwrap();
        let topics: Vec<_> = retained
            .matching(&filter)
            .into_iter()
            .map(|m| m.topic.to_string())
            .collect();
        assert_eq!(topics, ["t/here"]);
    }
}
