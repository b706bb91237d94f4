//! The end of the log that writes: one thread, one write and one sync for all that waits.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use flume::{Receiver, RecvTimeoutError};
use portcullis_core::limits::{
    WAL_CHECKPOINT_BYTES_MIN, WAL_COMMIT_BYTES_MAX, WAL_FILES_MAX, WAL_SYNC_INTERVAL,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Backlog, metrics::Metrics, segment::Segments};

/// What the handles ask for.
pub(super) enum Command {
    /// A frame.
    Record(Vec<u8>),
    /// Everything before is to be durable; then this is called.
    Sync(Then),
    BeginCheckpoint,
    EndCheckpoint,
}

/// What is done once something is durable.
type Then = Box<dyn FnOnce() + Send>;

/// See the module. Runs on a thread of its own.
pub struct Writer {
    segments: Segments,
    commands: Receiver<Command>,
    backlog: Arc<Backlog>,
    checkpoint: Arc<Notify>,
    metrics: Metrics,
    /// What was written since the last sync.
    unsynced_since: Option<Instant>,
    /// The file with which the checkpoint began that is being written.
    checkpointing: Option<u64>,
    /// What the files took after the last checkpoint.
    checkpoint_bytes: u64,
    /// A checkpoint was asked for.
    is_due: bool,
}

/// The log failed: nothing becomes durable any more, and the process has to start again.
#[derive(Debug, thiserror::Error)]
#[error("the session log failed")]
pub struct WriteError(#[source] io::Error);

/// How long a full disk is left alone.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);

/// What is written at once.
#[derive(Default)]
struct Group {
    frames: Vec<u8>,
    waiting: Vec<Then>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(
        segments: Segments,
        commands: Receiver<Command>,
        backlog: Arc<Backlog>,
        checkpoint: Arc<Notify>,
        metrics: Metrics,
    ) -> Self {
        Self {
            segments,
            commands,
            backlog,
            checkpoint,
            metrics,
            unsynced_since: None,
            checkpointing: None,
            checkpoint_bytes: 0,
            is_due: false,
        }
    }

    /// Writes until every handle is dropped and what they appended is durable. Blocks. A full disk is
    /// waited for, until `stop` at most.
    ///
    /// # Errors
    /// The disk failed.
    pub fn run(mut self, stop: &CancellationToken) -> Result<(), WriteError> {
        let outcome = self.serve(stop);
        if let Err(why) = &outcome {
            error!(error = %why, "The session log failed; nothing is acknowledged any more.");
        }
        outcome.map_err(WriteError)
    }

    fn serve(&mut self, stop: &CancellationToken) -> io::Result<()> {
        self.look_whether_due();
        loop {
            let first = match self.commands.recv_timeout(WAL_SYNC_INTERVAL) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut group = Group::default();
            let mut next = first;
            while let Some(command) = next {
                match command {
                    Command::Record(frame) => group.frames.extend_from_slice(&frame),
                    Command::Sync(then) => group.waiting.push(then),
                    Command::BeginCheckpoint => {
                        self.commit(&mut group, stop)?;
                        self.segments.rotate()?;
                        self.checkpointing = Some(self.segments.number());
                    }
                    Command::EndCheckpoint => {
                        self.commit(&mut group, stop)?;
                        self.end_checkpoint()?;
                    }
                }
                if group.frames.len() >= WAL_COMMIT_BYTES_MAX {
                    break;
                }
                next = self.commands.try_recv().ok();
            }
            self.commit(&mut group, stop)?;
            self.look_whether_due();
        }
        self.segments.sync()
    }

    /// Writes the group, and syncs if somebody waits for that or the last sync is long ago.
    fn commit(&mut self, group: &mut Group, stop: &CancellationToken) -> io::Result<()> {
        let Group { frames, waiting } = std::mem::take(group);
        if !frames.is_empty() {
            let bytes = frames.len();
            self.write(&frames, stop)?;
            self.backlog.free(bytes);
            self.unsynced_since.get_or_insert_with(Instant::now);
            self.metrics
                .appended_bytes
                .inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        let is_old = |since: Instant| since.elapsed() >= WAL_SYNC_INTERVAL;
        if let Some(since) = self.unsynced_since
            && (!waiting.is_empty() || is_old(since))
        {
            let started = Instant::now();
            self.segments.sync()?;
            self.metrics
                .sync_seconds
                .observe(started.elapsed().as_secs_f64());
            self.unsynced_since = None;
        }
        waiting.into_iter().for_each(|then| then());
        Ok(())
    }

    fn write(&mut self, frames: &[u8], stop: &CancellationToken) -> io::Result<()> {
        let mut said = false;
        loop {
            match self.segments.write(frames) {
                Err(error) if is_no_space(&error) && !stop.is_cancelled() => {
                    if !said {
                        warn!("The disk is full; what has to be durable for sessions waits.");
                        said = true;
                    }
                    std::thread::sleep(NO_SPACE_PAUSE);
                }
                other => return other,
            }
        }
    }

    fn end_checkpoint(&mut self) -> io::Result<()> {
        let Some(first) = self.checkpointing.take() else {
            return Ok(());
        };
        self.segments.sync()?;
        self.unsynced_since = None;
        self.segments.remove_before(first)?;
        self.checkpoint_bytes = self.segments.bytes();
        self.is_due = false;
        self.metrics.checkpoints.inc();
        debug!(
            bytes = self.checkpoint_bytes,
            "The session log was written anew."
        );
        Ok(())
    }

    /// Asks for a checkpoint when the files have doubled since the last one, or are many.
    fn look_whether_due(&mut self) {
        let bytes = self.segments.bytes();
        let gauge = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.disk_bytes.set(gauge);
        let has_grown = bytes > WAL_CHECKPOINT_BYTES_MIN.max(2 * self.checkpoint_bytes);
        if !self.is_due && (has_grown || self.segments.count() > WAL_FILES_MAX) {
            self.is_due = true;
            self.checkpoint.notify_one();
        }
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
