//! Whether the sink takes records: said in the log when it changes, not at every attempt.

use std::time::Duration;

use portcullis_core::{backoff::Backoff, limits};
use tracing::{info, warn};

use super::Metrics;

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
        }
    }

    /// How long to wait after this many failures in a row.
    pub(super) fn delay(self, failures: u32) -> Duration {
        self.backoff().delay(failures, fastrand::f64())
    }

    const fn backoff(self) -> Backoff {
        match self {
            Self::Throttled | Self::Service | Self::Invalid => Backoff {
                base: limits::THROTTLE_BACKOFF_BASE,
                cap: limits::THROTTLE_BACKOFF_MAX,
            },
            Self::Connectivity | Self::TimedOut | Self::Disk => Backoff {
                base: limits::CONNECT_BACKOFF_BASE,
                cap: limits::CONNECT_BACKOFF_MAX,
            },
            Self::StreamMissing | Self::Credentials | Self::Refused => Backoff {
                base: limits::REFUSED_BACKOFF_BASE,
                cap: limits::REFUSED_BACKOFF_MAX,
            },
        }
    }
}

/// The link as the last attempts showed it.
#[derive(Debug)]
pub(super) struct Link {
    metrics: Metrics,
    last: Option<Result<(), Failure>>,
    failures: u32,
}

impl Link {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            last: None,
            failures: 0,
        }
    }

    /// The sink took something.
    pub(super) fn up(&mut self) {
        if self.last != Some(Ok(())) {
            info!("Uplink is online.");
        }
        self.last = Some(Ok(()));
        self.failures = 0;
        self.metrics.online.set(1);
    }

    /// An attempt failed as a whole; how long to wait before the next.
    pub(super) fn down(&mut self, failure: Failure, detail: &str) -> Duration {
        if self.last != Some(Err(failure)) {
            let (reason, advice) = (failure.reason(), failure.advice());
            warn!(reason, detail, advice, "Uplink is offline.");
            self.failures = 0;
        }
        self.last = Some(Err(failure));
        self.failures = self.failures.saturating_add(1);
        self.metrics.online.set(0);
        failure.delay(self.failures)
    }
}
