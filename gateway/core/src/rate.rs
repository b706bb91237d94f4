//! A token bucket: so much at once, and so much a second from then on.
//!
//! Exact: tokens are counted in thousandths, of which a rate of `n` a second gives `n` in each
//! millisecond. Whoever asks can be refused ([`Bucket::take`]), or is told how long to wait until it is
//! its turn ([`Bucket::reserve`]). Nobody reads a clock here: `now` is in milliseconds of any clock
//! that goes forward; one that goes back gives nothing and takes nothing.

use std::num::NonZeroU64;

/// Thousandths in a token.
const PARTS: i64 = 1000;
/// Rates and bursts beyond it count as it: sums stay far from the end of the numbers.
const TOKENS_MAX: u64 = 1 << 40;

/// How much may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// At once.
    pub burst: u64,
    /// A second from then on.
    pub per_second: NonZeroU64,
}

impl Allowance {
    /// `None` for a rate of 0, which means no limit; a burst of 0 is what a second allows.
    pub fn new(per_second: u64, burst: u64) -> Option<Self> {
        let per_second = NonZeroU64::new(per_second)?;
        let burst = if burst == 0 { per_second.get() } else { burst };
        Some(Self { burst, per_second })
    }

    /// So many times as much.
    #[must_use]
    pub fn times(self, factor: NonZeroU64) -> Self {
        Self {
            burst: self.burst.saturating_mul(factor.get()),
            per_second: self.per_second.saturating_mul(factor),
        }
    }

    /// The one that allows less in the long run, else at once.
    #[must_use]
    pub fn lower(self, other: Self) -> Self {
        let key = |allowance: &Self| (allowance.per_second, allowance.burst);
        if key(&other) < key(&self) {
            other
        } else {
            self
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Bucket {
    allowance: Allowance,
    /// In thousandths of a token; below zero what was promised and is not there yet.
    level: i64,
    filled_at: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(allowance: Allowance, now: u64) -> Self {
        let mut bucket = Self {
            allowance,
            level: 0,
            filled_at: now,
        };
        bucket.level = bucket.full();
        bucket
    }

    /// What it allows.
    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Takes `cost` if it is there, else says how many milliseconds that is off. What costs more than
    /// the burst is granted when the bucket is full, and paid back.
    ///
    /// # Errors
    /// The milliseconds to wait; at least one.
    pub fn take(&mut self, cost: u64, now: u64) -> Result<(), u64> {
        self.fill(now);
        let cost = parts(cost);
        let lacking = cost.min(self.full()) - self.level;
        if lacking > 0 {
            return Err(self.millis(lacking));
        }
        self.level -= cost;
        Ok(())
    }

    /// Whether [`Self::take`] would grant it.
    pub fn has(&mut self, cost: u64, now: u64) -> bool {
        self.fill(now);
        self.level >= parts(cost).min(self.full())
    }

    /// What was taken was not used.
    pub fn give_back(&mut self, cost: u64) {
        self.level = self.level.saturating_add(parts(cost)).min(self.full());
    }

    /// Takes `cost` in any case, and says in how many milliseconds it is there; 0 for at once. Who
    /// waits for it comes before whoever asks later.
    pub fn reserve(&mut self, cost: u64, now: u64) -> u64 {
        self.fill(now);
        self.level = self.level.saturating_sub(parts(cost));
        self.millis(self.level.saturating_neg())
    }

    /// In how many milliseconds everything is there that was promised.
    pub fn owes(&mut self, now: u64) -> u64 {
        self.fill(now);
        self.millis(self.level.saturating_neg())
    }

    /// Whether nothing was taken lately.
    pub fn is_full(&mut self, now: u64) -> bool {
        self.fill(now);
        self.level >= self.full()
    }

    fn full(&self) -> i64 {
        parts(self.allowance.burst)
    }

    fn per_milli(&self) -> i64 {
        parts(self.allowance.per_second.get()) / PARTS
    }

    fn fill(&mut self, now: u64) {
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let gained = passed.saturating_mul(self.per_milli());
        self.level = self.level.saturating_add(gained).min(self.full());
    }

    /// The time in which so much comes in, rounded up.
    fn millis(&self, lacking: i64) -> u64 {
        let lacking = u64::try_from(lacking).unwrap_or(0);
        let per_milli = u64::try_from(self.per_milli()).unwrap_or(1);
        lacking.div_ceil(per_milli)
    }
}

fn parts(tokens: u64) -> i64 {
    i64::try_from(tokens.min(TOKENS_MAX)).unwrap_or(i64::MAX / PARTS) * PARTS
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn allowance(per_second: u64, burst: u64) -> Allowance {
        Allowance::new(per_second, burst).unwrap()
    }

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(allowance(10, 3), 0);
        let taken: Vec<_> = [0, 0, 0, 0, 99, 100, 100, 10_000]
            .map(|now| bucket.take(1, now).is_ok())
            .into();
        assert_eq!(taken, [true, true, true, false, false, true, false, true]);
        assert_eq!(bucket.take(3, 10_000), Err(100));
    }

    #[test]
    fn what_costs_more_than_the_burst_is_granted_when_the_bucket_is_full_and_paid_back() {
        let mut bucket = Bucket::new(allowance(10, 10), 0);
        assert_eq!(bucket.take(30, 0), Ok(()));
        assert_eq!(bucket.take(1, 2000), Err(100));
        assert_eq!(bucket.take(1, 2100), Ok(()));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = Bucket::new(allowance(1000, 1), 5000);
        assert_eq!(bucket.take(1, 5000), Ok(()));
        assert_eq!(bucket.take(1, 0), Err(1));
        assert_eq!(bucket.take(1, 5000), Err(1));
        assert_eq!(bucket.take(1, 5001), Ok(()));
    }

    #[test]
    fn of_two_the_lower_one_counts_and_no_rate_is_no_limit() {
        assert_eq!(Allowance::new(0, 5), None);
        assert_eq!(allowance(7, 0).burst, 7);
        let (slow, fast) = (allowance(1, 100), allowance(2, 1));
        assert_eq!(slow.lower(fast), slow);
        assert_eq!(fast.lower(slow), slow);
        assert_eq!(slow.lower(allowance(1, 5)), allowance(1, 5));
    }

    proptest! {
        /// Over any stretch of time, not only from the start on.
        #[test]
        fn never_more_is_granted_than_the_burst_and_the_rate_allow(
            per_second in 1u64..5000,
            burst in 1u64..5000,
            asked in vec((0u64..300, 1u64..5000), 1..200),
        ) {
            let mut bucket = Bucket::new(allowance(per_second, burst), 0);
            let mut now = 0;
            let mut granted: Vec<(u64, u64)> = Vec::new();
            for (passed, cost) in asked {
                now += passed;
                let cost = cost.min(burst);
                if bucket.take(cost, now).is_ok() {
                    granted.push((now, cost));
                }
            }
            holds(&granted, per_second, burst)?;
        }

        #[test]
        fn who_waits_as_told_gets_its_turn_and_the_rate_holds_all_the_same(
            per_second in 1u64..5000,
            burst in 1u64..5000,
            asked in vec((0u64..300, 1u64..20_000), 1..200),
        ) {
            let mut bucket = Bucket::new(allowance(per_second, burst), 0);
            let (mut now, mut sum) = (0, 0);
            let mut granted = Vec::new();
            for (passed, cost) in asked {
                now += passed;
                let wait = bucket.reserve(cost, now);
                sum += cost;
                // No longer than it takes at the rate, had the bucket been empty at the start.
                prop_assert!(now + wait <= now + sum * 1000 / per_second + 1);
                granted.push((now + wait, cost));
            }
            // In the order in which they asked.
            prop_assert!(granted.is_sorted_by_key(|(at, _)| *at));
            let (mut sum, rate) = (0, u128::from(per_second));
            for (at, cost) in granted {
                sum += u128::from(cost);
                prop_assert!(sum * 1000 <= u128::from(burst) * 1000 + rate * u128::from(at));
            }
        }

        #[test]
        fn who_is_refused_gets_it_after_the_time_that_it_is_told(
            per_second in 1u64..5000,
            burst in 1u64..5000,
            costs in vec(1u64..20_000, 1..100),
        ) {
            let mut bucket = Bucket::new(allowance(per_second, burst), 0);
            let mut now = 0;
            for cost in costs {
                if let Err(wait) = bucket.take(cost, now) {
                    prop_assert!(wait > 0);
                    prop_assert!(bucket.clone().take(cost, now + wait - 1).is_err());
                    now += wait;
                    prop_assert_eq!(bucket.take(cost, now), Ok(()));
                }
            }
        }
    }

    fn holds(granted: &[(u64, u64)], per_second: u64, burst: u64) -> Result<(), TestCaseError> {
        for (first, (start, _)) in granted.iter().enumerate() {
            let mut sum = 0;
            for (at, cost) in &granted[first..] {
                sum += cost;
                let allowed = burst * 1000 + per_second * (at - start);
                prop_assert!(sum * 1000 <= allowed, "{sum} from {start} to {at}");
            }
        }
        Ok(())
    }
}
