//! Who may sign a revocation list: the CAs, and intermediates under them.
//!
//! Devices send the intermediates of their chain at the handshake, so the gateway trusts what it need
//! not have in a file. A list of such an intermediate can be verified only with its certificate,
//! which is looked for beside the list, in the same file, and in the chains that are configured.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    prelude::{CertificateRevocationList, FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

use super::{CrlError, TrustedCa};
use portcullis_core::identity::CertificateId;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::identity) struct Issuers(Vec<Issuer>);

/// A certificate that may sign others.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) id: CertificateId,
    /// Itself and what is between it and a CA; empty for a CA.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Whether it was a CA before, and is none any more.
    pub(super) is_former: bool,
    subject: Vec<u8>,
    /// Its key, in DER.
    key: Vec<u8>,
    may_sign_lists: bool,
}

impl Issuers {
    /// `cas`, and of `candidates` those that lead to one of them. `former` are certificates that were
    /// CAs when they were looked at last.
    pub(in crate::identity) fn new(
        cas: &[TrustedCa],
        former: &[CertificateDer<'static>],
        candidates: &[CertificateDer<'static>],
    ) -> Self {
        let mut issuers = Self::default();
        for ca in cas {
            issuers.0.extend(Issuer::ca(&ca.der, false));
        }
        for der in former {
            if !issuers.knows(der) {
                issuers.0.extend(Issuer::ca(der, true));
            }
        }
        // Each round finds those that are one step farther from a CA.
        loop {
            let before = issuers.0.len();
            for der in candidates {
                if !issuers.knows(der)
                    && let Some(below) = issuers.below(der)
                {
                    issuers.0.push(below);
                }
            }
            if issuers.0.len() == before {
                return issuers;
            }
        }
    }

    /// Whether the certificate is one of them.
    pub(super) fn knows(&self, der: &CertificateDer<'_>) -> bool {
        let id = CertificateId::of_der(der);
        self.0.iter().any(|issuer| issuer.id == id)
    }

    /// The one that signed the list.
    pub(super) fn of(&self, list: &CertificateRevocationList<'_>) -> Result<&Issuer, CrlError> {
        let name = list.issuer().to_string();
        let subject = list.issuer().as_raw();
        let mut named = self.0.iter().filter(|issuer| issuer.subject == subject);
        let mut named = named.by_ref().peekable();
        if named.peek().is_none() {
            return Err(CrlError::UnknownIssuer(name));
        }
        let signed = |issuer: &&Issuer| {
            let key = SubjectPublicKeyInfo::from_der(&issuer.key);
            key.is_ok_and(|(_, key)| list.verify_signature(&key).is_ok())
        };
        match named.find(signed) {
            Some(issuer) if issuer.may_sign_lists => Ok(issuer),
            Some(_) => Err(CrlError::NoCrlSigner(name)),
            None => Err(CrlError::BadSignature(name)),
        }
    }

    /// What `der` is if it may sign certificates and one of those here signed it.
    fn below(&self, der: &CertificateDer<'static>) -> Option<Issuer> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let usage = parsed.key_usage().ok()?;
        let may = |f: fn(&x509_parser::extensions::KeyUsage) -> bool| {
            usage.as_ref().is_none_or(|usage| f(usage.value))
        };
        if !parsed.is_ca() || !may(x509_parser::extensions::KeyUsage::key_cert_sign) {
            return None;
        }
        let above = self.0.iter().find(|issuer| {
            let key = SubjectPublicKeyInfo::from_der(&issuer.key);
            issuer.subject == parsed.issuer().as_raw()
                && key.is_ok_and(|(_, key)| parsed.verify_signature(Some(&key)).is_ok())
        })?;
        let chain = std::iter::once(der).chain(&above.chain);
        Some(Issuer {
            chain: chain.cloned().collect(),
            is_former: above.is_former,
            may_sign_lists: may(x509_parser::extensions::KeyUsage::crl_sign),
            ..Issuer::ca(der, false)?
        })
    }
}

impl Issuer {
    fn ca(der: &CertificateDer<'_>, is_former: bool) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            id: CertificateId::of_der(der),
            chain: Vec::new(),
            is_former,
            subject: parsed.subject().as_raw().to_vec(),
            key: parsed.public_key().raw.to_vec(),
            may_sign_lists: true,
        })
    }
}

/// The certificates in `pem`, as far as they can be read.
pub(in crate::identity) fn certificates_in(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).flatten().collect()
}
