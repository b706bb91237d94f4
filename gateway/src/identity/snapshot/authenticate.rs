//! Who a client is.

use std::{fmt, net::IpAddr, sync::Arc};

use portcullis_core::{
    certificate::Certificate,
    identity::{ClientId, Principal, ThingName},
    policy::{Policy, PolicySet},
    registry::{RegisteredCertificate, Status},
    timestamp::Timestamp,
};

use super::{Entry, Snapshot};
use crate::{
    clock::now,
    identity::trust::{Chain, Leads},
};

/// What a client shows.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// A certificate that TLS has verified.
    Certificate {
        /// It.
        certificate: &'a Arc<Certificate>,
        /// The host name that the client asked for (SNI).
        domain: Option<&'a Arc<str>>,
        /// What it was verified with; `None`: nobody asks whether its CA is still trusted.
        chain: Option<&'a Chain>,
    },
    /// Nothing: a plain listener.
    Plain {
        /// Every client is this thing; `None`: the one named like the client id.
        thing: Option<&'a ThingName>,
        /// The policy of clients that are no thing; `None`: they are refused.
        unknown_policy: Option<&'a str>,
    },
}

impl<'a> Credential<'a> {
    /// A certificate, without the host name that the client asked for.
    pub const fn certificate(certificate: &'a Arc<Certificate>) -> Self {
        Self::Certificate {
            certificate,
            domain: None,
            chain: None,
        }
    }
}

/// Why a client is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The registry does not list the certificate.
    CertificateUnknown,
    /// It waits for approval.
    CertificatePending,
    /// It is listed as inactive.
    CertificateNotActive,
    /// It is listed as revoked, or a revocation list names it or a CA on the way to it.
    CertificateRevoked,
    /// Its own time is over, or the time that the registry gives it.
    CertificateExpired,
    /// No CA here vouches for it any more.
    CertificateUnknownIssuer,
    /// The certificate belongs to no thing, or the thing of a plain listener is gone.
    NoThing,
    /// The certificate belongs to things, and none of them is named like the client id.
    NotAttached,
    /// The thing is in quarantine, and there is no group that says what it may still do.
    Quarantined,
    /// No thing is named like the client id.
    UnknownClientId,
    /// The policy of unknown clients is gone.
    NoPolicy,
}

impl Refusal {
    /// The label in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CertificateUnknown => "certificate-unknown",
            Self::CertificatePending => "certificate-pending",
            Self::CertificateNotActive => "certificate-not-active",
            Self::CertificateRevoked => "certificate-revoked",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateUnknownIssuer => "certificate-unknown-issuer",
            Self::NoThing => "no-thing",
            Self::NotAttached => "not-attached",
            Self::Quarantined => "quarantined",
            Self::UnknownClientId => "unknown-client-id",
            Self::NoPolicy => "no-policy",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertificateUnknown => "the registry does not list the certificate",
            Self::CertificatePending => "the certificate waits for approval",
            Self::CertificateNotActive => "the certificate is not active",
            Self::CertificateRevoked => "the certificate is revoked, or a CA that it leads to",
            Self::CertificateExpired => "the time of the certificate is over",
            Self::CertificateUnknownIssuer => "no CA here vouches for the certificate",
            Self::NoThing => "the connection belongs to no registered thing",
            Self::NotAttached => {
                "the certificate is not attached to a thing named like the client id"
            }
            Self::Quarantined => "the thing is in quarantine, and there is no group `quarantine`",
            Self::UnknownClientId => "no thing is named like the client id",
            Self::NoPolicy => "the policy of unknown clients does not exist",
        })
    }
}

impl Snapshot {
    /// Who a client with `credential` and `client_id` is, now (specification A.3, A.5).
    pub fn authenticate(
        &self,
        credential: &Credential<'_>,
        client_id: &ClientId,
        source: IpAddr,
    ) -> Result<Principal, Refusal> {
        self.authenticate_at(credential, client_id, source, now())
    }

    /// Like [`Self::authenticate`] at `now`.
    pub fn authenticate_at(
        &self,
        credential: &Credential<'_>,
        client_id: &ClientId,
        source: IpAddr,
        now: Timestamp,
    ) -> Result<Principal, Refusal> {
        let bare = Principal {
            thing: None,
            client_id: client_id.clone(),
            certificate: None,
            source,
            domain: None,
            policies: PolicySet::default(),
            valid_until: None,
            claim: None,
            on_publish_denied: None,
        };
        match credential {
            Credential::Certificate {
                certificate,
                domain,
                chain,
            } => {
                let bare = Principal {
                    certificate: Some((*certificate).clone()),
                    domain: domain.cloned(),
                    ..bare
                };
                self.with_certificate(bare, certificate, *chain, now)
            }
            Credential::Plain {
                thing,
                unknown_policy,
            } => self.without_certificate(bare, *thing, *unknown_policy),
        }
    }

    fn with_certificate(
        &self,
        bare: Principal,
        shown: &Certificate,
        chain: Option<&Chain>,
        now: Timestamp,
    ) -> Result<Principal, Refusal> {
        if self.trust.revokes(shown) {
            return Err(Refusal::CertificateRevoked);
        }
        let entry = self.certificates.get(&shown.id);
        let listed = entry.and_then(|entry| self.registry.certificates.get(entry.at));
        let (Some(entry), Some(listed)) = (entry, listed) else {
            return Err(Refusal::CertificateUnknown);
        };
        match listed.status {
            Status::Active => {}
            Status::PendingActivation => return Err(Refusal::CertificatePending),
            Status::Revoked => return Err(Refusal::CertificateRevoked),
            Status::RegisterInactive | Status::PendingTransfer | Status::Inactive => {
                return Err(Refusal::CertificateNotActive);
            }
        }
        let end = listed
            .until
            .map_or(shown.not_after, |until| until.min(shown.not_after));
        if end <= now {
            return Err(Refusal::CertificateExpired);
        }
        match chain.map_or(Leads::ToCa, |chain| chain.leads(&self.trust)) {
            Leads::ToCa => {}
            Leads::ToRevoked => return Err(Refusal::CertificateRevoked),
            Leads::Nowhere => return Err(Refusal::CertificateUnknownIssuer),
        }
        let bare = Principal {
            valid_until: (end < Timestamp::from_millis(u64::MAX)).then_some(end),
            ..bare
        };
        if let Some(template) = &listed.claim {
            return Ok(Principal {
                claim: Some(template.as_str().into()),
                policies: self.set(entry.policies.clone()),
                ..bare
            });
        }
        match self.thing_of(listed, &bare.client_id)? {
            Some(thing) => {
                if entry.policies.is_empty() {
                    return as_thing(bare, thing, thing.groups.policies.clone());
                }
                let mut policies = entry.policies.clone();
                policies.extend(thing.groups.policies.policies().iter().cloned());
                as_thing(bare, thing, self.set(policies))
            }
            None => Ok(Principal {
                policies: self.set(entry.policies.clone()),
                ..bare
            }),
        }
    }

    /// The thing of a connection: an exclusive one whatever the client id; a shared one by the client
    /// id. One that is gone never turns into none: its groups may have denied something.
    fn thing_of(
        &self,
        certificate: &RegisteredCertificate,
        client_id: &ClientId,
    ) -> Result<Option<&Entry>, Refusal> {
        if let Some(thing) = &certificate.thing {
            return self.things.get(thing).map(Some).ok_or(Refusal::NoThing);
        }
        let mut attached = certificate.things.iter();
        match attached.find(|thing| thing.as_str() == client_id.as_str()) {
            Some(thing) => self.things.get(thing).map(Some).ok_or(Refusal::NoThing),
            None if !self.require_thing => Ok(None),
            None if certificate.things.is_empty() => Err(Refusal::NoThing),
            None => Err(Refusal::NotAttached),
        }
    }

    fn without_certificate(
        &self,
        bare: Principal,
        thing: Option<&ThingName>,
        unknown_policy: Option<&str>,
    ) -> Result<Principal, Refusal> {
        let name = thing.map_or(bare.client_id.as_str(), ThingName::as_str);
        match (self.things.get(name), unknown_policy) {
            (Some(entry), _) => as_thing(bare, entry, entry.groups.policies.clone()),
            (None, _) if thing.is_some() => Err(Refusal::NoThing),
            (None, None) => Err(Refusal::UnknownClientId),
            (None, Some(policy)) => {
                let policy = self.policies.get(policy).ok_or(Refusal::NoPolicy)?;
                Ok(Principal {
                    policies: self.set(vec![policy.clone()]),
                    ..bare
                })
            }
        }
    }

    fn set(&self, policies: Vec<Arc<Policy>>) -> PolicySet {
        PolicySet::with_rules(policies, self.rules.clone())
    }
}

fn as_thing(bare: Principal, entry: &Entry, policies: PolicySet) -> Result<Principal, Refusal> {
    if entry.is_shut_out {
        return Err(Refusal::Quarantined);
    }
    Ok(Principal {
        thing: Some(entry.thing.clone()),
        policies,
        on_publish_denied: entry.groups.on_publish_denied,
        ..bare
    })
}
