//! Whether the sink takes records: said in the log when it changes, not at every attempt.

use std::time::Duration;

use portcullis_core::upstream::health::{Health, Seen, State};
use tracing::{info, warn};

use super::{config::Waits, metrics::SinkMetrics};

/// Why an attempt failed; also a metric label and the reason in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The stream's load, or an account limit.
    Throttled,
    /// The service's own fault.
    Service,
    /// No connection, or it broke. What was sent may have arrived.
    Connectivity,
    /// No answer in time, perhaps because the link is too slow for so much. What was sent may have
    /// arrived.
    TimedOut,
    /// There is no such stream.
    StreamMissing,
    /// No credentials, expired or refused ones; also a wrong clock.
    Credentials,
    /// The request as it stands will never be taken.
    Invalid,
    /// Any other refusal.
    Refused,
    /// The outbox's disk.
    Disk,
    /// What may be sent a day is used up.
    Budget,
    /// The shards are not those that are known: what was put together for one went to another.
    Resharded,
}

impl Failure {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Service => "service",
            Self::Connectivity => "connectivity",
            Self::TimedOut => "timed-out",
            Self::StreamMissing => "stream-missing",
            Self::Credentials => "credentials",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Disk => "disk",
            Self::Budget => "budget",
            Self::Resharded => "resharded",
        }
    }

    /// What helps, for the log.
    const fn advice(self) -> &'static str {
        match self {
            Self::Throttled => "add shards, or spread the load over more things",
            Self::Service | Self::Connectivity => "nothing is lost; the backlog is sent later",
            Self::TimedOut => "nothing is lost; smaller requests are tried",
            Self::StreamMissing => "create the stream, or correct `stream` and `region`",
            Self::Credentials => "check the credentials, their permissions, and the clock",
            Self::Invalid | Self::Refused => "look at the answer; nothing is dropped meanwhile",
            Self::Disk => "make room on the disk of the data directory",
            Self::Budget => "nothing is lost; it goes on tomorrow, or raise `bytes-per-day-max`",
            Self::Resharded => "nothing is lost; the shards are asked for again",
        }
    }

    /// What it says about the sink's health.
    const fn seen(self) -> Seen {
        match self {
            Self::Connectivity | Self::TimedOut => Seen::Unreachable,
            Self::StreamMissing | Self::Credentials | Self::Refused | Self::Budget => {
                Seen::Hopeless
            }
            Self::Throttled | Self::Service | Self::Invalid | Self::Disk | Self::Resharded => {
                Seen::Refused
            }
        }
    }

    /// How long to wait after this many failures in a row.
    pub(super) fn delay(self, waits: &Waits, failures: u32) -> Duration {
        let random = fastrand::f64();
        match self {
            Self::Throttled | Self::Service | Self::Invalid | Self::Resharded => {
                waits.throttled.delay(failures, random)
            }
            Self::Connectivity | Self::TimedOut | Self::Disk => {
                waits.unreachable.delay(failures, random)
            }
            Self::Credentials | Self::Refused | Self::Budget => {
                waits.refused.delay(failures, random)
            }
            Self::StreamMissing => {
                let longer = waits.missing.delay(failures.saturating_add(1), random);
                longer.clamp(waits.missing.base, waits.missing.cap)
            }
        }
    }
}

/// The link as the last attempts showed it.
#[derive(Debug)]
pub(super) struct Link {
    metrics: SinkMetrics,
    waits: Waits,
    health: Health,
    last: Option<Failure>,
    failures: u32,
}

impl Link {
    pub(super) fn new(metrics: SinkMetrics, waits: Waits) -> Self {
        Self {
            metrics,
            waits,
            health: Health::default(),
            last: None,
            failures: 0,
        }
    }

    /// What it is now.
    pub(super) fn state(&self) -> State {
        self.health.state()
    }

    /// Whole requests that failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The sink took something; `share` (0 to 1) of it failed. Whether it comes back from having taken
    /// nothing.
    pub(super) fn up(&mut self, share: f64, now_millis: u64) -> bool {
        let was_up = self.state().is_up();
        self.last = None;
        self.failures = 0;
        self.note(Seen::Answer(share), now_millis);
        !was_up && self.state().is_up()
    }

    /// An attempt failed as a whole; how long to wait before the next.
    pub(super) fn down(&mut self, failure: Failure, detail: &str, now_millis: u64) -> Duration {
        self.metrics.note_error(failure.reason(), detail);
        if self.last != Some(failure) {
            let (sink, reason) = (self.metrics.sink(), failure.reason());
            let advice = failure.advice();
            warn!(sink, reason, detail, advice, "The sink takes nothing.");
            self.failures = 0;
        }
        self.last = Some(failure);
        self.failures = self.failures.saturating_add(1);
        self.note(failure.seen(), now_millis);
        failure.delay(&self.waits, self.failures)
    }

    /// A record failed alone.
    pub(super) fn partly(&self, failure: Failure, detail: &str) {
        self.metrics.note_error(failure.reason(), detail);
    }

    fn note(&mut self, seen: Seen, now_millis: u64) {
        let Some(state) = self.health.note(seen, now_millis) else {
            return;
        };
        self.metrics.state(state);
        let (sink, name) = (self.metrics.sink(), state.name());
        if state == State::Online {
            info!(sink, "Uplink is online.");
        } else {
            warn!(sink, "Uplink is {name}.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_stream_to_be_made_waits_at_least_half_a_minute_and_five_at_most() {
        let waits = Waits::default();
        for failures in [1, 2, 5, 100] {
            for _ in 0..100 {
                let delay = Failure::StreamMissing.delay(&waits, failures);
                assert!((30..=300).contains(&delay.as_secs()), "{delay:?}");
                assert!(Failure::Throttled.delay(&waits, failures).as_secs() <= 30);
                assert!(Failure::Connectivity.delay(&waits, failures).as_secs() <= 300);
            }
        }
    }
}
