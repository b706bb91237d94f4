//! The group commit: one thread that turns whatever is waiting into one durable batch, then
//! acknowledges all of it. It ends when every [`Buffer`](super::Buffer) is gone, or at the first
//! write that fails: what the disk holds is then unknown, nothing more is acknowledged, and the
//! process has to start again.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use flume::Receiver;
use portcullis_core::{
    limits::{APPEND_QUEUE_RECORDS_MAX, COMMIT_BYTES_MAX, FULL_BUFFER_GRACE},
    record::{Draft, Envelope, Record},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{chain::chain, clock::now};

use super::{
    Ack, Metrics,
    store::{AppendError, Store},
};

/// What waits for the commit.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) drafts: Vec<Draft>,
    pub(super) ack: Option<Ack>,
    pub(super) queued: Instant,
    pub(super) bytes: usize,
    /// Room in the queue, given back after the commit.
    pub(super) _room: [OwnedSemaphorePermit; 2],
}

/// The end of the buffer that writes. Runs on a thread of its own.
#[derive(Debug)]
pub struct Writer {
    pub(super) store: Arc<Store>,
    pub(super) queue: Receiver<Append>,
    pub(super) end: watch::Sender<u64>,
    pub(super) envelope: Envelope,
    pub(super) linger: Duration,
    pub(super) metrics: Metrics,
    pub(super) room: [Arc<Semaphore>; 2],
}

/// The store failed; nothing after it was acknowledged.
#[derive(Debug, thiserror::Error)]
#[error("the buffer failed: {0}")]
pub struct WriteError(String);

impl Writer {
    /// Writes until every `Buffer` is dropped and what they queued is durable. Blocks. After `stop`
    /// a buffer without room is not waited for long: what waits for it holds a `Buffer`, and would
    /// wait for ever.
    pub fn run(self, stop: &CancellationToken) -> Result<(), WriteError> {
        while let Ok(first) = self.queue.recv() {
            let group = self.gather(first);
            if !self.wait_for_room(stop) {
                warn!("The buffer is full at stop; what waits stays unacknowledged.");
                return Ok(());
            }
            self.commit(group).map_err(|failed| {
                let why = chain(&failed);
                error!(why, "The buffer failed; nothing is acknowledged any more.");
                WriteError(why)
            })?;
        }
        Ok(())
    }

    /// Collects a group: what came while the last commit ran, then company for as long as it comes
    /// without a pause, and no longer than the first one may wait. Who needs no acknowledgement can
    /// wait for all of that. Sleeps between looks instead of waiting for arrivals, so that an arrival
    /// wakes nobody.
    fn gather(&self, first: Append) -> Vec<Append> {
        let deadline = first.queued + self.linger;
        let mut group = Group::of(first);
        let mut is_first_look = true;
        loop {
            let before = group.appends.len();
            while let Some(next) = group
                .has_room()
                .then(|| self.queue.try_recv().ok())
                .flatten()
            {
                group.take(next);
            }
            let company = group.appends.len() > before || is_first_look;
            is_first_look = false;
            let pause = match () {
                // Nothing to write, so nothing to wait for.
                () if group.records == 0 || !group.has_room() => break,
                () if !group.is_waited_for => UNHURRIED_PAUSE,
                () if company => COMPANY_PAUSE,
                () => break,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.queue.is_disconnected() {
                break;
            }
            thread::sleep(pause.min(left));
        }
        group.appends
    }

    /// Waits while the disk bound is reached; `false` if everybody left meanwhile, or has to.
    fn wait_for_room(&self, stop: &CancellationToken) -> bool {
        if self.store.has_room(Duration::ZERO) {
            return true;
        }
        self.metrics.backpressure_waits.inc();
        warn!("The buffer has reached its bound; publishers wait until the sink takes records.");
        let mut stopping = None;
        while !self.store.has_room(FULL_PATIENCE) {
            if stop.is_cancelled() {
                stopping.get_or_insert_with(Instant::now);
            }
            let given_up = stopping.is_some_and(|since| since.elapsed() > FULL_BUFFER_GRACE);
            if given_up || self.queue.is_disconnected() {
                return false;
            }
            self.store.reclaim();
        }
        true
    }

    /// Appends, and waits while the disk is full; `false` if everybody left meanwhile.
    fn append(&self, records: &[Record]) -> Result<bool, AppendError> {
        let mut said = false;
        loop {
            match self.store.append(records) {
                Ok(()) => return Ok(true),
                Err(AppendError::NoSpace) if self.queue.is_disconnected() => return Ok(false),
                Err(AppendError::NoSpace) => {
                    self.store.room.note_no_space();
                    if !said {
                        self.metrics.backpressure_waits.inc();
                        error!("The disk is full; publishers wait until there is space.");
                        said = true;
                    }
                    self.store.reclaim();
                    self.store.wait_for_freed(NO_SPACE_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn commit(&self, group: Vec<Append>) -> Result<(), AppendError> {
        let started = Instant::now();
        let drafts = group.iter().flat_map(|append| &append.drafts);
        let end = self.store.end();
        let records = self.envelope.close(drafts, end, end, now().as_millis());
        if !records.is_empty() {
            if !self.append(&records)? {
                return Ok(());
            }
            self.metrics.commits.inc();
            self.metrics
                .commit_seconds
                .observe(started.elapsed().as_secs_f64());
            self.metrics.appended_records.inc_by(count(records.len()));
            let bytes = records.iter().map(Record::wire_bytes).sum();
            self.metrics.appended_bytes.inc_by(count(bytes));
            self.end.send_replace(self.store.end());
        }
        group
            .into_iter()
            .filter_map(|append| append.ack)
            .for_each(Ack::commit);
        Ok(())
    }
}

impl Drop for Writer {
    /// Turns away who waits, and drops what is queued, so that its acknowledgements fail now and not
    /// when the last handle goes.
    fn drop(&mut self) {
        let [records_room, bytes_room] = &self.room;
        records_room.close();
        bytes_room.close();
        // Who holds room is between taking it and queueing.
        let deadline = Instant::now() + FULL_PATIENCE;
        while records_room.available_permits() < APPEND_QUEUE_RECORDS_MAX {
            match self.queue.recv_deadline(deadline) {
                Ok(append) => drop(append),
                Err(_) => break,
            }
        }
    }
}

/// What one commit makes durable.
struct Group {
    appends: Vec<Append>,
    records: usize,
    bytes: usize,
    /// Somebody waits for an acknowledgement.
    is_waited_for: bool,
}

impl Group {
    fn of(first: Append) -> Self {
        let mut group = Self {
            appends: Vec::new(),
            records: 0,
            bytes: 0,
            is_waited_for: false,
        };
        group.take(first);
        group
    }

    fn take(&mut self, next: Append) {
        self.records += next.drafts.len();
        self.bytes += next.bytes;
        self.is_waited_for |= next.ack.is_some();
        self.appends.push(next);
    }

    fn has_room(&self) -> bool {
        self.records < APPEND_QUEUE_RECORDS_MAX / 2 && self.bytes < COMMIT_BYTES_MAX
    }
}

/// Nobody came for so long: the burst is over.
const COMPANY_PAUSE: Duration = Duration::from_micros(100);
/// How often a writer that nobody waits for looks whether somebody does.
const UNHURRIED_PAUSE: Duration = Duration::from_millis(1);
/// How often a writer that waits for disk looks whether anybody still waits for it.
const FULL_PATIENCE: Duration = Duration::from_millis(100);
/// How long a writer waits on a full disk before it tries again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
