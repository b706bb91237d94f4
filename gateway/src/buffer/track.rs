//! What a reader has read of a part of a lane and not settled yet: it turns "settled up to this place"
//! into how many records of the sink that is.

use std::collections::VecDeque;

use portcullis_core::record::Record;

use super::{
    cursor::{At, EXPIRED, LOST, Tally},
    store::Read,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// Where reading goes on.
    pub(super) next: u64,
    /// Records of the sink before that.
    pub(super) passed: u64,
    runs: VecDeque<Run>,
}

/// Places that are alike, and how many records of the sink are up to their last.
#[derive(Debug)]
struct Run {
    first: u64,
    last: u64,
    passed: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Given to the sink.
    Handed,
    /// Never given to it, for this reason.
    Dropped(&'static str, u64),
}

impl Track {
    /// From after `at` on.
    pub(super) fn after(at: At) -> Self {
        Self {
            next: at.place + 1,
            passed: at.passed,
            runs: VecDeque::new(),
        }
    }

    /// What was read before `at` is gone, whoever reads it.
    pub(super) fn catch_up(&mut self, at: At) {
        if at.place >= self.next {
            *self = Self::after(at);
        }
    }

    /// The lane says how many records of the sink there are before `next`: what was not seen is lost.
    pub(super) fn reconcile(&mut self, passed: u64) {
        let lost = passed.saturating_sub(self.passed);
        if lost > 0 {
            self.drop(self.next.saturating_sub(1), LOST, lost);
        }
    }

    /// Takes what was read, up to below `end`: the records that are for the sink with this bit and no
    /// older than `oldest_millis`.
    pub(super) fn take(
        &mut self,
        read: Read,
        end: u64,
        bit: usize,
        oldest_millis: u64,
    ) -> Vec<Record> {
        let mut records = read.records;
        records.retain(|record| {
            let place = record.place;
            if place >= end || !record.sinks.contains(bit) {
                return false;
            }
            // Nobody knows how old those of an older release are.
            if record.at_millis != 0 && record.at_millis < oldest_millis {
                self.drop(place, EXPIRED, 1);
                return false;
            }
            self.passed += 1;
            let passed = self.passed;
            match self.runs.back_mut() {
                Some(run) if run.what == What::Handed && run.last + 1 == place => {
                    (run.last, run.passed) = (place, passed);
                }
                _ => self.runs.push_back(Run {
                    first: place,
                    last: place,
                    passed,
                    what: What::Handed,
                }),
            }
            true
        });
        self.next = read.next.min(end);
        records
    }

    fn drop(&mut self, place: u64, reason: &'static str, records: u64) {
        self.passed += records;
        let passed = self.passed;
        if let Some(run) = self.runs.back_mut()
            && let What::Dropped(known, count) = &mut run.what
            && *known == reason
        {
            *count += records;
            (run.last, run.passed) = (place, passed);
            return;
        }
        self.runs.push_back(Run {
            first: place,
            last: place,
            passed,
            what: What::Dropped(reason, records),
        });
    }

    /// Everything given to the sink up to `upto_place` is settled, and with it what lies before the
    /// next that is not: up to where, and what was dropped on the way.
    pub(super) fn settle(&mut self, upto_place: u64) -> (At, Tally) {
        let mut tally = Tally::default();
        let mut to = None;
        while let Some(run) = self.runs.front_mut() {
            match run.what {
                What::Handed if run.first > upto_place => break,
                What::Handed if run.last > upto_place => {
                    run.first = upto_place + 1;
                    to = Some(At {
                        place: upto_place,
                        passed: run.passed - (run.last - upto_place),
                    });
                    break;
                }
                What::Handed => {}
                What::Dropped(reason, count) => tally.dropped.push((reason, count)),
            }
            to = Some(At {
                place: run.last,
                passed: run.passed,
            });
            self.runs.pop_front();
        }
        let before_next = match self.runs.front() {
            Some(run) => At {
                place: run.first - 1,
                passed: run.passed - (run.last - run.first + 1),
            },
            None => At {
                place: self.next - 1,
                passed: self.passed,
            },
        };
        let to = to.filter(|to| to.place > before_next.place);
        (to.unwrap_or(before_next), tally)
    }

    /// Whether the sink has records of which it has not said what became of them.
    pub(super) fn is_waiting(&self) -> bool {
        self.runs.iter().any(|run| run.what == What::Handed)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::record::{Kind, SinkSet};

    use super::*;

    fn record(place: u64, sinks: SinkSet, at_millis: u64) -> Record {
        Record {
            seq: place,
            place,
            kind: Kind::Event,
            sinks,
            at_millis,
            partition_key: "k".into(),
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn a_settled_place_says_how_many_records_that_is() {
        let mut track = Track::after(At {
            place: 9,
            passed: 100,
        });
        let (mine, other) = (SinkSet::single(1), SinkSet::single(2));
        let read = Read {
            lost: None,
            records: vec![
                record(10, other, 50),
                record(11, mine, 50),
                record(12, mine, 50),
                record(13, other, 50),
                record(14, mine, 10),
                record(15, SinkSet::ALL, 50),
                record(16, other, 50),
                record(17, mine, 50),
            ],
            next: 18,
        };
        let handed = track.take(read, 17, 1, 20);
        let places: Vec<_> = handed.iter().map(|record| record.place).collect();
        assert_eq!(places, [11, 12, 15]);
        assert_eq!((track.next, track.passed), (17, 104));
        let at = |place, passed| At { place, passed };
        assert_eq!(track.settle(0), (at(10, 100), Tally::default()));
        assert_eq!(track.settle(11), (at(11, 101), Tally::default()));
        assert!(track.is_waiting());
        let (to, tally) = track.settle(12);
        assert_eq!((to, tally.dropped), (at(14, 103), vec![(EXPIRED, 1)]));
        track.reconcile(107);
        let (to, tally) = track.settle(15);
        assert_eq!((to, tally.dropped), (at(16, 107), vec![(LOST, 3)]));
        assert!(!track.is_waiting());
    }
}
