//! What waits for the commit: one line for each lane, so that a lane that must wait for disk does not
//! keep the others. Its length is bounded by the room that appenders take first.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use portcullis_core::record::Lane;

use super::writer::Append;

/// Which lanes.
pub(super) type LaneSet = [bool; Lane::ALL.len()];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    lines: [VecDeque<Append>; Lane::ALL.len()],
    senders: usize,
    /// The writer is gone.
    is_closed: bool,
    is_waited_on: bool,
    /// Disk came back since the writer looked last.
    is_nudged: bool,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// There is something in a lane that is not blocked.
    Arrived,
    /// Time, or disk that came back.
    Time,
    /// Nobody can append any more.
    Ended,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another handle to append with.
    pub(super) fn add_sender(&self) {
        self.lock().senders += 1;
    }

    /// One handle less.
    pub(super) fn remove_sender(&self) {
        self.lock().senders -= 1;
        self.arrived.notify_one();
    }

    /// Whether nobody can append any more.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().senders == 0
    }

    /// Queues; hands back what comes after the writer has gone.
    pub(super) fn push(&self, appends: Vec<Append>) -> Result<(), Vec<Append>> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(appends);
        }
        for append in appends {
            inner.lines[append.lane as usize].push_back(append);
        }
        if std::mem::take(&mut inner.is_waited_on) {
            drop(inner);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Puts back what could not be committed, in its place.
    pub(super) fn put_back(&self, appends: Vec<Append>) {
        let mut inner = self.lock();
        for append in appends.into_iter().rev() {
            inner.lines[append.lane as usize].push_front(append);
        }
    }

    /// The lanes in which something waits.
    pub(super) fn waiting(&self) -> LaneSet {
        let inner = self.lock();
        std::array::from_fn(|lane| !inner.lines[lane].is_empty())
    }

    /// The next of the open lanes, highest priority first.
    pub(super) fn pop(&self, open: LaneSet) -> Option<Append> {
        let mut inner = self.lock();
        let mut lines = inner.lines.iter_mut().zip(open);
        lines.find_map(|(line, open)| open.then(|| line.pop_front()).flatten())
    }

    /// Waits until something arrives that does not wait already, up to `patience`.
    pub(super) fn wait(&self, blocked: LaneSet, patience: Duration) -> Woken {
        let deadline = Instant::now() + patience;
        let mut inner = self.lock();
        loop {
            let mut lines = inner.lines.iter().zip(blocked);
            if lines.any(|(line, blocked)| !blocked && !line.is_empty()) {
                return Woken::Arrived;
            }
            if inner.senders == 0 {
                return Woken::Ended;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || std::mem::take(&mut inner.is_nudged) {
                return Woken::Time;
            }
            inner.is_waited_on = true;
            (inner, _) = self
                .arrived
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner);
            inner.is_waited_on = false;
        }
    }

    /// Disk came back: whoever waits for it looks again.
    pub(super) fn nudge(&self) {
        self.lock().is_nudged = true;
        self.arrived.notify_one();
    }

    /// Takes nothing any more; what waited.
    pub(super) fn close(&self) -> Vec<Append> {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.lines.iter_mut().flat_map(std::mem::take).collect()
    }
}
