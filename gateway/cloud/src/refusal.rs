//! How a whole request is refused: status, AWS's name for it, words.

use std::borrow::Cow;

/// An answer that takes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The error's name, without a namespace: `ResourceNotFoundException`.
    pub code: Cow<'static, str>,
    /// What people read.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// Any.
    pub fn new(
        status: u16,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    /// With status 400, as nearly all are.
    pub fn bad(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, code, message)
    }

    pub(crate) fn validation(problem: impl AsRef<str>) -> Self {
        let message = format!("1 validation error detected: {}", problem.as_ref());
        Self::bad("ValidationException", message)
    }

    pub(crate) fn argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("InvalidArgumentException", message)
    }

    pub(crate) fn serialization(message: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("SerializationException", message)
    }

    /// `ProvisionedThroughputExceededException` for the whole call.
    pub fn throughput() -> Self {
        Self::bad(
            "ProvisionedThroughputExceededException",
            "Rate exceeded for the stream",
        )
    }

    /// `ThrottlingException`: too many calls.
    pub fn throttling() -> Self {
        Self::bad("ThrottlingException", "Rate exceeded")
    }

    /// `InternalFailureException`, 500.
    pub fn internal() -> Self {
        Self::new(
            500,
            "InternalFailureException",
            "The request processing has failed because of an unknown error, exception or failure.",
        )
    }

    /// `ServiceUnavailableException`, 503.
    pub fn unavailable() -> Self {
        Self::new(
            503,
            "ServiceUnavailableException",
            "Service is unable to handle request.",
        )
    }

    /// `AccessDeniedException`.
    pub fn access_denied() -> Self {
        Self::bad(
            "AccessDeniedException",
            "User is not authorized to perform this action because no identity-based policy allows it",
        )
    }

    /// `ExpiredTokenException`.
    pub fn expired_token() -> Self {
        Self::bad(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        )
    }

    /// `UnrecognizedClientException`.
    pub fn unrecognized_client() -> Self {
        Self::bad(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    }
}
