//! An event on its way through a chain.

use std::sync::OnceLock;

use bytes::Bytes;
use portcullis_core::{event::Event, limits::TAGS_PER_EVENT_MAX};

use super::{
    outcome::Changes,
    projection::{self, Projection, Scalar},
};

/// One event as the rules of its chains so far left it: the publish as admitted, beside it the
/// current payload and the tags.
///
/// The payload is parsed by the first rule that asks for fields, or by [`project`](Self::project):
/// do that once with the pointers of all rules, and however many rules look at it, it is parsed
/// once.
#[derive(Debug)]
pub struct PluginEvent {
    event: Event,
    payload: Option<Bytes>,
    extracted: OnceLock<Box<Extracted>>,
    tags: Vec<(String, String)>,
}

/// The values of one projection, and those of further ones that the rules behind it asked for.
#[derive(Debug)]
struct Extracted {
    projection: Projection,
    /// `None` if the payload is not JSON.
    values: Option<Vec<Scalar>>,
    next: OnceLock<Box<Self>>,
}

impl PluginEvent {
    /// An event that no rule has seen yet.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            payload: None,
            extracted: OnceLock::new(),
            tags: Vec::new(),
        }
    }

    /// The publish as it was admitted.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The current payload.
    pub fn payload(&self) -> &Bytes {
        self.payload.as_ref().unwrap_or(&self.event.payload)
    }

    /// Whether a rule replaced the payload.
    pub fn is_rewritten(&self) -> bool {
        self.payload.is_some()
    }

    /// Whether the current payload is a JSON text in UTF-8, and nothing besides.
    pub fn is_json(&self) -> bool {
        match self.extracted.get() {
            Some(extracted) => extracted.values.is_some(),
            None => projection::is_json(self.payload()),
        }
    }

    /// Parses the payload for these pointers, unless all of them are known already.
    pub fn project(&self, projection: &Projection) {
        let mut slot = &self.extracted;
        while let Some(extracted) = slot.get() {
            let known = |pointer: &String| extracted.projection.position(pointer).is_some();
            if extracted.values.is_none() || projection.pointers().iter().all(known) {
                return;
            }
            slot = &extracted.next;
        }
        slot.get_or_init(|| {
            Box::new(Extracted {
                projection: projection.clone(),
                values: projection.extract(self.payload()),
                next: OnceLock::new(),
            })
        });
    }

    /// The value at a pointer that was projected.
    pub(super) fn value(&self, pointer: &str) -> &Scalar {
        let mut slot = &self.extracted;
        while let Some(extracted) = slot.get() {
            let Some(values) = &extracted.values else {
                break;
            };
            if let Some(place) = extracted.projection.position(pointer) {
                return &values[place];
            }
            slot = &extracted.next;
        }
        &Scalar::Absent
    }

    /// Tags in the order in which they were first set; keys are distinct.
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }

    /// Does what a rule asked for. Tags beyond [`TAGS_PER_EVENT_MAX`] are refused: the first ones
    /// stay, and the number of those left out is returned.
    pub fn apply(&mut self, changes: Changes) -> usize {
        if let Some(payload) = changes.payload {
            self.payload = Some(payload);
            self.extracted = OnceLock::new();
        }
        let mut refused = 0;
        for (key, value) in changes.tags {
            if let Some(tag) = self.tags.iter_mut().find(|tag| tag.0 == key) {
                tag.1 = value;
            } else if self.tags.len() < TAGS_PER_EVENT_MAX {
                self.tags.push((key, value));
            } else {
                refused += 1;
            }
        }
        refused
    }

    /// The publish, its payload if a rule replaced it, and the tags.
    pub fn into_parts(self) -> (Event, Option<Bytes>, Vec<(String, String)>) {
        (self.event, self.payload, self.tags)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use portcullis_core::{
        event::Qos,
        identity::{ClientId, ThingName},
        timestamp::Timestamp,
        topic::TopicName,
    };

    use super::*;

    pub(in super::super) fn event(thing: &str, payload: &str) -> PluginEvent {
        PluginEvent::new(Event {
            thing: Some(ThingName::parse(thing).unwrap()),
            groups: Arc::from([]),
            client_id: ClientId::parse("client").unwrap(),
            received_at: Timestamp::from_millis(5),
            topic: TopicName::parse("dt/x").unwrap(),
            payload: payload.to_owned().into(),
            qos: Qos::AtLeastOnce,
            retain: true,
            user_properties: Vec::new(),
        })
    }

    #[test]
    fn a_payload_is_parsed_for_further_pointers_and_again_after_it_was_replaced() {
        let mut event = event("a", r#"{"t":1,"u":2}"#);
        event.project(&Projection::new(["/t"]));
        event.project(&Projection::new(["/u", "/t"]));
        assert_eq!(event.value("/t"), &Scalar::Number(1.0));
        assert_eq!(event.value("/u"), &Scalar::Number(2.0));
        assert!(event.is_json());
        event.apply(Changes {
            payload: Some("off".into()),
            tags: Vec::new(),
        });
        event.project(&Projection::new(["/t"]));
        assert_eq!(event.value("/t"), &Scalar::Absent);
        assert!(!event.is_json());
    }

    #[test]
    fn tags_are_replaced_by_key_and_bounded() {
        let mut event = event("a", "");
        let tags = |range: std::ops::Range<usize>, value: &str| Changes {
            payload: None,
            tags: range.map(|n| (n.to_string(), value.to_owned())).collect(),
        };
        assert_eq!(event.apply(tags(0..TAGS_PER_EVENT_MAX, "x")), 0);
        assert_eq!(event.apply(tags(1..TAGS_PER_EVENT_MAX + 2, "y")), 2);
        assert_eq!(event.tags().len(), TAGS_PER_EVENT_MAX);
        assert_eq!(event.tags()[0].1, "x");
        assert_eq!(event.tags()[1].1, "y");
    }
}
