//! What the gateway would make of a certificate that its device showed now, and why.
//!
//! The registry's word is only one part of it: revocation lists, its time, and the CAs have theirs.
//! Commands ask here so that `ACTIVE` is not said of what cannot connect. Of a certificate whose
//! content was never seen here, only the registry's word is known.
//!
//! The files are read as they are; a gateway that refused a change of them still goes by the last
//! good ones, which `check` tells.

use std::{fmt, path::Path};

use portcullis_core::{
    certificate::Certificate,
    identity::{CertificateId, ThingName},
    registry::{RegisteredCertificate, Registry, State, Status},
    timestamp::Timestamp,
};
use rustls::pki_types::CertificateDer;

use super::{Config, TrustedCa, issued::Kept, trust::Vouchers};
use crate::clock::now;

#[cfg(test)]
mod tests;

/// What a certificate comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What the registry says.
    Listed(Status),
    /// A revocation list names it.
    Revoked,
    /// The time that the registry gives it is over.
    Ended,
    /// Its own time is over.
    Expired,
    /// Its own time has not begun.
    NotYetValid,
    /// No CA here vouches for it.
    IssuerNotTrusted,
    /// It belongs to no thing that there is.
    NoThing,
}

/// What a certificate comes to, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// What.
    pub outcome: Outcome,
    /// Why; always there unless it is what the registry says.
    pub why: Option<String>,
}

impl Outcome {
    /// One word, as AWS writes states.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listed(status) => status.as_str(),
            Self::Revoked => Status::Revoked.as_str(),
            Self::Ended => "ENDED",
            Self::Expired => "EXPIRED",
            Self::NotYetValid => "NOT_YET_VALID",
            Self::IssuerNotTrusted => "ISSUER_NOT_TRUSTED",
            Self::NoThing => "NO_THING",
        }
    }
}

impl Effective {
    /// Whether its device can connect.
    pub fn opens(&self) -> bool {
        self.outcome == Outcome::Listed(Status::Active)
    }
}

/// `REVOKED (listed in pki/crl/ca.pem)`.
impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Listed(status) => f.write_str(status.as_str())?,
            outcome => f.write_str(&outcome.as_str().replace('_', " "))?,
        }
        match &self.why {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

/// A certificate of the registry with all that is known of it.
#[derive(Debug)]
pub struct Examined<'e> {
    /// What it comes to.
    pub effective: Effective,
    /// Its content, if it was seen here.
    pub kept: Option<Kept>,
    /// The CA that vouches for it, or did.
    pub ca: Option<CertificateId>,
    /// The same, if it is one of those here.
    pub authority: Option<&'e TrustedCa>,
}

/// Looks at certificates of a registry.
#[derive(Debug)]
pub struct Examiner<'r> {
    config: &'r Config,
    registry: &'r Registry,
    state: &'r State,
    vouchers: Vouchers,
    now: Timestamp,
}

impl<'r> Examiner<'r> {
    /// `registry` is that in force, with `state`, which holds what else was noted of certificates.
    pub fn new(config: &'r Config, registry: &'r Registry, state: &'r State) -> Self {
        Self {
            vouchers: Vouchers::read(config, &registry.cas),
            config,
            registry,
            state,
            now: now(),
        }
    }

    /// All CAs that settings and registry name.
    pub fn authorities(&self) -> &[TrustedCa] {
        &self.vouchers.named
    }

    /// Everything that is known of `listed`.
    pub fn examine(&self, listed: &RegisteredCertificate) -> Examined<'_> {
        let kept = Kept::find(self.config, listed.id);
        self.examine_as(listed, kept)
    }

    /// The same, where the content is known to be `kept`.
    pub fn examine_as(&self, listed: &RegisteredCertificate, kept: Option<Kept>) -> Examined<'_> {
        let noted = self
            .state
            .certificate(&listed.id)
            .and_then(|known| known.ca);
        let chain = kept.as_ref().map(|kept| &*kept.chain).unwrap_or_default();
        let vouching = self.vouchers.ca_of(&self.vouchers.in_force, chain);
        let named = match vouching {
            Ok(ca) => Some(ca),
            // One that is revoked, or whose intermediate only the device has.
            Err(_) => self
                .vouchers
                .ca_of(&self.vouchers.named, chain)
                .ok()
                .or_else(|| self.vouchers.named.iter().find(|ca| Some(ca.id) == noted)),
        };
        let outcome = self
            .told(listed, kept.as_ref())
            .or_else(|| self.untrusted(kept.as_ref(), vouching.err(), named, noted))
            .or_else(|| self.homeless(listed));
        let effective = outcome.map_or(
            Effective {
                outcome: Outcome::Listed(listed.status),
                why: None,
            },
            |(outcome, why)| Effective { outcome, why },
        );
        Examined {
            effective,
            ca: named.map(|ca| ca.id).or(noted),
            authority: named,
            kept,
        }
    }

    /// What lists, the registry and the clock say, in the order in which the gateway asks them.
    fn told(
        &self,
        listed: &RegisteredCertificate,
        kept: Option<&Kept>,
    ) -> Option<(Outcome, Option<String>)> {
        let seen = kept.map(|kept| &kept.certificate);
        if let Some(list) = seen.and_then(|seen| self.vouchers.list_with(seen)) {
            let why = format!("listed in {}", self.shown(list));
            return Some((Outcome::Revoked, Some(why)));
        }
        if listed.status != Status::Active {
            return Some((Outcome::Listed(listed.status), listed.reason.clone()));
        }
        let seen_end = seen.map(|seen| seen.not_after);
        if let Some(until) = listed.until
            && until <= self.now
            && seen_end.is_none_or(|end| until <= end)
        {
            return Some((Outcome::Ended, Some(format!("at {until}"))));
        }
        let seen = seen?;
        if seen.not_after <= self.now {
            let why = format!("at {}", seen.not_after);
            return Some((Outcome::Expired, Some(why)));
        }
        (seen.not_before > self.now).then(|| {
            let why = format!("not before {}", seen.not_before);
            (Outcome::NotYetValid, Some(why))
        })
    }

    /// Why no CA vouches for it, as far as that can be said.
    fn untrusted(
        &self,
        kept: Option<&Kept>,
        error: Option<webpki::Error>,
        named: Option<&TrustedCa>,
        noted: Option<CertificateId>,
    ) -> Option<(Outcome, Option<String>)> {
        if let Some(ca) = named
            && let Ok(certificate) = Certificate::parse(&ca.der)
            && let Some(list) = self.vouchers.list_with(&certificate)
        {
            let why = format!("its CA `{}` is listed in {}", ca.subject, self.shown(list));
            return Some((Outcome::IssuerNotTrusted, Some(why)));
        }
        let sent = kept.map(|kept| kept.chain.iter().skip(1));
        let revoked = sent
            .into_iter()
            .flatten()
            .find_map(|der: &CertificateDer<'_>| {
                let above = Certificate::parse(der).ok()?;
                self.vouchers.list_with(&above)
            });
        if let Some(list) = revoked {
            let why = format!("a CA on the way to it is listed in {}", self.shown(list));
            return Some((Outcome::IssuerNotTrusted, Some(why)));
        }
        // What cannot be read is no verdict; `check` tells it.
        if named.is_some() || !self.vouchers.is_whole {
            return None;
        }
        let why = match (kept, noted, error) {
            (None, None, _) => return None,
            (None, Some(ca), _) => format!("its CA {ca} is none of those here"),
            (Some(kept), _, None | Some(webpki::Error::UnknownIssuer)) => {
                format!("no CA here is or vouches for `{}`", kept.issuer())
            }
            (Some(kept), _, Some(error)) => {
                format!("signed by `{}`, refused: {error:?}", kept.issuer())
            }
        };
        Some((Outcome::IssuerNotTrusted, Some(why)))
    }

    /// Whether it would lead to a thing.
    fn homeless(&self, listed: &RegisteredCertificate) -> Option<(Outcome, Option<String>)> {
        if listed.claim.is_some() {
            return None;
        }
        let mut attached = listed.attached().peekable();
        let why = match attached.peek() {
            None if self.config.require_thing => "it belongs to no thing".to_owned(),
            None => return None,
            Some(first) => {
                let exists = |name: &ThingName| self.registry.thing(name.as_str()).is_some();
                let why = format!("there is no thing `{first}`");
                if attached.any(exists) {
                    return None;
                }
                why
            }
        };
        Some((Outcome::NoThing, Some(why)))
    }

    /// As it is written beside the registry.
    fn shown(&self, file: &Path) -> String {
        let dir = self.config.registry.parent().unwrap_or(Path::new(""));
        let file = file.strip_prefix(dir).unwrap_or(file);
        file.display().to_string()
    }
}
