//! What waits for a connection at QoS 0: nobody promised it, so it has a bound of its own and is
//! never on disk. At the bound the newest message is lost, and counted.

use std::collections::VecDeque;

use portcullis_core::session::OutgoingBounds;

use super::{log::Log, queued::Queued};

/// So many parts of what may wait are many: publishers let the connection go first.
const CROWDED_PART: usize = 4;

/// The messages of one connection, oldest first.
#[derive(Debug)]
pub(super) struct Loose {
    bounds: OutgoingBounds,
    queue: VecDeque<Queued>,
    bytes: usize,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// There was none before it: the connection has to hear of it.
    First,
    /// It waits behind others.
    Behind,
    /// It waits behind many.
    Crowded,
    /// There is no room for it.
    Lost,
}

impl Loose {
    /// The bounds are those of the session's queue, and count beside it.
    pub(super) fn new(bounds: OutgoingBounds) -> Self {
        Self {
            bounds,
            queue: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn offer(&mut self, log: &Log, queued: Queued) -> Offered {
        let bytes = queued.message.bytes();
        let waiting = self.queue.len();
        if waiting >= self.bounds.messages_max
            || self.bytes + bytes > self.bounds.bytes_max
            || !log.take_loose_bytes(bytes)
        {
            return Offered::Lost;
        }
        self.bytes += bytes;
        self.queue.push_back(queued);
        match waiting {
            0 => Offered::First,
            _ if waiting < self.bounds.messages_max / CROWDED_PART => Offered::Behind,
            _ => Offered::Crowded,
        }
    }

    pub(super) fn pop(&mut self, log: &Log) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        let bytes = queued.message.bytes();
        self.bytes -= bytes;
        log.free_loose_bytes(bytes);
        Some(queued)
    }

    /// What waits, oldest first.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.queue.iter()
    }

    /// The connection is gone.
    pub(super) fn clear(&mut self, log: &Log) {
        log.free_loose_bytes(self.bytes);
        *self = Self::new(self.bounds);
    }
}
