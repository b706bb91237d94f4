//! What the pipeline counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

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
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)
                .expect("the options are constants");
            registry
                .register(Box::new(counters.clone()))
                .expect("metric names are unique");
            counters
        };
        let events = IntCounter::new(
            "portcullis_pipeline_events_total",
            "Events taken from sessions.",
        )
        .expect("the options are constants");
        registry
            .register(Box::new(events.clone()))
            .expect("metric names are unique");
        let buckets = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
        let options = HistogramOpts::new(
            "portcullis_pipeline_batch_events",
            "Events in one run of a chain.",
        );
        let batch_events =
            Histogram::with_opts(options.buckets(buckets)).expect("the options are constants");
        registry
            .register(Box::new(batch_events.clone()))
            .expect("metric names are unique");
        Self {
            events,
            dropped: counters(
                "portcullis_pipeline_dropped_total",
                "Events that a chain dropped: by its rule, or because a step failed.",
                &["plugin", "cause"],
            ),
            failed: counters(
                "portcullis_pipeline_failed_total",
                "Events for which a step failed, by what became of them.",
                &["plugin", "outcome"],
            ),
            violations: counters(
                "portcullis_pipeline_violations_total",
                "Violations raised by plugins.",
                &["plugin"],
            ),
            tags_refused: counters(
                "portcullis_pipeline_tags_refused_total",
                "Tags that a rule set beyond the bound of an event.",
                &["plugin"],
            ),
            batch_events,
        }
    }
}
