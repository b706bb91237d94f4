//! The task that owns the detector.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use portcullis_core::{
    detect::{Cause, Detector, EventType, Limits, Profiles, Stats, Violation},
    limits::ACTIVITY_QUEUE_MAX,
    record::Draft,
};
use prometheus::Registry;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Activity, Observer, metrics::Metrics};
use crate::{clock::now, supervisor::TaskResult};

/// How often the datapoints that are due are taken.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// Activities taken from the queue at once.
const BATCH: usize = 256;
/// How long activities gather before they are judged.
const PAUSE: Duration = Duration::from_millis(10);

/// Judges what devices do.
#[derive(Debug)]
pub struct Defend {
    detector: Detector,
    activities: mpsc::Receiver<Activity>,
    violations: mpsc::Sender<Draft>,
    metrics: Metrics,
    listener: Option<Listener>,
    evicted: u64,
}

/// Whoever wants to know which alarms are open: called with device, profile, behaviour and whether
/// the alarm is open now. It must not block.
#[derive(Clone)]
pub struct Listener(Arc<Tell>);

type Tell = dyn Fn(&str, &str, &str, bool) + Send + Sync;

impl Listener {
    /// Calls `tell` for every alarm that opens or ends.
    pub fn new(tell: impl Fn(&str, &str, &str, bool) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// The buffer is gone, so that violations lead nowhere.
#[derive(Debug, thiserror::Error)]
#[error("failed to append a violation: the buffer is closed")]
struct BufferClosed;

impl Defend {
    /// `violations` leads to the buffer.
    pub fn new(
        profiles: Profiles,
        violations: mpsc::Sender<Draft>,
        registry: &Registry,
    ) -> (Self, Observer) {
        let metrics = Metrics::register(registry);
        let (queue, activities) = mpsc::channel(ACTIVITY_QUEUE_MAX);
        let observer = Observer::new(queue, metrics.clone());
        let defend = Self {
            detector: Detector::new(profiles, Limits::default()),
            activities,
            violations,
            metrics,
            listener: None,
            evicted: 0,
        };
        (defend, observer)
    }

    /// Tells `listener` of alarms.
    #[must_use]
    pub fn telling(self, listener: Listener) -> Self {
        Self {
            listener: Some(listener),
            ..self
        }
    }

    /// Runs until every observer is gone, or until `stop`; then judges what is queued and ends.
    pub async fn run(mut self, stop: CancellationToken) -> TaskResult {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        let mut pause = pin!(sleep(PAUSE));
        let mut pausing = false;
        loop {
            // Every branch is cancel-safe: `recv_many` and `tick` say so, a token and a sleep keep their
            // state.
            tokio::select! {
                count = self.activities.recv_many(&mut batch, BATCH), if !pausing => {
                    if count == 0 {
                        return Ok(());
                    }
                    let is_backlog = count == BATCH;
                    self.judge(&mut batch).await?;
                    // Who is not listening is not woken for each activity of a flood.
                    pausing = !is_backlog;
                    pause.as_mut().reset(Instant::now() + PAUSE);
                }
                () = &mut pause, if pausing => pausing = false,
                _ = ticks.tick() => self.tick().await?,
                () = stop.cancelled() => break,
            }
        }
        self.activities.close();
        while self.activities.recv_many(&mut batch, BATCH).await != 0 {
            self.judge(&mut batch).await?;
        }
        Ok(())
    }

    async fn judge(&mut self, batch: &mut Vec<Activity>) -> Result<(), BufferClosed> {
        let times = batch.iter().map(|activity| u64::from(activity.times));
        self.metrics.activities.inc_by(times.sum());
        for activity in batch.drain(..) {
            let violations = self.detector.observe(&activity, &mut new_id);
            self.raise(violations).await?;
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), BufferClosed> {
        let violations = self.detector.tick(now(), &mut new_id);
        let Stats {
            devices,
            alarms,
            evicted,
        } = self.detector.stats();
        self.metrics.devices.set(gauge(devices));
        self.metrics.alarms.set(gauge(alarms));
        self.metrics.evicted.inc_by(evicted - self.evicted);
        self.evicted = evicted;
        self.raise(violations).await
    }

    async fn raise(&self, violations: Vec<Violation>) -> Result<(), BufferClosed> {
        for violation in violations {
            log(&violation);
            if let Some(Listener(tell)) = &self.listener {
                let is_open = violation.event_type == EventType::InAlarm;
                let profile = violation.profile();
                tell(&violation.device, &profile, violation.behavior(), is_open);
            }
            self.metrics
                .violations
                .with_label_values(&[
                    &violation.profile(),
                    violation.behavior(),
                    violation.event_type.name(),
                ])
                .inc();
            let sent = self.violations.send(violation.draft()).await;
            sent.map_err(|_| BufferClosed)?;
        }
        Ok(())
    }
}

fn log(violation: &Violation) {
    let Cause::Behavior {
        profile,
        behavior,
        value,
    } = &violation.cause
    else {
        return;
    };
    let (device, name) = (&violation.device, &behavior.name);
    let id = &violation.ids.violation_id;
    let metric = behavior.metric.name();
    match violation.event_type {
        EventType::InAlarm if behavior.suppress_alerts => {
            debug!(%device, %profile, behavior = %name, metric, value, violation = %id,
                "A device departs from what is normal; alerts are suppressed.");
        }
        EventType::InAlarm => {
            warn!(%device, %profile, behavior = %name, metric, value, violation = %id,
                "A device departs from what is normal.");
        }
        EventType::AlarmCleared => {
            info!(%device, %profile, behavior = %name, metric, value, violation = %id,
                "A device is normal again.");
        }
        EventType::AlarmInvalidated => {
            info!(%device, %profile, behavior = %name, metric, value, violation = %id,
                "An alarm ends without a verdict.");
        }
    }
}

/// Ordered by time, so that records sort by it.
fn new_id() -> String {
    Uuid::now_v7().to_string()
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
