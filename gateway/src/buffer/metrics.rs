//! What the buffer says about itself.

use prometheus::{Histogram, IntCounter, IntGauge, Registry};

use crate::telemetry::Registrar;

/// The buffer's metrics; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Records that no sink has accepted yet.
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
    /// Numbers that should have a record and have none: an upper bound of the records lost.
    pub(super) lost_records: IntCounter,
}

impl Metrics {
    /// Registers the buffer's metrics.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        Self {
            depth_records: metrics.gauge(
                "portcullis_buffer_depth_records",
                "Durable records that no sink has accepted yet.",
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
                "Records that the sink has accepted.",
            ),
            commits: metrics.counter("portcullis_buffer_commits_total", "Group commits."),
            commit_seconds: metrics.histogram(
                "portcullis_buffer_commit_seconds",
                "Time that one group commit took, the disk's part included.",
                vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
                ],
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
                "Sequence numbers whose record is lost to damage, an upper bound.",
            ),
        }
    }
}
