//! The end of the buffer that a sink reads: in order, from the durable cursor, each number once.

use std::sync::Arc;

use portcullis_core::{batch::BatchLimits, limits::CURSOR_INTERVAL, record::Record};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};
use tracing::error;

use crate::chain::chain;

use super::{Metrics, store::Store};

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Everything was read, and the writer has ended: nothing more will come.
    #[error("the buffer is closed and read to its end")]
    Closed,
    /// The disk or the machine refuses at the moment, though nothing is damaged. Try later.
    #[error("failed to read the buffer: {0}")]
    Unavailable(String),
}

/// See the module. Dropping it writes the cursor, which blocks for one small disk write.
#[derive(Debug)]
pub struct Reader {
    pub(super) store: Arc<Store>,
    pub(super) end: watch::Receiver<u64>,
    pub(super) next: u64,
    pub(super) metrics: Metrics,
}

impl Reader {
    /// The next records, under the limits but at least one; waits until there is one. Numbers are
    /// consecutive except where records were lost to damage, which the log and the metrics say.
    /// Cancel-safe: what a cancelled read would have returned, the next one returns.
    pub async fn read(
        &mut self,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let limits = BatchLimits {
            records_max: records_max.max(1),
            bytes_max,
        };
        loop {
            self.wait().await?;
            let (store, from) = (self.store.clone(), self.next);
            let read = spawn_blocking(move || store.read(from, limits))
                .await
                .map_err(|join| ReadError::Unavailable(join.to_string()))?
                .map_err(|error| ReadError::Unavailable(chain(&error)))?;
            self.next = read.next;
            if let Some((from_seq, to_seq)) = read.lost {
                self.metrics.lost_records.inc_by(to_seq - from_seq + 1);
                error!(
                    from_seq,
                    to_seq, "Records are lost to damage of the buffer."
                );
            }
            if !read.records.is_empty() {
                return Ok(read.records);
            }
        }
    }

    /// Waits until there is something to read. Cancel-safe.
    pub async fn changed(&mut self) -> Result<(), ReadError> {
        self.wait().await
    }

    /// Waits until there is something to read. A reader that has been idle for a while writes its
    /// cursor down, and gives back what could not be given back before; not at every pause between
    /// two commits, for what a crash sends again is bounded by that while.
    async fn wait(&mut self) -> Result<(), ReadError> {
        if self.unread() > 0 {
            return Ok(());
        }
        let next = self.next;
        let seen = timeout(CURSOR_INTERVAL, self.end.wait_for(|end| *end > next)).await;
        let ended = seen.map(|seen| seen.is_err());
        let ended = if let Ok(ended) = ended {
            ended
        } else {
            let store = self.store.clone();
            let _written: Result<(), _> = spawn_blocking(move || {
                store.persist_cursor();
                store.reclaim();
            })
            .await;
            self.end.wait_for(|end| *end > next).await.is_err()
        };
        if ended && self.unread() == 0 {
            return Err(ReadError::Closed);
        }
        Ok(())
    }

    /// How many durable records this reader has not read yet.
    pub fn unread(&self) -> u64 {
        self.store.end().saturating_sub(self.next)
    }

    /// Moves the durable cursor: the sink has everything up to `upto_seq`. The write to disk comes
    /// later at times (a crash then sends those records again), the space of drained generations
    /// only after it.
    pub async fn accept(&mut self, upto_seq: u64) {
        let store = self.store.clone();
        // Fails if the runtime is going down; then the records are sent again.
        let _joined: Result<(), _> = spawn_blocking(move || store.accept(upto_seq)).await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.store.persist_cursor();
    }
}
