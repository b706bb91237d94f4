//! Opening: what is on disk becomes a [`Store`], and the next sequence number is found. What cannot
//! be used is set aside and said; nothing here waits for more than the newest generation.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    sync::{Arc, Condvar, Mutex, PoisonError, atomic::AtomicU64},
    time::Instant,
};

use portcullis_core::limits::SEQUENCE_RESERVE;
use tracing::{info, warn};

use crate::chain::chain;

use super::{
    Config, Metrics,
    generation::{End, Fate, list, list_set_aside},
    mark::{Found, Mark},
    room::Room,
    store::{Cursor, OpenError, State, Store, Writing},
};

impl Store {
    /// Recovers what is on disk. Opens the newest generation alone, so it takes bounded time and
    /// memory whatever the backlog.
    pub(super) fn open(config: &Config, metrics: Metrics) -> Result<Self, OpenError> {
        let at = |source| OpenError::Io {
            path: config.dir.clone(),
            source,
        };
        fs::create_dir_all(&config.dir).map_err(at)?;
        if let Some(parent) = config.dir.parent() {
            File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(at)?;
        }
        let lock = File::create(config.dir.join("lock")).map_err(at)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(config.dir.clone())),
            Err(TryLockError::Error(source)) => return Err(at(source)),
        }
        let (cursor, cursor_found) = Mark::open(&config.dir.join("cursor")).map_err(at)?;
        let (sequence, sequence_found) = Mark::open(&config.dir.join("sequence")).map_err(at)?;
        let (end_mark, _) = Mark::open(&config.dir.join("end")).map_err(at)?;
        let (floor_mark, _) = Mark::open(&config.dir.join("floor")).map_err(at)?;
        let generations: BTreeMap<_, _> = list(&config.dir)
            .map_err(at)?
            .into_iter()
            .map(|generation| (generation.first_seq, Arc::new(generation)))
            .collect();

        // If a mark is gone or damaged, only the bound of the other (or a leap) is sure to be fresh.
        let first_start =
            sequence_found == Found::Nothing && cursor.value() == 0 && generations.is_empty();
        let newest_first = generations.keys().next_back().copied();
        let fresh = if first_start {
            1
        } else if sequence_found == Found::Value {
            sequence.value().max(1)
        } else {
            cursor.value().max(newest_first.unwrap_or(0)) + SEQUENCE_RESERVE
        };
        let set_aside = list_set_aside(&config.dir).map_err(at)?;
        let mut store = Self {
            config: config.clone(),
            metrics,
            writing: Mutex::new(Writing {
                sequence,
                end: end_mark,
                floor: floor_mark,
                trusted: true,
            }),
            state: Mutex::new(State {
                generations,
                set_aside,
                active: None,
                accepted: cursor.value(),
            }),
            cursor: Mutex::new(Cursor {
                mark: cursor,
                written: Instant::now(),
                failed: false,
            }),
            end: AtomicU64::new(0),
            freed: Condvar::new(),
            room: Room::below(config.bytes_max),
            _lock: lock,
        };
        let end = match newest_first {
            Some(first_seq) => store.recover_newest(first_seq, fresh)?,
            // Drained whole: the cursor was durable before the last generation went.
            None if cursor_found == Found::Value => store.raise_floor(store.accepted() + 1)?,
            None => store.raise_floor(fresh)?,
        };
        store.end = AtomicU64::new(end);
        store.skip_what_is_gone(cursor_found);
        store.drop_drained(&mut store.lock_state());
        store.update_gauges(&store.lock_state());
        info!(
            next_seq = end,
            cursor = store.accepted(),
            generations = store.lock_state().generations.len(),
            "Buffer recovered."
        );
        Ok(store)
    }

    /// Looks where the newest generation ends, or sets it aside; the next sequence number. What is
    /// appended goes into a new generation: one with damage that nobody has noticed yet must not be
    /// able to fail every start.
    fn recover_newest(&self, first_seq: u64, fresh: u64) -> Result<u64, OpenError> {
        let (noted_end, floor) = {
            let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            (writing.end.value(), writing.floor.value())
        };
        let generation = self.lock_state().generations[&first_seq].clone();
        let fresh = fresh.max(self.accepted() + 1).max(noted_end);
        let next = match generation.end() {
            Ok(End::At(last)) => last + 1,
            Ok(End::Empty) => first_seq,
            Ok(End::Unreadable) => {
                // It stays readable up to there.
                self.note_damage(&generation, first_seq, fresh, "unreadable end");
                return self.raise_floor(fresh);
            }
            Err(error) if error.is_damage() => {
                self.note_damage(&generation, first_seq, fresh, &chain(&error));
                let end = self.raise_floor(fresh)?;
                let mut state = self.lock_state();
                state.generations.remove(&first_seq);
                state.set_aside.insert(first_seq);
                generation.retire(Fate::SetAside);
                return Ok(end);
            }
            Err(error) => return Err(OpenError::Unavailable(chain(&error))),
        };
        // Below the floor, an earlier start has said what is lost, and perhaps not of this one.
        // What was accepted is no loss: a kill may have come while the generation was removed.
        let missing = next.max(self.accepted() + 1);
        if missing < noted_end && first_seq >= floor {
            self.note_damage(&generation, missing, noted_end, "the tail is gone");
        }
        let end = self.raise_floor(next.max(self.accepted() + 1))?;
        if next == first_seq {
            // No record in it; its name is free for the next one.
            self.lock_state().generations.remove(&first_seq);
            generation.retire(Fate::Drained);
        }
        Ok(end)
    }

    /// The next number, at least `next`, durably: what is set aside, or was never synced, does not
    /// tell the next start where numbers go on.
    fn raise_floor(&self, next: u64) -> Result<u64, OpenError> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next.max(writing.end.value()).max(writing.floor.value());
        match writing.floor.raise(next) {
            Ok(()) => Ok(next),
            Err(source) => Err(OpenError::Io {
                path: self.config.dir.join("floor"),
                source,
            }),
        }
    }

    /// Without a cursor, reading starts at what there is: sent twice rather than not at all.
    fn skip_what_is_gone(&self, cursor_found: Found) {
        if cursor_found == Found::Value {
            return;
        }
        let mut state = self.lock_state();
        let first = state.generations.keys().next().copied();
        let first = first.unwrap_or_else(|| self.end());
        if cursor_found == Found::Damaged {
            warn!(
                from_seq = first,
                "The cursor is damaged: the whole backlog is sent again."
            );
        }
        state.accepted = state.accepted.max(first.saturating_sub(1));
    }
}
