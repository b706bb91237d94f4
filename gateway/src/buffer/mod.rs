//! The buffer: what must reach the cloud stands on disk until every sink it is for has it. The only
//! place that knows sled.
//!
//! ```text
//!          ┌ critical ┐                    ┌ Store critical ┐     Reader of sink 0 ─ settle
//! append ──┼ events   ┼─ Writer: commit ───┼ Store events   ┼──── Reader of sink 1 ─ settle
//!          └ bulk     ┘        └─ ack      └ Store bulk     ┘     …
//! ```
//! [`Buffer::append`] waits while its lane's queue is full, and the queue fills while the lane is at
//! its bound and its policy is back-pressure: that reaches the devices. An [`Ack`] is committed after
//! its records are durable (promise 1). Sequence numbers grow by one over all lanes and across
//! restarts; after damage they leap ahead, never back. What became of every record for a sink is
//! counted: [`Buffer::ledger`].

use std::{sync::Arc, time::Instant};

use portcullis_core::{
    limits::{
        APPEND_QUEUE_BYTES_MAX, APPEND_QUEUE_RECORDS_MAX, LANE_QUEUE_BYTES_MAX,
        LANE_QUEUE_RECORDS_MAX,
    },
    record::{Draft, Envelope, Lane, SinkSet},
};
use tokio::sync::{Semaphore, watch};

pub mod ack;
mod chunk;
pub mod config;
mod counts;
mod cursor;
mod engine;
mod generation;
mod hold;
pub mod inspect;
mod kept;
mod lanes;
mod mark;
mod metrics;
mod migrate;
mod open;
mod ordered;
mod queue;
mod reader;
mod recovery;
mod reserve;
mod room;
mod sinks;
mod slots;
mod store;
mod track;
mod writer;

pub use ack::{Ack, Acked};
pub use config::{AtBound, Config, LaneConfig};
pub use lanes::Account;
pub use metrics::Metrics;
pub use ordered::InOrder;
pub use portcullis_core::record::{Part, Tally};
pub use reader::{ReadError, Reader};
pub use sinks::Sink;
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
#[derive(Debug)]
pub struct Buffer {
    lanes: Arc<lanes::Lanes>,
    /// By lane: records and bytes.
    rooms: [[Arc<Semaphore>; 2]; Lane::ALL.len()],
    appended: watch::Receiver<u64>,
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.lanes.shared.queue.add_sender();
        Self {
            lanes: self.lanes.clone(),
            rooms: self.rooms.clone(),
            appended: self.appended.clone(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.lanes.shared.queue.remove_sender();
    }
}

/// Records and bytes that wait for a commit of the lane.
const fn queue_bounds(lane: Lane) -> [usize; 2] {
    match lane {
        Lane::Events => [APPEND_QUEUE_RECORDS_MAX, APPEND_QUEUE_BYTES_MAX],
        Lane::Critical | Lane::Bulk => [LANE_QUEUE_RECORDS_MAX, LANE_QUEUE_BYTES_MAX],
    }
}

impl Buffer {
    /// Recovers what is on disk; blocks for as long as the newest generation of each lane takes to
    /// open. Bit n of a draft's `sinks` is the nth of `sinks`. The writer wants a thread of its own:
    /// see [`Writer::run`].
    pub fn open(
        config: &Config,
        sinks: &[Sink],
        stamp: Stamp,
        metrics: Metrics,
    ) -> Result<(Self, Writer), OpenError> {
        let lanes = Arc::new(lanes::Lanes::open(config, sinks, metrics)?);
        lanes.shared.queue.add_sender();
        let (appended_sender, appended) = watch::channel(0);
        let rooms = Lane::ALL.map(|lane| queue_bounds(lane).map(|n| Arc::new(Semaphore::new(n))));
        let writer = Writer {
            lanes: lanes.clone(),
            appended: appended_sender,
            envelope: Envelope::new(&stamp.gateway_id, &stamp.boot_id),
            rooms: rooms.clone(),
            gates: Default::default(),
        };
        let buffer = Self {
            lanes,
            rooms,
            appended,
        };
        Ok((buffer, writer))
    }

    /// Queues `drafts` for the next commit, each in the lane of its kind; `ack` is committed when all
    /// of them are durable, or dropped and counted as their lane's settings say. Waits while a queue
    /// is full, which it is while its lane waits for disk. Without drafts, `ack` is committed after
    /// all events that were queued before. Drafts of one lane appended one call after the other get
    /// numbers in that order. Cancelled while it waits, nothing was queued and `ack` is dropped.
    pub async fn append(&self, drafts: Vec<Draft>, ack: Option<Ack>) -> Result<(), Closed> {
        let mut shares: [Vec<Draft>; Lane::ALL.len()] = Default::default();
        let lane_of = |draft: &Draft| draft.kind.lane();
        let first_lane = drafts.first().map_or(Lane::Events, lane_of);
        if drafts.iter().all(|draft| lane_of(draft) == first_lane) {
            shares[first_lane as usize] = drafts;
        } else {
            for draft in drafts {
                shares[lane_of(&draft) as usize].push(draft);
            }
        }
        let is_used = |lane: Lane, drafts: &[Draft]| !drafts.is_empty() || lane == first_lane;
        let used = Lane::ALL.into_iter().zip(&shares);
        let used = used.filter(|(lane, drafts)| is_used(*lane, drafts)).count();
        let ack = ack.map(|ack| writer::Share::of(ack, used));
        let mut appends = Vec::with_capacity(used);
        for (lane, drafts) in Lane::ALL.into_iter().zip(shares) {
            if is_used(lane, &drafts) {
                appends.push(self.take_room(lane, drafts, ack.clone()).await?);
            }
        }
        let pushed = self.lanes.shared.queue.push(appends);
        pushed.map_err(|_| Closed)
    }

    /// Takes the room that drafts need in the queue of their lane.
    async fn take_room(
        &self,
        lane: Lane,
        drafts: Vec<Draft>,
        ack: Option<writer::Share>,
    ) -> Result<writer::Append, Closed> {
        let bytes: usize = drafts
            .iter()
            .map(|draft| draft.members.len() + draft.partition_key.len())
            .sum();
        let [records_room, bytes_room] = &self.rooms[lane as usize];
        // More than all the room would wait for ever; alone in the queue it is let through.
        let [records_max, bytes_max] = queue_bounds(lane);
        let room = [
            self.take(records_room, drafts.len().clamp(1, records_max))
                .await?,
            self.take(bytes_room, bytes.min(bytes_max)).await?,
        ];
        Ok(writer::Append {
            lane,
            drafts,
            ack,
            queued: Instant::now(),
            bytes,
            _room: room,
        })
    }

    async fn take(
        &self,
        room: &Arc<Semaphore>,
        permits: usize,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, Closed> {
        let permits = u32::try_from(permits).expect("the queue's bounds are far below 4 G");
        if let Ok(permit) = room.clone().try_acquire_many_owned(permits) {
            return Ok(permit);
        }
        self.lanes.shared.metrics.backpressure_waits.inc();
        room.clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| Closed)
    }

    /// Counts records that were for these sinks and go to none of them, because a chain decided so:
    /// received and filtered in the ledger, from the next commit on.
    pub fn filtered(&self, sinks: SinkSet, records: u64) {
        self.lanes.filtered(sinks, records);
    }

    /// What became of every record, by sink: at any time, what it received is what was delivered,
    /// filtered, is kept, or was dropped.
    pub fn ledger(&self) -> Vec<Account> {
        self.lanes.ledger()
    }

    /// Whether the events' lane has room for more than what was taken already; see the module `room`.
    pub fn has_room(&self) -> bool {
        self.lanes.shared.room.is_there()
    }

    /// Waits until there is room. Cancel-safe.
    pub async fn room(&self) {
        self.lanes.shared.room.wait().await;
    }

    /// A reader of the nth sink, from its durable cursors on. One at a time for a sink.
    pub fn reader(&self, sink: usize) -> Reader {
        Reader::new(self.lanes.clone(), sink, self.appended.clone())
    }
}

#[cfg(test)]
mod lane_tests;
#[cfg(test)]
mod tests;
