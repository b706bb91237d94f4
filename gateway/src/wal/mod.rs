//! A write-ahead log: what must survive a restart and changes with every message is written here,
//! record after record, and read back at the start. The broker keeps its sessions in it.
//!
//! ```text
//! append ─ queue (bounded by `room`) ─ Writer: one write and one sync for all that waits ─ Durable
//! ```
//! The state itself is in memory, with its owner, who alone knows what a record means. The log is
//! files of frames (length, CRC, record), each run begins a new one. When they have grown past what
//! the state needs, the owner is asked for a checkpoint: it writes all of its state again, as records
//! that replace what was said before, and the older files go. Records and checkpoint come through one
//! queue, so that their order is the order of the changes.
//!
//! Not sled, though the buffer is: a queue that is filled and emptied all day is the worst case of a
//! tree, and what is durable here is small (evidence.md, "sled as a store-and-forward queue"; the
//! decision is in gateway/docs/decisions/0005-session-log.md). Torn ends, as a power cut leaves them,
//! are cut off; damage elsewhere costs the rest of its file, which is set aside, counted and logged.

mod frame;
mod metrics;
mod segment;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use flume::Sender;
use portcullis_core::limits::{WAL_QUEUE_BYTES_MAX, WAL_RECORD_BYTES_MAX};
use tokio::sync::{Notify, oneshot};

use self::{frame::frame, segment::Segments, writer::Command};
pub use self::{
    metrics::Metrics,
    segment::OpenError,
    writer::{WriteError, Writer},
};

/// Resolves to `Ok` once everything that was appended until then is durable, to `Err` if it never
/// will be.
pub type Durable = oneshot::Receiver<()>;

/// A handle to append with. The writer ends when the last one is dropped.
#[derive(Clone)]
pub struct Wal {
    queue: Sender<Command>,
    backlog: Arc<Backlog>,
    checkpoint: Arc<Notify>,
}

/// Bytes on their way to the disk.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    freed: Notify,
}

/// A record over [`WAL_RECORD_BYTES_MAX`]: it was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of {0} bytes is over the limit of {WAL_RECORD_BYTES_MAX}")]
pub struct TooLarge(usize);

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("backlog", &self.backlog)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens the log in `dir`, which is made if it is missing, and hands every record to `apply`, in
    /// order. What `apply` refuses is counted and left out. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] names the file.
    pub fn open(
        dir: &Path,
        metrics: Metrics,
        apply: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(Self, Writer), OpenError> {
        let segments = Segments::open(dir, &metrics, apply)?;
        // Unbounded by itself: `room` is the bound, because whoever appends holds a lock.
        let (queue, commands) = flume::unbounded();
        let backlog = Arc::new(Backlog::default());
        let checkpoint = Arc::new(Notify::new());
        let wal = Self {
            queue,
            backlog: Arc::clone(&backlog),
            checkpoint: Arc::clone(&checkpoint),
        };
        let writer = Writer::new(segments, commands, backlog, checkpoint, metrics);
        Ok((wal, writer))
    }

    /// Appends a record that need not be durable at once: it is within a second, and with every
    /// later one that is. Never waits.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn append(&self, record: &[u8]) -> Result<(), TooLarge> {
        if record.len() > WAL_RECORD_BYTES_MAX {
            return Err(TooLarge(record.len()));
        }
        let framed = frame(record);
        self.backlog
            .bytes
            .fetch_add(framed.len(), Ordering::Relaxed);
        self.send(Command::Record(framed));
        Ok(())
    }

    /// Resolves when what was appended before is durable.
    pub fn durable(&self) -> Durable {
        let (sender, durable) = oneshot::channel();
        self.when_durable(move || {
            // Whoever waited may be gone.
            let _gone: Result<(), ()> = sender.send(());
        });
        durable
    }

    /// Calls `then`, on the writer's thread, when what was appended before is durable; never if the
    /// log fails before.
    pub fn when_durable(&self, then: impl FnOnce() + Send + 'static) {
        self.send(Command::Sync(Box::new(then)));
    }

    /// Waits while more than [`WAL_QUEUE_BYTES_MAX`] wait for the disk: ask before anything is
    /// accepted that will be appended.
    pub async fn room(&self) {
        loop {
            let freed = self.backlog.freed.notified();
            if self.has_room() {
                return;
            }
            freed.await;
        }
    }

    /// Whether [`Self::room`] would not wait.
    pub fn has_room(&self) -> bool {
        self.backlog.bytes.load(Ordering::Relaxed) < WAL_QUEUE_BYTES_MAX
    }

    /// Resolves when a checkpoint is due.
    pub async fn checkpoint_due(&self) {
        self.checkpoint.notified().await;
    }

    /// A checkpoint begins: what is appended from now on, up to [`Self::end_checkpoint`], says the
    /// whole state again, between the records of what happens meanwhile.
    pub fn begin_checkpoint(&self) {
        self.send(Command::BeginCheckpoint);
    }

    /// The whole state was appended: what was written before the checkpoint began is removed once
    /// the checkpoint is durable.
    pub fn end_checkpoint(&self) {
        self.send(Command::EndCheckpoint);
    }

    /// A writer that failed has dropped its end: then nothing becomes durable any more, which the
    /// receivers of [`Durable`] hear.
    fn send(&self, command: Command) {
        drop(self.queue.send(command));
    }
}

impl Backlog {
    fn free(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
