//! What sinks hold of a lane: their cursors, moved by what they settle, by age and by the bound.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use portcullis_core::limits::CURSOR_INTERVAL;
use tracing::warn;

use super::{
    counts::Counts,
    cursor::{At, NEWEST, Part, Position, Tally},
    kept::Slots,
    store::{State, Store},
};

/// One sink's place in a lane.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) sink: Arc<str>,
    pub(super) position: Position,
    /// Taken before the state, never after it.
    pub(super) file: Arc<Mutex<CursorFile>>,
}

#[derive(Debug)]
pub(super) struct CursorFile {
    pub(super) slots: Slots,
    saved: Option<Position>,
    written: Instant,
    /// The last write failed, and the log says so.
    failed: bool,
}

impl CursorFile {
    /// A file that holds `saved`.
    pub(super) fn new(slots: Slots, saved: Option<Position>) -> Self {
        Self {
            slots,
            saved,
            written: Instant::now(),
            failed: false,
        }
    }
}

/// What a cursor may be moved by, besides the sink.
#[derive(Debug)]
pub(super) struct Dropped {
    /// The disk that came back.
    pub(super) bytes: u64,
}

impl Store {
    /// What `part` of the sink is at, if there is such a part.
    pub(super) fn position(&self, sink: usize, part: Part) -> Option<At> {
        self.lock_state().holds.get(&sink)?.position.part(part)
    }

    /// Moves a sink's cursor: everything of `part` up to `to` is settled. Durable now and then; always
    /// before a generation is dropped.
    pub(super) fn settle(&self, sink: usize, part: Part, to: At, tally: Tally) {
        {
            let mut state = self.lock_state();
            let before = state.settled(self.end());
            let end = self.end() - 1;
            let Some(hold) = state.holds.get_mut(&sink) else {
                return;
            };
            let to = At {
                place: to.place.min(end),
                ..to
            };
            let Some(counted) = hold.position.settle(part, to, tally) else {
                return;
            };
            self.shared
                .metrics
                .count_settled(self.lane, &hold.sink, &counted);
            let settled = state.settled(self.end());
            self.shared
                .metrics
                .accepted_records
                .inc_by(settled.saturating_sub(before));
            self.update_gauges(&state);
        }
        if self.something_is_drained() {
            self.reclaim();
        } else {
            self.persist_cursor(sink, CURSOR_INTERVAL);
        }
    }

    /// Opens a split for the sink at the end of the lane; see `Reader::split`.
    pub(super) fn split(&self, sink: usize) {
        {
            let mut state = self.lock_state();
            let Some(bit) = state.holds.get(&sink).map(|hold| hold.position.bit) else {
                return;
            };
            let end = self.end_at(&state, bit);
            let hold = state.holds.get_mut(&sink);
            if !hold.is_some_and(|hold| hold.position.split(end)) {
                return;
            }
        }
        self.persist_cursor(sink, Duration::ZERO);
    }

    /// Counts records that the lane did not take, by sink; survives a kill.
    pub(super) fn refuse(&self, counts: &Counts) {
        let files: Vec<_> = {
            let mut state = self.lock_state();
            let mut files = Vec::new();
            for (sink, hold) in &mut state.holds {
                let refused = counts.of(usize::from(hold.position.bit));
                if refused > 0 {
                    hold.position.refused += refused;
                    self.shared
                        .metrics
                        .count_dropped(self.lane, &hold.sink, NEWEST, refused);
                    files.push((*sink, hold.file.clone()));
                }
            }
            files
        };
        for (sink, file) in files {
            let mut file = lock(&file);
            let position = self.lock_state().holds[&sink].position.clone();
            if let Err(error) = file.slots.note(&position.encode()) {
                warn!(%error, "A cursor could not be noted.");
            }
        }
    }

    /// Drops the oldest generation, delivered or not; nothing if the lane is empty, or the cursors
    /// cannot be written.
    pub(super) fn drop_oldest(&self, reason: &'static str) -> Option<Dropped> {
        let first_place = {
            // Not in the middle of a commit into it.
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.lock_state();
            let mut firsts = state.generations.keys().copied();
            let (first, next) = (firsts.next()?, firsts.next());
            if state.active == Some(first) {
                state.active = None;
            }
            let counts = match next.map(|next| state.bases.get(&next)) {
                None => Some(state.counts.clone()),
                Some(base) => base.map(|base| base.counts.clone()),
            };
            let place = next.unwrap_or_else(|| self.end()) - 1;
            self.skip(&mut state, place, counts.as_ref(), reason);
            first
        };
        if !self.persist_cursors(Duration::ZERO) {
            return None;
        }
        let bytes = self
            .lock_state()
            .generations
            .get(&first_place)?
            .disk_bytes();
        self.drop_generations(&[first_place]);
        Some(Dropped { bytes })
    }

    /// Moves every cursor to `place`, at which the lane had these counts; without them, what lies
    /// between counts as one record a place.
    fn skip(&self, state: &mut State, place: u64, counts: Option<&Counts>, reason: &'static str) {
        for hold in state.holds.values_mut() {
            let at = hold.position.at;
            let passed = counts.map_or_else(
                || at.passed + place.saturating_sub(at.place),
                |counts| counts.of(usize::from(hold.position.bit)),
            );
            let cost = hold.position.skip(At { place, passed }, reason);
            self.shared
                .metrics
                .count_dropped(self.lane, &hold.sink, reason, cost);
        }
        self.update_gauges(state);
    }

    /// Drops generations in which everything is older than `than_millis`.
    pub(super) fn drop_older(&self, than_millis: u64, reason: &'static str) {
        let is_old = || {
            let state = self.lock_state();
            let oldest = state.generations.keys().next().copied();
            let mut bases = state.bases.iter();
            let made_next = bases.find(|(first, _)| Some(**first) > oldest);
            made_next.is_some_and(|(_, base)| base.at_millis < than_millis)
                && state.generations.len() > 1
        };
        while is_old() {
            if self.drop_oldest(reason).is_none() {
                return;
            }
        }
    }

    /// Writes every cursor that has moved and was not written for `interval`; whether all are there.
    pub(super) fn persist_cursors(&self, interval: Duration) -> bool {
        let sinks: Vec<_> = self.lock_state().holds.keys().copied().collect();
        let mut all = true;
        for sink in sinks {
            all &= self.persist_cursor(sink, interval);
        }
        all
    }

    fn persist_cursor(&self, sink: usize, interval: Duration) -> bool {
        let file = {
            let state = self.lock_state();
            let Some(hold) = state.holds.get(&sink) else {
                return true;
            };
            hold.file.clone()
        };
        let mut file = lock(&file);
        let position = self.lock_state().holds[&sink].position.clone();
        if file.saved.as_ref() == Some(&position) {
            return true;
        }
        if file.written.elapsed() < interval {
            return false;
        }
        file.written = Instant::now();
        let stored = file.slots.store(&position.encode());
        let failed_before = std::mem::replace(&mut file.failed, stored.is_err());
        match stored {
            Ok(()) => {
                file.saved = Some(position);
                true
            }
            Err(error) => {
                if !failed_before {
                    let lane = self.lane.name();
                    warn!(%error, lane, "A cursor could not be written; drained generations stay.");
                }
                false
            }
        }
    }
}

fn lock(file: &Mutex<CursorFile>) -> MutexGuard<'_, CursorFile> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}
