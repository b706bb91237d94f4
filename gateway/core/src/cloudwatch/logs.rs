//! Log events: their bodies in records, how they share a call, and what the answer says of them.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::members;
use crate::{
    limits::{
        LOG_EVENT_OVERHEAD_BYTES, PUT_LOG_EVENTS_BYTES_MAX, PUT_LOG_EVENTS_MAX,
        PUT_LOG_EVENTS_SPAN_MAX,
    },
    timestamp::Timestamp,
};

/// A log event of the gateway: what a record of `portcullis.log/1` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it was logged.
    pub at: Timestamp,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// The module that logged it.
    pub target: String,
    /// The sentence.
    pub message: String,
    /// The facts.
    pub fields: Map<String, Value>,
}

impl Line {
    /// The members of a record's body, behind those of the envelope.
    pub fn members(&self) -> Bytes {
        #[derive(Serialize)]
        struct Body<'a> {
            at: String,
            level: &'static str,
            target: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Map::is_empty")]
            fields: &'a Map<String, Value>,
        }
        members(&Body {
            at: self.at.to_string(),
            level: self.level,
            target: &self.target,
            message: &self.message,
            fields: &self.fields,
        })
    }
}

/// When the event of a record's body was logged; the body as a whole is its message.
pub fn read_time(body: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        at: &'a str,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    Timestamp::parse_rfc3339(body.at)
}

/// What counts of an event in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was logged.
    pub at: Timestamp,
    /// Its message.
    pub message_bytes: usize,
}

/// What one call may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Events.
    pub events_max: usize,
    /// Messages, with [`LOG_EVENT_OVERHEAD_BYTES`] for each.
    pub bytes_max: usize,
    /// From the first to the last.
    pub span_max: Duration,
}

impl CallLimits {
    /// Those of the service.
    pub const SERVICE: Self = Self {
        events_max: PUT_LOG_EVENTS_MAX,
        bytes_max: PUT_LOG_EVENTS_BYTES_MAX,
        span_max: PUT_LOG_EVENTS_SPAN_MAX,
    };
}

/// How many events from the front of a queue one call takes. One at least if there is any: no event of
/// ours comes near the size of a call. A clock that was set back or ahead by more than the span ends the
/// call, so that events go out in the order in which they were logged.
pub fn first(events: impl IntoIterator<Item = Event>, limits: CallLimits) -> usize {
    let (mut taken, mut bytes) = (0, 0);
    let mut span: Option<(Timestamp, Timestamp)> = None;
    for event in events {
        bytes += event.message_bytes + LOG_EVENT_OVERHEAD_BYTES;
        let (from, to) = span.map_or((event.at, event.at), |(from, to)| {
            (from.min(event.at), to.max(event.at))
        });
        let wide = u128::from(to.millis_since(from)) > limits.span_max.as_millis();
        let full = taken >= limits.events_max || bytes > limits.bytes_max || wide;
        if full && taken > 0 {
            break;
        }
        span = Some((from, to));
        taken += 1;
    }
    taken
}

/// In which order a call tells the events at these times: the service wants them sorted. Those of
/// the same time stay as they were.
pub fn order(times: &[Timestamp]) -> Vec<usize> {
    let mut order: Vec<_> = (0..times.len()).collect();
    order.sort_by_key(|at| times[*at]);
    order
}

/// What the service did not take of a call that it took: places in its sorted events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RejectedInfo {
    /// From this one on, events are too far ahead.
    pub too_new_log_event_start_index: Option<usize>,
    /// Before this one, events are too old for any group.
    pub too_old_log_event_end_index: Option<usize>,
    /// Before this one, events are older than this group keeps them.
    pub expired_log_event_end_index: Option<usize>,
}

/// What became of a call's events, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Taken.
    pub taken: usize,
    /// Too far ahead.
    pub too_new: usize,
    /// Too old for any group.
    pub too_old: usize,
    /// Older than the group keeps them.
    pub expired: usize,
}

impl RejectedInfo {
    /// What became of `events` events.
    pub fn fates(self, events: usize) -> Fates {
        let too_old = self.too_old_log_event_end_index.unwrap_or(0).min(events);
        let not_kept = self.expired_log_event_end_index.unwrap_or(0).min(events);
        let from = too_old.max(not_kept);
        let upto = self.too_new_log_event_start_index.unwrap_or(events);
        let upto = upto.clamp(from, events);
        Fates {
            taken: upto - from,
            too_new: events - upto,
            too_old,
            expired: from - too_old,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_body_tells_when_and_what() {
        let mut line = Line {
            at: at(1_795_341_600_123),
            level: "warn",
            target: "portcullis::broker".to_owned(),
            message: "Handshake \"timed\" out.".to_owned(),
            fields: Map::from_iter([
                ("client".to_owned(), "a".into()),
                ("n".to_owned(), 7.into()),
            ]),
        };
        let text = |line: &Line| format!("{{{}}}", String::from_utf8_lossy(&line.members()));
        assert_eq!(
            text(&line),
            r#"{"at":"2026-11-22T10:00:00.123Z","level":"warn","target":"portcullis::broker","message":"Handshake \"timed\" out.","fields":{"client":"a","n":7}}"#
        );
        line.fields.clear();
        assert!(!text(&line).contains("fields"));
        assert_eq!(read_time(text(&line).as_bytes()), Some(line.at));
        assert_eq!(read_time(b"{}"), None);
        assert_eq!(read_time(b"plain"), None);
    }

    #[test]
    fn the_answer_says_what_became_of_each_event() {
        let info = |too_new, too_old, expired| RejectedInfo {
            too_new_log_event_start_index: too_new,
            too_old_log_event_end_index: too_old,
            expired_log_event_end_index: expired,
        };
        let fates = |taken, too_new, too_old, expired| Fates {
            taken,
            too_new,
            too_old,
            expired,
        };
        for (info, expected) in [
            (info(None, None, None), fates(10, 0, 0, 0)),
            (info(Some(8), None, None), fates(8, 2, 0, 0)),
            (info(None, Some(3), None), fates(7, 0, 3, 0)),
            (info(None, Some(3), Some(5)), fates(5, 0, 3, 2)),
            (info(None, Some(5), Some(3)), fates(5, 0, 5, 0)),
            (info(Some(8), Some(2), Some(4)), fates(4, 2, 2, 2)),
            (info(Some(0), None, None), fates(0, 10, 0, 0)),
            (info(None, Some(99), Some(99)), fates(0, 0, 10, 0)),
            (info(Some(1), Some(4), None), fates(0, 6, 4, 0)),
        ] {
            assert_eq!(info.fates(10), expected, "{info:?}");
        }
        let json = r#"{"tooNewLogEventStartIndex":8,"tooOldLogEventEndIndex":2}"#;
        let read: RejectedInfo = serde_json::from_str(json).unwrap();
        assert_eq!(read, info(Some(8), Some(2), None));
    }

    #[test]
    fn an_event_that_is_a_day_after_another_does_not_share_its_call() {
        let day = 24 * 3600 * 1000;
        let event = |millis| Event {
            at: at(millis),
            message_bytes: 10,
        };
        let service = CallLimits::SERVICE;
        assert_eq!(first([event(0), event(day)], service), 2);
        assert_eq!(first([event(0), event(day + 1)], service), 1);
        assert_eq!(first([event(day + 1), event(0)], service), 1);
        assert_eq!(first([], service), 0);
    }

    proptest! {
        #[test]
        fn calls_keep_all_limits_and_lose_nothing(
            events in vec((0_u64..5000, 0_usize..300), 0..60),
            events_max in 1_usize..20,
            bytes_max in 26_usize..2000,
            span in 0_u64..3000,
        ) {
            let limits = CallLimits { events_max, bytes_max, span_max: Duration::from_millis(span) };
            let event = |(millis, message_bytes)| Event { at: at(millis), message_bytes };
            let mut waiting: Vec<Event> = events.into_iter().map(event).collect();
            let (all, mut sent) = (waiting.clone(), Vec::new());
            while !waiting.is_empty() {
                let taken = first(waiting.iter().copied(), limits);
                prop_assert!((1..=events_max).contains(&taken));
                let call: Vec<_> = waiting.drain(..taken).collect();
                let bytes: usize = call.iter().map(|e| e.message_bytes + 26).sum();
                prop_assert!(taken == 1 || bytes <= bytes_max);
                let times: Vec<_> = call.iter().map(|event| event.at).collect();
                let sorted: Vec<_> = order(&times).into_iter().map(|at| times[at]).collect();
                prop_assert!(sorted.is_sorted());
                let wide = sorted[taken - 1].millis_since(sorted[0]);
                prop_assert!(wide <= span);
                sent.extend(call);
            }
            prop_assert_eq!(sent, all);
        }

        #[test]
        fn events_of_the_same_time_stay_in_order(times in vec(0_u64..5, 0..50)) {
            let times: Vec<_> = times.into_iter().map(at).collect();
            let order = order(&times);
            for pair in order.windows(2) {
                prop_assert!((times[pair[0]], pair[0]) < (times[pair[1]], pair[1]));
            }
        }

        #[test]
        fn every_event_has_one_fate(
            events in 0_usize..50,
            new in proptest::option::of(0_usize..60),
            old in proptest::option::of(0_usize..60),
            expired in proptest::option::of(0_usize..60),
        ) {
            let info = RejectedInfo {
                too_new_log_event_start_index: new,
                too_old_log_event_end_index: old,
                expired_log_event_end_index: expired,
            };
            let Fates { taken, too_new, too_old, expired } = info.fates(events);
            prop_assert_eq!(taken + too_new + too_old + expired, events);
        }
    }
}
