//! What the TLS listener trusts and shows: CA certificates, server certificate and key.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use portcullis_core::problem::Problem;
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Config;

/// The certificates of a snapshot.
#[derive(Debug)]
pub struct Trust {
    /// Those that may sign device certificates.
    pub ca: Vec<CertificateDer<'static>>,
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

/// Reads the files that `config` names; returns problems and warnings beside what could be read.
pub(super) fn read(config: &Config, expiry: Expiry) -> (Option<Trust>, Vec<Problem>, Vec<Problem>) {
    let mut reader = Reader {
        expiry,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let mut ca = Vec::new();
    for file in &config.ca_certificates {
        ca.extend(reader.certificates(file));
    }
    let server_chain = reader.certificates(&config.server_certificate);
    let server_key = reader.key(&config.server_key);
    let mut trust = None;
    if let Some(server_key) = server_key
        && !server_chain.is_empty()
    {
        reader.check_match(config, &server_chain, &server_key);
        trust = Some(Trust {
            ca,
            server_chain,
            server_key,
        });
    }
    (trust, reader.problems, reader.warnings)
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
    fn pem(&mut self, file: &PathBuf) -> Option<Vec<u8>> {
        match fs::read(file) {
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

    fn certificates(&mut self, file: &PathBuf) -> Vec<CertificateDer<'static>> {
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

    fn key(&mut self, file: &PathBuf) -> Option<PrivateKeyDer<'static>> {
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
