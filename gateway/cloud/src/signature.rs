//! What is looked at of a SigV4 signature: that it is there, its scope, its date, whose key it is.
//! The signature itself is not verified: the cloud knows no secrets.

use std::time::Duration;

use crate::{
    clock::{amz_date, from_amz_date},
    http::Head,
    refusal::Refusal,
};

/// Which signatures pass.
#[derive(Clone, Debug)]
pub struct Signatures {
    /// Requests without one are refused (`MissingAuthenticationTokenException`).
    pub required: bool,
    /// Access keys that exist; others are refused (`UnrecognizedClientException`). None: all do.
    pub known_keys: Option<Vec<String>>,
    /// Access keys or session tokens that have expired (`ExpiredTokenException`).
    pub expired: Vec<String>,
    /// The region that keys must be scoped to. None: any.
    pub region: Option<String>,
    /// How far the request's date may be from the cloud's clock (`InvalidSignatureException`). None
    /// with a virtual clock that the client does not share.
    pub skew_max: Option<Duration>,
    /// How far the cloud's clock is ahead of the client's, in seconds; negative: behind.
    pub ahead_secs: i64,
}

impl Default for Signatures {
    fn default() -> Self {
        Self {
            required: true,
            known_keys: None,
            expired: Vec::new(),
            region: None,
            skew_max: Some(Duration::from_secs(300)),
            ahead_secs: 0,
        }
    }
}

impl Signatures {
    /// Why the request of a service (its name in the scope) is refused.
    pub(crate) fn check(&self, head: &Head, service: &str, now_secs: i64) -> Result<(), Refusal> {
        let Some(authorization) = head.get("authorization") else {
            return if self.required {
                Err(Refusal::bad(
                    "MissingAuthenticationTokenException",
                    "Missing Authentication Token",
                ))
            } else {
                Ok(())
            };
        };
        let incomplete = || {
            Refusal::bad(
                "IncompleteSignatureException",
                "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters.",
            )
        };
        let parts = authorization
            .strip_prefix("AWS4-HMAC-SHA256")
            .ok_or_else(incomplete)?;
        let part = |name: &str| {
            let mut parts = parts.split(',').map(str::trim);
            parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let credential = part("Credential").ok_or_else(incomplete)?;
        if part("SignedHeaders").is_none() || part("Signature").is_none_or(|s| s.len() != 64) {
            return Err(incomplete());
        }
        let scope: Vec<&str> = credential.rsplitn(5, '/').collect();
        let ["aws4_request", scoped_service, region, day, key] = scope[..] else {
            return Err(incomplete());
        };
        self.check_owner(head, key)?;
        if scoped_service != service {
            return Err(invalid(format!(
                "Credential should be scoped to correct service: '{service}'."
            )));
        }
        if let Some(expected) = &self.region
            && expected != region
        {
            return Err(invalid(format!(
                "Credential should be scoped to a valid region, not '{region}'."
            )));
        }
        self.check_date(head, day, now_secs)
    }

    fn check_owner(&self, head: &Head, key: &str) -> Result<(), Refusal> {
        let token = head.get("x-amz-security-token");
        let has_expired = |name: &String| name == key || token == Some(name);
        if self.expired.iter().any(has_expired) {
            return Err(Refusal::expired_token());
        }
        match &self.known_keys {
            Some(known) if !known.iter().any(|name| name == key) => {
                Err(Refusal::unrecognized_client())
            }
            _ => Ok(()),
        }
    }

    fn check_date(&self, head: &Head, day: &str, now_secs: i64) -> Result<(), Refusal> {
        let text = head.get("x-amz-date").unwrap_or_default();
        let Some(date) = from_amz_date(text) else {
            return Err(Refusal::bad(
                "IncompleteSignatureException",
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
            ));
        };
        if !text.starts_with(day) {
            return Err(invalid(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{day}' != '{text}'."
            )));
        }
        let Some(max) = self.skew_max else {
            return Ok(());
        };
        let (now, max_secs) = (
            now_secs + self.ahead_secs,
            i64::try_from(max.as_secs()).unwrap_or(i64::MAX),
        );
        let (shown, minutes) = (amz_date(now), max_secs / 60);
        if date < now.saturating_sub(max_secs) {
            let bound = amz_date(now - max_secs);
            return Err(invalid(format!(
                "Signature expired: {text} is now earlier than {bound} ({shown} - {minutes} min.)"
            )));
        }
        if date > now.saturating_add(max_secs) {
            let bound = amz_date(now + max_secs);
            return Err(invalid(format!(
                "Signature not yet current: {text} is still later than {bound} ({shown} + {minutes} min.)"
            )));
        }
        Ok(())
    }
}

fn invalid(message: String) -> Refusal {
    Refusal::bad("InvalidSignatureException", message)
}
