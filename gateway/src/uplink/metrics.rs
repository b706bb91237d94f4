//! What the uplink says about itself.

use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_core::timestamp::Timestamp;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Registry};

use crate::telemetry::Registrar;

/// The uplink's metrics; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// 1 online, 0 offline.
    pub(super) online: IntGauge,
    pub(super) sent_records: IntCounter,
    pub(super) sent_bytes: IntCounter,
    /// Requests to the sink, or writes of the outbox.
    pub(super) attempts: IntCounter,
    /// Records whose attempt failed, by reason; they are tried again or set aside.
    failed_records: IntCounterVec,
    /// Records set aside for good, by reason.
    dead_letters: IntCounterVec,
    /// Records removed from the outbox or the dead letters by their bounds.
    pub(super) dropped_files: IntCounterVec,
    /// Age of the oldest record that was not accepted when it was last looked at.
    pub(super) lag_seconds: Gauge,
}

impl Metrics {
    /// Registers the uplink's metrics.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        Self {
            online: metrics.gauge(
                "portcullis_uplink_online",
                "Whether the sink took the last batch (1) or not (0).",
            ),
            sent_records: metrics.counter(
                "portcullis_uplink_sent_records_total",
                "Records that the sink has accepted.",
            ),
            sent_bytes: metrics.counter(
                "portcullis_uplink_sent_bytes_total",
                "Bodies and partition keys of the records that the sink has accepted.",
            ),
            attempts: metrics.counter(
                "portcullis_uplink_attempts_total",
                "Batches offered to the sink.",
            ),
            failed_records: metrics.counters(
                "portcullis_uplink_failed_records_total",
                "Records whose attempt failed; they are tried again or set aside.",
                &["reason"],
            ),
            dead_letters: metrics.counters(
                "portcullis_uplink_dead_letter_records_total",
                "Records that the sink will never take, set aside in data/dead-letter.",
                &["reason"],
            ),
            dropped_files: metrics.counters(
                "portcullis_uplink_dropped_files_total",
                "Oldest files removed at the bound of the outbox or of the dead letters.",
                &["place"],
            ),
            lag_seconds: metrics.float_gauge(
                "portcullis_uplink_lag_seconds",
                "Age of the oldest record in the last batch, when the sink took it.",
            ),
        }
    }

    pub(super) fn failed(&self, reason: &'static str, records: usize) {
        self.failed_records
            .with_label_values(&[reason])
            .inc_by(count(records));
    }

    pub(super) fn dead_letter(&self, reason: &'static str) {
        self.dead_letters.with_label_values(&[reason]).inc();
    }

    /// Notes the age of the oldest record of a batch, by its own account.
    pub(super) fn note_lag(&self, body: Option<&[u8]>) {
        #[derive(serde::Deserialize)]
        struct Body<'a> {
            #[serde(borrow)]
            received_at: &'a str,
        }
        let received_at = body
            .and_then(|body| serde_json::from_slice::<Body<'_>>(body).ok())
            .and_then(|body| Timestamp::parse_rfc3339(body.received_at));
        if let (Some(then), Ok(now)) = (received_at, SystemTime::now().duration_since(UNIX_EPOCH)) {
            let now = Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
            let millis = u32::try_from(now.millis_since(then)).unwrap_or(u32::MAX);
            self.lag_seconds.set(f64::from(millis) / 1000.0);
        }
    }

    pub(super) fn sent(&self, records: usize, bytes: usize) {
        self.sent_records.inc_by(count(records));
        self.sent_bytes.inc_by(count(bytes));
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
