//! What a rule wants done.

use serde::{Deserialize, Deserializer, de};

use crate::batch::Event;

pub use crate::bindings::{
    exports::portcullis::plugin::handler::{
        Dropping, Edit, Emission, Metric, MetricValue, Outcome, Replacement, Tagging, Violation,
    },
    portcullis::plugin::types::{Label, Severity},
};

impl Default for Outcome {
    /// Every event passes unchanged.
    fn default() -> Self {
        Self {
            edits: Vec::new(),
            emissions: Vec::new(),
            violations: Vec::new(),
            metrics: Vec::new(),
        }
    }
}

impl Outcome {
    /// The event goes no further. `reason` is a fixed word of `a-z0-9-`: it is counted by.
    pub fn drop_event(&mut self, event: &Event<'_>, reason: impl Into<String>) {
        self.edits.push(Edit::Drop(Dropping {
            index: index(event),
            reason: reason.into(),
        }));
    }

    /// The event gets another payload.
    pub fn replace(&mut self, event: &Event<'_>, payload: impl Into<Vec<u8>>) {
        self.edits.push(Edit::Replace(Replacement {
            index: index(event),
            payload: payload.into(),
        }));
    }

    /// The event gets a tag, which replaces one of the same key.
    pub fn tag(&mut self, event: &Event<'_>, key: impl Into<String>, value: impl Into<String>) {
        self.edits.push(Edit::Tag(Tagging {
            index: index(event),
            key: key.into(),
            value: value.into(),
        }));
    }

    /// A further message after the event, under its device's name, on a topic that the operator
    /// granted to the plugin.
    pub fn emit(
        &mut self,
        after: &Event<'_>,
        topic: impl Into<String>,
        payload: impl Into<Vec<u8>>,
    ) {
        self.emissions.push(Emission {
            after: index(after),
            topic: topic.into(),
            payload: payload.into(),
        });
    }

    /// Something worth telling an operator. `rule` is a stable name of `a-zA-Z0-9:_-`, `message`
    /// one sentence for a person.
    pub fn violation(
        &mut self,
        event: &Event<'_>,
        rule: impl Into<String>,
        severity: Severity,
        message: impl Into<String>,
    ) -> &mut Violation {
        self.violations.push(Violation {
            event: index(event),
            rule: rule.into(),
            severity,
            message: message.into(),
            value: None,
            labels: Vec::new(),
        });
        self.violations.last_mut().expect("it was just pushed")
    }

    /// Adds to a counter of the gateway's metrics. `name` is a fixed word of `a-z0-9_`.
    pub fn count(&mut self, name: impl Into<String>, by: u64) {
        self.metrics.push(Metric {
            name: name.into(),
            value: MetricValue::Count(by),
        });
    }

    /// Sets a gauge of the gateway's metrics.
    pub fn gauge(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.push(Metric {
            name: name.into(),
            value: MetricValue::Gauge(value),
        });
    }
}

impl Violation {
    /// The measured value or anomaly score; a value that is not finite is left out.
    pub fn value(&mut self, value: f64) -> &mut Self {
        self.value = Some(value).filter(|value| value.is_finite());
        self
    }

    /// A further fact.
    pub fn label(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.labels.push(Label {
            key: key.into(),
            value: value.into(),
        });
        self
    }
}

/// `info`, `low`, `medium`, `high` or `critical`.
impl<'de> Deserialize<'de> for Severity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WORDS: &[&str] = &["info", "low", "medium", "high", "critical"];
        match String::deserialize(deserializer)?.as_str() {
            "info" => Ok(Self::Info),
            "low" => Ok(Self::Low),
            "medium" => Ok(Self::Medium),
            "high" => Ok(Self::High),
            "critical" => Ok(Self::Critical),
            other => Err(de::Error::unknown_variant(other, WORDS)),
        }
    }
}

fn index(event: &Event<'_>) -> u32 {
    u32::try_from(event.index()).expect("the gateway's batches are small")
}
