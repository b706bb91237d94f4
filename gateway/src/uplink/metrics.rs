//! What the uplink says about itself: metrics, and for each sink what happened last.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use portcullis_core::{timestamp::Timestamp, upstream::health::State};
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, Registry};
use serde_json::{Value, json};

use crate::{clock::now, telemetry::Registrar};

/// The metrics of all sinks; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    online: GaugeVec,
    state: GaugeVec,
    sent_records: IntCounterVec,
    sent_bytes: IntCounterVec,
    attempts: IntCounterVec,
    failed_records: IntCounterVec,
    dead_letters: IntCounterVec,
    /// Files removed by the bounds of the outbox or of the dead letters.
    pub(super) dropped_files: IntCounterVec,
    lag_seconds: GaugeVec,
    backlog: GaugeVec,
    shards: GaugeVec,
    /// How far this machine's clock is from the service's.
    pub(super) clock_skew: Gauge,
    board: Board,
}

/// What happened last at each sink, for the status.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, Last>>>);

#[derive(Clone, Debug, Default)]
struct Last {
    state: State,
    backlog: u64,
    success: Option<Timestamp>,
    error: Option<(Timestamp, &'static str, String)>,
}

impl Board {
    /// A list with an object for each sink, by name.
    pub fn document(&self) -> Value {
        let sinks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sinks = sinks.iter().map(|(name, last)| {
            json!({
                "name": name,
                "state": last.state.name(),
                "backlog_records": last.backlog,
                "last_success": last.success.map(|at| at.to_string()),
                "last_error": last.error.as_ref().map(|(at, reason, detail)| json!({
                    "at": at.to_string(),
                    "reason": reason,
                    "detail": detail,
                })),
            })
        });
        sinks.collect()
    }

    fn change(&self, sink: &str, change: impl FnOnce(&mut Last)) {
        let mut sinks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = sinks.get_mut(sink) {
            change(last);
        }
    }
}

impl Metrics {
    /// Registers the uplink's metrics.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        let gauges = |name, help| metrics.float_gauges(name, help, &["sink"]);
        let counters = |name, help| metrics.counters(name, help, &["sink"]);
        Self {
            online: gauges(
                "portcullis_uplink_online",
                "Whether the sink takes records (1: online or degraded) or not (0).",
            ),
            state: metrics.float_gauges(
                "portcullis_uplink_state",
                "1 for the state that the sink is in.",
                &["sink", "state"],
            ),
            sent_records: counters(
                "portcullis_uplink_sent_records_total",
                "Records that the sink has accepted.",
            ),
            sent_bytes: counters(
                "portcullis_uplink_sent_bytes_total",
                "Bodies and partition keys of the records that the sink has accepted.",
            ),
            attempts: counters(
                "portcullis_uplink_attempts_total",
                "Batches offered to the sink.",
            ),
            failed_records: metrics.counters(
                "portcullis_uplink_failed_records_total",
                "Records whose attempt failed; they are tried again or set aside.",
                &["sink", "reason"],
            ),
            dead_letters: metrics.counters(
                "portcullis_uplink_dead_letter_records_total",
                "Records set aside in data/dead-letter: the sink will never take them, or they are too old.",
                &["sink", "reason"],
            ),
            dropped_files: metrics.counters(
                "portcullis_uplink_dropped_files_total",
                "Oldest files removed at the bound of the outbox or of the dead letters.",
                &["place"],
            ),
            lag_seconds: gauges(
                "portcullis_uplink_lag_seconds",
                "Age of the oldest record in the last batch, when the sink took it.",
            ),
            backlog: gauges(
                "portcullis_uplink_backlog_records",
                "Records that the sink has not taken yet.",
            ),
            shards: gauges(
                "portcullis_uplink_shards",
                "Open shards of the stream as far as they are known.",
            ),
            clock_skew: metrics.float_gauge(
                "portcullis_uplink_clock_skew_seconds",
                "How far this machine's clock is behind the service's (ahead: negative), by its last answer.",
            ),
            board: Board::default(),
        }
    }

    /// What happened last at each sink.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// The metrics of one sink.
    pub(super) fn of(&self, sink: &str) -> SinkMetrics {
        let labels = &[sink];
        let state = |state: &State| self.state.with_label_values(&[sink, state.name()]);
        let metrics = SinkMetrics {
            sink: sink.to_owned(),
            all: self.clone(),
            online: self.online.with_label_values(labels),
            states: State::ALL.each_ref().map(state),
            sent_records: self.sent_records.with_label_values(labels),
            sent_bytes: self.sent_bytes.with_label_values(labels),
            attempts: self.attempts.with_label_values(labels),
            lag_seconds: self.lag_seconds.with_label_values(labels),
            backlog: self.backlog.with_label_values(labels),
            shards: self.shards.with_label_values(labels),
        };
        let mut sinks = self.board.0.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.entry(sink.to_owned()).or_default();
        drop(sinks);
        metrics.state(State::Starting);
        metrics
    }
}

/// The metrics of one sink; a clone counts into the same.
#[derive(Clone, Debug)]
pub(super) struct SinkMetrics {
    sink: String,
    pub(super) all: Metrics,
    online: Gauge,
    states: [Gauge; State::ALL.len()],
    sent_records: IntCounter,
    sent_bytes: IntCounter,
    /// Requests to the sink, or writes of the outbox.
    pub(super) attempts: IntCounter,
    lag_seconds: Gauge,
    backlog: Gauge,
    pub(super) shards: Gauge,
}

impl SinkMetrics {
    /// The sink's name.
    pub(super) fn sink(&self) -> &str {
        &self.sink
    }

    /// The sink is in this state now.
    pub(super) fn state(&self, state: State) {
        self.online.set(if state.is_up() { 1.0 } else { 0.0 });
        for (of, gauge) in State::ALL.iter().zip(&self.states) {
            gauge.set(if *of == state { 1.0 } else { 0.0 });
        }
        self.all.board.change(&self.sink, |last| last.state = state);
    }

    /// An attempt failed for these records.
    pub(super) fn failed(&self, reason: &'static str, records: usize) {
        self.all
            .failed_records
            .with_label_values(&[self.sink.as_str(), reason])
            .inc_by(count(records));
    }

    /// What the last failure was, for the status.
    pub(super) fn note_error(&self, reason: &'static str, detail: &str) {
        let error = Some((now(), reason, detail.to_owned()));
        self.all.board.change(&self.sink, |last| last.error = error);
    }

    /// Records were set aside.
    pub(super) fn dead_letters(&self, reason: &'static str, records: usize) {
        self.all
            .dead_letters
            .with_label_values(&[self.sink.as_str(), reason])
            .inc_by(count(records));
    }

    /// How many records wait for the sink.
    pub(super) fn note_backlog(&self, records: u64) {
        self.backlog.set(float(records));
        self.all
            .board
            .change(&self.sink, |last| last.backlog = records);
    }

    /// Notes the age of the oldest record of a batch, by when it was committed or by its own account.
    pub(super) fn note_lag(&self, record: Option<&portcullis_core::record::Record>) {
        #[derive(serde::Deserialize)]
        struct Body<'a> {
            #[serde(borrow)]
            received_at: &'a str,
        }
        let then = record.and_then(|record| match record.at_millis {
            0 => serde_json::from_slice::<Body<'_>>(&record.body)
                .ok()
                .and_then(|body| Timestamp::parse_rfc3339(body.received_at)),
            millis => Some(Timestamp::from_millis(millis)),
        });
        if let Some(then) = then {
            let millis = u32::try_from(now().millis_since(then)).unwrap_or(u32::MAX);
            self.lag_seconds.set(f64::from(millis) / 1000.0);
        }
    }

    /// The sink has accepted records.
    pub(super) fn sent(&self, records: usize, bytes: usize) {
        self.sent_records.inc_by(count(records));
        self.sent_bytes.inc_by(count(bytes));
        let success = Some(now());
        self.all
            .board
            .change(&self.sink, |last| last.success = success);
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn float(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}
