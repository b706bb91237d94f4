//! The end of the buffer that a sink reads: each lane in order, from the durable cursor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use portcullis_core::{
    batch::BatchLimits,
    record::{Lane, Record},
};
use tokio::{sync::watch, task::spawn_blocking};

use crate::chain::chain;

use super::{
    cursor::{At, Part, Position, Tally},
    lanes::{Lanes, oldest_millis},
    store::Store,
    track::Track,
};

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The writer has ended: nothing more will come.
    #[error("the buffer is closed")]
    Closed,
    /// The disk or the machine refuses at the moment, though nothing is damaged. Try later.
    #[error("failed to read the buffer: {0}")]
    Unavailable(String),
}

/// See the module. One for each sink. Dropping it writes the cursors, which blocks for a small disk
/// write each.
#[derive(Debug)]
pub struct Reader {
    lanes: Arc<Lanes>,
    sink: usize,
    tracks: BTreeMap<Lane, Tracks>,
    appended: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Tracks {
    backlog: Track,
    live: Option<Track>,
}

impl Tracks {
    /// Follows what became of the split, and of records that were dropped.
    fn follow(&mut self, position: &Position) {
        match position.live {
            None => {
                if let Some(live) = self.live.take() {
                    self.backlog = live;
                }
            }
            Some(live) => self
                .live
                .get_or_insert_with(|| Track::after(live.at))
                .catch_up(live.at),
        }
        self.backlog.catch_up(position.at);
    }

    /// The track of `part`. What was live before the split closed is the backlog now.
    fn part(&mut self, part: Part) -> &mut Track {
        match (part, &mut self.live) {
            (Part::Live, Some(live)) => live,
            _ => &mut self.backlog,
        }
    }
}

/// Up to where a part can be read now.
struct Span {
    end: u64,
    bit: usize,
}

impl Reader {
    pub(super) fn new(lanes: Arc<Lanes>, sink: usize, mut appended: watch::Receiver<u64>) -> Self {
        appended.mark_changed();
        let mut tracks = BTreeMap::new();
        for store in &lanes.stores {
            if let Some(hold) = store.lock_state().holds.get(&sink) {
                let backlog = Track::after(hold.position.at);
                let mut known = Tracks {
                    backlog,
                    live: None,
                };
                known.follow(&hold.position);
                tracks.insert(store.lane, known);
            }
        }
        Self {
            lanes,
            sink,
            tracks,
            appended,
        }
    }

    /// The next records of a lane that are for this sink, under the limits but at least one if there
    /// is any; none: there is nothing to read now. Never waits for appends. Places grow; where
    /// records were lost to damage, the log, the metrics and the ledger say so. Without a split open,
    /// everything is backlog. Cancel-safe: what a cancelled read would have returned, the next one
    /// returns.
    pub async fn read(
        &mut self,
        lane: Lane,
        part: Part,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let limits = BatchLimits {
            records_max: records_max.max(1),
            bytes_max,
        };
        let store = self.lanes.store(lane).clone();
        let max_age = self.lanes.shared.config.lane(lane).max_age;
        loop {
            let Some(span) = self.span(&store, part) else {
                return Ok(Vec::new());
            };
            let track = self.track(lane, part);
            let from = track.next;
            if from >= span.end {
                self.settle_what_nobody_waits_for(&store, part).await;
                return Ok(Vec::new());
            }
            let reading = store.clone();
            let read = spawn_blocking(move || reading.read(from, limits))
                .await
                .map_err(|join| ReadError::Unavailable(join.to_string()))?
                .map_err(|error| ReadError::Unavailable(chain(&error)))?;
            if let Some((first, last)) = read.lost {
                store.note_lost(first, last.min(span.end - 1));
            }
            let oldest = max_age.map_or(0, oldest_millis);
            let records = self
                .track(lane, part)
                .take(read, span.end, span.bit, oldest);
            if !records.is_empty() {
                return Ok(records);
            }
            self.settle_what_nobody_waits_for(&store, part).await;
        }
    }

    /// Where `part` ends now; nothing if there is no such part.
    fn span(&mut self, store: &Store, part: Part) -> Option<Span> {
        let tracks = self.tracks.get_mut(&store.lane)?;
        let state = store.lock_state();
        let position = &state.holds.get(&self.sink)?.position;
        tracks.follow(position);
        let bit = usize::from(position.bit);
        let end = match (part, &position.live) {
            (Part::Live, None) => return None,
            (Part::Backlog, Some(live)) => live.from,
            _ => store.end_at(&state, position.bit),
        };
        let track = tracks.part(part);
        if let Some(base) = state.bases.get(&track.next) {
            track.reconcile(base.counts.of(bit));
        }
        if track.next > end.place {
            track.reconcile(end.passed);
        }
        Some(Span {
            end: end.place + 1,
            bit,
        })
    }

    fn track(&mut self, lane: Lane, part: Part) -> &mut Track {
        self.tracks.entry(lane).or_default().part(part)
    }

    /// Moves the cursor over what was read and is not for this sink, or is not there.
    async fn settle_what_nobody_waits_for(&mut self, store: &Arc<Store>, part: Part) {
        let track = self.track(store.lane, part);
        if !track.is_waiting() {
            let (to, tally) = track.settle(0);
            self.move_cursor(store, part, to, tally).await;
        }
    }

    async fn move_cursor(&self, store: &Arc<Store>, part: Part, to: At, tally: Tally) {
        let is_news = store
            .position(self.sink, part)
            .or_else(|| store.position(self.sink, Part::Backlog))
            .is_some_and(|at| to.place > at.place || to.passed > at.passed);
        if !is_news {
            return;
        }
        let (store, sink) = (store.clone(), self.sink);
        // Fails if the runtime is going down; then the records are sent again.
        let _joined: Result<(), _> =
            spawn_blocking(move || store.settle(sink, part, to, tally)).await;
    }

    /// All that was read of this part up to and with `upto_place` is settled as the tally says. The
    /// write to disk comes later at times (a crash then sends those records again), the space of
    /// drained generations only after it.
    pub async fn settle(&mut self, lane: Lane, part: Part, upto_place: u64, tally: Tally) {
        let store = self.lanes.store(lane).clone();
        if self.span(&store, part).is_none() && self.span(&store, Part::Backlog).is_none() {
            return;
        }
        let (to, own) = self.track(lane, part).settle(upto_place);
        let tally = Tally {
            delivered: tally.delivered,
            dropped: tally.dropped.into_iter().chain(own.dropped).collect(),
        };
        self.move_cursor(&store, part, to, tally).await;
    }

    /// Waits until something was appended since the last call, in any lane; the first call returns at
    /// once. Cancel-safe. An error when nothing more will come.
    pub async fn changed(&mut self) -> Result<(), ReadError> {
        self.appended.changed().await.map_err(|_| ReadError::Closed)
    }

    /// How many records reads would find; damage may make it fewer.
    pub fn unread(&self, lane: Lane, part: Part) -> u64 {
        let store = self.lanes.store(lane);
        let state = store.lock_state();
        let (Some(hold), Some(tracks)) = (state.holds.get(&self.sink), self.tracks.get(&lane))
        else {
            return 0;
        };
        let position = &hold.position;
        let end = match (part, &position.live) {
            (Part::Live, None) => return 0,
            (Part::Backlog, Some(live)) => live.from.passed,
            _ => state.counts.of(usize::from(position.bit)),
        };
        let settled = position.part(part).unwrap_or_default().passed;
        let read = match (part, &tracks.live) {
            (Part::Live, Some(live)) => live.passed,
            (Part::Live, None) => 0,
            // The split has closed.
            (Part::Backlog, Some(live)) if position.live.is_none() => live.passed,
            (Part::Backlog, _) => tracks.backlog.passed,
        };
        end.saturating_sub(read.max(settled))
    }

    /// From here on [`Part::Live`] begins at the lane's end, and [`Part::Backlog`] ends there. Nothing
    /// if a split is open already, or there is no backlog; it closes itself when the backlog is
    /// settled up to it: what was live is the backlog then.
    pub async fn split(&mut self, lane: Lane) {
        let (store, sink) = (self.lanes.store(lane).clone(), self.sink);
        let _joined: Result<(), _> = spawn_blocking(move || store.split(sink)).await;
    }

    /// The lanes that this sink reads, highest priority first.
    pub fn lanes(&self) -> Vec<Lane> {
        self.tracks.keys().copied().collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for store in &self.lanes.stores {
            store.persist_cursors(Duration::ZERO);
        }
    }
}
