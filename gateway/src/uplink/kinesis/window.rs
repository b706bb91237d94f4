//! The records between the cursor and what was read last, and what became of each. Pure.

use std::collections::{HashSet, VecDeque};

use portcullis_core::{
    batch::{BatchLimits, Room},
    record::Record,
};

/// See the module. Records are addressed by their place, which [`Window::take_prefix`] changes.
#[derive(Debug, Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    record: Record,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Failed { attempts: u32 },
    Done,
}

impl Window {
    pub(super) fn push(&mut self, record: Record) {
        self.slots.push_back(Slot {
            record,
            state: State::Waiting,
        });
    }

    /// What may still be read into the window.
    pub(super) fn room(&self, limits: BatchLimits) -> Room {
        let mut room = limits.room();
        for slot in &self.slots {
            if !room.take(&slot.record) {
                return BatchLimits {
                    records_max: 0,
                    bytes_max: 0,
                }
                .room();
            }
        }
        room
    }

    /// The places of the next batch: oldest first; no record of a key of which an older one failed
    /// before that one is through; at least one record if any is left.
    pub(super) fn pick(&self, limits: BatchLimits) -> Vec<usize> {
        let mut room = limits.room();
        let mut held_back = HashSet::new();
        let mut picked = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            match slot.state {
                State::Done => continue,
                State::Failed { .. } => {
                    held_back.insert(&slot.record.partition_key);
                }
                State::Waiting if held_back.contains(&slot.record.partition_key) => continue,
                State::Waiting => {}
            }
            if !room.take(&slot.record) && !picked.is_empty() {
                break;
            }
            picked.push(at);
        }
        picked
    }

    /// The record at a place.
    pub(super) fn record(&self, at: usize) -> &Record {
        &self.slots[at].record
    }

    /// The first record whose size is above `bytes_max` and that is not done with.
    pub(super) fn first_above(&self, bytes_max: usize) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.state != State::Done && slot.record.wire_bytes() > bytes_max)
    }

    /// The record needs nothing more.
    pub(super) fn accept(&mut self, at: usize) {
        self.slots[at].state = State::Done;
    }

    /// The record has to be tried again; how often it failed.
    pub(super) fn fail(&mut self, at: usize) -> u32 {
        let attempts = match self.slots[at].state {
            State::Failed { attempts } => attempts.saturating_add(1),
            State::Waiting | State::Done => 1,
        };
        self.slots[at].state = State::Failed { attempts };
        attempts
    }

    /// Removes the records at the front that are done with; the number of the last of them.
    pub(super) fn take_prefix(&mut self) -> Option<u64> {
        let mut last = None;
        while let Some(slot) = self.slots.front()
            && slot.state == State::Done
        {
            last = Some(slot.record.seq);
            self.slots.pop_front();
        }
        last
    }
}

/// What a batch counts under the limits.
pub(super) fn picked_bytes(batch: &[&Record]) -> usize {
    batch.iter().map(|record| record.wire_bytes()).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use portcullis_core::record::{Kind, SinkSet};
    use proptest::prelude::*;

    use super::*;

    fn window(keys: &[&str]) -> Window {
        let mut window = Window::default();
        for (seq, key) in (1..).zip(keys) {
            window.push(Record {
                seq,
                place: seq,
                kind: Kind::Event,
                sinks: SinkSet::ALL,
                at_millis: 0,
                partition_key: (*key).into(),
                body: "{}".into(),
            });
        }
        window
    }

    fn limits(records_max: usize) -> BatchLimits {
        BatchLimits {
            records_max,
            bytes_max: 1000,
        }
    }

    #[test]
    fn newer_records_of_a_key_wait_for_its_failed_one() {
        let mut window = window(&["a", "b", "a", "a"]);
        assert_eq!(window.pick(limits(3)), [0, 1, 2]);
        window.fail(0);
        window.accept(1);
        window.accept(2);
        assert_eq!(window.take_prefix(), None, "the first is not through");
        assert_eq!(window.pick(limits(3)), [0], "the fourth is of the same key");
        window.accept(0);
        assert_eq!(window.take_prefix(), Some(3));
        assert_eq!(window.pick(limits(3)), [0]);
    }

    #[test]
    fn one_record_above_the_limit_is_still_picked_alone() {
        let window = window(&["a", "b"]);
        let none = BatchLimits {
            records_max: 10,
            bytes_max: 1,
        };
        assert_eq!(window.pick(none), [0]);
    }

    proptest! {
        /// Whatever fails: the prefix never passes a record that is not accepted, all arrive, and a
        /// record that lands after a younger one of its key was in the same request with it.
        #[test]
        fn everything_arrives_and_disorder_stays_within_a_request(
            keys in proptest::collection::vec(0_u8..4, 1..60),
            fates in proptest::collection::vec(any::<bool>(), 1..40),
            records_max in 1_usize..12,
        ) {
            let names: Vec<_> = keys.iter().map(|key| key.to_string()).collect();
            let mut window = window(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let mut fates = fates.into_iter();
            let mut arrived: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            let mut first_request: BTreeMap<u64, usize> = BTreeMap::new();
            let mut cursor = 0;
            for request in 0.. {
                let picked = window.pick(limits(records_max));
                if picked.is_empty() {
                    break;
                }
                prop_assert!(picked.len() <= records_max);
                for at in picked {
                    let record = window.record(at).clone();
                    first_request.entry(record.seq).or_insert(request);
                    if fates.next().unwrap_or(true) {
                        window.accept(at);
                        arrived.entry(record.partition_key.to_string()).or_default().push(record.seq);
                    } else {
                        window.fail(at);
                    }
                }
                if let Some(upto) = window.take_prefix() {
                    cursor = upto;
                    let through: usize = arrived.values().flatten().filter(|seq| **seq <= upto).count();
                    prop_assert_eq!(u64::try_from(through).unwrap(), upto);
                }
            }
            prop_assert_eq!(cursor, u64::try_from(keys.len()).unwrap());
            for seqs in arrived.values() {
                for pair in seqs.windows(2).filter(|pair| pair[0] > pair[1]) {
                    prop_assert_eq!(first_request[&pair[0]], first_request[&pair[1]]);
                }
            }
        }
    }
}
