//! The session log as sessions write it; a broker without one keeps nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use portcullis_core::limits::{SESSIONS_LOOSE_BYTES_MAX, SESSIONS_QUEUE_BYTES_MAX};
use tracing::error;

use super::record::Record;
use crate::wal::{Durable, Wal};

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Log {
    wal: Option<Wal>,
    next_id: AtomicU64,
    /// Bytes in the queues of all sessions.
    queued_bytes: AtomicUsize,
    /// Bytes that wait at QoS 0, of all connections.
    loose_bytes: AtomicUsize,
}

impl Log {
    /// `next_id`: numbers from it on were never given to a message.
    pub(super) fn new(wal: Option<Wal>, next_id: u64) -> Self {
        Self {
            wal,
            next_id: AtomicU64::new(next_id),
            queued_bytes: AtomicUsize::new(0),
            loose_bytes: AtomicUsize::new(0),
        }
    }

    /// A number for a message.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes room for a message in the queues of all sessions; `false` if there is none.
    pub(super) fn take_bytes(&self, bytes: usize) -> bool {
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes <= SESSIONS_QUEUE_BYTES_MAX {
            return true;
        }
        self.free_bytes(bytes);
        false
    }

    /// The same for what was there before the start: it is kept in any case.
    pub(super) fn count_bytes(&self, bytes: usize) {
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A message left its queue.
    pub(super) fn free_bytes(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes room for a message that waits at QoS 0; `false` if there is none.
    pub(super) fn take_loose_bytes(&self, bytes: usize) -> bool {
        let waiting = self.loose_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes <= SESSIONS_LOOSE_BYTES_MAX {
            return true;
        }
        self.free_loose_bytes(bytes);
        false
    }

    /// Such messages went.
    pub(super) fn free_loose_bytes(&self, bytes: usize) {
        self.loose_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes in the queues of all sessions.
    pub(in crate::broker) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn append(&self, record: &Record<'_>) {
        let Some(wal) = &self.wal else { return };
        if let Err(error) = wal.append(&record.encode()) {
            // Packets are smaller by far.
            error!(%error, "A change of a session could not be written down.");
        }
    }

    /// Resolves when what was appended is durable; `None`: nothing ever is.
    pub(super) fn durable(&self) -> Option<Durable> {
        self.wal.as_ref().map(Wal::durable)
    }

    pub(super) fn when_durable(&self, then: impl FnOnce() + Send + 'static) {
        match &self.wal {
            Some(wal) => wal.when_durable(then),
            None => then(),
        }
    }

    /// Waits while too much waits for the disk.
    pub(in crate::broker) async fn room(&self) {
        if let Some(wal) = &self.wal {
            wal.room().await;
        }
    }

    pub(super) fn wal(&self) -> Option<&Wal> {
        self.wal.as_ref()
    }
}
