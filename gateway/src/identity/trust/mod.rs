//! What the TLS listener trusts and shows: CA certificates, revocation lists, server certificate and
//! key.
//!
//! Trusted are the certificates in the files that `ca-certificates` names, all of them, and the first
//! one in the file of each `[[ca]]`; what follows there is the chain above it, for devices.

mod ca;
mod chain;
mod crl;
mod issuers;
pub(super) mod server_names;
#[cfg(test)]
mod tests;
mod vouchers;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use portcullis_core::{
    certificate::{Certificate, check_key},
    identity::CertificateId,
    limits::CAS_PER_SUBJECT_MAX,
    problem::Problem,
    registry::RegisteredCa,
};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer, X509Certificate},
};

pub(super) use ca::check;
pub use ca::{TrustedCa, Unfit};
pub use chain::Chain;
pub(super) use chain::Leads;
pub use crl::{CrlError, VerifiedCrl};
pub(super) use crl::{
    Lists, directories as crl_directories, files as crl_files, issuers as crl_issuers,
    parse as parse_crls, read_bounded,
};

pub(super) use issuers::certificates_in;
pub(super) use vouchers::Vouchers;

use super::Config;

/// The certificates of a snapshot.
#[derive(Debug)]
pub struct Trust {
    /// Those that may sign device certificates.
    pub ca: Vec<CertificateDer<'static>>,
    /// The same with what is said of them, in the same order.
    pub authorities: Vec<TrustedCa>,
    /// The newest revocation list of every CA; TLS can use each of them.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    revoked: Arc<crl::Revoked>,
    /// CAs that would be trusted, were they not on a list.
    fallen: Vec<CertificateId>,
    /// What the gateway shows to devices, leaf first.
    pub server_chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub server_key: PrivateKeyDer<'static>,
}

/// What an expired certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// At start: a mistake to correct.
    Problem,
    /// At a reload: a warning. Refusing the reload would also refuse a revocation.
    Warning,
}

impl Trust {
    /// The CA that signed `leaf`, perhaps through some of `intermediates`, which the client sent;
    /// `None` if no CA here did, or if one of the certificates is not valid now.
    pub fn ca_of(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Option<&TrustedCa> {
        ca::find(&self.authorities, leaf, intermediates).ok()
    }

    /// Whether a revocation list names the certificate.
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        self.revoked.contains(certificate)
    }

    /// Whether a revocation list names the CA, which would be trusted otherwise.
    pub(super) fn has_revoked(&self, ca: CertificateId) -> bool {
        self.fallen.contains(&ca)
    }

    /// The same with the lists in `newer` too; `None` if they revoke nothing new.
    pub(super) fn with_lists(&self, newer: &Lists) -> Option<Self> {
        let revoked = self.revoked.union(&newer.revoked)?;
        let mut crls = newer.ders.clone();
        // Of CAs of which there is no newer list.
        let own = self.crls.iter().filter(|own| !newer.ders.contains(own));
        crls.extend(own.cloned());
        let (authorities, mut fallen) = unrevoked(self.authorities.clone(), &revoked);
        fallen.extend(&self.fallen);
        Some(Self {
            ca: authorities.iter().map(|ca| ca.der.clone()).collect(),
            authorities,
            crls,
            revoked: Arc::new(revoked),
            fallen,
            server_chain: self.server_chain.clone(),
            server_key: self.server_key.clone_key(),
        })
    }

    /// Whether handshakes under `other` go as under this.
    pub fn serves_like(&self, other: &Self) -> bool {
        self.ca == other.ca
            && self.crls == other.crls
            && self.server_chain == other.server_chain
            && self.server_key == other.server_key
    }

    /// Its lists alone.
    pub(super) fn lists(&self) -> Lists {
        Lists {
            ders: self.crls.clone(),
            revoked: Arc::clone(&self.revoked),
        }
    }

    /// How many certificates revocation lists name.
    pub fn revoked_count(&self) -> usize {
        self.revoked.len()
    }
}

/// Reads the files that `config` and `registered` name; returns problems and warnings beside what
/// could be read. The lists stand by themselves: what they revoke is revoked even while the server's
/// certificate has a mistake. `known` are directories of revocation lists that were there before, and
/// `former` the CAs.
pub(super) fn read(
    config: &Config,
    registered: &[RegisteredCa],
    (known, former): (&[PathBuf], &[CertificateDer<'static>]),
    expiry: Expiry,
) -> (Option<Trust>, Lists, Vec<Problem>, Vec<Problem>) {
    let mut reader = Reader {
        expiry,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let authorities = reader.authorities(config, registered);
    let lists = crl::read(
        (&config.crls, known),
        (&authorities, former),
        chains(config, registered),
        &mut reader.problems,
        &mut reader.warnings,
    );
    let server_chain = reader.certificates(&config.server_certificate);
    let server_key = reader.key(&config.server_key);
    let mut trust = None;
    if let Some(server_key) = server_key
        && !server_chain.is_empty()
    {
        reader.check_match(config, &server_chain, &server_key);
        let named = authorities.len();
        let (authorities, fallen) = unrevoked(authorities, &lists.revoked);
        if authorities.is_empty()
            && named > 0
            && let Some(file) = config.ca_certificates.first()
        {
            let message = "every CA is on a revocation list";
            let remedy = "name a CA that is not, or remove the list";
            reader.problems.push(problem(file, message, remedy));
        }
        trust = Some(Trust {
            ca: authorities.iter().map(|ca| ca.der.clone()).collect(),
            authorities,
            crls: lists.ders.clone(),
            revoked: Arc::clone(&lists.revoked),
            fallen,
            server_chain,
            server_key,
        });
    }
    (trust, lists, reader.problems, reader.warnings)
}

/// Certificates that the files of `[[ca]]` and of the server hold beside the first: intermediates may
/// be among them. What is wrong with the files is told elsewhere.
pub(super) fn chains(config: &Config, registered: &[RegisteredCa]) -> Vec<CertificateDer<'static>> {
    let files = registered
        .iter()
        .map(|ca| config.of_registry(&ca.certificate));
    let files = files.chain([config.server_certificate.clone()]);
    files
        .filter_map(|file| read_bounded(&file).ok())
        .flat_map(|pem| certificates_in(&pem).into_iter().skip(1))
        .collect()
}

/// Those that no list names, and the ids of the others: TLS asks the lists about what leads to a CA,
/// not about itself.
fn unrevoked(
    authorities: Vec<TrustedCa>,
    revoked: &crl::Revoked,
) -> (Vec<TrustedCa>, Vec<CertificateId>) {
    if revoked.len() == 0 {
        return (authorities, Vec::new());
    }
    let is_revoked =
        |ca: &TrustedCa| Certificate::parse(&ca.der).is_ok_and(|ca| revoked.contains(&ca));
    let (fallen, authorities): (Vec<_>, Vec<_>) = authorities.into_iter().partition(is_revoked);
    (authorities, fallen.iter().map(|ca| ca.id).collect())
}

/// The CAs that `config` and `registered` name, as far as their files can be read.
pub(super) fn authorities(config: &Config, registered: &[RegisteredCa]) -> Vec<TrustedCa> {
    let mut reader = Reader {
        expiry: Expiry::Warning,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    reader.authorities(config, registered)
}

struct Reader {
    expiry: Expiry,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

fn problem(file: &Path, message: impl Into<String>, remedy: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        place: None,
        message: message.into(),
        remedy: remedy.to_owned(),
    }
}

impl Reader {
    /// The text, unless it cannot be read.
    fn pem(&mut self, file: &Path) -> Option<Vec<u8>> {
        match read_bounded(file) {
            Ok(pem) => Some(pem),
            Err(error) => {
                self.problems.push(problem(
                    file,
                    format!("the file cannot be read: {error}"),
                    "correct the path, or make it readable for the gateway's user",
                ));
                None
            }
        }
    }

    /// Each certificate once; what `[[ca]]` says of one that the settings name too, holds.
    fn authorities(&mut self, config: &Config, registered: &[RegisteredCa]) -> Vec<TrustedCa> {
        let mut authorities: Vec<TrustedCa> = Vec::new();
        for file in &config.ca_certificates {
            for der in self.certificates(file) {
                self.check_authority(file, &der);
                let ca = TrustedCa::new(file, der);
                if !authorities.iter().any(|known| known.id == ca.id) {
                    authorities.push(ca);
                }
            }
        }
        for entry in registered {
            let file = &config.of_registry(&entry.certificate);
            let Some(der) = self.certificates(file).into_iter().next() else {
                continue;
            };
            self.check_authority(file, &der);
            let ca = TrustedCa {
                status: entry.status,
                auto_registration: entry.auto_registration,
                template: entry.template.as_deref().map(Into::into),
                is_registered: true,
                ..TrustedCa::new(file, der)
            };
            match authorities.iter_mut().find(|known| known.id == ca.id) {
                Some(known) if known.is_registered => {
                    let other = known.file.display();
                    let message = format!("the CA stands in the registry twice, also as `{other}`");
                    self.problems
                        .push(problem(file, message, "keep one `[[ca]]`"));
                }
                Some(known) => *known = ca,
                None => authorities.push(ca),
            }
        }
        for ca in &authorities {
            let namesakes = authorities
                .iter()
                .filter(|other| other.subject == ca.subject);
            if namesakes.count() > CAS_PER_SUBJECT_MAX {
                self.problems.push(problem(
                    &ca.file,
                    format!(
                        "there are more than {CAS_PER_SUBJECT_MAX} CAs called `{}`",
                        ca.subject
                    ),
                    "remove those that are no longer in use",
                ));
                break;
            }
        }
        authorities
    }

    /// Whether it may sign others (a certificate that says nothing about it may: version 1).
    fn check_authority(&mut self, file: &Path, der: &CertificateDer<'_>) {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return;
        };
        let may_sign =
            certificate
                .extensions()
                .iter()
                .all(|extension| match extension.parsed_extension() {
                    ParsedExtension::BasicConstraints(constraints) => constraints.ca,
                    ParsedExtension::KeyUsage(usage) => usage.key_cert_sign(),
                    _ => true,
                });
        if !may_sign {
            self.problems.push(problem(
                file,
                format!(
                    "`{}` is no CA: it may not sign certificates",
                    certificate.subject()
                ),
                "name the certificate of the CA that signs the devices'",
            ));
        } else if webpki::anchor_from_trusted_cert(der).is_err() {
            self.problems.push(problem(
                file,
                format!(
                    "`{}` cannot be used to verify certificates",
                    certificate.subject()
                ),
                "make a new one with a current tool",
            ));
        }
        if let Err(error) = check_key(certificate.public_key()) {
            let message = format!("the CA cannot be used: {error}");
            self.problems.push(problem(
                file,
                message,
                "make a new one, and issue its devices anew",
            ));
        }
    }

    fn certificates(&mut self, file: &Path) -> Vec<CertificateDer<'static>> {
        let Some(pem) = self.pem(file) else {
            return Vec::new();
        };
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = match parsed {
            Ok(certificates) if !certificates.is_empty() => certificates,
            _ => {
                self.problems.push(problem(
                    file,
                    "the file holds no certificate in PEM",
                    "write `-----BEGIN CERTIFICATE-----` and the certificate, or correct the path",
                ));
                return Vec::new();
            }
        };
        for certificate in &certificates {
            self.check_certificate(file, certificate);
        }
        certificates
    }

    fn check_certificate(&mut self, file: &Path, der: &CertificateDer<'_>) {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            self.problems.push(problem(
                file,
                "the file holds a certificate that is not X.509",
                "replace it",
            ));
            return;
        };
        let now = x509_parser::time::ASN1Time::now();
        let validity = certificate.validity();
        if now > validity.not_after {
            let message = format!("the certificate expired at {}", validity.not_after);
            let expired = problem(file, message, "replace it with a new one");
            match self.expiry {
                Expiry::Problem => self.problems.push(expired),
                Expiry::Warning => self.warnings.push(expired),
            }
        } else if now < validity.not_before {
            // A board without a battery starts in the past and learns the time later.
            let message = format!(
                "the certificate is not valid before {}",
                validity.not_before
            );
            let remedy = "check the clock of this machine, or replace it";
            self.warnings.push(problem(file, message, remedy));
        }
    }

    fn key(&mut self, file: &Path) -> Option<PrivateKeyDer<'static>> {
        let pem = self.pem(file)?;
        if let Ok(metadata) = fs::metadata(file)
            && metadata.permissions().mode() & 0o077 != 0
        {
            let mode = metadata.permissions().mode() & 0o777;
            self.warnings.push(problem(
                file,
                format!("the private key is open to others (mode {mode:04o})"),
                "run `chmod 600` on it",
            ));
        }
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => Some(key),
            Err(_) => {
                self.problems.push(problem(
                    file,
                    "the file holds no private key in PEM",
                    "write `-----BEGIN PRIVATE KEY-----` and the key, or correct the path",
                ));
                None
            }
        }
    }

    fn check_match(
        &mut self,
        config: &Config,
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
    ) {
        let file = &config.server_key;
        let Ok(signing_key) = any_supported_type(key) else {
            self.problems.push(problem(
                file,
                "the private key is of a kind that TLS here cannot use",
                "use ECDSA P-256 or P-384, Ed25519 or RSA",
            ));
            return;
        };
        if CertifiedKey::new(chain.to_vec(), signing_key)
            .keys_match()
            .is_err()
        {
            self.problems.push(problem(
                file,
                format!(
                    "the private key does not belong to the certificate in {}",
                    config.server_certificate.display()
                ),
                "name the key that was made with this certificate",
            ));
        }
    }
}
