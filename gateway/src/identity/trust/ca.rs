//! A CA that the gateway trusts, and which one signed a certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use portcullis_core::{
    certificate::{KeyError, check_key},
    identity::CertificateId,
    registry::{AutoRegistration, CaStatus},
};
use rustls::{
    crypto::ring::default_provider,
    pki_types::{CertificateDer, TrustAnchor, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, Validity, X509Certificate};

/// A CA whose certificates may connect.
#[derive(Clone, Debug)]
pub struct TrustedCa {
    /// SHA-256 of its DER form: AWS's `caCertificateId`.
    pub id: CertificateId,
    /// Where it stands.
    pub file: PathBuf,
    /// Its certificate.
    pub der: CertificateDer<'static>,
    /// Its name, for people.
    pub subject: String,
    /// An inactive one registers nobody new.
    pub status: CaStatus,
    /// Whether its certificates register themselves when they first connect.
    pub auto_registration: AutoRegistration,
    /// What they are provisioned with.
    pub template: Option<Arc<str>>,
    /// Whether `[[ca]]` speaks of it.
    pub(super) is_registered: bool,
}

/// Why a certificate is not fit to be registered (specification A.11).
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Not a certificate.
    #[error("it is no X.509 certificate")]
    NoCertificate,
    /// No CA here signed it, and nobody whose certificate came along.
    #[error("no CA here signed it; import its CA first, and append its intermediates to it")]
    NotSigned,
    /// It, or one above it, has ended or not begun.
    #[error("it is not valid now: {0}")]
    NotValidNow(String),
    /// Its extended key usage says so.
    #[error("it is not for client authentication, as its extended key usage says")]
    NotForClients,
    /// It, or one above it, is signed with an algorithm that TLS here does not know.
    #[error(
        "TLS here cannot verify how it is signed; let its CA sign with SHA-256 or SHA-384, and with \
         RSA, ECDSA on P-256 or P-384, or Ed25519"
    )]
    Algorithm,
    /// TLS here does not take it.
    #[error("TLS here does not take it ({0:?})")]
    Chain(webpki::Error),
    /// Its key is weak.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl TrustedCa {
    pub(in crate::identity) fn new(file: &Path, der: CertificateDer<'static>) -> Self {
        let parsed = X509Certificate::from_der(&der);
        let subject = parsed.map_or_else(|_| String::new(), |(_, c)| c.subject().to_string());
        Self {
            id: CertificateId::of_der(&der),
            file: file.to_owned(),
            subject,
            der,
            status: CaStatus::Active,
            auto_registration: AutoRegistration::Disable,
            template: None,
            is_registered: false,
        }
    }

    /// Whether unknown certificates of it are registered when they connect.
    pub fn registers(&self) -> bool {
        self.status == CaStatus::Active && self.auto_registration == AutoRegistration::Enable
    }
}

/// The CA that signed `leaf` for a client, perhaps through some of `intermediates`. The nearest one,
/// if one signed another.
pub(super) fn find<'c>(
    cas: &'c [TrustedCa],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<&'c TrustedCa, webpki::Error> {
    let mut usable = Vec::new();
    let mut anchors: Vec<TrustAnchor<'_>> = Vec::new();
    for ca in cas {
        if let Ok(anchor) = anchor_from_trusted_cert(&ca.der) {
            anchors.push(anchor);
            usable.push(ca);
        }
    }
    let provider = default_provider();
    let end_entity = EndEntityCert::try_from(leaf)?;
    let path = end_entity.verify_for_usage(
        provider.signature_verification_algorithms.all,
        &anchors,
        intermediates,
        UnixTime::now(),
        KeyUsage::client_auth(),
        None,
        None,
    )?;
    let found = path.anchor();
    let at = anchors.iter().position(|anchor| {
        anchor.subject == found.subject
            && anchor.subject_public_key_info == found.subject_public_key_info
    });
    at.and_then(|at| usable.get(at).copied())
        .ok_or(webpki::Error::UnknownIssuer)
}

/// Whether `leaf` may be registered: well-formed, signed by one of `cas`, valid now, its key strong
/// enough. Returns the CA.
pub(in crate::identity) fn check<'c>(
    cas: &'c [TrustedCa],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<&'c TrustedCa, Unfit> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Unfit::NoCertificate)?;
    check_key(certificate.public_key())?;
    find(cas, leaf, intermediates).map_err(|error| cause(error, certificate.validity()))
}

/// `of_leaf` is the time of the certificate that was looked at.
fn cause(error: webpki::Error, of_leaf: &Validity) -> Unfit {
    use webpki::Error;
    match error {
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => Unfit::NotSigned,
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } => {
            let (from, to) = (of_leaf.not_before, of_leaf.not_after);
            Unfit::NotValidNow(match of_leaf.is_valid() {
                true => "one that is above it has ended, or not begun".to_owned(),
                false => format!("it is from {from} to {to}"),
            })
        }
        Error::RequiredEkuNotFoundContext(_) => Unfit::NotForClients,
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Unfit::Algorithm,
        other => Unfit::Chain(other),
    }
}
