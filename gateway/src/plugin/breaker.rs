//! When to stop calling a plugin that keeps failing.
//!
//! After [`PLUGIN_FAILURES_MAX`] failures in a row the instance is paused; the first call after
//! the pause is the trial: if it fails too, the pause doubles, if it succeeds all is forgotten.

use portcullis_core::{
    limits::{PLUGIN_FAILURES_MAX, PLUGIN_PAUSE_MAX, PLUGIN_PAUSE_MIN},
    timestamp::Timestamp,
};

/// Counts failures in a row. Reads no clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    paused_until: Option<Timestamp>,
}

impl Breaker {
    /// `Err` with the end of the pause while calls are refused.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Timestamp> {
        match self.paused_until {
            Some(until) if now < until => Err(until),
            _ => Ok(()),
        }
    }

    /// A call succeeded. Whether that ended a pause.
    pub(super) fn succeeded(&mut self) -> bool {
        let recovered = self.paused_until.is_some();
        *self = Self::default();
        recovered
    }

    /// A call failed. The end of the pause that follows, if one does.
    pub(super) fn failed(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.failures = self.failures.saturating_add(1);
        let doublings = self.failures.checked_sub(PLUGIN_FAILURES_MAX)?;
        let pause = PLUGIN_PAUSE_MIN
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(PLUGIN_PAUSE_MAX);
        let until = now.plus_millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        self.paused_until = Some(until);
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_failures_in_a_row_and_doubles_up_to_a_minute() {
        let mut breaker = Breaker::default();
        let mut now = Timestamp::from_millis(1_000_000);
        for _ in 1..PLUGIN_FAILURES_MAX {
            assert_eq!(breaker.failed(now), None);
            assert_eq!(breaker.check(now), Ok(()));
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let until = breaker.failed(now).unwrap();
            assert_eq!(breaker.check(now), Err(until));
            assert_eq!(
                breaker.check(until),
                Ok(()),
                "the trial call is let through"
            );
            pauses.push(until.millis_since(now) / 1000);
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(breaker.succeeded());
        assert_eq!(breaker.failed(now), None, "a success forgets the past");
    }

    #[test]
    fn failures_that_are_not_in_a_row_never_pause() {
        let mut breaker = Breaker::default();
        let now = Timestamp::from_millis(1);
        for _ in 0..10 * PLUGIN_FAILURES_MAX {
            assert_eq!(breaker.failed(now), None);
            assert!(!breaker.succeeded());
        }
    }
}
