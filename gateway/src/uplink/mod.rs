//! The uplink: takes records from the buffer, in order, and brings them to the configured sinks.
//! The only place that knows AWS.
//!
//! ```text
//! RecordSource ─ read ─ sink: Kinesis (window, batches, per-record outcomes) or outbox (NDJSON files)
//!        ↑──── settle, over the contiguous prefix that the sink has ────┘
//! ```
//! Each sink is a task with a source, a state (online, degraded, offline, paused) and a pace of its own:
//! none waits for another. Which records a sink gets is decided when they are made
//! ([`Config::routes`]).
//!
//! At least once: a crash between the sink's answer and the cursor sends records again. A sink that
//! fails never ends the task: it waits with full jitter, tries again, and says so once in the log and
//! always in the metrics. Records that the sink will never take are set aside in `data/dead-letter`.
//! CloudWatch has sinks of its own: [`cloudwatch`].

use std::{error::Error, future::Future, path::PathBuf};

use portcullis_core::record::{Lane, Record};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::supervisor::TaskResult;

mod aws;
pub mod cloudwatch;
pub mod config;
mod dead_letter;
mod kinesis;
mod metrics;
mod ndjson;
mod outbox;
mod source;
mod state;

pub use config::{
    Config, KinesisConfig, Order, Ordering, OutboxConfig, Pace, RouteConfig, SinkSpec,
    StreamConfig, Waits,
};
pub use metrics::{Board, Metrics};
pub use portcullis_core::record::{Part, Tally};

/// Why a source gave nothing.
#[derive(Debug)]
pub enum SourceError {
    /// Nothing more will come.
    Closed,
    /// Nothing can be read now; try later.
    Unavailable(Box<dyn Error + Send + Sync>),
}

/// What a sink reads from. The buffer's reader is one, by way of `app.rs`: siblings do not import each
/// other.
pub trait RecordSource: Send + 'static {
    /// The next records of a lane that are for this sink, under the limits but at least one if there
    /// is any; none: nothing to read now. Never waits for appends.
    fn read(
        &mut self,
        lane: Lane,
        part: Part,
        records_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Record>, SourceError>> + Send;

    /// All that was read of this part up to and with `upto_place` is settled as the tally says
    /// (durable lazily; at least once).
    fn settle(
        &mut self,
        lane: Lane,
        part: Part,
        upto_place: u64,
        tally: Tally,
    ) -> impl Future<Output = ()> + Send;

    /// Waits until something was appended since the last call, in any lane (at once if so).
    /// Cancel-safe. [`SourceError::Closed`] when nothing more will come.
    fn changed(&mut self) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// How many records reads would find.
    fn unread(&self, lane: Lane, part: Part) -> u64;

    /// From here on [`Part::Live`] begins at the lane's end; [`Part::Backlog`] ends there. Nothing if
    /// a split is open already; it closes itself when the backlog reaches it.
    fn split(&mut self, lane: Lane) -> impl Future<Output = ()> + Send;
}

/// The tasks that ship, one for each sink.
#[derive(Debug)]
pub struct Uplink<S> {
    config: Config,
    dead_letter_dir: PathBuf,
    sources: Vec<S>,
    metrics: Metrics,
}

impl<S: RecordSource> Uplink<S> {
    /// An uplink to the sinks in `config`, each with its source, in the order of [`Config::sinks`];
    /// what a sink refuses for good goes to `dead_letter_dir`.
    pub fn new(
        config: Config,
        dead_letter_dir: PathBuf,
        sources: Vec<S>,
        metrics: Metrics,
    ) -> Self {
        Self {
            config,
            dead_letter_dir,
            sources,
            metrics,
        }
    }

    /// Ships until `stop`, then makes one last attempt to ship what is there.
    pub async fn run(self, stop: CancellationToken) -> TaskResult {
        let Self {
            config,
            dead_letter_dir,
            sources,
            metrics,
        } = self;
        let names: Vec<_> = config.sinks().into_iter().map(|sink| sink.name).collect();
        if sources.len() != names.len() {
            return Err(format!("{} sources for {} sinks", sources.len(), names.len()).into());
        }
        let dead_letters = dead_letter::DeadLetters::new(dead_letter_dir, metrics.clone());
        let mut tasks = JoinSet::new();
        let mut streams = match &config {
            Config::Kinesis(config) => std::iter::once(&config.default)
                .chain(config.routes.iter().map(|route| &route.stream))
                .cloned()
                .collect(),
            Config::Outbox(_) => Vec::new(),
        }
        .into_iter();
        for (name, source) in names.iter().zip(sources) {
            let (metrics, stop) = (metrics.of(name), stop.clone());
            match (&config, streams.next()) {
                (Config::Kinesis(_), Some(stream)) => {
                    let ship = kinesis::run(stream, dead_letters.clone(), source, metrics, stop);
                    tasks.spawn(ship);
                }
                (Config::Outbox(config), _) => {
                    tasks.spawn(outbox::run(config.clone(), source, metrics, stop));
                }
                (Config::Kinesis(_), None) => unreachable!("there is a stream for each sink"),
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}
