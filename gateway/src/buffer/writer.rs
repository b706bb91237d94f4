//! The group commit: one thread that turns whatever is waiting into one durable batch for each lane,
//! the critical one first, then acknowledges. A lane at its bound does what its settings say; the
//! others go on. It ends when every [`Buffer`](super::Buffer) is gone, or at the first write that
//! fails: what the disk holds is then unknown, nothing more is acknowledged, and the process has to
//! start again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use portcullis_core::{
    limits::{COMMIT_BYTES_MAX, FULL_BUFFER_GRACE},
    record::{Draft, Envelope, Lane, Record},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{chain::chain, clock::now};

use super::{
    Ack,
    config::AtBound,
    counts::Counts,
    cursor::OLDEST,
    lanes::Lanes,
    queue::{LaneSet, Woken},
    store::{AppendError, Store},
};

/// What waits for the commit: the drafts of one call for one lane.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) lane: Lane,
    pub(super) drafts: Vec<Draft>,
    pub(super) ack: Option<Share>,
    pub(super) queued: Instant,
    pub(super) bytes: usize,
    /// Room in the queue, given back after the commit.
    pub(super) _room: [OwnedSemaphorePermit; 2],
}

/// One lane's share of an acknowledgement: the last one commits it.
#[derive(Clone, Debug)]
pub(super) struct Share(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    left: AtomicUsize,
    ack: Mutex<Option<Ack>>,
}

impl Share {
    pub(super) fn of(ack: Ack, shares: usize) -> Self {
        Self(Arc::new(Shared {
            left: AtomicUsize::new(shares),
            ack: Mutex::new(Some(ack)),
        }))
    }

    fn commit(self) {
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut ack = self.0.ack.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(ack) = ack.take() {
                ack.commit();
            }
        }
    }
}

/// The end of the buffer that writes. Runs on a thread of its own.
#[derive(Debug)]
pub struct Writer {
    pub(super) lanes: Arc<Lanes>,
    pub(super) appended: watch::Sender<u64>,
    pub(super) envelope: Envelope,
    /// Room in the queues, by lane.
    pub(super) rooms: [[Arc<Semaphore>; 2]; Lane::ALL.len()],
    pub(super) gates: [Gate; Lane::ALL.len()],
}

/// What keeps a lane from taking more.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Since when its appenders wait for disk.
    blocked: Option<Instant>,
    /// The disk was full; not before this it is tried again.
    retry_at: Option<Instant>,
    /// The bound is reached, and the log says so.
    is_full: bool,
}

/// Whether a lane takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Open,
    Blocked,
    /// It is acknowledged and counted, and goes nowhere.
    Refused,
}

/// The store failed; nothing after it was acknowledged.
#[derive(Debug, thiserror::Error)]
#[error("the buffer failed: {0}")]
pub struct WriteError(String);

impl Writer {
    /// Writes until every `Buffer` is dropped and what they queued is durable. Blocks. After `stop`
    /// a buffer without room is not waited for long: what waits for it holds a `Buffer`, and would
    /// wait for ever.
    pub fn run(mut self, stop: &CancellationToken) -> Result<(), WriteError> {
        let mut stopping = None;
        let mut maintained = Instant::now();
        loop {
            let admissions = self.admit();
            let blocked = admissions.map(|admission| admission == Admission::Blocked);
            let is_blocked = blocked.contains(&true);
            let queue = &self.lanes.shared.queue;
            let woken = queue.wait(blocked, if is_blocked { FULL_PATIENCE } else { TICK });
            match woken {
                Woken::Arrived => {
                    // What arrived in a lane that was empty is admitted in the next round.
                    let waiting = queue.waiting();
                    let admissions = if is_blocked { admissions } else { self.admit() };
                    let open: LaneSet = std::array::from_fn(|lane| {
                        waiting[lane] && admissions[lane] != Admission::Blocked
                    });
                    if let Some(group) = self.gather(open) {
                        self.commit(group, admissions)?;
                    }
                }
                Woken::Time => {}
                Woken::Ended => break,
            }
            if maintained.elapsed() >= TICK {
                self.lanes.maintain();
                maintained = Instant::now();
            }
            if is_blocked && stop.is_cancelled() {
                let since = *stopping.get_or_insert_with(Instant::now);
                if since.elapsed() > FULL_BUFFER_GRACE {
                    break;
                }
            }
        }
        if self.lanes.shared.queue.waiting().contains(&true) {
            warn!("The buffer is full at stop; what waits stays unacknowledged.");
        }
        self.lanes.maintain();
        Ok(())
    }

    /// Which lanes take what waits for them. Makes room where the settings allow it.
    fn admit(&mut self) -> [Admission; Lane::ALL.len()] {
        let waiting = self.lanes.shared.queue.waiting();
        Lane::ALL.map(|lane| {
            let admission = if waiting[lane as usize] {
                self.admit_to(lane)
            } else {
                Admission::Open
            };
            self.note_admission(lane, admission, waiting[lane as usize]);
            admission
        })
    }

    fn admit_to(&mut self, lane: Lane) -> Admission {
        let retry_at = self.gates[lane as usize].retry_at;
        if retry_at.is_some_and(|at| Instant::now() < at) {
            self.lanes.store(lane).reclaim();
            return Admission::Blocked;
        }
        let shared = &self.lanes.shared;
        let store = self.lanes.store(lane);
        if !shared.is_over(lane) {
            return Admission::Open;
        }
        store.reclaim();
        while shared.is_over(lane) {
            if !shared.is_over_own(lane) && self.lanes.give_way(lane) {
                continue;
            }
            match shared.config.lane(lane).at_bound {
                AtBound::BackPressure => return Admission::Blocked,
                AtBound::DropNewest => return Admission::Refused,
                AtBound::DropOldest => {
                    if store.drop_oldest(OLDEST).is_none() {
                        // Others hold the disk.
                        return Admission::Blocked;
                    }
                }
            }
        }
        Admission::Open
    }

    /// Says that a bound is reached, once until the lane is well below it again.
    fn note_admission(&mut self, lane: Lane, admission: Admission, is_waiting: bool) {
        let shared = &self.lanes.shared;
        let at_bound = shared.config.lane(lane).at_bound;
        let gate = &mut self.gates[lane as usize];
        let is_stopped = admission != Admission::Open;
        if is_stopped && gate.blocked.is_none() {
            gate.blocked = Some(Instant::now());
            shared.metrics.backpressure_waits.inc();
        } else if !is_stopped && is_waiting {
            gate.blocked = None;
        }
        if is_stopped && !gate.is_full {
            gate.is_full = true;
            let lane = lane.name();
            match at_bound {
                AtBound::BackPressure | AtBound::DropOldest => {
                    warn!(
                        lane,
                        "The buffer has reached its bound; publishers wait until the sink takes records."
                    );
                }
                AtBound::DropNewest => {
                    warn!(
                        lane,
                        "The buffer has reached its bound; what comes is dropped and counted."
                    );
                }
            }
        } else if !is_stopped
            && gate.is_full
            && gate.retry_at.is_none()
            && shared.is_well_below(lane)
        {
            gate.is_full = false;
            info!(lane = lane.name(), "The buffer is below its bound again.");
        }
    }

    /// Collects a group: what came while the last commit ran, then company for as long as it comes
    /// without a pause, and no longer than the first one may wait. Who needs no acknowledgement can
    /// wait for all of that. Sleeps between looks instead of waiting for arrivals, so that an arrival
    /// wakes nobody.
    fn gather(&self, open: LaneSet) -> Option<Group> {
        let queue = &self.lanes.shared.queue;
        let config = &self.lanes.shared.config;
        let first = queue.pop(open)?;
        let deadline = first.queued + config.linger;
        let mut group = Group::of(first, config.batch_records_max);
        let mut is_first_look = true;
        loop {
            let before = group.appends.len();
            while let Some(next) = group.has_room().then(|| queue.pop(open)).flatten() {
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
            if left.is_zero() || queue.has_ended() {
                break;
            }
            thread::sleep(pause.min(left));
        }
        Some(group)
    }

    /// Commits each lane's share of the group, highest priority first.
    fn commit(
        &mut self,
        group: Group,
        admissions: [Admission; Lane::ALL.len()],
    ) -> Result<(), WriteError> {
        let mut shares: [Vec<Append>; Lane::ALL.len()] = Default::default();
        for append in group.appends {
            shares[append.lane as usize].push(append);
        }
        let mut has_records = false;
        for (lane, appends) in Lane::ALL.into_iter().zip(shares) {
            if appends.is_empty() {
                continue;
            }
            let refused = admissions[lane as usize] == Admission::Refused;
            let kept = if refused {
                self.refuse(lane, &appends);
                true
            } else {
                self.commit_lane(lane, &appends, &mut has_records)
                    .map_err(|failed| {
                        let why = chain(&failed);
                        error!(why, "The buffer failed; nothing is acknowledged any more.");
                        WriteError(why)
                    })?
            };
            if !kept {
                self.lanes.shared.queue.put_back(appends);
                continue;
            }
            let acks = appends.into_iter().filter_map(|append| append.ack);
            acks.for_each(Share::commit);
        }
        if has_records {
            self.lanes.shared.metrics.commits.inc();
            self.lanes.note_filtered();
            self.appended.send_modify(|commits| *commits += 1);
        }
        Ok(())
    }

    /// Makes a lane's share durable; `false` if the disk is full and it has to wait.
    fn commit_lane(
        &mut self,
        lane: Lane,
        appends: &[Append],
        has_records: &mut bool,
    ) -> Result<bool, AppendError> {
        let started = Instant::now();
        let lanes = self.lanes.clone();
        let store = lanes.store(lane);
        let wanted: Vec<_> = appends
            .iter()
            .flat_map(|append| &append.drafts)
            .filter_map(|draft| {
                let sinks = lanes.translate(lane, draft.sinks);
                (!sinks.is_empty()).then(|| Draft {
                    sinks,
                    ..draft.clone()
                })
            })
            .collect();
        if wanted.is_empty() {
            return Ok(true);
        }
        let first_seq = lanes
            .shared
            .next_seq(count(wanted.len()))
            .map_err(AppendError::Sequence)?;
        let at_millis = now().as_millis();
        let records = self
            .envelope
            .close(wanted.iter(), first_seq, store.end(), at_millis);
        match self.append(lane, store, &records)? {
            Admission::Open => {}
            Admission::Blocked => return Ok(false),
            Admission::Refused => {
                self.refuse(lane, appends);
                return Ok(true);
            }
        }
        *has_records = true;
        lanes.shared.gave_seqs(first_seq + count(records.len()));
        let metrics = &lanes.shared.metrics;
        metrics
            .commit_seconds
            .observe(started.elapsed().as_secs_f64());
        metrics.appended_records.inc_by(count(records.len()));
        let bytes = records.iter().map(Record::wire_bytes).sum();
        metrics.appended_bytes.inc_by(count(bytes));
        Ok(true)
    }

    /// Appends; on a full disk makes room as the lane may: lower lanes give way, the reserve is for
    /// the critical one, then its policy.
    fn append(
        &mut self,
        lane: Lane,
        store: &Store,
        records: &[Record],
    ) -> Result<Admission, AppendError> {
        let config = self.lanes.shared.config.lane(lane).clone();
        loop {
            match store.append(records) {
                Ok(()) => {
                    self.gates[lane as usize].retry_at = None;
                    return Ok(Admission::Open);
                }
                Err(AppendError::NoSpace) => {}
                Err(error) => return Err(error),
            }
            let drained = store.something_is_drained();
            store.reclaim();
            let made_room = drained && !store.something_is_drained()
                || self.lanes.give_way(lane)
                || lane == Lane::Critical && self.lanes.lock_reserve().release()
                || config.at_bound == AtBound::DropOldest
                    && store
                        .drop_oldest(OLDEST)
                        .is_some_and(|dropped| dropped.bytes > 0);
            if made_room {
                continue;
            }
            let gate = &mut self.gates[lane as usize];
            if !std::mem::replace(&mut gate.is_full, true) {
                error!(
                    lane = lane.name(),
                    "The disk is full; publishers wait until there is space, or what comes is dropped, as the lane's settings say."
                );
            }
            if config.at_bound == AtBound::DropNewest {
                return Ok(Admission::Refused);
            }
            if gate.blocked.is_none() {
                gate.blocked = Some(Instant::now());
                self.lanes.shared.metrics.backpressure_waits.inc();
            }
            gate.retry_at = Some(Instant::now() + NO_SPACE_PAUSE);
            if lane == Lane::Events {
                self.lanes.shared.room.note_no_space();
            }
            return Ok(Admission::Blocked);
        }
    }

    /// Counts what the lane does not take.
    fn refuse(&self, lane: Lane, appends: &[Append]) {
        let mut counts = Counts::default();
        for draft in appends.iter().flat_map(|append| &append.drafts) {
            counts.add(self.lanes.translate(lane, draft.sinks));
        }
        self.lanes.store(lane).refuse(&counts);
    }
}

impl Drop for Writer {
    /// Turns away who waits, and drops what is queued, so that its acknowledgements fail now and not
    /// when the last handle goes.
    fn drop(&mut self) {
        for room in self.rooms.iter().flatten() {
            room.close();
        }
        drop(self.lanes.shared.queue.close());
    }
}

/// What one commit makes durable.
struct Group {
    appends: Vec<Append>,
    records: usize,
    records_max: usize,
    bytes: usize,
    /// Somebody waits for an acknowledgement.
    is_waited_for: bool,
}

impl Group {
    fn of(first: Append, records_max: usize) -> Self {
        let mut group = Self {
            appends: Vec::new(),
            records: 0,
            records_max,
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
        self.records < self.records_max && self.bytes < COMMIT_BYTES_MAX
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
/// How often the writer looks after what is due now and then.
const TICK: Duration = Duration::from_secs(1);

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
