//! An event on its way through a chain.

use std::sync::OnceLock;

use bytes::Bytes;
use portcullis_core::{event::Event, limits::TAGS_PER_EVENT_MAX};
use serde_json::Value;

use super::outcome::Changes;

/// One event as the rules of its chains so far left it: the publish as admitted, beside it the
/// current payload and the tags. The payload is parsed at most once however many rules look at it.
#[derive(Debug)]
pub struct PluginEvent {
    event: Event,
    payload: Option<Bytes>,
    json: OnceLock<Option<Value>>,
    tags: Vec<(String, String)>,
}

impl PluginEvent {
    /// An event that no rule has seen yet.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            payload: None,
            json: OnceLock::new(),
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

    /// The current payload as JSON; `None` if it is not. Parsed on first use.
    pub fn json(&self) -> Option<&Value> {
        self.json
            .get_or_init(|| serde_json::from_slice(self.payload()).ok())
            .as_ref()
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
            self.json = OnceLock::new();
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
