//! The buffer: what must reach the cloud stands on disk until the cloud has it. The only place that
//! knows sled.
//!
//! ```text
//! append ─ queue (bounded) ─ Writer: group commit ─ Store ─ ack      Reader: in order ─ sink ─ accept
//! ```
//! [`Buffer::append`] waits while the queue is full, and the queue fills while the disk bound is
//! reached: back-pressure reaches the devices. An [`Ack`] is committed after its records are durable
//! (promise 1). Numbers grow by one across restarts; after damage they leap ahead, never back.
//! Absent on purpose: lanes, age bounds, compression, more than one cursor.

use std::{sync::Arc, time::Instant};

use flume::Sender;
use portcullis_core::{
    limits::{APPEND_QUEUE_BYTES_MAX, APPEND_QUEUE_RECORDS_MAX},
    record::{Draft, Envelope},
};
use tokio::sync::{Semaphore, watch};

pub mod ack;
mod chunk;
pub mod config;
mod engine;
mod generation;
pub mod inspect;
mod mark;
mod metrics;
mod reader;
mod recovery;
mod room;
mod store;
mod writer;

pub use ack::{Ack, Acked};
pub use config::Config;
pub use metrics::Metrics;
pub use reader::{ReadError, Reader};
pub use store::OpenError;
pub use writer::{WriteError, Writer};

/// What the buffer writes into every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `gateway_id`.
    pub gateway_id: String,
    /// `boot_id`: which run of the gateway gave the number.
    pub boot_id: String,
}

/// The buffer has ended: nothing is taken any more. What was to be appended is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buffer is closed")]
pub struct Closed;

/// A handle to append with. When the last one is dropped, the writer commits what is queued and ends.
#[derive(Clone, Debug)]
pub struct Buffer {
    store: Arc<store::Store>,
    queue: Sender<writer::Append>,
    records_room: Arc<Semaphore>,
    bytes_room: Arc<Semaphore>,
    end: watch::Receiver<u64>,
    metrics: Metrics,
}

impl Buffer {
    /// Recovers what is on disk; blocks for as long as the newest generation takes to open. The
    /// writer wants a thread of its own: see [`Writer::run`].
    pub fn open(
        config: &Config,
        stamp: Stamp,
        metrics: Metrics,
    ) -> Result<(Self, Writer), OpenError> {
        let store = Arc::new(store::Store::open(config, metrics.clone())?);
        let (sender, queue) = flume::bounded(APPEND_QUEUE_RECORDS_MAX);
        let (end_sender, end) = watch::channel(store.end());
        let records_room = Arc::new(Semaphore::new(APPEND_QUEUE_RECORDS_MAX));
        let bytes_room = Arc::new(Semaphore::new(APPEND_QUEUE_BYTES_MAX));
        let writer = Writer {
            store: store.clone(),
            queue,
            end: end_sender,
            envelope: Envelope::new(&stamp.gateway_id, &stamp.boot_id),
            linger: config.linger,
            metrics: metrics.clone(),
            room: [records_room.clone(), bytes_room.clone()],
        };
        let buffer = Self {
            store,
            queue: sender,
            records_room,
            bytes_room,
            end,
            metrics,
        };
        Ok((buffer, writer))
    }

    /// Queues `drafts` for the next commit, all in one; then `ack` is committed. Waits while the
    /// queue is full, which it is while the disk bound is reached. Without drafts, `ack` is committed
    /// after everything that was queued before. Drafts appended one call after the other get numbers
    /// in that order. Cancelled while it waits, nothing was queued and `ack` is dropped.
    pub async fn append(&self, drafts: Vec<Draft>, ack: Option<Ack>) -> Result<(), Closed> {
        let bytes: usize = drafts
            .iter()
            .map(|draft| draft.members.len() + draft.partition_key.len())
            .sum();
        // More than all the room would wait for ever; alone in the queue it is let through.
        let records_room = drafts.len().clamp(1, APPEND_QUEUE_RECORDS_MAX);
        let room = [
            self.take_room(&self.records_room, records_room).await?,
            self.take_room(&self.bytes_room, bytes.min(APPEND_QUEUE_BYTES_MAX))
                .await?,
        ];
        let append = writer::Append {
            drafts,
            ack,
            queued: Instant::now(),
            bytes,
            _room: room,
        };
        self.queue.send_async(append).await.map_err(|_| Closed)
    }

    async fn take_room(
        &self,
        room: &Arc<Semaphore>,
        permits: usize,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, Closed> {
        let permits = u32::try_from(permits).expect("the queue's bounds are far below 4 G");
        if let Ok(permit) = room.clone().try_acquire_many_owned(permits) {
            return Ok(permit);
        }
        self.metrics.backpressure_waits.inc();
        room.clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| Closed)
    }

    /// Whether there is room for more than what was taken already; see the module `room`.
    pub fn has_room(&self) -> bool {
        self.store.room.is_there()
    }

    /// Waits until there is room. Cancel-safe.
    pub async fn room(&self) {
        self.store.room.wait().await;
    }

    /// A reader from the durable cursor on.
    pub fn reader(&self) -> Reader {
        Reader {
            store: self.store.clone(),
            end: self.end.clone(),
            next: self.store.accepted() + 1,
            metrics: self.metrics.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
