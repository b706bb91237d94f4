//! Adds tags to every event; scales and renames fields of JSON payloads.
//!
//! A payload that is no JSON object or array, or lacks the field, is left as it is. Keys of a
//! rewritten object come out sorted.

use std::collections::BTreeMap;

use portcullis_plugin::{Batch, Context, Event, Outcome, Rule, Subscription};
use serde::Deserialize;
use serde_json::{Number, Value};

/// The settings: what is added and changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    scale: Vec<Scale>,
    #[serde(default)]
    rename: Vec<Rename>,
}

/// `value * factor + offset`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    pointer: String,
    #[serde(default = "one")]
    factor: f64,
    #[serde(default)]
    offset: f64,
}

fn one() -> f64 {
    1.0
}

/// The member that `pointer` leads to gets the key `to`, in the same object.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    pointer: String,
    to: String,
}

/// The rule.
#[derive(Debug)]
pub struct Enrich(Settings);

impl Rule for Enrich {
    type Settings = Settings;

    fn configure(_: &Context, settings: Settings) -> Result<(Self, Subscription), String> {
        for (key, value) in &settings.tags {
            if key.is_empty() || key.len() > 64 || key.chars().any(char::is_control) {
                return Err(format!("tag `{key}`: a key has 1 to 64 bytes"));
            }
            if value.len() > 256 {
                return Err(format!("tag `{key}`: a value has at most 256 bytes"));
            }
        }
        if settings.tags.len() > 32 {
            return Err("`tags`: at most 32 are allowed".into());
        }
        for Scale {
            pointer,
            factor,
            offset,
        } in &settings.scale
        {
            check_pointer(pointer)?;
            if !(factor.is_finite() && offset.is_finite()) {
                return Err(format!(
                    "scale `{pointer}`: `factor` and `offset` are finite"
                ));
            }
        }
        for Rename { pointer, .. } in &settings.rename {
            check_pointer(pointer)?;
        }
        let mut subscription = Subscription::new();
        if !(settings.scale.is_empty() && settings.rename.is_empty()) {
            subscription.payload();
        }
        Ok((Self(settings), subscription))
    }

    fn handle(&mut self, batch: &Batch, out: &mut Outcome) {
        for event in batch {
            for (key, value) in &self.0.tags {
                out.tag(&event, key, value);
            }
            if let Some(payload) = self.rewrite(&event) {
                out.replace(&event, payload);
            }
        }
    }
}

portcullis_plugin::export!(Enrich);

impl Enrich {
    /// The new payload, if anything changes.
    fn rewrite(&self, event: &Event<'_>) -> Option<Vec<u8>> {
        if self.0.scale.is_empty() && self.0.rename.is_empty() {
            return None;
        }
        let mut json: Value = event.json().ok()?;
        let mut changed = false;
        for scale in &self.0.scale {
            changed |= scale.apply(&mut json);
        }
        for rename in &self.0.rename {
            changed |= rename.apply(&mut json);
        }
        changed.then(|| json.to_string().into_bytes())
    }
}

impl Scale {
    fn apply(&self, json: &mut Value) -> bool {
        let Some(value) = json.pointer_mut(&self.pointer) else {
            return false;
        };
        let scaled = value.as_f64().map(|n| n * self.factor + self.offset);
        // A product that is not finite cannot be written as JSON.
        match scaled.and_then(Number::from_f64) {
            Some(number) => {
                *value = Value::Number(number);
                true
            }
            None => false,
        }
    }
}

impl Rename {
    fn apply(&self, json: &mut Value) -> bool {
        let Some((parent, key)) = self.pointer.rsplit_once('/') else {
            return false;
        };
        let key = key.replace("~1", "/").replace("~0", "~");
        let Some(object) = json.pointer_mut(parent).and_then(Value::as_object_mut) else {
            return false;
        };
        match object.remove(&key) {
            Some(value) => {
                object.insert(self.to.clone(), value);
                true
            }
            None => false,
        }
    }
}

fn check_pointer(pointer: &str) -> Result<(), String> {
    if pointer.starts_with('/') {
        Ok(())
    } else {
        Err(format!(
            "`{pointer}` is no JSON pointer: write `/{pointer}`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use portcullis_plugin::{Bench, Edit, TestEvent};
    use serde_json::json;

    use super::*;

    /// Hands over one event and returns its tags and, if it was replaced, its payload.
    fn enrich(settings: Value, payload: &str) -> (Vec<(String, String)>, Option<String>) {
        let mut bench = Bench::<Enrich>::new(&settings).unwrap();
        let outcome = bench.handle(&[TestEvent::new("a", "dt/a", payload)]);
        let (mut tags, mut replaced) = (Vec::new(), None);
        for edit in outcome.edits {
            match edit {
                Edit::Tag(tagging) => tags.push((tagging.key, tagging.value)),
                Edit::Replace(replacement) => {
                    replaced = Some(String::from_utf8(replacement.payload).unwrap());
                }
                Edit::Drop(dropping) => panic!("dropped: {dropping:?}"),
            }
        }
        (tags, replaced)
    }

    #[test]
    fn every_event_gets_the_tags_whatever_its_payload() {
        let settings = json!({"tags": {"zone": "b", "site": "demo"}});
        let (tags, replaced) = enrich(settings, "no json");
        let expected = [("site", "demo"), ("zone", "b")];
        assert_eq!(tags, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(replaced, None);
    }

    #[test]
    fn a_number_is_scaled_in_place() {
        let settings = json!({"scale": [{"pointer": "/m/t", "factor": 0.5, "offset": 32}]});
        for (payload, expected) in [
            (
                r#"{"m":{"t":10,"u":"x"}}"#,
                Some(r#"{"m":{"t":37.0,"u":"x"}}"#),
            ),
            (r#"{"m":{"t":"10"}}"#, None),
            (r#"{"t":10}"#, None),
            ("no json", None),
        ] {
            let (_, replaced) = enrich(settings.clone(), payload);
            assert_eq!(replaced.as_deref(), expected, "{payload}");
        }
    }

    #[test]
    fn a_product_that_json_cannot_hold_leaves_the_event_alone() {
        let settings = json!({"scale": [{"pointer": "/t", "factor": 1e300}]});
        assert_eq!(enrich(settings, r#"{"t":1e300}"#).1, None);
    }

    #[test]
    fn a_member_is_renamed_after_scaling() {
        let settings = json!({
            "scale": [{"pointer": "/t", "factor": 0.1}],
            "rename": [{"pointer": "/t", "to": "celsius"}, {"pointer": "/none", "to": "x"}],
        });
        let (_, replaced) = enrich(settings, r#"{"t":50,"id":7}"#);
        assert_eq!(replaced.as_deref(), Some(r#"{"celsius":5.0,"id":7}"#));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (settings, words) in [
            (json!({"tags": {"": "x"}}), "1 to 64 bytes"),
            (json!({"tags": {"k": "x".repeat(257)}}), "at most 256"),
            (json!({"scale": [{"pointer": "t"}]}), "write `/t`"),
            (json!({"tag": {}}), "unknown field"),
        ] {
            let refusal = Bench::<Enrich>::new(&settings).unwrap_err();
            assert!(refusal.contains(words), "{settings}: {refusal}");
        }
    }

    #[test]
    fn the_sample_events_come_out_in_celsius() {
        let settings = json!({"scale": [{"pointer": "/t", "factor": 0.1}]});
        let mut bench = Bench::<Enrich>::new(&settings).unwrap();
        let events = TestEvent::from_ndjson(include_str!("../events.ndjson")).unwrap();
        let outcome = bench.handle(&events);
        let payloads: Vec<_> = outcome
            .edits
            .iter()
            .map(|edit| match edit {
                Edit::Replace(replacement) => str::from_utf8(&replacement.payload).unwrap(),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(payloads, [r#"{"t":4.2}"#, r#"{"battery":3.1,"t":-18.0}"#]);
    }
}
