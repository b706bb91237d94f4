//! The local certificate authority: makes certificates for the gateway and for devices.
//!
//! `init` makes one with an ECDSA P-256 key; any CA or intermediate whose key lies beside its
//! certificate will do (`x.pem`, `x.key`: ECDSA, Ed25519 or RSA of 2048 bits and more). The file of an
//! intermediate holds the chain above it, too.
//!
//! Absent on purpose: making revocation lists (the registry says which certificates may connect;
//! those of other CAs are imported) and keys in hardware.

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use portcullis_core::{
    certificate::{KeyError, check_key},
    identity::CertificateId,
};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::{FromDer, X509Certificate},
};

use super::{
    ca_key::{self, CaKeyError},
    files::{self, WriteError},
};

/// Life of a CA certificate.
const CA_DAYS: u32 = 20 * 365;
/// Life of a server certificate: nobody is there to renew it at the edge.
const SERVER_DAYS: u32 = 10 * 365;
/// Life of a device certificate unless said otherwise.
pub const DEVICE_DAYS: u32 = 365;
/// Certificates are valid from a day before now: clocks of devices are wrong.
const BACKDATED: Duration = Duration::DAY;

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    id: CertificateId,
    /// Of the CA alone.
    certificate_pem: String,
    /// What a device must show beside its own certificate: the CA unless it is a root, and what is
    /// above it.
    intermediates_pem: String,
    not_after: OffsetDateTime,
}

/// Whom a certificate names. Nothing of it comes from a signing request: policies may rely on it.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    /// Common name, cut to the 64 characters of RFC 5280.
    pub name: &'a str,
    /// Organization.
    pub organization: Option<&'a str>,
    /// Organizational unit.
    pub unit: Option<&'a str>,
}

/// A new certificate.
#[derive(Debug)]
pub struct Issued {
    /// Its id.
    pub id: CertificateId,
    /// The certificate.
    pub certificate_pem: String,
    /// Its key, if it was made here.
    pub key_pem: Option<String>,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// Why there is no authority or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the authority cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Certificate or key of the authority, or a signing request, cannot be used.
    #[error("`{path}` cannot be used")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// What lies beside the authority's certificate is not its key.
    #[error(
        "`{path}` cannot be used: {why}; `openssl pkcs8 -topk8 -nocrypt -in {path} -out NEW` makes \
         of another form what can be used"
    )]
    CaKey {
        /// The file.
        path: PathBuf,
        /// Why.
        why: CaKeyError,
    },
    /// None of the authorities has its key beside it.
    #[error(
        "no CA here can sign: none of {} has its key beside it; put the key of one there \
         (`x.pem`, `x.key`), or sign elsewhere and use `portcullis cert import`",
        list(.0)
    )]
    NoKey(Vec<PathBuf>),
    /// A key is too weak.
    #[error("`{path}` cannot be used: {source}")]
    Key {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A signing request is none, or its signature is not that of its key.
    #[error("the signing request cannot be used: {0}")]
    Request(String),
    /// The authority has ended.
    #[error("the CA `{0}` has expired, so it cannot sign; renew it first")]
    Expired(PathBuf),
    /// The key of the authority is that of another.
    #[error(
        "`{key}` is not the key of `{certificate}`; put the key that was made with it there, \
         or devices would refuse what it signs"
    )]
    OtherKey {
        /// The authority's certificate.
        certificate: PathBuf,
        /// The key beside it.
        key: PathBuf,
    },
    /// A certificate could not be made.
    #[error("failed to make a certificate for `{name}`")]
    Make {
        /// For whom.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes an authority called `name` and writes `certificate_file` and the key beside it.
    pub fn create(certificate_file: &Path, name: &str) -> Result<Self, AuthorityError> {
        let make = |source| AuthorityError::Make {
            name: name.to_owned(),
            source,
        };
        let name = format!("{name} device CA");
        let mut params = params(&Subject::named(&name), CA_DAYS, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let certificate = params.self_signed(&key).map_err(make)?;
        let pem = certificate.pem();
        files::write_private(&key_of(certificate_file), key.serialize_pem().as_bytes())?;
        files::write(certificate_file, pem.as_bytes())?;
        Ok(Self {
            id: CertificateId::of_der(certificate.der()),
            not_after: params.not_after,
            certificate_pem: pem,
            intermediates_pem: String::new(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Opens the authority whose certificate is the first in the file `certificate`, with its key
    /// beside it (`ca.pem`, `ca.key`).
    pub fn open(certificate: &Path) -> Result<Self, AuthorityError> {
        let key_file = key_of(certificate);
        let content = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Content { path, source }
        };
        let text = read(certificate)?;
        let key = ca_key::read(&read(&key_file)?).map_err(|why| AuthorityError::CaKey {
            path: key_file.clone(),
            why,
        })?;
        let unusable = || AuthorityError::Content {
            path: certificate.to_owned(),
            source: rcgen::Error::CouldNotParseCertificate,
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| unusable())?;
        let [first, above @ ..] = chain.as_slice() else {
            return Err(unusable());
        };
        let (_, parsed) = X509Certificate::from_der(first).map_err(|_| unusable())?;
        check_key(parsed.public_key()).map_err(|source| AuthorityError::Key {
            path: certificate.to_owned(),
            source,
        })?;
        let issuer = Issuer::from_ca_cert_der(first, key).map_err(content(certificate))?;
        if *parsed.public_key().subject_public_key.data != *issuer.key().der_bytes() {
            return Err(AuthorityError::OtherKey {
                certificate: certificate.to_owned(),
                key: key_file,
            });
        }
        let not_after = parsed.validity().not_after.to_datetime();
        if not_after < OffsetDateTime::now_utc() {
            return Err(AuthorityError::Expired(certificate.to_owned()));
        }
        let is_root = |der: &CertificateDer<'_>| {
            X509Certificate::from_der(der).is_ok_and(|(_, c)| c.subject() == c.issuer())
        };
        let intermediates = [first].into_iter().chain(above);
        Ok(Self {
            id: CertificateId::of_der(first),
            not_after,
            certificate_pem: pem_of(first),
            intermediates_pem: intermediates
                .filter(|der| !is_root(der))
                .map(pem_of)
                .collect(),
            issuer,
        })
    }

    /// Opens the first of `certificates` that has its key beside it.
    pub fn open_first<'p>(
        certificates: impl IntoIterator<Item = &'p PathBuf>,
    ) -> Result<Self, AuthorityError> {
        let mut without = Vec::new();
        for certificate in certificates {
            if key_of(certificate).exists() {
                return Self::open(certificate);
            }
            without.push(certificate.clone());
        }
        Err(AuthorityError::NoKey(without))
    }

    /// The id of the authority's certificate.
    pub fn id(&self) -> CertificateId {
        self.id
    }

    /// What belongs behind a certificate that it signed.
    pub fn intermediates_pem(&self) -> &str {
        &self.intermediates_pem
    }

    /// The authority's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for the gateway; each of `sans` is a host name or an address.
    pub fn issue_server(&self, sans: &[String]) -> Result<Issued, AuthorityError> {
        let name = sans.first().map_or("gateway", String::as_str);
        let mut params = params(&Subject::named(name), SERVER_DAYS, Some(self.not_after));
        let alternatives = CertificateParams::new(sans).map_err(|source| AuthorityError::Make {
            name: name.to_owned(),
            source,
        })?;
        params.subject_alt_names = alternatives.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(name, &params)
    }

    /// A certificate for a device, with a new key.
    pub fn issue_device(&self, subject: &Subject<'_>, days: u32) -> Result<Issued, AuthorityError> {
        self.issue(subject.name, &self.device_params(subject, days))
    }

    /// A certificate for a device that keeps its key: `request` is a file with a PKCS #10 request in
    /// PEM. Only the public key is taken from it; who the device is, says the registry.
    pub fn sign_request(
        &self,
        request: &Path,
        subject: &Subject<'_>,
        days: u32,
    ) -> Result<Issued, AuthorityError> {
        let text = read(request).map_err(|error| match error {
            AuthorityError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                AuthorityError::Request(format!("there is no file `{}`", path.display()))
            }
            other => other,
        })?;
        self.sign_request_text(&text, subject, days)
            .map_err(|error| match error {
                AuthorityError::Request(why) => {
                    AuthorityError::Request(format!("`{}`: {why}", request.display()))
                }
                other => other,
            })
    }

    /// Like [`Self::sign_request`], with the request itself.
    pub fn sign_request_text(
        &self,
        request: &str,
        subject: &Subject<'_>,
        days: u32,
    ) -> Result<Issued, AuthorityError> {
        let refused = |why: &dyn fmt::Display| AuthorityError::Request(why.to_string());
        let der = CertificateSigningRequestDer::from_pem_slice(request.as_bytes())
            .map_err(|_| refused(&"it is no PKCS #10 request in PEM"))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der)
            .map_err(|_| refused(&"it is no PKCS #10 request"))?;
        check_key(&parsed.certification_request_info.subject_pki).map_err(|e| refused(&e))?;
        // Verifies the signature: who asks has the key.
        let mut csr = CertificateSigningRequestParams::from_der(&der).map_err(|e| refused(&e))?;
        csr.params = self.device_params(subject, days);
        let certificate = csr.signed_by(&self.issuer).map_err(|e| refused(&e))?;
        Ok(issued(&certificate, None, csr.params.not_after))
    }

    fn device_params(&self, subject: &Subject<'_>, days: u32) -> CertificateParams {
        let mut params = params(subject, days, Some(self.not_after));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn issue(&self, name: &str, params: &CertificateParams) -> Result<Issued, AuthorityError> {
        let make = |source| AuthorityError::Make {
            name: name.to_owned(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(issued(
            &certificate,
            Some(key.serialize_pem()),
            params.not_after,
        ))
    }
}

fn issued(certificate: &Certificate, key_pem: Option<String>, not_after: OffsetDateTime) -> Issued {
    Issued {
        id: CertificateId::of_der(certificate.der()),
        certificate_pem: certificate.pem(),
        key_pem,
        not_after,
    }
}

impl<'a> Subject<'a> {
    /// With a common name alone.
    pub fn named(name: &'a str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

/// A certificate in PEM.
pub(super) fn pem_of(der: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", der)
}

/// DER in PEM; `label` says what it is.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    names.join(", ")
}

/// What all certificates have in common. Nobody outlives `not_after_max`, the end of the issuer.
fn params(
    named: &Subject<'_>,
    days: u32,
    not_after_max: Option<OffsetDateTime>,
) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut subject = DistinguishedName::new();
    if let Some(organization) = named.organization {
        subject.push(DnType::OrganizationName, organization);
    }
    if let Some(unit) = named.unit {
        subject.push(DnType::OrganizationalUnitName, unit);
    }
    // RFC 5280 allows 64 characters; a thing's name may have 128, and its certificate is found by
    // its id, not by this text.
    subject.push(
        DnType::CommonName,
        named.name.chars().take(64).collect::<String>(),
    );
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = now - BACKDATED;
    let not_after = now + Duration::days(i64::from(days));
    params.not_after = not_after_max.map_or(not_after, |max| max.min(not_after));
    params.serial_number = Some(random_serial());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// 122 random bits: serial numbers must not be predictable.
fn random_serial() -> SerialNumber {
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    // Positive, and without a leading zero byte.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// `ca.pem` → `ca.key`.
pub(super) fn key_of(certificate: &Path) -> PathBuf {
    certificate.with_extension("key")
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    let text = fs::read_to_string(path).map_err(|source| AuthorityError::Read {
        path: path.to_owned(),
        source,
    })?;
    // Some editors put the mark of UTF-8 in front.
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// Whether `text` can be a subject alternative name: an address or a host name.
pub fn is_san(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    text.parse::<IpAddr>().is_ok() || text.len() <= 253 && text.split('.').all(label)
}
