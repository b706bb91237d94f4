//! The uplink: takes records from the buffer, in order, and brings them to the one configured sink.
//! The only place that knows AWS.
//!
//! ```text
//! RecordSource ─ read ─ sink: Kinesis (window, batches, per-record outcomes) or outbox (NDJSON files)
//!        ↑──── accept, over the contiguous prefix that the sink has ────┘
//! ```
//! At least once: a crash between the sink's answer and the cursor sends records again. A sink that
//! fails never ends the task: it waits with full jitter, tries again, and says so once in the log and
//! always in the metrics. Records that the sink will never take are set aside in `data/dead-letter`.
//! Absent on purpose: routes, lanes, rate limits. CloudWatch has sinks of its own: [`cloudwatch`].

use std::{error::Error, future::Future, path::PathBuf};

use portcullis_core::record::Record;
use tokio_util::sync::CancellationToken;

use crate::supervisor::TaskResult;

mod aws;
pub mod cloudwatch;
pub mod config;
mod kinesis;
mod metrics;
mod ndjson;
mod outbox;
mod source;
mod state;

pub use config::{Config, KinesisConfig, OutboxConfig};
pub use metrics::Metrics;

/// Why a source gave nothing.
#[derive(Debug)]
pub enum SourceError {
    /// Nothing more will come.
    Closed,
    /// Nothing can be read now; try later.
    Unavailable(Box<dyn Error + Send + Sync>),
}

/// What the uplink reads from. The buffer's reader is one, by way of `app.rs`: siblings do not
/// import each other.
pub trait RecordSource: Send + 'static {
    /// The next records, under the limits but at least one; waits until there is one. Cancel-safe.
    fn read(
        &mut self,
        records_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Record>, SourceError>> + Send;

    /// Everything up to `upto_seq` has reached the sink.
    fn accept(&mut self, upto_seq: u64) -> impl Future<Output = ()> + Send;

    /// How many records a read would find without waiting.
    fn unread(&self) -> u64;
}

/// The task that ships.
#[derive(Debug)]
pub struct Uplink<S> {
    config: Config,
    dead_letter_dir: PathBuf,
    source: S,
    metrics: Metrics,
}

impl<S: RecordSource> Uplink<S> {
    /// An uplink to the sink in `config`; what the sink refuses for good goes to `dead_letter_dir`.
    pub fn new(config: Config, dead_letter_dir: PathBuf, source: S, metrics: Metrics) -> Self {
        Self {
            config,
            dead_letter_dir,
            source,
            metrics,
        }
    }

    /// Ships until `stop`, then makes one last attempt to ship what is there.
    pub async fn run(self, stop: CancellationToken) -> TaskResult {
        let Self {
            config,
            dead_letter_dir,
            source,
            metrics,
        } = self;
        match config {
            Config::Outbox(config) => outbox::run(config, source, metrics, stop).await,
            Config::Kinesis(config) => {
                kinesis::run(config, dead_letter_dir, source, metrics, stop).await
            }
        }
    }
}
