//! The task that owns the detector.

use portcullis_core::{detect::Profiles, limits::ACTIVITY_QUEUE_MAX, record::Draft};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Activity, Observer, metrics::Metrics};
use crate::supervisor::TaskResult;

/// Judges what devices do.
#[derive(Debug)]
pub struct Defend {
    profiles: Profiles,
    activities: mpsc::Receiver<Activity>,
    violations: mpsc::Sender<Draft>,
    metrics: Metrics,
}

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
            profiles,
            activities,
            violations,
            metrics,
        };
        (defend, observer)
    }

    /// Runs until `stop`, or until every observer is gone.
    pub async fn run(self, stop: CancellationToken) -> TaskResult {
        stop.cancelled().await;
        Ok(())
    }
}
