//! `pki/issued/ID.pem`: the public part of every certificate that was issued, imported or registered
//! here, so that policies can be tried with their variables, and people can look at them.
//!
//! Nothing that decides who may connect reads these files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use portcullis_core::{certificate::Certificate, identity::CertificateId};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Config,
    authority::pem_of,
    files::{self, WriteError},
};

/// Where the certificate `id` is kept.
pub fn file(config: &Config, id: CertificateId) -> PathBuf {
    config.pki.join("issued").join(format!("{id}.pem"))
}

/// The certificate `id`, if it was issued, imported or registered here.
pub fn certificate(config: &Config, id: CertificateId) -> Option<Certificate> {
    let der = CertificateDer::from_pem_file(file(config, id)).ok()?;
    let certificate = Certificate::parse(&der).ok()?;
    (certificate.id == id).then_some(certificate)
}

/// A certificate with what its device sends with it, as far as that was seen.
#[derive(Clone, Debug)]
pub struct Kept {
    /// It.
    pub certificate: Certificate,
    /// It, then its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
}

impl Kept {
    /// The certificate `id`, if it was issued, imported or registered here.
    pub fn find(config: &Config, id: CertificateId) -> Option<Self> {
        let kept = Self::read(&file(config, id))?;
        (kept.certificate.id == id).then_some(kept)
    }

    /// What is in `file`, PEM or DER.
    pub fn read(file: &Path) -> Option<Self> {
        let bytes = super::trust::read_bounded(file).ok()?;
        let pem: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let chain = match pem {
            Ok(chain) if !chain.is_empty() => chain,
            _ => vec![CertificateDer::from(bytes)],
        };
        let certificate = Certificate::parse(chain.first()?).ok()?;
        Some(Self { certificate, chain })
    }

    /// The whole name of who signed it.
    pub fn issuer(&self) -> String {
        let parsed = self
            .chain
            .first()
            .and_then(|der| X509Certificate::from_der(der).ok());
        parsed.map_or_else(String::new, |(_, parsed)| parsed.issuer().to_string())
    }
}

/// Keeps a certificate.
pub(super) fn keep(config: &Config, der: &CertificateDer<'_>) -> Result<(), WriteError> {
    keep_chain(config, der, &[])
}

/// Keeps a certificate, and what its device sends with it.
pub(super) fn keep_chain(
    config: &Config,
    der: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
) -> Result<(), WriteError> {
    let file = file(config, CertificateId::of_der(der));
    if file.exists() {
        return Ok(());
    }
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).map_err(|source| WriteError {
            path: dir.to_owned(),
            source,
        })?;
    }
    let text: String = [der].into_iter().chain(above).map(pem_of).collect();
    files::write(&file, text.as_bytes())
}
