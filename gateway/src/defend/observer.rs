//! The broker's end of detection: a handle that tells and never waits.

use tokio::sync::mpsc;

use super::{Activity, metrics::Metrics};

/// Tells [`Defend`](super::Defend) what devices do.
#[derive(Clone, Debug)]
pub struct Observer {
    queue: mpsc::Sender<Activity>,
    metrics: Metrics,
}

impl Observer {
    pub(super) fn new(queue: mpsc::Sender<Activity>, metrics: Metrics) -> Self {
        Self { queue, metrics }
    }

    /// Queues `activity`. If the queue is full, the activity is dropped and counted: detection must
    /// not slow down what it watches.
    pub fn observe(&self, activity: Activity) {
        let times = activity.times.into();
        if self.queue.try_send(activity).is_err() {
            self.metrics.dropped.inc_by(times);
        }
    }
}
