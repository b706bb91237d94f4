//! What the pipeline counts.

use prometheus::{Histogram, IntCounter, IntCounterVec, Registry};

use crate::telemetry::Registrar;

/// Counters of events and chains. Labels are names from the configuration.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) events: IntCounter,
    pub(super) dropped: IntCounterVec,
    pub(super) failed: IntCounterVec,
    pub(super) violations: IntCounterVec,
    pub(super) tags_refused: IntCounterVec,
    pub(super) batch_events: Histogram,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        Self {
            events: metrics.counter(
                "portcullis_pipeline_events_total",
                "Events taken from sessions.",
            ),
            dropped: metrics.counters(
                "portcullis_pipeline_dropped_total",
                "Events that a chain dropped: by its rule, or because a step failed.",
                &["plugin", "cause"],
            ),
            failed: metrics.counters(
                "portcullis_pipeline_failed_total",
                "Events for which a step failed, by what became of them.",
                &["plugin", "outcome"],
            ),
            violations: metrics.counters(
                "portcullis_pipeline_violations_total",
                "Violations raised by plugins.",
                &["plugin"],
            ),
            tags_refused: metrics.counters(
                "portcullis_pipeline_tags_refused_total",
                "Tags that a rule set beyond the bound of an event.",
                &["plugin"],
            ),
            batch_events: metrics.histogram(
                "portcullis_pipeline_batch_events",
                "Events in one run of a chain.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
            ),
        }
    }
}
