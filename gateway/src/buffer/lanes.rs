//! All lanes of a gateway and what they share: the numbers that go upstream, the disk, the reserve,
//! what was filtered.
//!
//! On disk, below `data/buffer`:
//! ```text
//! lock                  one process at a time
//! sinks                 which sink has which bit                        (see sinks.rs)
//! numbers               no sequence number from here on was ever given  (see mark.rs)
//! numbers-end           the sequence number after the last record, not synced
//! filtered              events that reached no sink on purpose, by sink (see kept.rs)
//! reserve               disk for the critical lane                      (see reserve.rs)
//! critical/ events/ bulk/                                               (see store.rs)
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use portcullis_core::{
    limits::{CURSOR_INTERVAL, SEQUENCE_RESERVE},
    record::{Lane, SinkSet},
};
use tracing::warn;

use crate::clock::now;

use super::{
    Config, Metrics,
    config::AtBound,
    counts::{Input, put_text, put_u64},
    cursor::{EXPIRED, GAVE_WAY, NEWEST},
    kept::Slots,
    mark::Mark,
    queue::Queue,
    reserve::Reserve,
    room::Room,
    sinks::Sink,
    store::Store,
};

/// What the stores share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    pub(super) queue: Queue,
    pub(super) room: Room,
    pub(super) numbers: Mutex<Numbers>,
    bytes: [AtomicU64; Lane::ALL.len()],
    depth: [AtomicU64; Lane::ALL.len()],
    generations: [AtomicU64; Lane::ALL.len()],
}

/// The numbers that go upstream.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) reserved: Mark,
    pub(super) end: Mark,
    pub(super) next: u64,
}

impl Shared {
    pub(super) fn new(config: &Config, metrics: Metrics, numbers: Numbers) -> Self {
        let events = config.lane(Lane::Events);
        Self {
            room: match events.at_bound {
                AtBound::BackPressure => {
                    Room::below(events.bytes_max.min(config.shared_bytes_max()))
                }
                // Nobody ever waits.
                AtBound::DropOldest | AtBound::DropNewest => Room::endless(),
            },
            config: config.clone(),
            metrics,
            queue: Queue::default(),
            numbers: Mutex::new(numbers),
            bytes: Default::default(),
            depth: Default::default(),
            generations: Default::default(),
        }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number that goes upstream; good for `records`.
    pub(super) fn next_seq(&self, records: u64) -> io::Result<u64> {
        let mut numbers = self.numbers();
        let next = numbers.next;
        if next + records > numbers.reserved.value() {
            numbers.reserved.raise(next + records + SEQUENCE_RESERVE)?;
        }
        Ok(next)
    }

    /// The numbers below `next` are given.
    pub(super) fn gave_seqs(&self, next: u64) {
        let mut numbers = self.numbers();
        numbers.next = next;
        if let Err(error) = numbers.end.note(next) {
            warn!(%error, "The end of the numbers could not be noted.");
        }
    }

    /// Makes the end of the numbers durable: the records that say it are about to go. Whether it is.
    pub(super) fn seal_numbers(&self) -> bool {
        let mut numbers = self.numbers();
        let next = numbers.next;
        let raised = numbers.end.raise(next);
        if let Err(error) = &raised {
            warn!(%error, "The end of the numbers could not be written; drained generations stay.");
        }
        raised.is_ok()
    }

    /// What a lane takes and holds now.
    pub(super) fn note_lane(&self, lane: Lane, bytes: u64, depth: u64, generations: usize) {
        self.bytes[lane as usize].store(bytes, Ordering::Relaxed);
        self.depth[lane as usize].store(depth, Ordering::Relaxed);
        let generations = u64::try_from(generations).unwrap_or(u64::MAX);
        self.generations[lane as usize].store(generations, Ordering::Relaxed);
        self.room.note(self.bytes(Lane::Events));
        let sum = |of: &[AtomicU64]| {
            let sum: u64 = of.iter().map(|part| part.load(Ordering::Relaxed)).sum();
            i64::try_from(sum).unwrap_or(i64::MAX)
        };
        self.metrics.disk_bytes.set(sum(&self.bytes));
        self.metrics.depth_records.set(sum(&self.depth));
        self.metrics.generations.set(sum(&self.generations));
        self.metrics.set_lane(lane, bytes, depth);
    }

    fn bytes(&self, lane: Lane) -> u64 {
        self.bytes[lane as usize].load(Ordering::Relaxed)
    }

    /// Whether the lane may not take more.
    pub(super) fn is_over(&self, lane: Lane) -> bool {
        self.is_over_own(lane) || self.is_over_all(lane)
    }

    /// Whether it is the lane's own bound that is reached.
    pub(super) fn is_over_own(&self, lane: Lane) -> bool {
        self.bytes(lane) >= self.config.lane(lane).bytes_max
    }

    fn is_over_all(&self, lane: Lane) -> bool {
        // What the critical lane may take is kept free for it.
        lane != Lane::Critical
            && self.bytes(Lane::Events) + self.bytes(Lane::Bulk) >= self.config.shared_bytes_max()
    }

    /// Whether the lane is well below its bounds, so that reaching them again is news.
    pub(super) fn is_well_below(&self, lane: Lane) -> bool {
        let low = |bound: u64| bound - bound / 8;
        self.bytes(lane) < low(self.config.lane(lane).bytes_max)
            && (lane == Lane::Critical
                || self.bytes(Lane::Events) + self.bytes(Lane::Bulk)
                    < low(self.config.shared_bytes_max()))
    }
}

/// What became of every record that was for a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The sink.
    pub name: String,
    /// All that was for it: what was delivered, filtered, is kept, or was dropped.
    pub received: u64,
    /// It has them.
    pub delivered: u64,
    /// A chain decided that nothing goes to it.
    pub filtered: u64,
    /// They wait for it.
    pub kept: u64,
    /// It will never have them, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) shared: Arc<Shared>,
    pub(super) stores: [Arc<Store>; Lane::ALL.len()],
    pub(super) sinks: Vec<Sink>,
    /// On disk, by index.
    pub(super) bits: Vec<usize>,
    pub(super) filtered: Mutex<Filtered>,
    pub(super) reserve: Mutex<Reserve>,
    pub(super) _lock: File,
}

impl Lanes {
    pub(super) fn store(&self, lane: Lane) -> &Arc<Store> {
        &self.stores[lane as usize]
    }

    /// For whom of a lane's sinks a draft is, as on disk.
    pub(super) fn translate(&self, lane: Lane, sinks: SinkSet) -> SinkSet {
        let set = super::sinks::translate(sinks, &self.bits);
        let mut serves = self.sinks.iter().zip(&self.bits).filter(|(sink, bit)| {
            // Nobody waits for a record that no sink of the lane reads.
            set.contains(**bit) && sink.lanes.contains(&lane)
        });
        if serves.next().is_none() {
            SinkSet::EMPTY
        } else {
            set
        }
    }

    /// Counts what reached no sink on purpose; noted with the next commit.
    pub(super) fn filtered(&self, sinks: SinkSet, records: u64) {
        let mut filtered = self.lock_filtered();
        for index in 0..self.sinks.len() {
            if sinks.contains(index) {
                filtered.counts[index] += records;
                filtered.is_news = true;
            }
        }
    }

    /// Writes down what was filtered since the last time.
    pub(super) fn note_filtered(&self) {
        let mut filtered = self.lock_filtered();
        if let Err(error) = filtered.note() {
            warn!(%error, "What was filtered could not be noted.");
        }
    }

    fn lock_filtered(&self) -> MutexGuard<'_, Filtered> {
        self.filtered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_reserve(&self) -> MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what lower lanes hold, lowest first and oldest first, for a lane that needs the disk;
    /// whether anything came of it. Only the bulk lane gives way: events are not there to be dropped.
    pub(super) fn give_way(&self, lane: Lane) -> bool {
        lane < Lane::Bulk
            && self
                .store(Lane::Bulk)
                .drop_oldest(GAVE_WAY)
                .is_some_and(|dropped| dropped.bytes > 0)
    }

    /// What is due now and then: cursors, old records, idle databases, the reserve, the ledger's
    /// metrics.
    pub(super) fn maintain(&self) {
        self.note_filtered();
        for store in &self.stores {
            if let Some(max_age) = self.shared.config.lane(store.lane).max_age {
                store.drop_older(oldest_millis(max_age), EXPIRED);
            }
            store.persist_cursors(CURSOR_INTERVAL);
            store.reclaim();
            store.close_idle();
        }
        self.lock_reserve().make();
        self.shared
            .metrics
            .reserve
            .set(i64::from(self.lock_reserve().is_there()));
        self.shared.metrics.set_ledger(&self.ledger());
    }

    /// What became of everything, by sink.
    pub(super) fn ledger(&self) -> Vec<Account> {
        let mut accounts: Vec<_> = {
            let filtered = self.lock_filtered();
            let filtered = filtered.counts.iter();
            let account = |(sink, filtered): (&Sink, &u64)| Account {
                name: sink.name.clone(),
                received: *filtered,
                filtered: *filtered,
                ..Account::default()
            };
            self.sinks.iter().zip(filtered).map(account).collect()
        };
        for store in &self.stores {
            let state = store.lock_state();
            for (sink, hold) in &state.holds {
                let (account, position) = (&mut accounts[*sink], &hold.position);
                let end_count = state.counts.of(usize::from(position.bit));
                account.received += end_count - position.base + position.refused;
                account.delivered += position.delivered;
                account.kept += position.kept(end_count);
                let refused = (NEWEST.to_owned(), position.refused);
                let dropped = position.dropped.clone().into_iter().chain([refused]);
                for (reason, count) in dropped.filter(|(_, count)| *count > 0) {
                    *account.dropped.entry(reason).or_default() += count;
                }
            }
        }
        accounts
    }
}

/// What is older than `max_age` was committed before.
pub(super) fn oldest_millis(max_age: Duration) -> u64 {
    let max_age = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
    now().as_millis().saturating_sub(max_age)
}

/// Events that reached a sink on no lane because a chain decided so.
#[derive(Debug)]
pub(super) struct Filtered {
    slots: Slots,
    names: Vec<String>,
    counts: Vec<u64>,
    is_news: bool,
}

impl Filtered {
    /// What `slots` hold of these sinks.
    pub(super) fn new(slots: Slots, payload: Option<&[u8]>, sinks: &[Sink]) -> Self {
        let known = payload.and_then(decode_filtered).unwrap_or_default();
        let names: Vec<_> = sinks.iter().map(|sink| sink.name.clone()).collect();
        let of = |name: &String| known.get(name).copied().unwrap_or(0);
        Self {
            slots,
            counts: names.iter().map(of).collect(),
            names,
            is_news: false,
        }
    }

    fn note(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_news) {
            return Ok(());
        }
        let mut out = Vec::new();
        for (name, count) in self.names.iter().zip(&self.counts) {
            put_text(&mut out, name);
            put_u64(&mut out, *count);
        }
        self.slots.note(&out)
    }
}

/// The events that were filtered, by the name of the sink.
pub(super) fn decode_filtered(payload: &[u8]) -> Option<BTreeMap<String, u64>> {
    let mut input = Input(payload);
    let mut counts = BTreeMap::new();
    while !input.0.is_empty() {
        counts.insert(input.text()?, input.u64()?);
    }
    Some(counts)
}
