//! CloudWatch metrics and CloudWatch Logs: what the gateway says about itself, in the cloud.
//!
//! ```text
//! Prometheus registry ─ Sampler: each minute ─ record ┐                 ┌ MetricSink ─ PutMetricData
//! tracing ─ telemetry::Tap (bounded) ─ LogFeed ─ record ┴ lane `bulk` ──┴ LogSink ─── PutLogEvents
//! ```
//! Both ways go over the buffer, so that an outage leaves no hole as long as its bound holds. Limits of
//! a call are checked before it (`core::cloudwatch`). What is older than CloudWatch takes is dropped
//! and counted. Metrics add up at CloudWatch, so a call whose outcome is not known is not sent again
//! (`ambiguous`); log events are, for a line twice is better than none.
//! Nothing of this runs unless it is configured. Absent on purpose: dashboards and alarms, histograms,
//! spans.

mod catalogue;
pub mod config;
mod link;
mod log_feed;
mod log_sink;
mod metric_sink;
mod metrics;
mod put_logs;
mod put_metrics;
mod sampler;
mod start;
mod waiting;

use super::{Part, RecordSource, Tally};

pub use config::{Config, LogsConfig, MetricsConfig};
pub use log_feed::LogFeed;
pub use log_sink::LogSink;
pub use metric_sink::MetricSink;
pub use metrics::Metrics;
pub use sampler::Sampler;
pub use start::start;

/// The name of the sink for metrics, under which its cursor lives.
pub const METRIC_SINK: &str = "cloudwatch-metrics";
/// The name of the sink for log events.
pub const LOG_SINK: &str = "cloudwatch-logs";

impl Config {
    /// The sinks that are configured; all read the lane `bulk`.
    pub fn sinks(&self) -> Vec<&'static str> {
        let metrics = self.metrics.is_some().then_some(METRIC_SINK);
        let logs = self.logs.is_some().then_some(LOG_SINK);
        metrics.into_iter().chain(logs).collect()
    }
}

/// Why records never get to CloudWatch: reasons of a [`Tally`].
mod reason {
    /// Too old for CloudWatch.
    pub(super) const EXPIRED: &str = "expired";
    /// Too far ahead of CloudWatch's clock.
    pub(super) const TOO_NEW: &str = "too-new";
    /// Sent, without an answer; again it would count twice.
    pub(super) const AMBIGUOUS: &str = "ambiguous";
    /// CloudWatch calls it invalid.
    pub(super) const INVALID: &str = "invalid";
    /// No body that this release reads.
    pub(super) const UNREADABLE: &str = "unreadable";
}
