//! Starts what is configured: what feeds the sinks, and the sinks.

use portcullis_core::record::{Draft, SinkSet};
use prometheus::Registry;
use tokio::sync::mpsc;

use super::{
    Config, LOG_SINK, LogFeed, LogSink, METRIC_SINK, MetricSink, Metrics, RecordSource, Sampler,
};
use crate::{
    supervisor::{Stage, Supervisor},
    uplink::aws::Http,
};

/// Spawns the tasks of the sinks in `config`; none if there are none. `drafts` leads to the buffer, in
/// whose table of sinks those of [`Config::sinks`] stand from `first_sink` on; `source` has what
/// the buffer keeps for the sink of a number.
pub fn start<S: RecordSource>(
    config: &Config,
    gateway_id: &str,
    first_sink: usize,
    registry: &Registry,
    drafts: &mpsc::Sender<Draft>,
    mut source: impl FnMut(usize) -> S,
    supervisor: &mut Supervisor,
) {
    let sinks = config.sinks();
    if sinks.is_empty() {
        return;
    }
    let number = |name: &str| {
        let place = sinks.iter().position(|sink| *sink == name);
        first_sink + place.expect("what is configured has a sink")
    };
    let metrics = Metrics::register(registry);
    let http = Http::new();
    if let Some(config) = &config.metrics {
        let (sink, metrics) = (number(METRIC_SINK), metrics.clone());
        let for_sink = SinkSet::single(sink);
        let (all, drafts) = (registry.clone(), drafts.clone());
        let sampler = Sampler::new(config, gateway_id, all, drafts, for_sink, metrics.clone());
        supervisor.spawn(Stage::Pipeline, "metric sampler", |stop| sampler.run(stop));
        let sink = MetricSink::new(config.clone(), source(sink), metrics).over(http.clone());
        supervisor.spawn(Stage::Uplink, METRIC_SINK, |stop| sink.run(stop));
    }
    if let Some(config) = &config.logs {
        let sink = number(LOG_SINK);
        let for_sink = SinkSet::single(sink);
        let feed = LogFeed::new(config, gateway_id, drafts.clone(), for_sink, &metrics);
        supervisor.spawn(Stage::Pipeline, "log feed", |stop| feed.run(stop));
        let sink = LogSink::new(config.clone(), gateway_id, source(sink), metrics).over(http);
        supervisor.spawn(Stage::Uplink, LOG_SINK, |stop| sink.run(stop));
    }
}
