//! The seam: append a batch, read from a number, drop what is drained. Whatever keeps the records
//! on disk stands behind these calls; above them nobody knows of directories or databases.
//!
//! On disk, below `data/buffer`:
//! ```text
//! lock                  one process at a time
//! cursor                the last number that the sink has accepted      (see mark.rs)
//! sequence              no number from here on was ever given away      (see mark.rs)
//! end                   the number after the last durable record, not synced: after a kill or an
//!                       orderly stop it tells a generation that lost its tail from one that ends there
//! floor                 the next number as the last start or loss left it: no lower one is given
//! gen-<first number>/   a database with the records from that number on (see generation.rs)
//! gen-….damaged/        what could not be read, kept for salvage
//! ```
//! A generation that cannot be opened or read is set aside, the numbers that it should have held are
//! reported as lost, and the rest is served. A write that fails is different: what the disk holds is
//! then unknown, so the store takes nothing more and the process has to start again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use portcullis_core::{
    batch::BatchLimits,
    limits::{CURSOR_INTERVAL, SEQUENCE_RESERVE},
    record::Record,
};
use tracing::{error, warn};

use crate::chain::chain;

use super::{
    Config, Metrics,
    engine::EngineError,
    generation::{Fate, Generation},
    mark::Mark,
    room::Room,
};

/// Why the buffer did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the buffer at `{0}` is in use by another process")]
    InUse(PathBuf),
    /// The file system failed.
    #[error("failed to open the buffer at `{path}`")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The newest generation is good, but cannot be opened now (no memory, descriptors or space).
    #[error("failed to open the newest generation of the buffer: {0}")]
    Unavailable(String),
}

/// Why a batch is not durable, and none after it will be.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// The engine failed or panicked.
    #[error("failed to make records durable")]
    Engine(#[from] EngineError),
    /// The bound of the sequence numbers could not be written.
    #[error("failed to write the bound of the sequence numbers")]
    Sequence(#[source] io::Error),
    /// The disk is full. Nothing of the batch counts; it may be tried again.
    #[error("no space is left on the disk")]
    NoSpace,
    /// An earlier write failed.
    #[error("the store is not to be trusted after a failed write")]
    Untrusted,
}

/// What a read found.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Numbers before the records that should have one and have none: first and last.
    pub(super) lost: Option<(u64, u64)>,
    /// Consecutive records.
    pub(super) records: Vec<Record>,
    /// Where to go on.
    pub(super) next: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    /// Held for the length of a commit. Taken before `state`, never after it.
    pub(super) writing: Mutex<Writing>,
    pub(super) state: Mutex<State>,
    pub(super) cursor: Mutex<Cursor>,
    /// The number after the last durable record.
    pub(super) end: AtomicU64,
    pub(super) freed: Condvar,
    pub(super) room: Room,
    pub(super) _lock: File,
}

#[derive(Debug)]
pub(super) struct Writing {
    pub(super) sequence: Mark,
    pub(super) end: Mark,
    pub(super) floor: Mark,
    pub(super) trusted: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) generations: BTreeMap<u64, Arc<Generation>>,
    /// The first numbers of those that were set aside: what is missing from there on was theirs.
    pub(super) set_aside: BTreeSet<u64>,
    /// The one that is appended to.
    pub(super) active: Option<u64>,
    /// The last number that the sink has accepted.
    pub(super) accepted: u64,
}

#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) mark: Mark,
    pub(super) written: Instant,
    /// The last write failed, and the log says so.
    pub(super) failed: bool,
}

impl Store {
    /// The number after the last durable record.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The last number that the sink has accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.lock_state().accepted
    }

    /// Makes a batch durable. Its numbers are consecutive and start at [`Store::end`].
    pub(super) fn append(&self, records: &[Record]) -> Result<(), AppendError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !writing.trusted {
            return Err(AppendError::Untrusted);
        }
        // Until the last line this store is one whose write failed.
        writing.trusted = false;
        if last.seq >= writing.sequence.value() {
            writing
                .sequence
                .raise(last.seq + 1 + SEQUENCE_RESERVE)
                .map_err(AppendError::Sequence)?;
        }
        let generation = match self.append_to_active(first.seq, records) {
            Ok(generation) => generation,
            Err(error) if error.is_no_space() => {
                // A new generation starts with this batch, so whatever the old one holds of it is
                // never read.
                self.leave_active(first.seq);
                writing.trusted = true;
                return Err(AppendError::NoSpace);
            }
            Err(error) => return Err(error.into()),
        };
        self.end.store(last.seq + 1, Ordering::Release);
        if let Err(error) = writing.end.note(last.seq + 1) {
            // Only the diagnosis after damage rests on it.
            warn!(%error, "The end of the buffer could not be noted.");
        }
        let mut state = self.lock_state();
        if generation.disk_bytes() >= self.config.generation_bytes_max {
            state.active = None;
            generation.close_if_idle();
        }
        self.update_gauges(&state);
        writing.trusted = true;
        Ok(())
    }

    fn append_to_active(
        &self,
        first_seq: u64,
        records: &[Record],
    ) -> Result<Arc<Generation>, EngineError> {
        let generation = self.active(first_seq)?;
        generation.append(records)?;
        Ok(generation)
    }

    /// Appends no more to the active generation; removes it if it was made for the batch that failed.
    fn leave_active(&self, failed_seq: u64) {
        let mut state = self.lock_state();
        let Some(active) = state.active.take() else {
            return;
        };
        if active == failed_seq {
            if let Some(generation) = state.generations.remove(&active) {
                generation.retire(Fate::Drained);
            }
        } else {
            state.generations[&active].close_if_idle();
        }
    }

    fn active(&self, first_seq: u64) -> Result<Arc<Generation>, EngineError> {
        {
            let state = self.lock_state();
            if let Some(active) = state.active {
                return Ok(state.generations[&active].clone());
            }
        }
        let generation = Arc::new(Generation::create(&self.config.dir, first_seq)?);
        let mut state = self.lock_state();
        state.generations.insert(first_seq, generation.clone());
        state.active = Some(first_seq);
        Ok(generation)
    }

    /// Whether the generations take less than the bound; waits for it up to `patience`.
    pub(super) fn has_room(&self, patience: Duration) -> bool {
        let full = |state: &mut State| disk_bytes(state) >= self.config.bytes_max;
        let (mut state, _) = self
            .freed
            .wait_timeout_while(self.lock_state(), patience, full)
            .unwrap_or_else(PoisonError::into_inner);
        !full(&mut state)
    }

    /// Waits until disk was given back, up to `patience`.
    pub(super) fn wait_for_freed(&self, patience: Duration) {
        drop(self.freed.wait_timeout(self.lock_state(), patience));
    }

    /// Records from number `from` on, which is below [`Store::end`]. An error says that nothing can
    /// be read now, though nothing is damaged.
    pub(super) fn read(&self, from: u64, limits: BatchLimits) -> Result<Read, EngineError> {
        let end = self.end();
        let (generation, next_first, explained) = {
            let state = self.lock_state();
            let above = (Bound::Excluded(from), Bound::Unbounded);
            let next = state.generations.range(above).next();
            let holding = state.generations.range(..=from).next_back();
            let explained = holding.is_some_and(|(first, _)| {
                let between = (Bound::Excluded(*first), Bound::Included(from));
                state.set_aside.range(between).next().is_some()
            });
            (
                holding.map(|(_, generation)| generation.clone()),
                next.map_or(end, |(first, _)| *first),
                explained,
            )
        };
        let lost_all = Read {
            lost: (from < next_first).then(|| (from, next_first - 1)),
            records: Vec::new(),
            next: next_first,
        };
        let Some(generation) = generation else {
            return Ok(lost_all);
        };
        let records = match generation.read(from, next_first, limits) {
            Ok(records) => records,
            Err(error) if error.is_damage() => {
                let next = self.set_aside(&generation, next_first);
                self.note_damage(&generation, from, next, &chain(&error));
                return Ok(Read {
                    lost: Some((from, next - 1)),
                    records: Vec::new(),
                    next,
                });
            }
            Err(error) => {
                // A database whose write failed gives nothing more until it is opened again.
                generation.close_if_idle();
                return Err(error);
            }
        };
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            // The gap may be that of another generation, which stood between this one and the next.
            if !explained {
                self.note_damage(&generation, from, next_first, "records missing");
            }
            return Ok(lost_all);
        };
        let lost = (first.seq > from).then(|| (from, first.seq - 1));
        if lost.is_some() {
            self.note_damage(&generation, from, first.seq, "records missing");
        }
        Ok(Read {
            lost,
            next: last.seq + 1,
            records,
        })
    }

    /// Moves the cursor: everything up to `upto` has been accepted. Durable now and then; always
    /// before a generation is dropped.
    pub(super) fn accept(&self, upto: u64) {
        let before = {
            let mut state = self.lock_state();
            let before = state.accepted;
            state.accepted = upto.min(self.end() - 1).max(before);
            self.metrics
                .accepted_records
                .inc_by(state.accepted - before);
            self.metrics
                .depth_records
                .set(gauge(self.end() - 1 - state.accepted));
            before
        };
        if upto <= before {
            return;
        }
        let due = {
            let cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
            cursor.written.elapsed() >= CURSOR_INTERVAL
        };
        if self.something_is_drained() {
            self.reclaim();
        } else if due {
            self.persist_cursor();
        }
    }

    /// Gives the disk of what is drained back, once the cursor is durable. Called when something
    /// was accepted, and again by whoever waits for disk: the cursor may not have been writable then.
    pub(super) fn reclaim(&self) {
        if self.something_is_drained() && self.persist_cursor() {
            self.retire_spent_active();
            self.drop_drained(&mut self.lock_state());
            self.update_gauges(&self.lock_state());
            self.freed.notify_all();
        }
    }

    fn something_is_drained(&self) -> bool {
        let state = self.lock_state();
        self.drained(&state).next().is_some() || self.active_is_spent(&state)
    }

    /// Writes the cursor to disk if it has moved; whether it is there.
    pub(super) fn persist_cursor(&self) -> bool {
        let accepted = self.accepted();
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        cursor.written = Instant::now();
        let raised = cursor.mark.raise(accepted);
        let failed_before = std::mem::replace(&mut cursor.failed, raised.is_err());
        if let Err(error) = &raised
            && !failed_before
        {
            warn!(%error, accepted, "The cursor could not be written; drained generations stay.");
        }
        raised.is_ok()
    }

    /// Whether the active generation is drained and large enough that its disk is wanted back.
    fn active_is_spent(&self, state: &State) -> bool {
        let Some(active) = state.active else {
            return false;
        };
        let bytes = state.generations[&active].disk_bytes();
        state.accepted + 1 == self.end()
            && (bytes >= self.config.generation_bytes_max / 4
                || disk_bytes(state) >= self.config.bytes_max)
    }

    fn retire_spent_active(&self) {
        // A commit under way means that it is not drained.
        let Ok(_writing) = self.writing.try_lock() else {
            return;
        };
        let mut state = self.lock_state();
        if self.active_is_spent(&state) {
            state.active = None;
        }
    }

    /// The closed generations whose every record has been accepted.
    fn drained(&self, state: &State) -> impl Iterator<Item = u64> {
        let ends = state.generations.keys().skip(1).copied();
        let ends = ends.chain([self.end()]);
        let (active, accepted) = (state.active, state.accepted);
        state
            .generations
            .keys()
            .copied()
            .zip(ends)
            .filter(move |(first, end)| *end <= accepted + 1 && Some(*first) != active)
            .map(|(first, _)| first)
    }

    /// Drops every generation below the cursor, except the one that is appended to.
    pub(super) fn drop_drained(&self, state: &mut State) {
        let first_seqs: Vec<_> = self.drained(state).collect();
        for first_seq in first_seqs {
            if let Some(generation) = state.generations.remove(&first_seq) {
                generation.retire(Fate::Drained);
            }
        }
    }

    /// Takes a generation that cannot be read out of service; where reading goes on.
    pub(super) fn set_aside(&self, generation: &Arc<Generation>, next_first: u64) -> u64 {
        // Not in the middle of a commit into it.
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Its numbers were given, and soon it cannot say so any more.
        let floor = writing.floor.raise(self.end());
        let mut state = self.lock_state();
        let first_seq = generation.first_seq;
        state.generations.remove(&first_seq);
        state.set_aside.insert(first_seq);
        let next = if state.active == Some(first_seq) {
            state.active = None;
            // With what was committed since the read began.
            self.end()
        } else {
            next_first
        };
        match floor {
            Ok(()) => generation.retire(Fate::SetAside),
            // The directory stays until the next start.
            Err(error) => warn!(%error, "The bound of the sequence numbers could not be written."),
        }
        self.update_gauges(&state);
        self.freed.notify_all();
        next
    }

    /// Says once that a generation is damaged, and each time what that costs.
    pub(super) fn note_damage(&self, generation: &Generation, from: u64, end: u64, why: &str) {
        if generation.mark_damaged() {
            self.metrics.damaged_generations.inc();
        }
        error!(
            generation = generation.first_seq,
            from_seq = from,
            to_seq = end.saturating_sub(1),
            why,
            "A generation of the buffer is damaged; records in this range are lost."
        );
    }

    /// What others see of the state: gauges, and whether there is room.
    pub(super) fn update_gauges(&self, state: &State) {
        self.metrics
            .depth_records
            .set(gauge((self.end() - 1).saturating_sub(state.accepted)));
        let disk_bytes = disk_bytes(state);
        self.room.note(disk_bytes);
        self.metrics.disk_bytes.set(gauge(disk_bytes));
        self.metrics
            .generations
            .set(i64::try_from(state.generations.len()).unwrap_or(i64::MAX));
    }

    pub(super) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn disk_bytes(state: &State) -> u64 {
    state
        .generations
        .values()
        .map(|generation| generation.disk_bytes())
        .sum()
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
