//! `/api/v1/status`: what an operator wants to know first, as one JSON document.
//!
//! Figures come from the metrics, so that both never disagree; what was refused last comes from
//! whoever keeps it. Members are added, not renamed.

use std::{fmt, sync::Arc, time::Instant};

use prometheus::{
    Registry,
    proto::{Metric, MetricFamily},
};
use serde_json::{Value, json};

use crate::telemetry::Readiness;

/// What is shown and is no metric.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn() -> Value + Send + Sync>);

impl Source {
    /// Asks `source` whenever somebody asks for the status.
    pub fn new(source: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// All of that.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The last denials.
    pub denials: Source,
    /// The sinks of the uplink, each with its state and what happened last.
    pub sinks: Source,
}

/// The document.
pub(super) fn document(
    registry: &Registry,
    readiness: &Readiness,
    started: Instant,
    sources: &Sources,
) -> Value {
    let page = Page(registry.gather());
    let waiting = readiness.waiting();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": started.elapsed().as_secs(),
        "ready": waiting.is_empty(),
        "waiting_for": waiting,
        "notes": readiness.notes(),
        "configuration": {
            "generation": page.whole("portcullis_identity_generation"),
            "things": page.whole("portcullis_identity_things"),
            "refused": page.sum("portcullis_identity_stale") > 0.0,
        },
        "connections": page.whole("portcullis_broker_connections"),
        "denials": {
            "total": page.whole("portcullis_broker_denied_total"),
            "by_reason": page.series("portcullis_broker_denied_total"),
            "refused_connections": page.whole("portcullis_broker_refused_total"),
            "refused_by_reason": page.series("portcullis_broker_refused_total"),
            "not_logged": page.whole("portcullis_broker_denials_unlogged_total"),
            "last": (sources.denials.0)(),
        },
        "uplink": {
            "state": page.uplink(),
            "online": page.sum("portcullis_uplink_online") > 0.0,
            "lag_seconds": page.max("portcullis_uplink_lag_seconds"),
            "sent_records": page.whole("portcullis_uplink_sent_records_total"),
            "failed_records": page.whole("portcullis_uplink_failed_records_total"),
            "sinks": (sources.sinks.0)(),
        },
        "buffer": {
            "records": page.whole("portcullis_buffer_depth_records"),
            "disk_bytes": page.whole("portcullis_buffer_disk_bytes"),
        },
    })
}

/// The metrics at one moment.
struct Page(Vec<MetricFamily>);

impl Page {
    fn metrics(&self, name: &str) -> impl Iterator<Item = &Metric> {
        let families = self.0.iter().filter(move |family| family.name() == name);
        families.flat_map(|family| family.get_metric())
    }

    /// Of all series; 0 if there are none yet.
    fn sum(&self, name: &str) -> f64 {
        // Not `sum`: that of nothing is -0.
        self.metrics(name).map(value).fold(0.0, |a, b| a + b)
    }

    /// Of all series; 0 if there are none yet.
    fn max(&self, name: &str) -> f64 {
        self.metrics(name).map(value).fold(0.0, f64::max)
    }

    /// The worst state of a sink; of those that nothing was sent to yet, nobody knows.
    fn uplink(&self) -> &'static str {
        let is = |state: &str| {
            let mut states = self.metrics("portcullis_uplink_state");
            states.any(|metric| {
                let mut labels = metric.get_label().iter();
                value(metric) > 0.0 && labels.any(|label| label.value() == state)
            })
        };
        let worst = ["offline", "paused", "degraded", "online"];
        worst
            .into_iter()
            .find(|state| is(state))
            .unwrap_or("starting")
    }

    fn whole(&self, name: &str) -> Value {
        whole(self.sum(name))
    }

    /// Each series with its labels.
    fn series(&self, name: &str) -> Value {
        let series = self.metrics(name).map(|metric| {
            let labels = metric.get_label().iter();
            let mut members: serde_json::Map<_, _> = labels
                .map(|label| (label.name().to_owned(), label.value().into()))
                .collect();
            members.insert("count".to_owned(), whole(value(metric)));
            Value::Object(members)
        });
        series.collect()
    }
}

fn value(metric: &Metric) -> f64 {
    // One of them is there; the other reads as 0.
    metric.get_counter().get_value() + metric.get_gauge().get_value()
}

/// Counts are whole; JSON should not say `3.0`.
fn whole(value: f64) -> Value {
    format!("{value:.0}")
        .parse::<i64>()
        .map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Registrar;

    #[test]
    fn the_figures_are_those_of_the_metrics() {
        let registry = Registry::new();
        let metrics = Registrar(&registry);
        let denied = metrics.counters("portcullis_broker_denied_total", "x", &["action", "reason"]);
        denied.with_label_values(&["publish", "reserved"]).inc();
        denied
            .with_label_values(&["connect", "implicit-deny"])
            .inc();
        metrics.gauge("portcullis_broker_connections", "x").set(7);
        let readiness = Readiness::default();
        let _latch = readiness.latch("buffer");
        let last = Sources {
            denials: Source::new(|| json!([{"resource": "a"}])),
            sinks: Source::new(|| json!([{"name": "outbox"}])),
        };
        let status = document(&registry, &readiness, Instant::now(), &last);
        assert_eq!(status["connections"], 7);
        assert_eq!(status["denials"]["total"], 2);
        let reserved = json!({"action": "publish", "reason": "reserved", "count": 1});
        let by_reason = status["denials"]["by_reason"].as_array().unwrap();
        assert!(by_reason.contains(&reserved), "{by_reason:?}");
        assert_eq!(status["denials"]["last"][0]["resource"], "a");
        assert_eq!(status["uplink"]["online"], false);
        assert_eq!(status["uplink"]["state"], "starting");
        assert_eq!(status["uplink"]["sinks"][0]["name"], "outbox");
        assert_eq!(status["ready"], false);
        assert_eq!(status["waiting_for"], json!(["buffer"]));
    }

    #[test]
    fn the_uplink_is_starting_until_it_was_tried_and_then_as_its_worst_sink() {
        let registry = Registry::new();
        let metrics = Registrar(&registry);
        let labels = &["sink", "state"];
        let states = metrics.float_gauges("portcullis_uplink_state", "x", labels);
        let set = |sink, state, to| states.with_label_values(&[sink, state]).set(to);
        let state = || Page(registry.gather()).uplink();
        assert_eq!(state(), "starting");
        set("a", "starting", 1.0);
        set("b", "starting", 1.0);
        assert_eq!(state(), "starting");
        set("a", "starting", 0.0);
        set("a", "online", 1.0);
        assert_eq!(state(), "online");
        set("b", "starting", 0.0);
        set("b", "paused", 1.0);
        assert_eq!(state(), "paused");
        set("b", "paused", 0.0);
        set("b", "online", 1.0);
        assert_eq!(state(), "online");
    }
}
