//! A departure from what is normal, and its form upstream: `portcullis.violation/1`.
//!
//! Members carry AWS's names (specification B.6); ours beside them are in snake case, so that nobody
//! takes one for the other. The schema is `deploy/schemas/violation-1.json`.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::Serialize;

use super::profile::Behavior;
use crate::{
    limits::{NAME_BYTES_MAX, VIOLATION_MESSAGE_BYTES_MAX},
    record::{Draft, Kind, SinkSet},
    timestamp::Timestamp,
};

/// One change of an alarm.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The ids.
    pub ids: ViolationIds,
    /// Which change.
    pub event_type: EventType,
    /// When.
    pub at: Timestamp,
    /// The thing's name, else the client id.
    pub device: Arc<str>,
    /// What was not normal.
    pub cause: Cause,
}

/// Ids come from outside, because core has no randomness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViolationIds {
    /// Unique for each change of an alarm; consumers de-duplicate on it.
    pub event_id: String,
    /// One for an episode: the same when it opens and when it ends.
    pub violation_id: String,
}

/// `violationEventType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The episode opens.
    InAlarm,
    /// The device is normal again.
    AlarmCleared,
    /// Nobody can tell any more: the profile no longer applies, or the device was forgotten.
    AlarmInvalidated,
}

/// What was not normal.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// A behaviour of a security profile does not hold.
    Behavior {
        /// The profile's name.
        profile: Arc<str>,
        /// The behaviour.
        behavior: Arc<Behavior>,
        /// The value that decided.
        value: u64,
    },
    /// A rule of a plugin fired.
    Rule(RuleHit),
}

/// What a plugin says about a violation.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleHit {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The rule's name.
    pub rule: String,
    /// One sentence for a person.
    pub message: String,
    /// How urgent it is.
    pub severity: Severity,
    /// Anomaly score or measured value.
    pub score: Option<f64>,
}

/// How urgent a violation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it some day.
    Low,
    /// Look at it this week.
    Medium,
    /// Look at it today.
    High,
    /// Drop everything else.
    Critical,
}

impl EventType {
    /// AWS's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InAlarm => "in-alarm",
            Self::AlarmCleared => "alarm-cleared",
            Self::AlarmInvalidated => "alarm-invalidated",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Severity {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl Violation {
    /// One that a plugin raised. Each stands for itself: there is no episode to clear.
    pub fn from_plugin(
        ids: ViolationIds,
        at: Timestamp,
        device: impl Into<Arc<str>>,
        mut hit: RuleHit,
    ) -> Self {
        // Plugins are not trusted to be brief: a record has a bound.
        hit.rule
            .truncate(hit.rule.floor_char_boundary(NAME_BYTES_MAX));
        let end = hit.message.floor_char_boundary(VIOLATION_MESSAGE_BYTES_MAX);
        hit.message.truncate(end);
        Self {
            ids,
            event_type: EventType::InAlarm,
            at,
            device: device.into(),
            cause: Cause::Rule(hit),
        }
    }

    /// `securityProfileName`: the profile's, or `plugin/<plugin name>`.
    pub fn profile(&self) -> String {
        match &self.cause {
            Cause::Behavior { profile, .. } => profile.to_string(),
            Cause::Rule(hit) => format!("plugin/{}", hit.plugin),
        }
    }

    /// `behavior.name`: the behaviour's, or the rule's.
    pub fn behavior(&self) -> &str {
        match &self.cause {
            Cause::Behavior { behavior, .. } => &behavior.name,
            Cause::Rule(hit) => &hit.rule,
        }
    }

    /// The durable form.
    pub fn draft(&self) -> Draft {
        let object = serde_json::to_vec(&self.members())
            .map(Bytes::from)
            .expect("a struct of strings and numbers is JSON");
        // The braces are the envelope's.
        let members = object.slice(1..object.len() - 1);
        Draft {
            kind: Kind::Violation,
            partition_key: self.device.clone(),
            members,
            sinks: SinkSet::ALL,
        }
    }

    fn members(&self) -> Members<'_> {
        let (behavior, value, hit) = match &self.cause {
            Cause::Behavior {
                behavior, value, ..
            } => (
                BehaviorMember::of(behavior),
                Some(ValueMember::Count(*value)),
                None,
            ),
            Cause::Rule(hit) => (
                BehaviorMember::of_rule(&hit.rule),
                hit.score.filter(|s| s.is_finite()).map(ValueMember::Number),
                Some(hit),
            ),
        };
        Members {
            event_id: &self.ids.event_id,
            violation_event_time: self.at.as_millis(),
            thing_name: &self.device,
            security_profile_name: self.profile(),
            behavior,
            violation_event_type: self.event_type.name(),
            metric_value: value,
            violation_id: &self.ids.violation_id,
            severity: hit.map(|hit| hit.severity.name()),
            message: hit.map(|hit| hit.message.as_str()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    #[serde(rename = "event_id")]
    event_id: &'a str,
    violation_event_time: u64,
    thing_name: &'a str,
    security_profile_name: String,
    behavior: BehaviorMember<'a>,
    violation_event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_value: Option<ValueMember>,
    violation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum ValueMember {
    Count(u64),
    Number(f64),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BehaviorMember<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    criteria: Option<CriteriaMember>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    suppress_alerts: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CriteriaMember {
    comparison_operator: &'static str,
    value: ValueMember,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<u32>,
    consecutive_datapoints_to_alarm: u8,
    consecutive_datapoints_to_clear: u8,
}

impl<'a> BehaviorMember<'a> {
    fn of(behavior: &'a Behavior) -> Self {
        let criteria = &behavior.criteria;
        Self {
            name: &behavior.name,
            metric: Some(behavior.metric.name()),
            criteria: Some(CriteriaMember {
                comparison_operator: criteria.comparison.name(),
                value: ValueMember::Count(criteria.count),
                duration_seconds: criteria.duration_secs,
                consecutive_datapoints_to_alarm: criteria.datapoints_to_alarm,
                consecutive_datapoints_to_clear: criteria.datapoints_to_clear,
            }),
            suppress_alerts: behavior.suppress_alerts,
        }
    }

    fn of_rule(rule: &'a str) -> Self {
        Self {
            name: rule,
            metric: None,
            criteria: None,
            suppress_alerts: false,
        }
    }
}
