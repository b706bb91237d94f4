//! What the buffer says about itself.

use prometheus::{GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, Registry};

use portcullis_core::record::Lane;

use crate::telemetry::Registrar;

use super::{cursor::Tally, lanes::Account};

/// The buffer's metrics; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Records that some sink has not settled yet.
    pub(super) depth_records: IntGauge,
    /// Disk that the generations take.
    pub(super) disk_bytes: IntGauge,
    pub(super) generations: IntGauge,
    pub(super) appended_records: IntCounter,
    pub(super) appended_bytes: IntCounter,
    pub(super) accepted_records: IntCounter,
    pub(super) commits: IntCounter,
    pub(super) commit_seconds: Histogram,
    pub(super) backpressure_waits: IntCounter,
    pub(super) damaged_generations: IntCounter,
    /// Places that should have a record and have none: an upper bound of the records lost.
    pub(super) lost_records: IntCounter,
    /// Whether the critical lane's reserve is there.
    pub(super) reserve: IntGauge,
    lane_depth: GaugeVec,
    lane_bytes: GaugeVec,
    dropped: IntCounterVec,
    ledger: GaugeVec,
}

impl Metrics {
    /// Registers the buffer's metrics.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        let commit_buckets = vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
        ];
        Self {
            depth_records: metrics.gauge(
                "portcullis_buffer_depth_records",
                "Durable records that some sink has not settled yet.",
            ),
            disk_bytes: metrics.gauge(
                "portcullis_buffer_disk_bytes",
                "Disk that the buffer's generations take.",
            ),
            generations: metrics.gauge("portcullis_buffer_generations", "Generations on disk."),
            appended_records: metrics.counter(
                "portcullis_buffer_appended_records_total",
                "Records made durable.",
            ),
            appended_bytes: metrics.counter(
                "portcullis_buffer_appended_bytes_total",
                "Bodies and partition keys of the records made durable.",
            ),
            accepted_records: metrics.counter(
                "portcullis_buffer_accepted_records_total",
                "Records that every sink has settled.",
            ),
            commits: metrics.counter("portcullis_buffer_commits_total", "Group commits."),
            commit_seconds: metrics.histogram(
                "portcullis_buffer_commit_seconds",
                "Time that one group commit took, the disk's part included.",
                commit_buckets,
            ),
            backpressure_waits: metrics.counter(
                "portcullis_buffer_backpressure_waits_total",
                "Times that appenders had to wait, for the queue or for disk within the bound.",
            ),
            damaged_generations: metrics.counter(
                "portcullis_buffer_damaged_generations_total",
                "Generations set aside because of damage.",
            ),
            lost_records: metrics.counter(
                "portcullis_buffer_lost_records_total",
                "Places whose record is lost to damage, an upper bound.",
            ),
            reserve: metrics.gauge(
                "portcullis_buffer_reserve",
                "1 while the disk set aside for the critical lane is there.",
            ),
            lane_depth: metrics.float_gauges(
                "portcullis_buffer_lane_depth_records",
                "Durable records of a lane that some sink has not settled yet.",
                &["lane"],
            ),
            lane_bytes: metrics.float_gauges(
                "portcullis_buffer_lane_disk_bytes",
                "Disk that the generations of a lane take.",
                &["lane"],
            ),
            dropped: metrics.counters(
                "portcullis_buffer_dropped_records_total",
                "Records that a sink will never have, by reason.",
                &["lane", "sink", "reason"],
            ),
            ledger: metrics.float_gauges(
                "portcullis_buffer_ledger_records",
                "What became of all records for a sink, across restarts.",
                &["sink", "state", "reason"],
            ),
        }
    }

    /// What a lane takes and holds.
    #[expect(clippy::cast_precision_loss, reason = "a gauge; exact up to 2^53")]
    pub(super) fn set_lane(&self, lane: Lane, bytes: u64, depth: u64) {
        let label = &[lane.name()];
        self.lane_bytes.with_label_values(label).set(bytes as f64);
        self.lane_depth.with_label_values(label).set(depth as f64);
    }

    /// A sink will never have these.
    pub(super) fn count_dropped(&self, lane: Lane, sink: &str, reason: &str, records: u64) {
        if records > 0 {
            self.dropped
                .with_label_values(&[lane.name(), sink, reason])
                .inc_by(records);
        }
    }

    /// A sink has settled these.
    pub(super) fn count_settled(&self, lane: Lane, sink: &str, tally: &Tally) {
        for (reason, records) in &tally.dropped {
            self.count_dropped(lane, sink, reason, *records);
        }
    }

    /// The accounts as they are now.
    #[expect(clippy::cast_precision_loss, reason = "a gauge; exact up to 2^53")]
    pub(super) fn set_ledger(&self, accounts: &[Account]) {
        for account in accounts {
            let set = |state: &str, reason: &str, records: u64| {
                let labels = &[account.name.as_str(), state, reason];
                self.ledger.with_label_values(labels).set(records as f64);
            };
            set("received", "", account.received);
            set("delivered", "", account.delivered);
            set("filtered", "", account.filtered);
            set("kept", "", account.kept);
            for (reason, records) in &account.dropped {
                set("dropped", reason, *records);
            }
        }
    }
}
