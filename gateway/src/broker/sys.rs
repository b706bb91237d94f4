//! `$SYS/broker/…`: the counters that MQTT tools look at, under mosquitto's names.
//!
//! A task that tells them every so often to local subscribers, who need a policy for it like for any
//! other topic; clients cannot publish there (`core::reserved`). Who subscribes between two tellings gets
//! what was told last, like what is retained; it is not retained, and nothing of it is on disk. How a
//! message gets to subscribers is not known to the task: it is given a closure. The figures are those of the metrics, so that both
//! never disagree; what no metric has comes from [`Counts`]. The averages of `$SYS/broker/load/…` are
//! absent on purpose: they are a monitor's to compute.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use portcullis_core::{
    event::Qos,
    topic::{TopicFilter, TopicName},
};
use prometheus::{IntCounterVec, core::Collector};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Metrics, lifecycle::own_message, message::Message, shared::Shared};
use crate::supervisor::TaskResult;

/// What there is at a moment and no metric tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Sessions, those of clients that are away included.
    pub(super) sessions: usize,
    /// Subscriptions, shared ones included.
    pub(super) subscriptions: usize,
    /// Shared ones.
    pub(super) shared_subscriptions: usize,
    /// Retained messages.
    pub(super) retained: usize,
}

/// The task; see the module.
pub struct Sys {
    metrics: Metrics,
    every: Duration,
    started: Instant,
    clients_max: usize,
    counts: Box<dyn Fn() -> Counts + Send>,
    publish: Box<dyn Fn(TopicName, Bytes) + Send>,
}

/// What was told last, by topic.
#[derive(Debug, Default)]
pub(super) struct Figures(Mutex<BTreeMap<TopicName, Arc<Message>>>);

impl Figures {
    /// Those that `filter` takes.
    pub(super) fn matching(&self, filter: &TopicFilter) -> Vec<Arc<Message>> {
        let figures = self.lock();
        let matching = figures.iter().filter(|(topic, _)| filter.matches(topic));
        matching.map(|(_, message)| Arc::clone(message)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicName, Arc<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn tell_figure(&self, topic: TopicName, payload: Bytes) {
        let message = Message {
            qos: Qos::AtMostOnce,
            ..own_message(topic.clone(), payload)
        };
        let told = Arc::new(message.clone());
        self.figures.lock().insert(topic, told);
        self.announce_own(message);
    }
}

impl Sys {
    /// What tells the subscribers of `shared`, if its settings want that.
    pub(super) fn of(shared: &Arc<Shared>) -> Option<Self> {
        let every = shared.config.limits.sys_interval?;
        let (counted, told) = (Arc::clone(shared), Arc::clone(shared));
        let counts = move || Counts {
            sessions: counted.sessions.len(),
            subscriptions: counted.sessions.subscriptions_len(),
            shared_subscriptions: counted.sessions.shared_subscriptions_len(),
            retained: counted.sessions.retained.size().0,
        };
        let publish = move |topic, payload| told.tell_figure(topic, payload);
        Some(Self::new(shared.metrics.clone(), every, counts, publish))
    }

    /// Tells every `every`: `counts` has the figures at that moment, `publish` brings a message of QoS
    /// 0 to the subscribers of its topic. The next one follows soon: nothing of it need be on disk.
    pub(super) fn new(
        metrics: Metrics,
        every: Duration,
        counts: impl Fn() -> Counts + Send + 'static,
        publish: impl Fn(TopicName, Bytes) + Send + 'static,
    ) -> Self {
        Self {
            metrics,
            every,
            started: Instant::now(),
            clients_max: 0,
            counts: Box::new(counts),
            publish: Box::new(publish),
        }
    }

    /// Tells until `stop`.
    ///
    /// # Errors
    /// None.
    pub async fn run(mut self, stop: CancellationToken) -> TaskResult {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => self.tell(),
            }
        }
    }

    fn tell(&mut self) {
        for (topic, text) in self.figures() {
            let topic = TopicName::parse(&format!("$SYS/broker/{topic}"));
            let topic = topic.expect("the names below are topics");
            (self.publish)(topic, text.into());
        }
    }

    fn figures(&mut self) -> Vec<(&'static str, String)> {
        let counts = (self.counts)();
        let metrics = &self.metrics;
        let connected = usize::try_from(metrics.connections.get()).unwrap_or(0);
        self.clients_max = self.clients_max.max(connected);
        let total = counts.sessions.max(connected);
        let away = total - connected;
        let uptime = self.started.elapsed().as_secs();
        vec![
            (
                "version",
                concat!("portcullis version ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
            ("uptime", format!("{uptime} seconds")),
            ("clients/connected", connected.to_string()),
            ("clients/active", connected.to_string()),
            ("clients/disconnected", away.to_string()),
            ("clients/inactive", away.to_string()),
            ("clients/total", total.to_string()),
            ("clients/maximum", self.clients_max.to_string()),
            (
                "messages/received",
                metrics.packets_received.get().to_string(),
            ),
            ("messages/sent", metrics.packets_sent.get().to_string()),
            (
                "publish/messages/received",
                sum(&metrics.publishes).to_string(),
            ),
            (
                "publish/messages/sent",
                sum(&metrics.deliveries).to_string(),
            ),
            (
                "publish/messages/dropped",
                sum(&metrics.delivery_dropped).to_string(),
            ),
            (
                "publish/bytes/received",
                metrics.publish_bytes.get().to_string(),
            ),
            ("bytes/received", metrics.bytes_received.get().to_string()),
            ("bytes/sent", metrics.bytes_sent.get().to_string()),
            ("subscriptions/count", counts.subscriptions.to_string()),
            (
                "shared_subscriptions/count",
                counts.shared_subscriptions.to_string(),
            ),
            ("retained messages/count", counts.retained.to_string()),
        ]
    }
}

impl fmt::Debug for Sys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sys")
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

/// Of all series.
fn sum(counters: &IntCounterVec) -> u64 {
    let families = counters.collect();
    let series = families.iter().flat_map(|family| family.get_metric());
    let sum: f64 = series.map(|metric| metric.get_counter().get_value()).sum();
    format!("{sum:.0}").parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use portcullis_core::reserved::is_reserved;
    use prometheus::Registry;

    use super::*;

    type Told = Arc<Mutex<Vec<(TopicName, Bytes)>>>;

    /// What is told in so long.
    async fn told(metrics: &Metrics, every: Duration, long: Duration) -> Vec<(String, String)> {
        let told = Told::default();
        let kept = Arc::clone(&told);
        let counts = || Counts {
            sessions: 5,
            subscriptions: 7,
            shared_subscriptions: 2,
            retained: 3,
        };
        let publish = move |topic, payload| kept.lock().unwrap().push((topic, payload));
        let stop = CancellationToken::new();
        let task = Sys::new(metrics.clone(), every, counts, publish).run(stop.clone());
        let timer = async {
            tokio::time::sleep(long).await;
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(task, timer);
        ended.unwrap();
        let told = told.lock().unwrap();
        let text = |(topic, payload): &(TopicName, Bytes)| {
            assert!(is_reserved(topic), "a client could say {topic}");
            (
                topic.to_string(),
                String::from_utf8(payload.to_vec()).unwrap(),
            )
        };
        told.iter().map(text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_figures_are_those_of_the_metrics_under_the_usual_names() {
        let metrics = Metrics::register(&Registry::new());
        metrics.connections.set(2);
        metrics.packets_received.inc_by(10);
        metrics.packets_sent.inc_by(11);
        metrics.bytes_received.inc_by(100);
        metrics.publish_bytes.inc_by(42);
        for qos in ["0", "1"] {
            metrics.publishes.with_label_values(&[qos]).inc_by(4);
            metrics.deliveries.with_label_values(&[qos]).inc_by(3);
        }
        let told = told(
            &metrics,
            Duration::from_secs(10),
            Duration::from_millis(10_500),
        )
        .await;
        let last = |name: &str| {
            let topic = format!("$SYS/broker/{name}");
            let mut of_it = told.iter().rev().filter(|(told, _)| *told == topic);
            of_it.next().unwrap_or_else(|| panic!("{topic}")).1.as_str()
        };
        for (name, expected) in [
            (
                "version",
                concat!("portcullis version ", env!("CARGO_PKG_VERSION")),
            ),
            ("uptime", "10 seconds"),
            ("clients/connected", "2"),
            ("clients/disconnected", "3"),
            ("clients/total", "5"),
            ("clients/maximum", "2"),
            ("messages/received", "10"),
            ("messages/sent", "11"),
            ("publish/messages/received", "8"),
            ("publish/messages/sent", "6"),
            ("publish/messages/dropped", "0"),
            ("publish/bytes/received", "42"),
            ("bytes/received", "100"),
            ("bytes/sent", "0"),
            ("subscriptions/count", "7"),
            ("shared_subscriptions/count", "2"),
            ("retained messages/count", "3"),
        ] {
            assert_eq!(last(name), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_told_at_once_and_then_as_often_as_it_says() {
        let metrics = Metrics::register(&Registry::new());
        let told = told(
            &metrics,
            Duration::from_millis(500),
            Duration::from_millis(1700),
        )
        .await;
        let uptimes = told
            .iter()
            .filter(|(topic, _)| topic == "$SYS/broker/uptime");
        assert_eq!(uptimes.count(), 4);
    }
}
