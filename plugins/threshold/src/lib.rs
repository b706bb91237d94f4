//! Raises a violation when a number in the payload leaves its range.
//!
//! One excursion of a device raises one violation, until the value is back inside (by a margin,
//! if one is set). Only devices that are outside are remembered, and at most
//! [`EXCURSIONS_MAX`] of them: beyond that the one that has been outside longest is forgotten,
//! and will be reported again.

use std::collections::HashMap;

use portcullis_plugin::{
    Batch, Context, Event, NumberField, Outcome, Rule, Severity, Subscription,
};
use serde::Deserialize;

/// Excursions that are remembered.
pub const EXCURSIONS_MAX: usize = 4096;

/// The settings: what is checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    rules: Vec<Limit>,
}

/// One range for one number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    name: String,
    pointer: String,
    min: Option<f64>,
    max: Option<f64>,
    /// How far inside the range a value must be to count as back.
    #[serde(default)]
    margin: f64,
    #[serde(default = "medium")]
    severity: Severity,
}

fn medium() -> Severity {
    Severity::Medium
}

/// The rule.
#[derive(Debug)]
pub struct Threshold {
    limits: Vec<(NumberField, Limit)>,
    excursions: Excursions,
}

impl Rule for Threshold {
    type Settings = Settings;

    fn configure(_: &Context, settings: Settings) -> Result<(Self, Subscription), String> {
        if settings.rules.is_empty() {
            return Err("`rules` is empty: write at least one".into());
        }
        let mut subscription = Subscription::new();
        let mut limits = Vec::new();
        for limit in settings.rules {
            limit.check()?;
            limits.push((subscription.number(&*limit.pointer), limit));
        }
        let rule = Self {
            limits,
            excursions: Excursions::default(),
        };
        Ok((rule, subscription))
    }

    fn handle(&mut self, batch: &Batch, out: &mut Outcome) {
        for event in batch {
            for (n, (field, limit)) in self.limits.iter().enumerate() {
                let Some(value) = event.number(*field) else {
                    continue;
                };
                if let Some(side) = limit.side(value) {
                    if self.excursions.begin(event.thing(), n) {
                        limit.report(&event, value, side, out);
                    }
                } else if limit.is_back(value) {
                    self.excursions.end(event.thing(), n);
                }
            }
        }
    }
}

portcullis_plugin::export!(Threshold);

/// Which limit a value is beyond.
#[derive(Clone, Copy)]
enum Side {
    Below(f64),
    Above(f64),
}

impl Limit {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
        if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
            return Err(format!(
                "rule `{name}`: a name is 1 to 128 of `a-zA-Z0-9:_-`"
            ));
        }
        let width = match (self.min, self.max) {
            (None, None) => return Err(format!("rule `{name}`: write `min`, `max` or both")),
            (Some(min), Some(max)) => max - min,
            _ => f64::INFINITY,
        };
        if width < 0.0 {
            return Err(format!("rule `{name}`: `min` is above `max`"));
        }
        if !(self.margin >= 0.0 && self.margin.is_finite() && 2.0 * self.margin <= width) {
            return Err(format!(
                "rule `{name}`: `margin` is between 0 and half of the range"
            ));
        }
        Ok(())
    }

    fn side(&self, value: f64) -> Option<Side> {
        let above = self.max.filter(|max| value > *max).map(Side::Above);
        above.or(self.min.filter(|min| value < *min).map(Side::Below))
    }

    fn is_back(&self, value: f64) -> bool {
        self.max.is_none_or(|max| value <= max - self.margin)
            && self.min.is_none_or(|min| value >= min + self.margin)
    }

    fn report(&self, event: &Event<'_>, value: f64, side: Side, out: &mut Outcome) {
        let (word, key, limit) = match side {
            Side::Below(min) => ("below", "min", min),
            Side::Above(max) => ("above", "max", max),
        };
        let message = format!("`{}` is {value}, {word} {limit}", self.pointer);
        out.violation(event, &*self.name, self.severity, message)
            .value(value)
            .label("pointer", &*self.pointer)
            .label(key, limit.to_string());
    }
}

/// Which device is outside which limit, and since which report.
#[derive(Debug, Default)]
struct Excursions {
    since: HashMap<(String, usize), u64>,
    reports: u64,
}

impl Excursions {
    /// Whether this is the beginning of one.
    fn begin(&mut self, thing: &str, limit: usize) -> bool {
        let key = (thing.to_owned(), limit);
        if self.since.contains_key(&key) {
            return false;
        }
        if self.since.len() >= EXCURSIONS_MAX {
            let oldest = self.since.iter().min_by_key(|(_, since)| **since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.since.remove(&oldest);
            }
        }
        self.reports += 1;
        self.since.insert(key, self.reports);
        true
    }

    fn end(&mut self, thing: &str, limit: usize) {
        if !self.since.is_empty() {
            self.since.remove(&(thing.to_owned(), limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_plugin::{Bench, TestEvent};
    use serde_json::json;

    use super::*;

    fn bench() -> Bench<Threshold> {
        Bench::new(&json!({"rules": [
            {"name": "warm", "pointer": "/t", "max": 8.0, "margin": 0.5, "severity": "high"},
            {"name": "band", "pointer": "/axes/0", "min": -1, "max": 1},
        ]}))
        .unwrap()
    }

    /// Hands over one event and returns `rule: message` of every violation.
    fn publish(bench: &mut Bench<Threshold>, thing: &str, payload: &str) -> Vec<String> {
        let event = TestEvent::new(thing, "dt/x", payload);
        let violations = bench.handle(&[event]).violations;
        violations
            .iter()
            .map(|violation| format!("{}: {}", violation.rule, violation.message))
            .collect()
    }

    #[test]
    fn one_excursion_raises_one_violation_until_the_value_is_back_inside() {
        let mut bench = bench();
        let raised: Vec<usize> = [7.0, 8.0, 8.1, 9.0, 7.9, 8.2, 7.5, 8.2]
            .iter()
            .map(|t| publish(&mut bench, "a", &format!("{{\"t\":{t}}}")).len())
            .collect();
        // 7.9 is inside, but not by the margin; 7.5 is back.
        assert_eq!(raised, [0, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn devices_and_rules_are_kept_apart() {
        let mut bench = bench();
        assert_eq!(
            publish(&mut bench, "a", r#"{"t":9,"axes":[-1.5]}"#),
            [
                "warm: `/t` is 9, above 8",
                "band: `/axes/0` is -1.5, below -1"
            ]
        );
        assert_eq!(publish(&mut bench, "b", r#"{"t":9}"#).len(), 1);
        assert_eq!(publish(&mut bench, "a", r#"{"t":9,"axes":[0]}"#).len(), 0);
        assert_eq!(publish(&mut bench, "a", r#"{"t":9,"axes":[2]}"#).len(), 1);
    }

    #[test]
    fn a_violation_names_pointer_value_and_limit() {
        let outcome = bench().handle(&[TestEvent::new("a", "dt/x", r#"{"t":8.5}"#)]);
        let violation = &outcome.violations[0];
        assert_eq!(violation.severity, Severity::High);
        assert_eq!(violation.value, Some(8.5));
        let labels: Vec<_> = violation
            .labels
            .iter()
            .map(|label| (label.key.as_str(), label.value.as_str()))
            .collect();
        assert_eq!(labels, [("pointer", "/t"), ("max", "8")]);
        assert!(outcome.edits.is_empty(), "it only looks");
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let mut bench = bench();
        for payload in ["", "on", "{}", r#"{"t":"9"}"#, r#"{"t":null}"#, "[9]"] {
            assert!(publish(&mut bench, "a", payload).is_empty(), "{payload}");
        }
        assert_eq!(publish(&mut bench, "a", r#"{"t":9}"#).len(), 1);
        publish(&mut bench, "a", "{}");
        assert_eq!(publish(&mut bench, "a", r#"{"t":9}"#).len(), 0);
    }

    #[test]
    fn the_excursion_forgotten_at_the_bound_is_the_oldest() {
        let mut bench = bench();
        for n in 0..=EXCURSIONS_MAX {
            publish(&mut bench, &format!("thing-{n}"), r#"{"t":9}"#);
        }
        assert_eq!(publish(&mut bench, "thing-1", r#"{"t":9}"#).len(), 0);
        assert_eq!(publish(&mut bench, "thing-0", r#"{"t":9}"#).len(), 1);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (rules, words) in [
            (json!([]), "empty"),
            (
                json!([{"name": "a", "pointer": "/t"}]),
                "`min`, `max` or both",
            ),
            (
                json!([{"name": "a b", "pointer": "/t", "max": 1}]),
                "a name is",
            ),
            (
                json!([{"name": "a", "pointer": "/t", "min": 2, "max": 1}]),
                "above",
            ),
            (
                json!([{"name": "a", "pointer": "/t", "min": 0, "max": 1, "margin": 1}]),
                "`margin`",
            ),
            (
                json!([{"name": "a", "pointer": "/t", "max": 1, "level": 3}]),
                "unknown field",
            ),
            (
                json!([{"name": "a", "pointer": "/t", "max": 1, "severity": "bad"}]),
                "unknown variant",
            ),
        ] {
            let refusal = Bench::<Threshold>::new(&json!({"rules": rules})).unwrap_err();
            assert!(refusal.contains(words), "{rules}: {refusal}");
        }
    }

    #[test]
    fn the_sample_events_raise_what_the_readme_says() {
        let settings =
            json!({"rules": [{"name": "over-temperature", "pointer": "/t", "max": 8.0}]});
        let mut bench = Bench::<Threshold>::new(&settings).unwrap();
        let events = TestEvent::from_ndjson(include_str!("../events.ndjson")).unwrap();
        let outcome = bench.handle(&events);
        let indices: Vec<u32> = outcome.violations.iter().map(|v| v.event).collect();
        assert_eq!(indices, [2, 6]);
    }
}
