//! What the CloudWatch sinks and what feeds them say about themselves.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::telemetry::Registrar;
use crate::uplink::Tally;

/// The metrics of everything here; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: IntCounterVec,
    records: IntCounterVec,
    online: IntGaugeVec,
    /// Samples of metrics beyond the bound.
    pub(super) left_out: IntCounter,
    /// Data points of records that the service would not take.
    pub(super) unfit_data: IntCounter,
    /// Log events that found the queue full.
    pub(super) log_dropped: IntCounter,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        let online = IntGaugeVec::new(
            Opts::new(
                "portcullis_cloudwatch_online",
                "Whether CloudWatch took the last call (1) or not (0).",
            ),
            &["sink"],
        );
        let online = online.expect("names and labels are constants that Prometheus takes");
        registry
            .register(Box::new(online.clone()))
            .expect("metric names are unique");
        Self {
            online,
            calls: metrics.counters(
                "portcullis_cloudwatch_calls_total",
                "Calls to CloudWatch, by what came of them.",
                &["sink", "outcome"],
            ),
            records: metrics.counters(
                "portcullis_cloudwatch_records_total",
                "Records that are done with, by what became of them.",
                &["sink", "fate"],
            ),
            left_out: metrics.counter(
                "portcullis_cloudwatch_left_out_total",
                "Samples of metrics beyond the number that one minute may have.",
            ),
            unfit_data: metrics.counter(
                "portcullis_cloudwatch_unfit_data_total",
                "Data points that were not sent, because CloudWatch would refuse the whole call.",
            ),
            log_dropped: metrics.counter(
                "portcullis_cloudwatch_log_dropped_total",
                "Log events that were not kept for CloudWatch, because too many came at once.",
            ),
        }
    }

    pub(super) fn answered(&self, sink: &str, outcome: &str) {
        self.calls.with_label_values(&[sink, outcome]).inc();
        let online = self.online.with_label_values(&[sink]);
        online.set(i64::from(outcome == "taken"));
    }

    pub(super) fn settled(&self, sink: &str, tally: &Tally) {
        let count = |fate: &str, records: u64| {
            self.records
                .with_label_values(&[sink, fate])
                .inc_by(records);
        };
        count("delivered", tally.delivered);
        for (reason, records) in &tally.dropped {
            count(reason, *records);
        }
    }
}
