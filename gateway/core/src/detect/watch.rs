//! One behaviour watched on one device: when a datapoint is taken, and of what.
//!
//! - An upper bound (`less-than…`) is judged with every activity: the first violating datapoint is
//!   taken the moment the count passes. From then on a datapoint is taken once per
//!   `durationSeconds`, so that consecutive ones share no activity, until the device is normal.
//! - A lower bound (`greater-than…`) is judged once per `durationSeconds` from when the device was
//!   first seen: before that, too few is only too early.
//! - A message size is judged with every message. To be cleared it takes stretches of
//!   [`DETECT_BUCKET`] with only conforming messages, or a sender that alternates would alarm with
//!   every other message.

use std::sync::Arc;

use super::{
    activity::{Activity, ActivityKind},
    alarm::{Alarm, Transition},
    profile::{Behavior, Metric, SecurityProfile},
    violation::{Cause, EventType},
    window::{AddressWindow, CountWindow},
};
use crate::{limits::DETECT_BUCKET, timestamp::Timestamp};

/// Where ids come from.
pub type NewId<'a> = &'a mut dyn FnMut() -> String;

#[derive(Clone, Debug)]
pub(super) struct Watch {
    profile: Arc<str>,
    behavior: Arc<Behavior>,
    measure: Measure,
    alarm: Alarm,
    /// When the next datapoint is taken, whatever happens until then.
    due: Option<Timestamp>,
}

#[derive(Clone, Debug)]
enum Measure {
    Count(CountWindow),
    Addresses(AddressWindow),
    /// Size of the newest conforming message of this stretch.
    Message(Option<u64>),
}

/// A change of an alarm: a violation that lacks only device, time and event id.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) event_type: EventType,
    pub(super) violation_id: String,
    pub(super) cause: Cause,
}

impl Measure {
    /// Of nothing yet.
    fn new(behavior: &Behavior, now: Timestamp) -> Self {
        match behavior.criteria.duration_secs {
            None => Self::Message(None),
            Some(secs) if behavior.metric == Metric::CertificateSourceAddresses => {
                Self::Addresses(AddressWindow::new(secs))
            }
            Some(secs) => Self::Count(CountWindow::new(secs, now)),
        }
    }
}

impl Watch {
    pub(super) fn new(profile: &SecurityProfile, behavior: &Arc<Behavior>, now: Timestamp) -> Self {
        let mut watch = Self {
            profile: profile.name.clone(),
            behavior: behavior.clone(),
            measure: Measure::new(behavior, now),
            alarm: Alarm::default(),
            due: None,
        };
        watch.schedule(now);
        watch
    }

    /// Takes in what the device did.
    pub(super) fn observe(
        &mut self,
        activity: &Activity,
        new_id: NewId<'_>,
        changes: &mut Vec<Change>,
    ) {
        let now = activity.at;
        self.tick(now, new_id, changes);
        let grown = match (&mut self.measure, self.behavior.metric, &activity.kind) {
            (Measure::Message(_), _, ActivityKind::Published { bytes, .. }) => {
                return self.message(*bytes as u64, now, new_id, changes);
            }
            (Measure::Addresses(window), ..) => {
                activity.certificate_id.is_some_and(|certificate| {
                    // A connection that ends says nothing about who uses the certificate now.
                    activity.kind != ActivityKind::Disconnected
                        && window.add(certificate, activity.source, now)
                })
            }
            (Measure::Count(window), metric, kind) if counts(metric, kind) => {
                window.add(now);
                true
            }
            _ => false,
        };
        if grown && self.due.is_none() {
            let value = self.value(now);
            if !self.behavior.criteria.conforms(value) {
                self.judge(value, now, new_id, changes);
            }
        }
    }

    /// Takes the datapoint that is due, if one is.
    pub(super) fn tick(&mut self, now: Timestamp, new_id: NewId<'_>, changes: &mut Vec<Change>) {
        let Some(due) = self.due else { return };
        if due.millis_since(now) > self.interval_millis() {
            // The clock stepped back.
            self.schedule(now);
        } else if due <= now {
            match &mut self.measure {
                Measure::Message(conforming) => match conforming.take() {
                    Some(value) => self.judge(value, now, new_id, changes),
                    // No message, no datapoint: it neither counts nor resets.
                    None => self.schedule(now),
                },
                Measure::Count(_) | Measure::Addresses(_) => {
                    let value = self.value(now);
                    self.judge(value, now, new_id, changes);
                }
            }
        }
    }

    /// Forgets what was counted, judging nothing: the clock stepped, and what is in the window may
    /// be of just now. An open episode stays open until the next datapoint.
    pub(super) fn start_over(&mut self, now: Timestamp) {
        self.measure = Measure::new(&self.behavior, now);
        self.schedule(now);
    }

    /// Whether it watches just this.
    pub(super) fn is_of(&self, profile: &SecurityProfile, behavior: &Behavior) -> bool {
        self.profile == profile.name && *self.behavior == *behavior
    }

    /// Whether an episode is open.
    pub(super) fn is_in_alarm(&self) -> bool {
        self.alarm.is_open()
    }

    /// Ends the watch: an episode that was open is invalidated.
    pub(super) fn end(mut self, now: Timestamp) -> Option<Change> {
        let value = self.value(now);
        let id = std::mem::take(&mut self.alarm).invalidate()?;
        Some(self.change(EventType::AlarmInvalidated, id, value))
    }

    fn change(&self, event_type: EventType, violation_id: String, value: u64) -> Change {
        Change {
            event_type,
            violation_id,
            cause: Cause::Behavior {
                profile: self.profile.clone(),
                behavior: self.behavior.clone(),
                value,
            },
        }
    }

    fn message(
        &mut self,
        bytes: u64,
        now: Timestamp,
        new_id: NewId<'_>,
        changes: &mut Vec<Change>,
    ) {
        let conforms = self.behavior.criteria.conforms(bytes);
        if conforms && self.alarm.is_open() {
            self.measure = Measure::Message(Some(bytes));
        } else {
            self.measure = Measure::Message(None);
            self.judge(bytes, now, new_id, changes);
        }
    }

    fn judge(&mut self, value: u64, now: Timestamp, new_id: NewId<'_>, changes: &mut Vec<Change>) {
        let transition = self.alarm.judge(&self.behavior.criteria, value, new_id);
        self.schedule(now);
        if let Some(transition) = transition {
            let (event_type, violation_id) = match transition {
                Transition::Opened(id) => (EventType::InAlarm, id),
                Transition::Cleared(id) => (EventType::AlarmCleared, id),
            };
            changes.push(self.change(event_type, violation_id, value));
        }
    }

    fn schedule(&mut self, now: Timestamp) {
        let waits = match self.measure {
            Measure::Message(_) => self.alarm.is_open(),
            Measure::Count(_) | Measure::Addresses(_) => {
                !self.alarm.is_quiet() || !self.behavior.criteria.comparison.is_upper_bound()
            }
        };
        self.due = waits.then(|| now.plus_millis(self.interval_millis()));
    }

    fn interval_millis(&self) -> u64 {
        self.behavior
            .criteria
            .duration_secs
            .map_or(DETECT_BUCKET.as_secs() * 1000, |secs| {
                u64::from(secs) * 1000
            })
    }

    fn value(&mut self, now: Timestamp) -> u64 {
        match &mut self.measure {
            Measure::Count(window) => window.value(now),
            Measure::Addresses(window) => window.value(now),
            Measure::Message(conforming) => conforming.unwrap_or(0),
        }
    }
}

fn counts(metric: Metric, kind: &ActivityKind) -> bool {
    matches!(
        (metric, kind),
        (Metric::NumMessagesSent, ActivityKind::Published { .. })
            | (Metric::NumMessagesReceived, ActivityKind::Delivered { .. })
            | (
                Metric::NumAuthorizationFailures,
                ActivityKind::Denied { .. }
            )
            | (Metric::NumConnectionAttempts, ActivityKind::ConnectAttempt)
            | (Metric::NumDisconnects, ActivityKind::Disconnected)
    )
}
