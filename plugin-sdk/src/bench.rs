//! Runs a rule on the host, without a gateway and without WebAssembly.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    batch::Batch,
    bindings::{
        exports::portcullis::plugin::lifecycle::{self, FieldKind},
        portcullis::plugin::types::{Column, Error, EventBatch},
    },
    outcome::Outcome,
    rule::{Context, Rule, configure},
};

/// A configured rule, for unit tests: hands it batches as the gateway would.
#[derive(Debug)]
pub struct Bench<R> {
    rule: R,
    subscription: lifecycle::Subscription,
}

/// An event for a [`Bench`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestEvent {
    thing: String,
    topic: String,
    payload: Vec<u8>,
    at: u64,
    properties: Vec<(String, String)>,
}

impl<R: Rule> Bench<R> {
    /// Configures the rule with `settings`, or returns what the operator would read.
    pub fn new(settings: &Value) -> Result<Self, String> {
        let context = Context {
            plugin: "bench".into(),
            group: "bench".into(),
            shard: 0,
            shards: 1,
            gateway_version: env!("CARGO_PKG_VERSION").into(),
        };
        match configure(context, &settings.to_string()) {
            Ok((rule, subscription)) => Ok(Self { rule, subscription }),
            Err(Error::BadSettings(reason) | Error::Failed(reason)) => Err(reason),
            Err(Error::BadEvent(bad)) => Err(bad.message),
        }
    }

    /// The JSON pointers that the rule asked for.
    pub fn pointers(&self) -> impl Iterator<Item = &str> {
        let fields = self.subscription.fields.iter();
        fields.map(|field| field.pointer.as_str())
    }

    /// Hands the rule one batch.
    pub fn handle(&mut self, events: &[TestEvent]) -> Outcome {
        let batch = Batch::new(self.columns(events));
        let mut out = Outcome::default();
        self.rule.handle(&batch, &mut out);
        out
    }

    fn columns(&self, events: &[TestEvent]) -> EventBatch {
        let mut strings = Strings::default();
        let mut batch = EventBatch {
            now: events.iter().map(|event| event.at).max().unwrap_or(0),
            strings: Vec::new(),
            topics: Vec::new(),
            things: Vec::new(),
            timestamps: Vec::new(),
            delivery: Vec::new(),
            payload_ends: Vec::new(),
            payloads: Vec::new(),
            property_ends: Vec::new(),
            property_keys: Vec::new(),
            property_values: Vec::new(),
            fields: Vec::new(),
        };
        for event in events {
            batch.topics.push(strings.intern(&event.topic));
            batch.things.push(strings.intern(&event.thing));
            batch.timestamps.push(event.at);
            batch.delivery.push(1);
            if self.subscription.needs_payload {
                batch.payloads.extend_from_slice(&event.payload);
                batch.payload_ends.push(index(batch.payloads.len()));
            }
            for (key, value) in &event.properties {
                batch.property_keys.push(strings.intern(key));
                batch.property_values.push(strings.intern(value));
            }
            batch.property_ends.push(index(batch.property_keys.len()));
        }
        let parsed: Vec<Option<Value>> = events
            .iter()
            .map(|event| serde_json::from_slice(&event.payload).ok())
            .collect();
        for field in &self.subscription.fields {
            let values = parsed
                .iter()
                .map(|json| json.as_ref().and_then(|json| json.pointer(&field.pointer)));
            batch.fields.push(match field.kind {
                FieldKind::Number => Column::Numbers(
                    values
                        .map(|value| value.and_then(Value::as_f64).unwrap_or(f64::NAN))
                        .collect(),
                ),
                FieldKind::Text => Column::Texts(
                    values
                        .map(|value| value.and_then(Value::as_str))
                        .map(|text| text.map_or(u32::MAX, |text| strings.intern(text)))
                        .collect(),
                ),
                FieldKind::Boolean => Column::Booleans(
                    values
                        .map(|value| value.and_then(Value::as_bool).map_or(255, u8::from))
                        .collect(),
                ),
            });
        }
        batch.strings = strings.all;
        batch
    }
}

impl TestEvent {
    /// A publish by `thing`, at 1970.
    pub fn new(
        thing: impl Into<String>,
        topic: impl Into<String>,
        payload: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            thing: thing.into(),
            topic: topic.into(),
            payload: payload.into(),
            at: 0,
            properties: Vec::new(),
        }
    }

    /// The same, received at `millis` since 1970.
    #[must_use]
    pub fn at(mut self, millis: u64) -> Self {
        self.at = millis;
        self
    }

    /// The same, with an MQTT 5 user property.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }

    /// Reads one event a line: `{"thing": …, "topic": …, "payload": …, "at": MILLIS}`, where
    /// `payload` is any JSON, or `payload_text` any text; `at` may be left out.
    pub fn from_ndjson(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().enumerate();
        lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(n, line)| {
                let line: Line = serde_json::from_str(line)
                    .map_err(|error| format!("line {}: {error}", n + 1))?;
                let payload = match (line.payload, line.payload_text) {
                    (Some(json), None) => json.to_string(),
                    (None, Some(text)) => text,
                    _ => return Err(format!("line {}: payload or payload_text is needed", n + 1)),
                };
                Ok(Self::new(line.thing, line.topic, payload).at(line.at))
            })
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    thing: String,
    topic: String,
    payload: Option<Value>,
    payload_text: Option<String>,
    #[serde(default)]
    at: u64,
}

#[derive(Default)]
struct Strings {
    all: Vec<String>,
    indices: HashMap<String, u32>,
}

impl Strings {
    fn intern(&mut self, text: &str) -> u32 {
        if let Some(index) = self.indices.get(text) {
            return *index;
        }
        let at = index(self.all.len());
        self.all.push(text.to_owned());
        self.indices.insert(text.to_owned(), at);
        at
    }
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a test's batch is smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BooleanField, NumberField, Subscription, TextField};

    /// Writes down what it sees.
    struct Witness {
        number: NumberField,
        text: TextField,
        boolean: BooleanField,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    impl Rule for Witness {
        type Settings = Nothing;

        fn configure(_: &Context, _: Nothing) -> Result<(Self, Subscription), String> {
            let mut subscription = Subscription::new();
            subscription.payload();
            let rule = Self {
                number: subscription.number("/n"),
                text: subscription.text("/s/0"),
                boolean: subscription.boolean("/b"),
            };
            Ok((rule, subscription))
        }

        fn handle(&mut self, batch: &Batch, out: &mut Outcome) {
            for event in batch {
                let properties: Vec<_> = event.properties().collect();
                let seen = format!(
                    "{} {} {} {:?} {:?} {:?} {:?} {}",
                    event.thing(),
                    event.topic(),
                    event.timestamp(),
                    event.number(self.number),
                    event.text(self.text),
                    event.boolean(self.boolean),
                    properties,
                    String::from_utf8_lossy(event.payload()),
                );
                out.replace(&event, seen);
            }
        }
    }

    #[test]
    fn a_rule_sees_events_as_they_are() {
        let mut bench = Bench::<Witness>::new(&serde_json::json!({})).unwrap();
        let outcome = bench.handle(&[
            TestEvent::new("a", "t/1", r#"{"n":1.5,"s":["x"],"b":true}"#).at(7),
            TestEvent::new("b", "t/1", "no json").property("k", "v"),
            TestEvent::new("a", "t/2", r#"{"n":"1","s":["t/2"],"b":0}"#),
        ]);
        let seen: Vec<_> = outcome
            .edits
            .iter()
            .map(|edit| match edit {
                crate::Edit::Replace(replacement) => {
                    String::from_utf8(replacement.payload.clone()).unwrap()
                }
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(
            seen,
            [
                r#"a t/1 7 Some(1.5) Some("x") Some(true) [] {"n":1.5,"s":["x"],"b":true}"#,
                r#"b t/1 0 None None None [("k", "v")] no json"#,
                r#"a t/2 0 None Some("t/2") None [] {"n":"1","s":["t/2"],"b":0}"#,
            ]
        );
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_in_the_operators_words() {
        let refusal = Bench::<Witness>::new(&serde_json::json!({"x": 1}))
            .err()
            .unwrap();
        assert!(refusal.contains("unknown field `x`"), "{refusal}");
    }

    #[test]
    fn sample_events_are_read_line_by_line() {
        let text = r#"{"thing":"a","topic":"t","payload":{"n":1},"at":5}
                      {"thing":"b","topic":"t","payload_text":"hi"}"#;
        assert_eq!(
            TestEvent::from_ndjson(text).unwrap(),
            [
                TestEvent::new("a", "t", r#"{"n":1}"#).at(5),
                TestEvent::new("b", "t", "hi"),
            ]
        );
        let refusal = TestEvent::from_ndjson("\n{}").unwrap_err();
        assert!(refusal.starts_with("line 2: "), "{refusal}");
    }
}
