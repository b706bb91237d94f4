//! What feeds the sink for metrics: each minute, one record with what the registry says of it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use portcullis_core::{
    cloudwatch::{
        Minute, Series,
        metrics::{Point, Unit},
    },
    limits::{METRIC_PERIOD, METRIC_SAMPLE, METRIC_SERIES_MAX},
    record::{Draft, Kind as RecordKind, SinkSet},
    timestamp::Timestamp,
};
use prometheus::Registry;
use tokio::{
    select,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Metrics, MetricsConfig,
    catalogue::{Kind, sample},
    config::GATEWAY_DIMENSION,
};
use crate::{clock::now, supervisor::TaskResult};

/// 1 in every minute in which the gateway ran: for an alarm on missing data.
const HEARTBEAT: &str = "Heartbeat";

/// Samples the gateway's own metrics: gauges every so often, counters once a minute.
pub struct Sampler {
    namespace: String,
    dimensions: BTreeMap<String, String>,
    partition_key: Arc<str>,
    registry: Registry,
    drafts: mpsc::Sender<Draft>,
    sinks: SinkSet,
    metrics: Metrics,
    minute: Minute,
    /// When the minute began; `None` before the first look.
    at: Option<Timestamp>,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler")
            .field("namespace", &self.namespace)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Sampler {
    /// Samples `registry`; `drafts` leads to the buffer, `sinks` is the sink for metrics.
    pub fn new(
        config: &MetricsConfig,
        gateway_id: &str,
        registry: Registry,
        drafts: mpsc::Sender<Draft>,
        sinks: SinkSet,
        metrics: Metrics,
    ) -> Self {
        let mut dimensions = config.dimensions.clone();
        dimensions.insert(GATEWAY_DIMENSION.to_owned(), gateway_id.to_owned());
        Self {
            namespace: config.namespace.clone(),
            dimensions,
            partition_key: gateway_id.into(),
            registry,
            drafts,
            sinks,
            metrics,
            minute: Minute::new(METRIC_SERIES_MAX),
            at: None,
        }
    }

    /// Runs until `stop`, and tells the minute that had begun.
    ///
    /// # Errors
    /// None: without a buffer the gateway ends anyway.
    pub async fn run(mut self, stop: CancellationToken) -> TaskResult {
        let mut ticks = interval(METRIC_SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Both are cancel-safe.
            let draft = select! {
                _ = ticks.tick() => self.look(now()),
                () = stop.cancelled() => break,
            };
            if let Some(draft) = draft
                && self.drafts.send(draft).await.is_err()
            {
                stop.cancelled().await;
                return Ok(());
            }
        }
        if let Some(at) = self.at.take() {
            let draft = self.close(at);
            // The buffer may be gone already.
            drop(self.drafts.send(draft).await);
        }
        Ok(())
    }

    /// Looks at the gauges; the record of the last minute, if that is over at `now`.
    fn look(&mut self, now: Timestamp) -> Option<Draft> {
        let period = u64::try_from(METRIC_PERIOD.as_millis()).unwrap_or(u64::MAX);
        let begun = Timestamp::from_millis(now.as_millis() / period * period);
        let over = self.at.replace(begun).filter(|at| *at != begun);
        let closed = over.map(|at| self.close(at));
        sample(&self.registry.gather(), Kind::Gauges, &mut self.minute);
        closed
    }

    fn close(&mut self, at: Timestamp) -> Draft {
        let heartbeat = Series {
            name: HEARTBEAT.to_owned(),
            dimensions: Vec::new(),
            unit: Unit::COUNT,
        };
        self.minute.gauge(heartbeat, 1.0);
        sample(&self.registry.gather(), Kind::Counters, &mut self.minute);
        self.metrics.left_out.inc_by(self.minute.take_left_out());
        let point = Point {
            namespace: self.namespace.clone(),
            at,
            data: self.minute.take(),
        };
        Draft {
            kind: RecordKind::Metric,
            partition_key: Arc::clone(&self.partition_key),
            members: point.members(&self.dimensions),
            sinks: self.sinks,
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::cloudwatch::metrics::Reading;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::telemetry::Registrar;

    fn sampler(registry: &Registry) -> (Sampler, mpsc::Receiver<Draft>) {
        let (sender, drafts) = mpsc::channel(4);
        let config = MetricsConfig {
            namespace: "Portcullis".to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: None,
            dimensions: BTreeMap::from([("Site".to_owned(), "north".to_owned())]),
        };
        let metrics = Metrics::register(&Registry::new());
        let sinks = SinkSet::single(1);
        let sampler = Sampler::new(&config, "gw-1", registry.clone(), sender, sinks, metrics);
        (sampler, drafts)
    }

    fn read(draft: &Draft) -> Point {
        let body = [b"{", &*draft.members, b"}"].concat();
        Point::read(&body).unwrap()
    }

    fn reading(point: &Point, name: &str) -> Reading {
        let datum = point.data.iter().find(|datum| datum.name == name);
        datum.unwrap().reading.clone()
    }

    #[test]
    fn a_minute_becomes_one_record_when_it_is_over() {
        let registry = Registry::new();
        let connections = Registrar(&registry).gauge("portcullis_broker_connections", "h");
        let publishes =
            Registrar(&registry).counters("portcullis_broker_publishes_total", "h", &["qos"]);
        let (mut sampler, _drafts) = sampler(&registry);
        let start = Timestamp::from_millis(1_795_341_600_000);
        connections.set(10);
        for second in [0, 10, 20] {
            assert_eq!(sampler.look(start.plus_millis(second * 1000)), None);
        }
        connections.set(12);
        publishes.with_label_values(&["1"]).inc_by(70);
        assert_eq!(sampler.look(start.plus_millis(59_999)), None);
        let draft = sampler.look(start.plus_millis(60_000)).unwrap();
        assert_eq!(draft.kind, RecordKind::Metric);
        assert_eq!(draft.sinks, SinkSet::single(1));
        let point = read(&draft);
        assert_eq!(point.at, start);
        assert_eq!(reading(&point, "Heartbeat"), Reading::one(1.0));
        assert_eq!(reading(&point, "Publishes"), Reading::one(70.0));
        assert_eq!(
            reading(&point, "Connections"),
            Reading::Values(vec![(10.0, 3.0), (12.0, 1.0)])
        );
        let expected = [("GatewayId", "gw-1"), ("Site", "north")];
        let expected: Vec<_> = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        assert!(point.data.iter().all(|datum| datum.dimensions == expected));

        publishes.with_label_values(&["0"]).inc_by(5);
        let draft = sampler.look(start.plus_millis(120_000)).unwrap();
        let point = read(&draft);
        assert_eq!(point.at, start.plus_millis(60_000));
        assert_eq!(reading(&point, "Publishes"), Reading::one(5.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_minute_that_had_begun_is_told_at_the_stop() {
        let registry = Registry::new();
        let connections = Registrar(&registry).gauge("portcullis_broker_connections", "h");
        connections.set(3);
        let (sampler, mut drafts) = sampler(&registry);
        let stop = CancellationToken::new();
        let run = sampler.run(stop.clone());
        tokio::pin!(run);
        // One look.
        tokio::select! {
            _ = &mut run => panic!("it ended"),
            () = tokio::time::sleep(METRIC_SAMPLE / 2) => {}
        }
        stop.cancel();
        run.await.unwrap();
        let point = read(&drafts.recv().await.unwrap());
        assert_eq!(reading(&point, "Connections"), Reading::one(3.0));
    }
}
