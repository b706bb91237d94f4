//! What feeds the log sink: log events of the gateway become records.

use std::sync::Arc;

use portcullis_core::{
    cloudwatch::logs::Line,
    limits::LOG_QUEUE_MAX,
    record::{Draft, Kind, SinkSet},
};
use tokio::{select, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{LogsConfig, Metrics};
use crate::{supervisor::TaskResult, telemetry};

/// Brings log events to the buffer. Who logs never waits: while the buffer takes nothing, events
/// gather up to a bound, and further ones are counted and gone.
#[derive(Debug)]
pub struct LogFeed {
    events: mpsc::Receiver<Line>,
    drafts: mpsc::Sender<Draft>,
    partition_key: Arc<str>,
    sinks: SinkSet,
}

impl LogFeed {
    /// Taps the log of this process from now on; `drafts` leads to the buffer, `sinks` is the log sink.
    pub fn new(
        config: &LogsConfig,
        gateway_id: &str,
        drafts: mpsc::Sender<Draft>,
        sinks: SinkSet,
        metrics: &Metrics,
    ) -> Self {
        Self {
            events: telemetry::tap(config.level, LOG_QUEUE_MAX, metrics.log_dropped.clone()),
            drafts,
            partition_key: gateway_id.into(),
            sinks,
        }
    }

    /// Runs until `stop`, and brings what was logged before it.
    ///
    /// # Errors
    /// None: without a buffer the gateway ends anyway.
    pub async fn run(mut self, stop: CancellationToken) -> TaskResult {
        loop {
            // Both are cancel-safe.
            let line = select! {
                line = self.events.recv() => line,
                () = stop.cancelled() => break,
            };
            let Some(line) = line else {
                stop.cancelled().await;
                return Ok(());
            };
            if !self.bring(&line).await {
                return Ok(());
            }
        }
        self.events.close();
        while let Ok(line) = self.events.try_recv() {
            if !self.bring(&line).await {
                break;
            }
        }
        Ok(())
    }

    async fn bring(&self, line: &Line) -> bool {
        let draft = Draft {
            kind: Kind::Log,
            partition_key: Arc::clone(&self.partition_key),
            members: line.members(),
            sinks: self.sinks,
        };
        self.drafts.send(draft).await.is_ok()
    }
}
