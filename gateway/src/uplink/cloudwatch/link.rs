//! Whether a sink takes what it is given: said in the log when it changes, not at every attempt.
//!
//! The log sink sends no log events of this module's surroundings: what it says about itself would
//! be its next load.

use std::{error::Error, time::Duration};

use portcullis_core::{backoff::Backoff, limits};
use tracing::{info, warn};

use super::Metrics;
use crate::chain::chain;

/// Why a call failed; also a metric label and the reason in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Too many calls for the account.
    Throttled,
    /// The service says that it failed.
    Service,
    /// No connection: nothing was sent.
    Connectivity,
    /// The connection broke or was silent after something was sent: what it was may have arrived.
    Unanswered,
    /// There is no such log group or stream.
    Missing,
    /// No credentials, expired or refused ones; also a wrong clock.
    Credentials,
    /// The call as it stands will never be taken.
    Invalid,
    /// Any other refusal.
    Refused,
}

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) detail: String,
}

impl Failure {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Service => "service",
            Self::Connectivity => "connectivity",
            Self::Unanswered => "unanswered",
            Self::Missing => "missing",
            Self::Credentials => "credentials",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Throttled | Self::Service | Self::Connectivity => {
                "nothing is lost; the backlog is sent later"
            }
            Self::Unanswered => {
                "metrics of unanswered calls are not sent again, log events are; look at the link"
            }
            Self::Missing => "create the log group, or allow the gateway to",
            Self::Credentials => "check the credentials, their permissions, and the clock",
            Self::Invalid | Self::Refused => "look at the answer",
        }
    }

    const fn backoff(self) -> Backoff {
        match self {
            Self::Throttled | Self::Service => Backoff {
                base: limits::THROTTLE_BACKOFF_BASE,
                cap: limits::THROTTLE_BACKOFF_MAX,
            },
            Self::Connectivity | Self::Unanswered => Backoff {
                base: limits::CONNECT_BACKOFF_BASE,
                cap: limits::CONNECT_BACKOFF_MAX,
            },
            Self::Missing | Self::Credentials | Self::Invalid | Self::Refused => Backoff {
                base: limits::REFUSED_BACKOFF_BASE,
                cap: limits::REFUSED_BACKOFF_MAX,
            },
        }
    }

    /// What an answer with this HTTP status and error code means.
    pub(super) fn of_answer(status: u16, code: &str) -> Self {
        match code {
            "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "LimitExceeded"
            | "LimitExceededException"
            | "TooManyRequestsException" => Self::Throttled,
            "InternalServiceFault"
            | "InternalServiceError"
            | "InternalServerError"
            | "InternalFailure"
            | "ServiceUnavailable"
            | "ServiceUnavailableException" => Self::Service,
            "ResourceNotFoundException" => Self::Missing,
            "AccessDenied"
            | "AccessDeniedException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "InvalidClientTokenId"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "NotAuthorized" => Self::Credentials,
            "InvalidParameterValue"
            | "InvalidParameterValueException"
            | "InvalidParameterCombination"
            | "InvalidParameterCombinationException"
            | "InvalidParameterException"
            | "MissingParameter"
            | "MissingRequiredParameterException"
            | "ValidationError"
            | "ValidationException"
            | "SerializationException" => Self::Invalid,
            _ => match status {
                413 => Self::Invalid,
                429 => Self::Throttled,
                // A success that cannot be read; or something between here and the service speaks,
                // and does not know what became of the call.
                200..=299 | 500.. => Self::Unanswered,
                _ => Self::Refused,
            },
        }
    }

    /// What a connection's failure means: whether anything was sent is not in its type, but told by
    /// its causes. What does not say so may have been sent.
    pub(super) fn of_connection(error: &dyn Error) -> Self {
        let causes = chain(error);
        let never_connected = [
            "(Connect)",
            "connect timeout",
            "dns error",
            "tcp connect error",
        ];
        if never_connected.iter().any(|text| causes.contains(text)) {
            Self::Connectivity
        } else {
            Self::Unanswered
        }
    }
}

/// The service as the last calls showed it.
#[derive(Debug)]
pub(super) struct Link {
    sink: &'static str,
    metrics: Metrics,
    last: Option<Result<(), Failure>>,
    failures: u32,
}

impl Link {
    pub(super) const fn new(sink: &'static str, metrics: Metrics) -> Self {
        Self {
            sink,
            metrics,
            last: None,
            failures: 0,
        }
    }

    /// The service took something.
    pub(super) fn up(&mut self) {
        if self.last != Some(Ok(())) {
            info!(sink = self.sink, "CloudWatch takes what it is sent.");
        }
        self.last = Some(Ok(()));
        self.failures = 0;
        self.metrics.answered(self.sink, "taken");
    }

    /// A call failed as a whole; how long to wait before the next.
    pub(super) fn down(&mut self, failed: &Failed) -> Duration {
        let Failed { failure, detail } = failed;
        if self.last != Some(Err(*failure)) {
            let (sink, reason, advice) = (self.sink, failure.reason(), failure.advice());
            warn!(sink, reason, %detail, advice, "CloudWatch does not take what it is sent.");
            self.failures = 0;
        }
        self.last = Some(Err(*failure));
        self.failures = self.failures.saturating_add(1);
        self.metrics.answered(self.sink, failure.reason());
        failure.backoff().delay(self.failures, fastrand::f64())
    }

    /// The call is tried another way at once.
    pub(super) fn again(&self, failure: Failure) {
        self.metrics.answered(self.sink, failure.reason());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_what_helps() {
        for (status, code, failure) in [
            (400, "Throttling", Failure::Throttled),
            (400, "ThrottlingException", Failure::Throttled),
            (429, "", Failure::Throttled),
            (500, "InternalServiceFault", Failure::Service),
            (503, "ServiceUnavailableException", Failure::Service),
            (502, "", Failure::Unanswered),
            (504, "", Failure::Unanswered),
            (200, "", Failure::Unanswered),
            (400, "ResourceNotFoundException", Failure::Missing),
            (403, "SignatureDoesNotMatch", Failure::Credentials),
            (400, "ExpiredTokenException", Failure::Credentials),
            (400, "InvalidParameterValueException", Failure::Invalid),
            (400, "InvalidParameterException", Failure::Invalid),
            (413, "", Failure::Invalid),
            (400, "SomethingNew", Failure::Refused),
        ] {
            assert_eq!(Failure::of_answer(status, code), failure, "{status} {code}");
        }
    }
}
