//! The delay before attempt n: exponential with full jitter, so that a fleet that lost its link
//! together does not come back together. The random number is the caller's.

use std::time::Duration;

/// A base and a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The most that the first retry waits.
    pub base: Duration,
    /// The most that any retry waits.
    pub cap: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row (from 1): a share `random` (0 to 1) of
    /// `base · 2^(failures-1)`, at most of `cap`.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap);
        let share = if random.is_finite() {
            random.clamp(0.0, 1.0)
        } else {
            1.0
        };
        ceiling.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff {
        base: Duration::from_millis(100),
        cap: Duration::from_secs(30),
    };

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let ceilings: Vec<_> = [0, 1, 2, 3, 9, 10, 1000, u32::MAX]
            .map(|failures| BACKOFF.delay(failures, 1.0).as_millis())
            .into();
        assert_eq!(
            ceilings,
            [100, 100, 200, 400, 25_600, 30_000, 30_000, 30_000]
        );
        assert_eq!(BACKOFF.delay(5, 0.0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn the_delay_never_passes_the_cap(failures: u32, random: f64) {
            prop_assert!(BACKOFF.delay(failures, random) <= BACKOFF.cap);
        }
    }
}
