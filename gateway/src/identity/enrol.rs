//! A certificate for a thing or a claim: made by the local authority, written to files, listed.
//!
//! In this order: a certificate that is listed exists, and a key that a device may be using is never
//! overwritten.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use portcullis_core::{
    identity::{CertificateId, ThingName},
    registry::CaStatus,
    timestamp::Timestamp,
};
use rustls::{
    crypto::ring::default_provider,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Config, Holder, Registry,
    authority::{Authority, AuthorityError, Issued, Subject, pem_of},
    files::{self, WriteError},
    issued,
    lifecycle::{self, LifecycleError},
    trust,
};

/// A certificate that may connect.
#[derive(Debug)]
pub struct Enrolment {
    /// The certificate, and its key unless the device has it.
    pub issued: Issued,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The authority refused.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Registry or journal refused.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// A certificate or key is there already.
    #[error("`{0}` exists already; name another directory, or move the file away")]
    Exists(PathBuf),
    /// The directory cannot be made.
    #[error("failed to make `{dir}`")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What a certificate is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How long it is valid.
    pub days: u32,
    /// A PKCS #10 file of a device that keeps its key.
    pub request: Option<&'a Path>,
    /// Organization in its subject.
    pub organization: Option<&'a str>,
    /// Organizational unit in its subject.
    pub unit: Option<&'a str>,
}

/// Makes a certificate of `holder` with the first of the authorities that has its key here, and writes
/// `cert.pem`, `key.pem` (0600) and `ca.pem` to `dir`.
pub fn enrol(
    config: &Config,
    holder: Holder<'_>,
    wanted: &Wanted<'_>,
    dir: &Path,
) -> Result<Enrolment, EnrolError> {
    let known = lifecycle::read(config)?;
    let authority = authority(config, &known.file)?;
    let subject = Subject {
        name: holder.name(),
        organization: wanted.organization,
        unit: wanted.unit,
    };
    let issued = match wanted.request {
        Some(request) => authority.sign_request(request, &subject, wanted.days)?,
        None => authority.issue_device(&subject, wanted.days)?,
    };
    // Before anything is written; the registry has the last word.
    holder
        .check(config, &known.merged)
        .map_err(LifecycleError::from)?;
    fs::create_dir_all(dir).map_err(|source| EnrolError::Directory {
        dir: dir.to_owned(),
        source,
    })?;
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut written = vec![&certificate];
    written.extend(issued.key_pem.is_some().then_some(&key));
    for file in &written {
        // A link that leads nowhere is there, too.
        if fs::symlink_metadata(file).is_ok() {
            return Err(EnrolError::Exists(file.to_path_buf()));
        }
    }
    let listed = || -> Result<(), EnrolError> {
        if let Some(pem) = &issued.key_pem {
            files::write_private(&key, pem.as_bytes())?;
        }
        let roots = gateway_roots(config, &known.file);
        files::write(&dir.join("ca.pem"), roots.as_bytes())?;
        let chain = format!(
            "{}{}",
            issued.certificate_pem,
            authority.intermediates_pem()
        );
        files::write(&certificate, chain.as_bytes())?;
        if let Ok(der) = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()) {
            issued::keep(config, &der)?;
        }
        let why = "issued by command";
        Ok(holder.list(config, issued.id, authority.id(), why)?)
    };
    if let Err(error) = listed() {
        // Of no use to anybody, and in the way of the next attempt.
        for file in written {
            drop(fs::remove_file(file));
        }
        drop(fs::remove_file(issued::file(config, issued.id)));
        return Err(error);
    }
    Ok(Enrolment { issued })
}

/// Like [`enrol`] for `thing`; its other active certificates end at `until`, so that the device can
/// change over meanwhile. Returns them too.
pub fn renew(
    config: &Config,
    thing: &ThingName,
    wanted: &Wanted<'_>,
    dir: &Path,
    until: Timestamp,
) -> Result<(Enrolment, Vec<CertificateId>), EnrolError> {
    let enrolment = enrol(config, Holder::Thing(thing), wanted, dir)?;
    let retired = lifecycle::retire(config, thing, enrolment.issued.id, until)?;
    Ok((enrolment, retired))
}

/// The first authority with its key: those of the settings, then those of the registry.
fn authority(config: &Config, registry: &Registry) -> Result<Authority, AuthorityError> {
    let cas = registry.cas.iter();
    let of_registry: Vec<_> = cas
        .map(|ca| (config.of_registry(&ca.certificate), ca.status))
        .collect();
    let is_inactive = |file: &PathBuf| {
        let mut cas = of_registry.iter();
        cas.any(|(ca, status)| *status == CaStatus::Inactive && lifecycle::is_same(ca, file))
    };
    let more = of_registry.iter().map(|(file, _)| file);
    let all = config.ca_certificates.iter().chain(more);
    Authority::open_first(all.filter(|file| !is_inactive(file)))
}

/// What a device needs to trust the gateway: the roots above the server's certificate, or else the
/// CAs that verify it directly, or else all that there is.
fn gateway_roots(config: &Config, registry: &Registry) -> String {
    let certificates = |file: &PathBuf| -> Vec<CertificateDer<'static>> {
        let parsed = CertificateDer::pem_file_iter(file).ok();
        parsed.into_iter().flatten().flatten().collect()
    };
    let server = certificates(&config.server_certificate);
    let authorities = trust::authorities(config, &registry.cas);
    let mut all: Vec<CertificateDer<'static>> = Vec::new();
    let of_files = authorities.iter().flat_map(|ca| certificates(&ca.file));
    for der in of_files.chain(server.iter().skip(1).cloned()) {
        if !all.contains(&der) {
            all.push(der);
        }
    }
    let is_root = |der: &&CertificateDer<'static>| {
        X509Certificate::from_der(der).is_ok_and(|(_, c)| c.subject() == c.issuer())
    };
    let verifies = |root: &&CertificateDer<'static>| {
        server
            .first()
            .is_some_and(|leaf| is_above(root, leaf, &all))
    };
    let roots: Vec<_> = all.iter().filter(is_root).filter(verifies).collect();
    let found = match roots.is_empty() {
        true => all.iter().filter(verifies).collect(),
        false => roots,
    };
    match found.is_empty() {
        true => all.iter().map(pem_of).collect(),
        false => found.into_iter().map(pem_of).collect(),
    }
}

fn is_above(
    root: &CertificateDer<'_>,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> bool {
    let (Ok(anchor), Ok(server)) = (
        anchor_from_trusted_cert(root),
        EndEntityCert::try_from(leaf),
    ) else {
        return false;
    };
    let anchors = [anchor];
    let provider = default_provider();
    let path = server.verify_for_usage(
        provider.signature_verification_algorithms.all,
        &anchors,
        intermediates,
        UnixTime::now(),
        KeyUsage::server_auth(),
        None,
        None,
    );
    path.is_ok()
}
