//! Certificates that were given out under a claim and not provisioned yet. In memory alone: what is
//! not asked for within the hour, or over a restart, never existed.

use std::collections::HashMap;

use portcullis_core::{
    certificate::Certificate,
    identity::CertificateId,
    limits::{OWNERSHIP_TOKEN_LIFE, OWNERSHIP_TOKENS_MAX, OWNERSHIP_TOKENS_PER_CLAIM_MAX},
};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use uuid::Uuid;

#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    given: Given,
    until: Instant,
}

/// A certificate that was given out.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) certificate: Certificate,
    pub(super) der: CertificateDer<'static>,
    /// The CA that signed it.
    pub(super) ca: CertificateId,
    /// The claim certificate under which it was asked for.
    pub(super) claim: CertificateId,
}

/// Which bound was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Tokens {
    /// Whether `claim` may be given one more.
    pub(super) fn has_room(&mut self, claim: CertificateId) -> Result<(), Full> {
        self.forget_old();
        let of_claim = self.0.values().filter(|entry| entry.given.claim == claim);
        if self.0.len() >= OWNERSHIP_TOKENS_MAX
            || of_claim.count() >= OWNERSHIP_TOKENS_PER_CLAIM_MAX
        {
            return Err(Full);
        }
        Ok(())
    }

    /// The token for a certificate.
    pub(super) fn give(&mut self, given: Given) -> String {
        // 244 random bits.
        let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let until = Instant::now() + OWNERSHIP_TOKEN_LIFE;
        self.0.insert(token.clone(), Entry { given, until });
        token
    }

    /// Takes the certificate out for which `claim` got `token`, so that nobody else uses it
    /// meanwhile, with what [`Self::put_back`] wants.
    pub(super) fn take(&mut self, token: &str, claim: CertificateId) -> Option<(Given, Instant)> {
        self.forget_old();
        // A stolen token is of no use under another claim, and stays for its owner.
        self.0
            .get(token)
            .filter(|entry| entry.given.claim == claim)?;
        self.0.remove(token).map(|entry| (entry.given, entry.until))
    }

    /// After an attempt that failed: the device may correct its parameters.
    pub(super) fn put_back(&mut self, token: &str, (given, until): (Given, Instant)) {
        self.0.insert(token.to_owned(), Entry { given, until });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        self.0.retain(|_, entry| entry.until > now);
    }
}
