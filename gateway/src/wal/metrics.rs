//! What the log says about itself.

use prometheus::{Histogram, IntCounter, IntGauge, Registry};

use crate::telemetry::Registrar;

/// The log's metrics; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) appended_bytes: IntCounter,
    pub(super) sync_seconds: Histogram,
    pub(super) checkpoints: IntCounter,
    pub(super) disk_bytes: IntGauge,
    pub(super) damaged_files: IntCounter,
    pub(super) refused_records: IntCounter,
}

impl Metrics {
    /// Registers the log's metrics.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        Self {
            appended_bytes: metrics.counter(
                "portcullis_wal_appended_bytes_total",
                "Bytes written to the session log.",
            ),
            sync_seconds: metrics.histogram(
                "portcullis_wal_sync_seconds",
                "Time that the disk took to make the session log durable.",
                vec![
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
                ],
            ),
            checkpoints: metrics.counter(
                "portcullis_wal_checkpoints_total",
                "Times that the session log was written anew.",
            ),
            disk_bytes: metrics.gauge(
                "portcullis_wal_disk_bytes",
                "Disk that the session log takes.",
            ),
            damaged_files: metrics.counter(
                "portcullis_wal_damaged_files_total",
                "Files of the session log with an end that could not be read.",
            ),
            refused_records: metrics.counter(
                "portcullis_wal_refused_records_total",
                "Whole records of the session log that made no sense.",
            ),
        }
    }
}
