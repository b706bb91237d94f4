//! The records between the cursors and what was read last, and what became of each. Pure: time is in
//! milliseconds of any clock.
//!
//! ```text
//! strand: a lane's backlog or its live part, in order ── settled from the front on
//! queue:  the keys that fall to it, of all strands    ── at most one request under way
//! ```
//! What goes into one request, and in which order, is decided in [`Window::pick`]. Nothing of a key is
//! ever under way twice, since a key is in one queue. With [`Ordering::Relaxed`] records that follow
//! each other travel together, and one that failed goes again before what follows it; with
//! [`Ordering::Strict`] a request has one record of a key, so that nothing can land before it.

use std::collections::{HashSet, VecDeque};

use portcullis_core::{
    batch::{BatchLimits, Room},
    limits::UPLINK_PACE_PAUSE,
    record::{Lane, Record},
};

use crate::uplink::{Ordering, Part, Tally};

/// In order of priority: what is urgent first, and what is live before the backlog if there is a
/// live part.
pub(super) const STRANDS: [(Lane, Part); 4] = [
    (Lane::Critical, Part::Live),
    (Lane::Critical, Part::Backlog),
    (Lane::Events, Part::Live),
    (Lane::Events, Part::Backlog),
];

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    ordering: Ordering,
    linger_millis: u64,
    strands: [Strand; STRANDS.len()],
    queues: Vec<Queue>,
}

/// Where a record is; good until it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    strand: usize,
    number: u64,
}

#[derive(Debug, Default)]
struct Strand {
    /// The number of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    record: Record,
    hash_key: u128,
    read_at: u64,
    state: State,
    /// How often it failed alone.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Taken,
    /// With the reason if it was dropped.
    Done(Option<&'static str>),
}

#[derive(Debug, Default)]
struct Queue {
    /// Numbers of slots that are not done with, in order, of each strand.
    numbers: [VecDeque<u64>; STRANDS.len()],
    waiting: usize,
    bytes: usize,
    under_way: bool,
    /// Nothing is picked before.
    held_until: u64,
    /// Fewer records in a request than elsewhere, and alone in it: one of them spoils it.
    suspects: Option<usize>,
    failures: u32,
}

/// What the one who picks may say to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It goes.
    Take,
    /// Not now; nothing of its key then.
    Hold,
    /// Never, for this reason.
    Drop(&'static str),
}

/// Records of one request.
#[derive(Debug, Default)]
pub(super) struct Pick {
    /// The queues that it comes from, which wait for it.
    pub(super) queues: Vec<usize>,
    pub(super) ids: Vec<Id>,
    /// What is never to be sent.
    pub(super) dropped: Vec<(Id, &'static str)>,
    pub(super) bytes: usize,
}

/// Whether to send what there is without waiting for company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    Wait,
    Go,
}

impl Window {
    /// A window of `queues` requests under way at most.
    pub(super) fn new(ordering: Ordering, queues: usize, linger_millis: u64) -> Self {
        Self {
            ordering,
            linger_millis,
            strands: Default::default(),
            queues: (0..queues.max(1)).map(|_| Queue::default()).collect(),
        }
    }

    /// Adds the next record of a strand.
    pub(super) fn push(&mut self, strand: usize, record: Record, hash_key: u128, now: u64) {
        let queue = self.queue_of(hash_key);
        let queue = &mut self.queues[queue];
        let Strand {
            first,
            slots,
            bytes,
        } = &mut self.strands[strand];
        queue.numbers[strand].push_back(*first + count(slots.len()));
        queue.waiting += 1;
        queue.bytes += record.wire_bytes();
        *bytes += record.wire_bytes();
        slots.push_back(Slot {
            record,
            hash_key,
            read_at: now,
            state: State::Waiting,
            failures: 0,
        });
    }

    fn queue_of(&self, hash_key: u128) -> usize {
        let queues = u128::try_from(self.queues.len()).unwrap_or(1);
        // The upper bits decide the shard: a queue should serve many of them.
        usize::try_from((hash_key & u128::from(u64::MAX)) % queues).unwrap_or(0)
    }

    /// What may still be read into a strand.
    pub(super) fn room(&self, strand: usize, limits: BatchLimits) -> BatchLimits {
        let strand = &self.strands[strand];
        BatchLimits {
            records_max: limits.records_max.saturating_sub(strand.slots.len()),
            bytes_max: limits.bytes_max.saturating_sub(strand.bytes),
        }
    }

    /// Whether nothing of a strand is in the window.
    pub(super) fn is_strand_empty(&self, strand: usize) -> bool {
        self.strands[strand].slots.is_empty()
    }

    /// The place of the first record of a strand.
    pub(super) fn first_place(&self, strand: usize) -> Option<u64> {
        let first = self.strands[strand].slots.front();
        first.map(|slot| slot.record.place)
    }

    /// Whether there is nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.strands.iter().all(|strand| strand.slots.is_empty())
    }

    /// How many records are in it.
    pub(super) fn records(&self) -> usize {
        self.strands.iter().map(|strand| strand.slots.len()).sum()
    }

    /// The queue that is to be served first: full, or waiting for long enough.
    fn ready(&self, limits: BatchLimits, company: Company, now: u64) -> Option<(usize, bool)> {
        let mut best: Option<(usize, u64, usize, bool)> = None;
        for (at, queue) in self.queues.iter().enumerate() {
            let Some((urgency, since)) = self.oldest(queue) else {
                continue;
            };
            if queue.under_way || queue.held_until > now {
                continue;
            }
            let is_full = queue.waiting >= limits.records_max || queue.bytes >= limits.bytes_max;
            let is_due = company == Company::Go || since + self.linger_millis <= now;
            if !is_full && !is_due {
                continue;
            }
            let candidate = (urgency, since, at, is_full);
            if best.is_none_or(|best| candidate < best) {
                best = Some(candidate);
            }
        }
        best.map(|(_, _, at, is_full)| (at, is_full))
    }

    /// The strand of highest priority that has something for a queue, and since when the oldest waits.
    fn oldest(&self, queue: &Queue) -> Option<(usize, u64)> {
        let mut oldest: Option<(usize, u64)> = None;
        for (strand, numbers) in queue.numbers.iter().enumerate() {
            if let Some(slot) = numbers
                .front()
                .and_then(|number| self.slot(strand, *number))
            {
                oldest = Some(match oldest {
                    Some((urgency, since)) => (urgency, since.min(slot.read_at)),
                    None => (strand, slot.read_at),
                });
            }
        }
        oldest
    }

    /// When there is something to pick, if nothing else happens.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let idle = self.queues.iter().filter(|queue| !queue.under_way);
        idle.filter_map(|queue| {
            let (_, since) = self.oldest(queue)?;
            Some((since + self.linger_millis).max(queue.held_until))
        })
        .min()
    }

    /// The next request, if it is time for one: urgent first, then oldest first; no record of a key
    /// of which an older one waits to be tried again; at least one record. `admit` has the last word
    /// on each. What is picked is under way until [`Self::finish`].
    pub(super) fn pick(
        &mut self,
        limits: BatchLimits,
        company: Company,
        now: u64,
        mut admit: impl FnMut(&Record, u128) -> Admission,
    ) -> Option<Pick> {
        let (first, is_full) = self.ready(limits, company, now)?;
        let mut queues = vec![first];
        if !is_full && self.queues[first].suspects.is_none() {
            let others = self.queues.iter().enumerate().filter(|(at, queue)| {
                let idle = !queue.under_way && queue.held_until <= now;
                *at != first && idle && queue.suspects.is_none() && queue.waiting > 0
            });
            queues.extend(others.map(|(at, _)| at));
        }
        let records_max = self.queues[first].suspects.unwrap_or(limits.records_max);
        let mut picking = Picking {
            room: BatchLimits {
                records_max: records_max.clamp(1, limits.records_max.max(1)),
                ..limits
            }
            .room(),
            held: HashSet::new(),
            is_held: false,
            pick: Pick::default(),
        };
        'filled: for strand in 0..STRANDS.len() {
            for &queue in &queues {
                if self.pick_of(queue, strand, &mut picking, &mut admit) == Filled::Yes {
                    break 'filled;
                }
            }
        }
        let Picking {
            is_held, mut pick, ..
        } = picking;
        for &queue in &queues {
            if is_held && pick.ids.len() < records_max {
                // Little by little would be many small requests.
                self.queues[queue].held_until = now + millis(UPLINK_PACE_PAUSE);
            }
        }
        if pick.ids.is_empty() && pick.dropped.is_empty() {
            return None;
        }
        for &queue in &queues {
            self.queues[queue].under_way = true;
        }
        pick.queues = queues;
        Some(pick)
    }

    fn pick_of(
        &mut self,
        queue: usize,
        strand: usize,
        picking: &mut Picking,
        admit: &mut impl FnMut(&Record, u128) -> Admission,
    ) -> Filled {
        let queue = &mut self.queues[queue];
        let Strand { first, slots, .. } = &mut self.strands[strand];
        for &number in &queue.numbers[strand] {
            let Some(slot) = at(number, *first).and_then(|at| slots.get_mut(at)) else {
                continue;
            };
            let one_a_key = self.ordering == Ordering::Strict || slot.failures > 0;
            if !picking.held.is_empty() && picking.held.contains(&slot.hash_key) {
                continue;
            }
            let mut room = picking.room;
            if !room.take(&slot.record) {
                if !picking.pick.ids.is_empty() {
                    return Filled::Yes;
                }
                // Too large for a request is still a request of its own.
                room = BatchLimits {
                    records_max: 0,
                    bytes_max: 0,
                }
                .room();
            }
            let id = Id { strand, number };
            match admit(&slot.record, slot.hash_key) {
                Admission::Take => {
                    picking.room = room;
                    picking.pick.bytes += slot.record.wire_bytes();
                    picking.pick.ids.push(id);
                }
                Admission::Hold => {
                    picking.is_held = true;
                    picking.held.insert(slot.hash_key);
                    continue;
                }
                Admission::Drop(reason) => picking.pick.dropped.push((id, reason)),
            }
            if one_a_key {
                picking.held.insert(slot.hash_key);
            }
            slot.state = State::Taken;
            queue.waiting -= 1;
            queue.bytes -= slot.record.wire_bytes();
        }
        Filled::No
    }

    fn slot(&self, strand: usize, number: u64) -> Option<&Slot> {
        let strand = self.strands.get(strand)?;
        strand.slots.get(at(number, strand.first)?)
    }

    fn slot_mut(&mut self, id: Id) -> Option<&mut Slot> {
        let strand = self.strands.get_mut(id.strand)?;
        strand.slots.get_mut(at(id.number, strand.first)?)
    }

    /// The record at a place; `None` if it is settled.
    pub(super) fn record(&self, id: Id) -> Option<&Record> {
        self.slot(id.strand, id.number).map(|slot| &slot.record)
    }

    /// Its hash key.
    pub(super) fn hash_key(&self, id: Id) -> u128 {
        self.slot(id.strand, id.number)
            .map_or(0, |slot| slot.hash_key)
    }

    /// The sink has the record.
    pub(super) fn accept(&mut self, id: Id) {
        if let Some(slot) = self.slot_mut(id) {
            slot.state = State::Done(None);
        }
    }

    /// The record was set aside for this reason.
    pub(super) fn drop(&mut self, id: Id, reason: &'static str) {
        if let Some(slot) = self.slot_mut(id) {
            slot.state = State::Done(Some(reason));
        }
    }

    /// The record failed alone; how often it has.
    pub(super) fn fail(&mut self, id: Id) -> u32 {
        let Some(slot) = self.slot_mut(id) else {
            return 0;
        };
        slot.failures = slot.failures.saturating_add(1);
        slot.failures
    }

    /// A request is over: what of it is neither accepted nor dropped waits again.
    pub(super) fn finish(&mut self, queues: &[usize]) {
        for &queue in queues {
            let Some(queue) = self.queues.get_mut(queue) else {
                continue;
            };
            queue.under_way = false;
            for (strand, numbers) in queue.numbers.iter_mut().enumerate() {
                let Strand { first, slots, .. } = &mut self.strands[strand];
                numbers.retain(|number| {
                    let slot = at(*number, *first).and_then(|at| slots.get_mut(at));
                    let Some(slot) = slot else { return false };
                    if slot.state == State::Taken {
                        slot.state = State::Waiting;
                        queue.waiting += 1;
                        queue.bytes += slot.record.wire_bytes();
                    }
                    slot.state == State::Waiting
                });
            }
        }
    }

    /// Nothing of these queues is picked before `until`; the failures count for the next wait.
    pub(super) fn hold(&mut self, queues: &[usize], wait: impl FnOnce(u32) -> u64, now: u64) {
        let failures = queues
            .iter()
            .map(|queue| self.queues[*queue].failures)
            .max();
        let failures = failures.unwrap_or(0).saturating_add(1);
        let until = now + wait(failures);
        for &queue in queues {
            self.queues[queue].failures = failures;
            self.queues[queue].held_until = until;
        }
    }

    /// The queues' requests go through again.
    pub(super) fn calm(&mut self, queues: &[usize]) {
        for &queue in queues {
            self.queues[queue].failures = 0;
        }
    }

    /// No queue waits any longer: this is the last chance.
    pub(super) fn release(&mut self) {
        for queue in &mut self.queues {
            queue.held_until = 0;
        }
    }

    /// One of `records` records of these queues spoils a request: fewer in the next.
    pub(super) fn suspect(&mut self, queues: &[usize], records: usize) {
        for &queue in queues {
            self.queues[queue].suspects = Some((records / 2).max(1));
        }
    }

    /// A request of these queues went through, or the culprit is found.
    pub(super) fn trust(&mut self, queues: &[usize], records_max: usize) {
        for &queue in queues {
            let suspects = &mut self.queues[queue].suspects;
            *suspects = suspects
                .map(|records| records * 2)
                .filter(|records| *records < records_max);
        }
    }

    /// Removes the records at the front of a strand that are done with: the place of the last of
    /// them, and what became of all.
    pub(super) fn take_prefix(&mut self, strand: usize) -> Option<(u64, Tally)> {
        let Strand {
            first,
            slots,
            bytes,
        } = &mut self.strands[strand];
        let (mut last, mut tally) = (None, Tally::default());
        while let Some(slot) = slots.front()
            && let State::Done(dropped) = slot.state
        {
            last = Some(slot.record.place);
            match dropped {
                None => tally.delivered += 1,
                Some(reason) => tally.drop(reason, 1),
            }
            *bytes -= slot.record.wire_bytes();
            *first += 1;
            slots.pop_front();
        }
        last.map(|place| (place, tally))
    }
}

/// A request while it is filled.
struct Picking {
    room: Room,
    /// Keys of which nothing more may come into it. Two keys with the same hash are taken for one,
    /// which does no harm.
    held: HashSet<u128>,
    /// Whether something was told to wait.
    is_held: bool,
    pick: Pick,
}

#[derive(PartialEq, Eq)]
enum Filled {
    Yes,
    No,
}

fn at(number: u64, first: u64) -> Option<usize> {
    usize::try_from(number.checked_sub(first)?).ok()
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
