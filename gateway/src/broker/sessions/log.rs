//! The session log as sessions write it; a broker without one keeps nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::error;

use super::record::Record;
use crate::wal::{Durable, Wal};

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Log {
    wal: Option<Wal>,
    next_id: AtomicU64,
}

impl Log {
    /// `next_id`: numbers from it on were never given to a message.
    pub(super) fn new(wal: Option<Wal>, next_id: u64) -> Self {
        Self {
            wal,
            next_id: AtomicU64::new(next_id),
        }
    }

    /// A number for a message.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
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

    /// Whether [`Self::room`] would not wait.
    pub(in crate::broker) fn has_room(&self) -> bool {
        self.wal.as_ref().is_none_or(Wal::has_room)
    }

    pub(super) fn wal(&self) -> Option<&Wal> {
        self.wal.as_ref()
    }
}
