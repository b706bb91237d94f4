//! The chain that a client proved itself with, and whether it still leads to a CA here.
//!
//! TLS verifies it once, at the handshake; the CAs and the revocation lists change while the
//! connection lasts. Asked at each CONNECT and at each change, so it remembers which CA it led to:
//! while that one is trusted, only the revocation lists are asked again.

use std::sync::{Mutex, PoisonError};

use portcullis_core::{certificate::Certificate, identity::CertificateId};
use rustls::pki_types::CertificateDer;

use super::Trust;

/// See the module.
#[derive(Debug)]
pub struct Chain {
    ders: Vec<CertificateDer<'static>>,
    /// What follows the leaf, as far as it can be read.
    intermediates: Vec<Certificate>,
    /// The CA that it led to when that was last looked for.
    anchor: Mutex<Option<CertificateId>>,
}

impl Chain {
    /// Of the certificates that a client sent, its own first.
    pub fn new(ders: Vec<CertificateDer<'static>>) -> Self {
        let intermediates = ders.iter().skip(1);
        Self {
            intermediates: intermediates
                .filter_map(|der| Certificate::parse(der).ok())
                .collect(),
            ders,
            anchor: Mutex::new(None),
        }
    }

    /// The certificates, the client's own first.
    pub fn ders(&self) -> &[CertificateDer<'static>] {
        &self.ders
    }

    /// Where it leads under `trust`.
    pub(in crate::identity) fn leads(&self, trust: &Trust) -> Leads {
        if self.intermediates.iter().any(|c| trust.revokes(c)) {
            return Leads::ToRevoked;
        }
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        if anchor.is_some_and(|id| trust.authorities.iter().any(|ca| ca.id == id)) {
            return Leads::ToCa;
        }
        let Some((leaf, intermediates)) = self.ders.split_first() else {
            return Leads::Nowhere;
        };
        match trust.ca_of(leaf, intermediates) {
            Some(ca) => {
                *anchor = Some(ca.id);
                Leads::ToCa
            }
            None if anchor.is_some_and(|id| trust.has_revoked(id)) => Leads::ToRevoked,
            None => Leads::Nowhere,
        }
    }
}

/// Where a chain leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) enum Leads {
    /// To a CA here.
    ToCa,
    /// To or through one that a list revokes.
    ToRevoked,
    /// To none that is known.
    Nowhere,
}
