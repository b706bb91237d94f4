//! `pki/issued/ID.pem`: the public part of every certificate that was issued, imported or registered
//! here, so that policies can be tried with their variables, and people can look at them.
//!
//! Nothing that decides who may connect reads these files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use portcullis_core::{certificate::Certificate, identity::CertificateId};
use rustls::pki_types::{CertificateDer, pem::PemObject};

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

/// The certificate in `file`, PEM or DER.
pub fn certificate_in(file: &Path) -> Option<Arc<Certificate>> {
    let bytes = super::trust::read_bounded(file).ok()?;
    let der = CertificateDer::from_pem_slice(&bytes).unwrap_or_else(|_| bytes.into());
    Certificate::parse(&der).ok().map(Arc::new)
}

/// Keeps a certificate.
pub(super) fn keep(config: &Config, der: &CertificateDer<'_>) -> Result<(), WriteError> {
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
    files::write(&file, pem_of(der).as_bytes())
}
