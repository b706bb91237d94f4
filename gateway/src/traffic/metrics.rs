//! What traffic counts.

use prometheus::{IntCounter, IntGauge, Registry};

use crate::telemetry::Registrar;

/// Metrics of this module.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) observed: IntCounter,
    pub(super) lost: IntCounter,
    pub(super) facts: IntGauge,
    pub(super) write_failures: IntCounter,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        Self {
            observed: metrics.counter(
                "portcullis_traffic_observed_total",
                "Allowed actions of things that were noted to learn policies from.",
            ),
            lost: metrics.counter(
                "portcullis_traffic_lost_total",
                "Allowed actions of things that were not noted, because a bound was reached.",
            ),
            facts: metrics.gauge("portcullis_traffic_facts", "Different facts of this hour."),
            write_failures: metrics.counter(
                "portcullis_traffic_write_failures_total",
                "Failed attempts to write the file of an hour.",
            ),
        }
    }
}
