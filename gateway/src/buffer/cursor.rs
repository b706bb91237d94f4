//! How far a sink is in a lane, and what became of everything up to there: written as one, so that
//! place and counts never part.
//!
//! ```text
//!           base            passed                       end of the lane
//! counts ────┼────────────────┼──────────────────────────┼───
//!            └ delivered + Σ dropped ┘└──── kept ────────┘
//! ```
//! With a split open, there are two such ranges: the backlog up to the split, the live part from it.

use std::collections::BTreeMap;

pub(super) use portcullis_core::record::{Part, Tally};

use super::counts::{Input, put_text, put_u64};

/// The disk had something else in their place.
pub(super) const LOST: &str = "lost";
/// Older than the lane's `max-age-secs`.
pub(super) const EXPIRED: &str = "expired";
/// The lane was at its bound, and its oldest went.
pub(super) const OLDEST: &str = "oldest";
/// The lane was at its bound, and took no more.
pub(super) const NEWEST: &str = "newest";
/// A lane of higher priority needed the disk.
pub(super) const GAVE_WAY: &str = "gave-way";
/// The sink did not say what became of them.
pub(super) const UNACCOUNTED: &str = "unaccounted";

/// A place in a lane and how many records of the sink are up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) place: u64,
    pub(super) passed: u64,
}

/// What came since the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    /// The last place before it.
    pub(super) from: At,
    pub(super) at: At,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) bit: u8,
    /// The count when the sink joined.
    pub(super) base: u64,
    /// The oldest record that the sink may still want is after it.
    pub(super) at: At,
    pub(super) live: Option<Live>,
    pub(super) delivered: u64,
    pub(super) dropped: BTreeMap<String, u64>,
    /// Never stored, because the lane took no more.
    pub(super) refused: u64,
}

/// Reasons that one cursor tells apart; further ones are counted as `other`.
const REASONS_MAX: usize = 48;

impl Position {
    /// Of a sink that starts after `at`.
    pub(super) fn new(bit: u8, at: At) -> Self {
        Self {
            bit,
            base: at.passed,
            at,
            ..Self::default()
        }
    }

    /// How far `part` is; nothing if there is no such part now.
    pub(super) fn part(&self, part: Part) -> Option<At> {
        match part {
            Part::Backlog => Some(self.at),
            Part::Live => self.live.map(|live| live.at),
        }
    }

    /// Records of the lane, which has `end_count` of them, that the sink still wants.
    pub(super) fn kept(&self, end_count: u64) -> u64 {
        match &self.live {
            None => end_count.saturating_sub(self.at.passed),
            Some(live) => {
                live.from.passed.saturating_sub(self.at.passed)
                    + end_count.saturating_sub(live.at.passed)
            }
        }
    }

    /// Everything of `part` up to `to` is settled. The counts of the lane say how many those are:
    /// what `tally` has too many (they were dropped meanwhile) is cut from it, what it has too few is
    /// unaccounted for. What counted; nothing if all of it was settled before.
    pub(super) fn settle(&mut self, part: Part, to: At, tally: Tally) -> Option<Tally> {
        let at = match (part, &mut self.live) {
            (Part::Live, Some(live)) => &mut live.at,
            _ => &mut self.at,
        };
        if (to.place, to.passed) <= (at.place, at.passed) {
            return None;
        }
        let mut records = to.passed.saturating_sub(at.passed);
        *at = At {
            place: to.place,
            passed: to.passed.max(at.passed),
        };
        let mut counted = Tally::default();
        for (reason, count) in tally.dropped {
            let count = count.min(records);
            records -= count;
            counted.dropped.push((reason, count));
        }
        counted.delivered = tally.delivered.min(records);
        records -= counted.delivered;
        if records > 0 {
            counted.dropped.push((UNACCOUNTED, records));
        }
        self.count(&counted);
        self.close_split(&mut counted);
        Some(counted)
    }

    /// Everything up to `to` is gone; how many records that costs.
    pub(super) fn skip(&mut self, to: At, reason: &'static str) -> u64 {
        let mut counted = Tally::default();
        let mut cost = 0;
        if let Some(live) = &mut self.live {
            if to.place > live.at.place {
                cost += to.passed.saturating_sub(live.at.passed);
                live.at = At {
                    place: to.place,
                    passed: to.passed.max(live.at.passed),
                };
            }
            let to = if to.place >= live.from.place {
                live.from
            } else {
                to
            };
            cost += skip(&mut self.at, to);
        } else {
            cost += skip(&mut self.at, to);
        }
        self.add(reason, cost);
        self.close_split(&mut counted);
        cost
    }

    /// From the end of the lane on there is a live part, unless there is one.
    pub(super) fn split(&mut self, end: At) -> bool {
        if self.live.is_some() || self.at.place >= end.place {
            return false;
        }
        self.live = Some(Live { from: end, at: end });
        true
    }

    /// Once the backlog has reached the split, there is one range again.
    fn close_split(&mut self, counted: &mut Tally) {
        let Some(live) = self.live.filter(|live| self.at.place >= live.from.place) else {
            return;
        };
        let lost = live.from.passed.saturating_sub(self.at.passed);
        if lost > 0 {
            self.add(LOST, lost);
            counted.dropped.push((LOST, lost));
        }
        self.at = live.at;
        self.live = None;
    }

    fn count(&mut self, tally: &Tally) {
        self.delivered += tally.delivered;
        for (reason, count) in &tally.dropped {
            self.add(reason, *count);
        }
    }

    fn add(&mut self, reason: &str, count: u64) {
        if count == 0 {
            return;
        }
        let known = self.dropped.contains_key(reason) || self.dropped.len() < REASONS_MAX;
        let reason = if known { reason } else { "other" };
        *self.dropped.entry(reason.to_owned()).or_default() += count;
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, self.bit];
        let put_at = |out: &mut Vec<u8>, at: &At| {
            put_u64(out, at.place);
            put_u64(out, at.passed);
        };
        put_u64(&mut out, self.base);
        put_at(&mut out, &self.at);
        out.push(u8::from(self.live.is_some()));
        if let Some(live) = &self.live {
            put_at(&mut out, &live.from);
            put_at(&mut out, &live.at);
        }
        put_u64(&mut out, self.delivered);
        put_u64(&mut out, self.refused);
        out.push(u8::try_from(self.dropped.len()).unwrap_or(u8::MAX));
        for (reason, count) in &self.dropped {
            put_text(&mut out, reason);
            put_u64(&mut out, *count);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        if input.u8()? != 1 {
            return None;
        }
        let bit = input.u8()?;
        let base = input.u64()?;
        let at = take_at(&mut input)?;
        let live = match input.u8()? {
            0 => None,
            _ => Some(Live {
                from: take_at(&mut input)?,
                at: take_at(&mut input)?,
            }),
        };
        let (delivered, refused) = (input.u64()?, input.u64()?);
        let mut dropped = BTreeMap::new();
        for _ in 0..input.u8()? {
            dropped.insert(input.text()?, input.u64()?);
        }
        Some(Self {
            bit,
            base,
            at,
            live,
            delivered,
            dropped,
            refused,
        })
    }
}

fn take_at(input: &mut Input<'_>) -> Option<At> {
    Some(At {
        place: input.u64()?,
        passed: input.u64()?,
    })
}

fn skip(at: &mut At, to: At) -> u64 {
    if to.place <= at.place {
        return 0;
    }
    let cost = to.passed.saturating_sub(at.passed);
    *at = At {
        place: to.place,
        passed: to.passed.max(at.passed),
    };
    cost
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_balanced(position: &Position, end_count: u64) -> bool {
        let dropped: u64 = position.dropped.values().sum();
        end_count - position.base == position.delivered + dropped + position.kept(end_count)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(u64),
        Settle(Part, u64, u64),
        Skip(u64),
        Split,
    }

    fn step() -> impl Strategy<Value = Step> {
        let part = prop_oneof![Just(Part::Backlog), Just(Part::Live)];
        prop_oneof![
            (1_u64..9).prop_map(Step::Append),
            (part, 1_u64..9, 0_u64..12).prop_map(|(part, by, says)| Step::Settle(part, by, says)),
            (1_u64..9).prop_map(Step::Skip),
            Just(Step::Split),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_counts_of_a_cursor_balance(
            steps in proptest::collection::vec(step(), 0..60)
        ) {
            // Every second record is for the sink.
            let count = |place: u64| place / 2;
            let mut end = 10;
            let mut position = Position::new(3, At { place: 4, passed: count(4) });
            for step in steps {
                match step {
                    Step::Append(records) => end += records,
                    Step::Settle(part, by, says) => {
                        let Some(at) = position.part(part) else { continue };
                        let bound = match (part, position.live) {
                            (Part::Backlog, Some(live)) => live.from.place,
                            _ => end,
                        };
                        let place = (at.place + by).min(bound);
                        let tally = Tally { delivered: says, dropped: vec![("poison", says / 3)] };
                        position.settle(part, At { place, passed: count(place) }, tally);
                    }
                    Step::Skip(by) => {
                        let place = (position.at.place + by).min(end);
                        position.skip(At { place, passed: count(place) }, OLDEST);
                    }
                    Step::Split => {
                        position.split(At { place: end, passed: count(end) });
                    }
                }
                prop_assert!(is_balanced(&position, count(end)), "{:?} at {}", position, end);
                prop_assert_eq!(Position::decode(&position.encode()), Some(position.clone()));
            }
        }
    }
}
