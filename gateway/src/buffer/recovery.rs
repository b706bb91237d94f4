//! Opening a lane: what is on disk becomes a [`Store`], and the next place is found. What cannot be
//! used is set aside and said; nothing here waits for more than the newest generation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use portcullis_core::{
    batch::BatchLimits,
    limits::{COMMIT_BYTES_MAX, SEQUENCE_RESERVE},
    record::Lane,
};
use tracing::{info, warn};

use crate::chain::chain;

use super::{
    counts::{Base, Counts, decode_noted},
    cursor::{At, Position},
    generation::{End, Fate, Generation, list, list_set_aside},
    hold::{CursorFile, Hold},
    kept::Slots,
    lanes::Shared,
    mark::{Found, Mark},
    sinks::{cursor_path, list_cursors},
    store::{OpenError, State, Store, Writing},
};

/// The cursor of the only sink that an older release knew.
const OLD_CURSOR: &str = "cursor";

/// A cursor as it was found, configured or not.
#[derive(Debug)]
pub(super) struct FoundCursor {
    pub(super) name: String,
    pub(super) slots: Slots,
    pub(super) position: Option<Position>,
}

/// A lane that is open, without its sinks.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) store: Store,
    pub(super) cursors: Vec<FoundCursor>,
    /// What the only sink of an older release had.
    old_cursor: Option<u64>,
    /// The number upstream of the newest record, if there is one.
    pub(super) last_seq: Option<u64>,
    /// Nothing at the end is missing or unreadable.
    pub(super) is_certain: bool,
}

/// What the newest generation says.
struct Newest {
    end: u64,
    last_seq: Option<u64>,
    is_certain: bool,
}

impl Store {
    /// Recovers what is on disk. Opens the newest generation alone, so it takes bounded time and
    /// memory whatever the backlog.
    pub(super) fn open(lane: Lane, shared: &Arc<Shared>) -> Result<Recovered, OpenError> {
        let dir = shared.config.dir.join(lane.name());
        let at = |source| OpenError::Io {
            path: dir.clone(),
            source,
        };
        fs::create_dir_all(&dir).map_err(at)?;
        let cursors = find_cursors(&dir).map_err(at)?;
        let old_cursor = find_old_cursor(&dir).map_err(at)?;
        let (sequence, sequence_found) = Mark::open(&dir.join("sequence")).map_err(at)?;
        let (end_mark, _) = Mark::open(&dir.join("end")).map_err(at)?;
        let (counts, noted, _) = Slots::open(&dir.join("counts")).map_err(at)?;
        let (floor_mark, _) = Mark::open(&dir.join("floor")).map_err(at)?;
        let generations: BTreeMap<_, _> = list(&dir)
            .map_err(at)?
            .into_iter()
            .map(|generation| (generation.first_seq, Arc::new(generation)))
            .collect();
        let bases = generations.iter().filter_map(|(first, generation)| {
            let base = Base::decode(&generation.base()?)?;
            Some((*first, base))
        });

        let known = cursors.iter().filter_map(|found| found.position.as_ref());
        let reached = known.map(|position| position.live.map_or(position.at, |live| live.at));
        let accepted = reached
            .map(|at| at.place)
            .chain(old_cursor)
            .max()
            .unwrap_or(0);
        let is_known = cursors.iter().any(|found| found.position.is_some()) || old_cursor.is_some();
        // If a mark is gone or damaged, only the bound of the other (or a leap) is sure to be fresh.
        let first_start =
            sequence_found == Found::Nothing && accepted == 0 && generations.is_empty();
        let newest_first = generations.keys().next_back().copied();
        let fresh = if first_start {
            1
        } else if sequence_found == Found::Value {
            sequence.value().max(1)
        } else {
            accepted.max(newest_first.unwrap_or(0)) + SEQUENCE_RESERVE
        };
        let set_aside: BTreeSet<u64> = list_set_aside(&dir).map_err(at)?;
        let mut store = Self {
            lane,
            generation_bytes_max: shared
                .config
                .generation_bytes_max
                .min((shared.config.lane(lane).bytes_max / 4).max(1)),
            shared: shared.clone(),
            writing: Mutex::new(Writing {
                sequence,
                end: end_mark,
                counts,
                floor: floor_mark,
                trusted: true,
            }),
            state: Mutex::new(State {
                bases: bases.collect(),
                generations,
                set_aside,
                active: None,
                counts: Counts::default(),
                holds: BTreeMap::new(),
                lost_upto: 0,
                used: BTreeMap::new(),
            }),
            end: AtomicU64::new(0),
            dir,
        };
        let newest = match newest_first {
            Some(first) => store.recover_newest(first, fresh, accepted)?,
            // Drained whole: a cursor was durable before the last generation went.
            None if is_known || first_start => store.without_generations(accepted + 1)?,
            None => store.without_generations(fresh)?,
        };
        store.end = AtomicU64::new(newest.end);
        let noted = noted.as_deref().and_then(decode_noted);
        store.recover_counts(newest_first, noted);
        Ok(Recovered {
            store,
            cursors,
            old_cursor,
            last_seq: newest.last_seq,
            is_certain: newest.is_certain,
        })
    }

    fn without_generations(&self, next: u64) -> Result<Newest, OpenError> {
        Ok(Newest {
            end: self.raise_floor(next)?,
            last_seq: None,
            is_certain: true,
        })
    }

    /// Looks where the newest generation ends, or sets it aside. What is appended goes into a new
    /// generation: one with damage that nobody has noticed yet must not be able to fail every start.
    fn recover_newest(
        &self,
        first_place: u64,
        fresh: u64,
        accepted: u64,
    ) -> Result<Newest, OpenError> {
        let (noted_end, floor) = {
            let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            (writing.end.value(), writing.floor.value())
        };
        let uncertain = |end| Newest {
            end,
            last_seq: None,
            is_certain: false,
        };
        let generation = self.lock_state().generations[&first_place].clone();
        let fresh = fresh.max(accepted + 1).max(noted_end);
        let (next, last_seq) = match generation
            .end()
            .and_then(|end| self.last_of(&generation, end))
        {
            Ok((End::At(last), seq)) => (last + 1, seq),
            Ok((End::Empty, seq)) => (first_place, seq),
            Ok((End::Unreadable, _)) => {
                // It stays readable up to there.
                self.note_damage(&generation, first_place, fresh, "unreadable end");
                return self.raise_floor(fresh).map(uncertain);
            }
            Err(error) if error.is_damage() => {
                self.note_damage(&generation, first_place, fresh, &chain(&error));
                let end = self.raise_floor(fresh)?;
                let mut state = self.lock_state();
                state.generations.remove(&first_place);
                state.set_aside.insert(first_place);
                generation.retire(Fate::SetAside);
                return Ok(uncertain(end));
            }
            Err(error) => return Err(OpenError::Unavailable(chain(&error))),
        };
        // Below the floor, an earlier start has said what is lost, and perhaps not of this one.
        // What was accepted is no loss: a kill may have come while the generation was removed.
        let missing = next.max(accepted + 1);
        let is_short = missing < noted_end && first_place >= floor;
        if is_short {
            self.note_damage(&generation, missing, noted_end, "the tail is gone");
        }
        let end = self.raise_floor(missing)?;
        if next == first_place {
            // No record in it; its name is free for the next one.
            self.lock_state().generations.remove(&first_place);
            self.lock_state().bases.remove(&first_place);
            generation.retire(Fate::Drained);
        } else {
            generation.close_if_idle();
        }
        Ok(Newest {
            end,
            last_seq,
            is_certain: !is_short,
        })
    }

    /// The number upstream of the last record.
    fn last_of(
        &self,
        generation: &Generation,
        end: End,
    ) -> Result<(End, Option<u64>), super::engine::EngineError> {
        let End::At(last) = end else {
            return Ok((end, None));
        };
        let one = BatchLimits {
            records_max: 1,
            bytes_max: 1,
        };
        let records = generation.read(last, last + 1, one)?;
        Ok((end, records.first().map(|record| record.seq)))
    }

    /// The next place, at least `next`, durably: what is set aside, or was never synced, does not
    /// tell the next start where places go on.
    fn raise_floor(&self, next: u64) -> Result<u64, OpenError> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next.max(writing.end.value()).max(writing.floor.value());
        match writing.floor.raise(next) {
            Ok(()) => Ok(next),
            Err(source) => Err(OpenError::Io {
                path: self.dir.join("floor"),
                source,
            }),
        }
    }

    /// The counts at the end: from what was noted last, or what the newest generation began with,
    /// and the records from there on.
    fn recover_counts(&self, newest_first: Option<u64>, noted: Option<(u64, Counts)>) {
        let end = self.end();
        let noted_end = {
            let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            writing.end.value()
        };
        let base = newest_first.and_then(|first| {
            let state = self.lock_state();
            Some((first, state.bases.get(&first)?.counts.clone()))
        });
        let known = [base, noted].into_iter().flatten();
        let known = known.filter(|(place, _)| *place <= end);
        let (mut from, mut counts) = known.max_by_key(|(place, _)| *place).unwrap_or_else(|| {
            // What an older release wrote was for everyone.
            let from = newest_first.unwrap_or(end);
            (from, Counts::of_everyone(from.saturating_sub(1)))
        });
        if let Some(first) = newest_first.filter(|first| *first <= from)
            && let Some(generation) = self.lock_state().generations.get(&first).cloned()
        {
            from = add_records(&generation, from, end, &mut counts);
            generation.close_if_idle();
        }
        // Given and gone; beyond what was noted, nobody knows whether they were given at all.
        counts.add_unknown(noted_end.min(end).saturating_sub(from));
        self.lock_state().counts = counts;
    }

    /// How many records for whom there are up to `place`.
    fn counts_upto(&self, place: u64) -> Counts {
        let (generation, base, counts) = {
            let state = self.lock_state();
            if place + 1 >= self.end() {
                return state.counts.clone();
            }
            let holding = state.generations.range(..=place + 1).next_back();
            let generation = holding.map(|(_, generation)| generation.clone());
            let first = generation.as_ref().map(|generation| generation.first_seq);
            let base = first.and_then(|first| state.bases.get(&first).cloned());
            (generation, base, state.counts.clone())
        };
        let Some(generation) = generation else {
            // Before everything that is there.
            let state = self.lock_state();
            let first = state.bases.first_key_value();
            return first.map_or(counts, |(_, base)| base.counts.clone());
        };
        let Some(base) = base else {
            return Counts::of_everyone(place);
        };
        let mut counts = base.counts;
        let from = add_records(&generation, generation.first_seq, place + 1, &mut counts);
        counts.add_unknown((place + 1).saturating_sub(from));
        generation.close_if_idle();
        counts
    }
}

impl Recovered {
    /// The first place that the lane still holds.
    pub(super) fn start(&self) -> u64 {
        let state = self.store.lock_state();
        let first = state.generations.keys().next().copied();
        first.unwrap_or_else(|| self.store.end())
    }

    /// Where a sink starts that has no cursor: at the oldest record that anybody still wants.
    fn oldest(&self) -> u64 {
        let known = self
            .cursors
            .iter()
            .filter_map(|found| found.position.as_ref());
        let wanted = known.map(|position| position.at.place).min();
        wanted
            .or(self.old_cursor)
            .unwrap_or_else(|| self.start() - 1)
    }

    /// Gives the lane its sinks: index, name and bit. Cursors of others are removed.
    pub(super) fn with_sinks(self, sinks: &[(usize, String, u8)]) -> Result<Store, OpenError> {
        let oldest = self.oldest().min(self.store.end() - 1);
        let mut started: Option<Counts> = None;
        let Self {
            store,
            cursors,
            old_cursor,
            ..
        } = self;
        let at = |source| OpenError::Io {
            path: store.dir.clone(),
            source,
        };
        let mut cursors: BTreeMap<_, _> = cursors
            .into_iter()
            .map(|found| (found.name.clone(), found))
            .collect();
        for (index, name, bit) in sinks {
            let path = cursor_path(&store.dir, name);
            let found = cursors.remove(name);
            let is_new = found.is_none();
            let (slots, position) = match found {
                Some(found) => (found.slots, found.position),
                None => {
                    let (slots, ..) = Slots::open(&path).map_err(at)?;
                    (slots, None)
                }
            };
            let saved = position.clone();
            let position = position.filter(|position| position.bit == *bit);
            let position = position.unwrap_or_else(|| {
                let lane = store.lane.name();
                if !is_new {
                    warn!(sink = %name, lane, from_place = oldest + 1,
                        "A cursor is damaged: the whole backlog is sent again.");
                }
                let counts = started.get_or_insert_with(|| store.counts_upto(oldest));
                let passed = counts.of(usize::from(*bit));
                Position::new(
                    *bit,
                    At {
                        place: oldest,
                        passed,
                    },
                )
            });
            store.add_hold(*index, name, position, CursorFile::new(slots, saved));
        }
        if !store.persist_cursors(std::time::Duration::ZERO) {
            return Err(at(io::Error::other("a cursor could not be written")));
        }
        for (name, found) in cursors {
            let kept = found.position.map(|position| {
                let state = store.lock_state();
                position.kept(state.counts.of(usize::from(position.bit)))
            });
            warn!(sink = %name, lane = store.lane.name(), records = kept,
                "A sink is no longer configured; its cursor is removed, and records that waited for it alone go.");
            fs::remove_file(cursor_path(&store.dir, &name)).map_err(at)?;
        }
        if old_cursor.is_some() {
            fs::remove_file(store.dir.join(OLD_CURSOR)).map_err(at)?;
        }
        let drained: Vec<_> = store.drained(&store.lock_state()).collect();
        store.drop_generations(&drained);
        store.update_gauges(&store.lock_state());
        info!(
            lane = store.lane.name(),
            next_place = store.end(),
            settled = store.settled(),
            generations = store.lock_state().generations.len(),
            "Buffer recovered."
        );
        Ok(store)
    }
}

impl Store {
    fn add_hold(&self, index: usize, name: &str, mut position: Position, file: CursorFile) {
        let mut state = self.lock_state();
        let reached = position.live.map_or(position.at, |live| live.at);
        let counted = state.counts.of(usize::from(position.bit));
        // Damage took what said so; the others see those as lost.
        state
            .counts
            .add_unknown(reached.passed.max(position.base).saturating_sub(counted));
        position.at.place = position.at.place.min(self.end() - 1);
        let hold = Hold {
            sink: name.into(),
            position,
            file: Arc::new(Mutex::new(file)),
        };
        state.holds.insert(index, hold);
    }
}

/// Adds the records from place `from` up to below `end`; the place after the last of them. Places
/// without a record in between count for everyone.
fn add_records(generation: &Generation, from: u64, end: u64, counts: &mut Counts) -> u64 {
    let limits = BatchLimits {
        records_max: 8192,
        bytes_max: COMMIT_BYTES_MAX,
    };
    let mut next = from;
    while next < end {
        let records = match generation.read(next, end, limits) {
            Ok(records) if !records.is_empty() => records,
            Ok(_) => break,
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "Records of the buffer could not be counted."
                );
                break;
            }
        };
        for record in &records {
            counts.add_unknown(record.place.saturating_sub(next));
            counts.add(record.sinks);
            next = record.place + 1;
        }
    }
    next
}

fn find_cursors(dir: &Path) -> io::Result<Vec<FoundCursor>> {
    let found = |(name, path): (String, std::path::PathBuf)| {
        let (slots, payload, _) = Slots::open(&path)?;
        Ok(FoundCursor {
            name,
            slots,
            position: payload.as_deref().and_then(Position::decode),
        })
    };
    list_cursors(dir)?.into_iter().map(found).collect()
}

/// The cursor that an older release left; removed once the sinks have theirs.
fn find_old_cursor(dir: &Path) -> io::Result<Option<u64>> {
    let path = dir.join(OLD_CURSOR);
    if !path.exists() {
        return Ok(None);
    }
    match Mark::open(&path)? {
        (mark, Found::Value) => Ok(Some(mark.value())),
        (_, Found::Nothing | Found::Damaged) => {
            warn!("The cursor is damaged: the whole backlog is sent again.");
            fs::remove_file(path)?;
            Ok(None)
        }
    }
}
