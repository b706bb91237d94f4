//! What the plugins count. Labels are names from the operator's configuration, fixed words, and
//! at most [`PLUGIN_METRICS_MAX`] names that a plugin chose.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use portcullis_core::limits::PLUGIN_METRICS_MAX;
use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use crate::telemetry::Registrar;

/// Metrics of all plugins.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: IntCounterVec,
    events: IntCounterVec,
    seconds: HistogramVec,
    restarts: IntCounterVec,
    log_lines_dropped: IntCounterVec,
    counters: IntCounterVec,
    gauges: GaugeVec,
}

impl Metrics {
    /// Registers them all.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        let calls = metrics.counters(
            "portcullis_plugin_calls_total",
            "Calls into plugins by outcome.",
            &["plugin", "outcome"],
        );
        let events = metrics.counters(
            "portcullis_plugin_events_total",
            "Events that plugins handled, by what they did to them.",
            &["plugin", "action"],
        );
        let restarts = metrics.counters(
            "portcullis_plugin_restarts_total",
            "Instances that were replaced after a failure.",
            &["plugin"],
        );
        let log_lines_dropped = metrics.counters(
            "portcullis_plugin_log_lines_dropped_total",
            "Log lines of plugins beyond the limit per call.",
            &["plugin"],
        );
        let counters = metrics.counters(
            "portcullis_plugin_counter_total",
            "Counters that plugins keep themselves.",
            &["plugin", "group", "name"],
        );
        let seconds = metrics.histograms(
            "portcullis_plugin_call_seconds",
            "Duration of calls into plugins, one per batch.",
            &["plugin"],
            vec![
                0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0,
            ],
        );
        let gauges = metrics.float_gauges(
            "portcullis_plugin_gauge",
            "Gauges that plugins set themselves.",
            &["plugin", "group", "shard", "name"],
        );
        Self {
            calls,
            events,
            seconds,
            restarts,
            log_lines_dropped,
            counters,
            gauges,
        }
    }

    /// Those of one plugin.
    pub(super) fn of_plugin(&self, plugin: &str) -> PluginMetrics {
        let event = |action| self.events.with_label_values(&[plugin, action]);
        PluginMetrics {
            seconds: self.seconds.with_label_values(&[plugin]),
            kept: event("keep"),
            changed: event("change"),
            dropped: event("drop"),
            emitted: event("emit"),
            violations: event("violation"),
            restarts: self.restarts.with_label_values(&[plugin]),
            log_lines_dropped: self.log_lines_dropped.with_label_values(&[plugin]),
            plugin: plugin.into(),
            all: self.clone(),
            names: Arc::default(),
        }
    }
}

/// Metrics of one plugin, its label values looked up once.
#[derive(Clone, Debug)]
pub(super) struct PluginMetrics {
    pub(super) seconds: Histogram,
    pub(super) kept: IntCounter,
    pub(super) changed: IntCounter,
    pub(super) dropped: IntCounter,
    pub(super) emitted: IntCounter,
    pub(super) violations: IntCounter,
    pub(super) restarts: IntCounter,
    pub(super) log_lines_dropped: IntCounter,
    plugin: Arc<str>,
    all: Metrics,
    /// Names that the plugin chose, over all its instances.
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl PluginMetrics {
    /// A call ended: `ok` or the word of a [`Reason`](super::Reason).
    pub(super) fn called(&self, outcome: &str) {
        self.all
            .calls
            .with_label_values(&[&*self.plugin, outcome])
            .inc();
    }

    /// The plugin counts something itself.
    pub(super) fn count(&self, group: &str, name: &str, by: u64) {
        if self.admits(name) {
            self.all
                .counters
                .with_label_values(&[&*self.plugin, group, name])
                .inc_by(by);
        }
    }

    /// The plugin measures something itself.
    pub(super) fn gauge(&self, group: &str, shard: u32, name: &str, value: f64) {
        if self.admits(name) {
            self.all
                .gauges
                .with_label_values(&[&*self.plugin, group, &shard.to_string(), name])
                .set(value);
        }
    }

    fn admits(&self, name: &str) -> bool {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return true;
        }
        names.len() < PLUGIN_METRICS_MAX && names.insert(name.to_owned())
    }
}
