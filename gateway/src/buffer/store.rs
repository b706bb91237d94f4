//! One lane: append a batch, read from a place, move a sink's cursor, drop what is drained. Whatever
//! keeps the records on disk stands behind these calls; above them nobody knows of directories or
//! databases.
//!
//! On disk, below `data/buffer/<lane>`:
//! ```text
//! cursor-<sink>         how far the sink is, and its counts             (see cursor.rs)
//! sequence              no place from here on was ever given away       (see mark.rs)
//! end                   the place after the last durable record, not synced: after a kill or an
//!                       orderly stop it tells a generation that lost its tail from one that ends there
//! counts                how many records were for whom at the end, not synced (see counts.rs)
//! floor                 the next place as the last start or loss left it: no lower one is given
//! gen-<first place>/    a database with the records from that place on  (see generation.rs)
//! gen-….damaged/        what could not be read, kept for salvage
//! ```
//! A generation that cannot be opened or read is set aside, the places that it should have held are
//! reported as lost, and the rest is served. A write that fails is different: what the disk holds is
//! then unknown, so the store takes nothing more and the process has to start again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use portcullis_core::{
    batch::BatchLimits,
    limits::{LANE_IDLE, SEQUENCE_RESERVE},
    record::{Lane, Record},
};
use tracing::{error, warn};

use crate::chain::chain;

use super::{
    counts::{Base, Counts, encode_noted},
    cursor::At,
    engine::EngineError,
    generation::{Fate, Generation},
    hold::Hold,
    kept::Slots,
    lanes::Shared,
    mark::Mark,
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
    /// The bound of the numbers could not be written.
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
    /// Places before the records that should have one and have none: first and last.
    pub(super) lost: Option<(u64, u64)>,
    /// Consecutive records.
    pub(super) records: Vec<Record>,
    /// Where to go on.
    pub(super) next: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) lane: Lane,
    pub(super) dir: PathBuf,
    pub(super) generation_bytes_max: u64,
    pub(super) shared: Arc<Shared>,
    /// Held for the length of a commit. Taken before `state`, never after it.
    pub(super) writing: Mutex<Writing>,
    pub(super) state: Mutex<State>,
    /// The place after the last durable record.
    pub(super) end: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Writing {
    pub(super) sequence: Mark,
    pub(super) end: Mark,
    pub(super) counts: Slots,
    pub(super) floor: Mark,
    pub(super) trusted: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) generations: BTreeMap<u64, Arc<Generation>>,
    /// What those that say so began with.
    pub(super) bases: BTreeMap<u64, Base>,
    /// The first places of those that were set aside: what is missing from there on was theirs.
    pub(super) set_aside: BTreeSet<u64>,
    /// The one that is appended to.
    pub(super) active: Option<u64>,
    /// At the end.
    pub(super) counts: Counts,
    /// The sinks of the lane, by their index.
    pub(super) holds: BTreeMap<usize, Hold>,
    /// Up to where the log has said what is lost.
    pub(super) lost_upto: u64,
    /// When an open database was used last, by generation.
    pub(super) used: BTreeMap<u64, Instant>,
}

impl State {
    /// The last place that every sink is past.
    pub(super) fn settled(&self, end: u64) -> u64 {
        self.holds
            .values()
            .map(|hold| hold.position.at.place)
            .min()
            .unwrap_or(end - 1)
    }
}

impl Store {
    /// The place after the last durable record.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The last place that every sink is past.
    pub(super) fn settled(&self) -> u64 {
        self.lock_state().settled(self.end())
    }

    /// The end of the lane for the sink with this bit.
    pub(super) fn end_at(&self, state: &State, bit: u8) -> At {
        At {
            place: self.end() - 1,
            passed: state.counts.of(usize::from(bit)),
        }
    }

    /// Makes a batch durable. Its places are consecutive and start at [`Store::end`].
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
        if last.place >= writing.sequence.value() {
            writing
                .sequence
                .raise(last.place + 1 + SEQUENCE_RESERVE)
                .map_err(AppendError::Sequence)?;
        }
        let generation = match self.append_to_active(first, records) {
            Ok(generation) => generation,
            Err(error) if error.is_no_space() => {
                // A new generation starts with this batch, so whatever the old one holds of it is
                // never read.
                self.leave_active(first.place);
                writing.trusted = true;
                return Err(AppendError::NoSpace);
            }
            Err(error) => return Err(error.into()),
        };
        let mut state = self.lock_state();
        for record in records {
            state.counts.add(record.sinks);
        }
        self.end.store(last.place + 1, Ordering::Release);
        state.used.insert(generation.first_seq, Instant::now());
        let noted = encode_noted(last.place + 1, &state.counts);
        if let Err(error) = writing
            .end
            .note(last.place + 1)
            .and_then(|()| writing.counts.note(&noted))
        {
            // The diagnosis after damage rests on the first, a quicker start on the second.
            warn!(%error, "The end of the buffer could not be noted.");
        }
        if generation.disk_bytes() >= self.generation_bytes_max {
            state.active = None;
            generation.close_if_idle();
        }
        self.update_gauges(&state);
        writing.trusted = true;
        Ok(())
    }

    fn append_to_active(
        &self,
        first: &Record,
        records: &[Record],
    ) -> Result<Arc<Generation>, EngineError> {
        let generation = self.active(first)?;
        generation.append(records)?;
        Ok(generation)
    }

    /// Appends no more to the active generation; removes it if it was made for the batch that failed.
    fn leave_active(&self, failed_place: u64) {
        let mut state = self.lock_state();
        let Some(active) = state.active.take() else {
            return;
        };
        if active == failed_place {
            if let Some(generation) = state.generations.remove(&active) {
                state.bases.remove(&active);
                generation.retire(Fate::Drained);
            }
        } else {
            state.generations[&active].close_if_idle();
        }
    }

    fn active(&self, first: &Record) -> Result<Arc<Generation>, EngineError> {
        let base = {
            let state = self.lock_state();
            if let Some(active) = state.active {
                return Ok(state.generations[&active].clone());
            }
            Base {
                at_millis: first.at_millis,
                counts: state.counts.clone(),
            }
        };
        let made = Generation::create(&self.dir, first.place, &base.encode())?;
        let generation = Arc::new(made);
        let mut state = self.lock_state();
        state.generations.insert(first.place, generation.clone());
        state.bases.insert(first.place, base);
        state.active = Some(first.place);
        Ok(generation)
    }

    /// Records from place `from` on, which is below [`Store::end`]. An error says that nothing can
    /// be read now, though nothing is damaged.
    pub(super) fn read(&self, from: u64, limits: BatchLimits) -> Result<Read, EngineError> {
        let end = self.end();
        let (generation, next_first, explained) = {
            let mut state = self.lock_state();
            let above = (Bound::Excluded(from), Bound::Unbounded);
            let next = state.generations.range(above).next();
            let next_first = next.map_or(end, |(first, _)| *first);
            let holding = state.generations.range(..=from).next_back();
            let holding = holding.map(|(first, generation)| (*first, generation.clone()));
            let explained = holding.as_ref().is_some_and(|(first, _)| {
                let between = (Bound::Excluded(*first), Bound::Included(from));
                state.set_aside.range(between).next().is_some()
            });
            if let Some((first, _)) = &holding {
                state.used.insert(*first, Instant::now());
            }
            (
                holding.map(|(_, generation)| generation),
                next_first,
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
        let lost = (first.place > from).then(|| (from, first.place - 1));
        if lost.is_some() {
            self.note_damage(&generation, from, first.place, "records missing");
        }
        Ok(Read {
            lost,
            next: last.place + 1,
            records,
        })
    }

    /// Counts places without a record, once whoever reads them.
    pub(super) fn note_lost(&self, from: u64, upto: u64) {
        let mut state = self.lock_state();
        let fresh = from.max(state.lost_upto + 1);
        if fresh <= upto {
            state.lost_upto = upto;
            self.shared.metrics.lost_records.inc_by(upto - fresh + 1);
            error!(
                lane = self.lane.name(),
                from_place = fresh,
                to_place = upto,
                "Records are lost to damage of the buffer."
            );
        }
    }

    /// Gives the disk of what is drained back, once the cursors are durable. Called when something
    /// was settled, and again by whoever waits for disk: a cursor may not have been writable then.
    pub(super) fn reclaim(&self) {
        if self.something_is_drained() && self.persist_cursors(Duration::ZERO) {
            self.retire_spent_active();
            let before: Vec<_> = self.drained(&self.lock_state()).collect();
            self.drop_generations(&before);
        }
    }

    pub(super) fn something_is_drained(&self) -> bool {
        let state = self.lock_state();
        self.drained(&state).next().is_some() || self.active_is_spent(&state)
    }

    /// Whether the active generation is drained and large enough that its disk is wanted back.
    fn active_is_spent(&self, state: &State) -> bool {
        let Some(active) = state.active else {
            return false;
        };
        let bytes = state.generations[&active].disk_bytes();
        state.settled(self.end()) + 1 == self.end()
            && (bytes >= self.generation_bytes_max / 4 || self.shared.is_over(self.lane))
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

    /// The closed generations whose every record is settled.
    pub(super) fn drained(&self, state: &State) -> impl Iterator<Item = u64> {
        let ends = state.generations.keys().skip(1).copied();
        let ends = ends.chain([self.end()]);
        let (active, settled) = (state.active, state.settled(self.end()));
        state
            .generations
            .keys()
            .copied()
            .zip(ends)
            .filter(move |(first, end)| *end <= settled + 1 && Some(*first) != active)
            .map(|(first, _)| first)
    }

    /// Drops generations that nobody wants. If the newest goes, its numbers must be known elsewhere.
    pub(super) fn drop_generations(&self, first_places: &[u64]) {
        if first_places.is_empty() || !self.shared.seal_numbers() {
            return;
        }
        {
            let mut state = self.lock_state();
            for first_place in first_places {
                state.bases.remove(first_place);
                state.used.remove(first_place);
                if let Some(generation) = state.generations.remove(first_place) {
                    generation.retire(Fate::Drained);
                }
            }
            self.update_gauges(&state);
        }
        self.shared.queue.nudge();
    }

    /// Takes a generation that cannot be read out of service; where reading goes on.
    pub(super) fn set_aside(&self, generation: &Arc<Generation>, next_first: u64) -> u64 {
        // Not in the middle of a commit into it.
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Its numbers were given, and soon it cannot say so any more.
        let floor = writing.floor.raise(self.end());
        let is_sealed = self.shared.seal_numbers();
        let mut state = self.lock_state();
        let first_place = generation.first_seq;
        state.generations.remove(&first_place);
        state.set_aside.insert(first_place);
        let next = if state.active == Some(first_place) {
            state.active = None;
            // With what was committed since the read began.
            self.end()
        } else {
            next_first
        };
        match floor {
            Ok(()) if is_sealed => generation.retire(Fate::SetAside),
            // The directory stays until the next start.
            Ok(()) => {}
            Err(error) => warn!(%error, "The bound of the sequence numbers could not be written."),
        }
        self.update_gauges(&state);
        self.shared.queue.nudge();
        next
    }

    /// Says once that a generation is damaged, and each time what that costs.
    pub(super) fn note_damage(&self, generation: &Generation, from: u64, end: u64, why: &str) {
        if generation.mark_damaged() {
            self.shared.metrics.damaged_generations.inc();
        }
        error!(
            lane = self.lane.name(),
            generation = generation.first_seq,
            from_place = from,
            to_place = end.saturating_sub(1),
            why,
            "A generation of the buffer is damaged; records in this range are lost."
        );
    }

    /// Closes databases that nobody has used for a while: each takes memory.
    pub(super) fn close_idle(&self) {
        let mut state = self.lock_state();
        let active = state.active;
        let generations = state.generations.clone();
        state.used.retain(|first, used| {
            let patience = if Some(*first) == active {
                LANE_IDLE
            } else {
                LANE_IDLE / 10
            };
            let is_idle = used.elapsed() >= patience;
            if is_idle && let Some(generation) = generations.get(first) {
                // Ours is not a user.
                generation.close_if_idle();
            }
            !is_idle
        });
    }

    /// What others see of the state: gauges, and whether there is room.
    pub(super) fn update_gauges(&self, state: &State) {
        let depth = (self.end() - 1).saturating_sub(state.settled(self.end()));
        self.shared
            .note_lane(self.lane, disk_bytes(state), depth, state.generations.len());
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
