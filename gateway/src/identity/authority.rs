//! The local certificate authority: ECDSA P-256, keys in files of mode 0600.
//!
//! Absent on purpose: revocation lists (the registry says which certificates may connect) and keys
//! in hardware.

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use portcullis_core::identity::{CertificateId, ThingName};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::files::{self, WriteError};

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
    certificate_pem: String,
    not_after: OffsetDateTime,
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
    /// Makes an authority called `name` and writes `certificate` and the key beside it.
    pub fn create(certificate: &Path, name: &str) -> Result<Self, AuthorityError> {
        let make = |source| AuthorityError::Make {
            name: name.to_owned(),
            source,
        };
        let mut params = params(&format!("{name} device CA"), CA_DAYS, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let pem = params.self_signed(&key).map_err(make)?.pem();
        files::write_private(&key_of(certificate), key.serialize_pem().as_bytes())?;
        files::write(certificate, pem.as_bytes())?;
        Ok(Self {
            not_after: params.not_after,
            certificate_pem: pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// Opens the authority whose certificate is in `certificate`, with its key beside it
    /// (`ca.pem`, `ca.key`).
    pub fn open(certificate: &Path) -> Result<Self, AuthorityError> {
        let key_file = key_of(certificate);
        let content = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Content { path, source }
        };
        let pem = read(certificate)?;
        let key = KeyPair::from_pem(&read(&key_file)?).map_err(content(&key_file))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(content(certificate))?;
        let unusable = || AuthorityError::Content {
            path: certificate.to_owned(),
            source: rcgen::Error::CouldNotParseCertificate,
        };
        let (_, block) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| unusable())?;
        let parsed = block.parse_x509().map_err(|_| unusable())?;
        if *parsed.public_key().subject_public_key.data != *issuer.key().der_bytes() {
            return Err(AuthorityError::OtherKey {
                certificate: certificate.to_owned(),
                key: key_file,
            });
        }
        Ok(Self {
            not_after: parsed.validity().not_after.to_datetime(),
            certificate_pem: pem,
            issuer,
        })
    }

    /// The authority's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for the gateway; each of `sans` is a host name or an address.
    pub fn issue_server(&self, sans: &[String]) -> Result<Issued, AuthorityError> {
        let name = sans.first().map_or("gateway", String::as_str);
        let mut params = params(name, SERVER_DAYS, Some(self.not_after));
        let alternatives = CertificateParams::new(sans).map_err(|source| AuthorityError::Make {
            name: name.to_owned(),
            source,
        })?;
        params.subject_alt_names = alternatives.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(name, &params)
    }

    /// A certificate for a device, with a new key.
    pub fn issue_device(&self, thing: &ThingName, days: u32) -> Result<Issued, AuthorityError> {
        self.issue(thing.as_str(), &self.device_params(thing, days))
    }

    /// A certificate for a device that keeps its key: `request` is a PKCS #10 request in PEM. Only
    /// the public key is taken from it; who the device is, says the registry.
    pub fn sign_request(
        &self,
        request: &Path,
        thing: &ThingName,
        days: u32,
    ) -> Result<Issued, AuthorityError> {
        let content = |source| AuthorityError::Content {
            path: request.to_owned(),
            source,
        };
        let mut csr =
            CertificateSigningRequestParams::from_pem(&read(request)?).map_err(content)?;
        csr.params = self.device_params(thing, days);
        let certificate = csr.signed_by(&self.issuer).map_err(content)?;
        Ok(issued(&certificate, None, csr.params.not_after))
    }

    fn device_params(&self, thing: &ThingName, days: u32) -> CertificateParams {
        let mut params = params(thing.as_str(), days, Some(self.not_after));
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

/// What all certificates have in common. Nobody outlives `not_after_max`, the end of the issuer.
fn params(name: &str, days: u32, not_after_max: Option<OffsetDateTime>) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut subject = DistinguishedName::new();
    // RFC 5280 allows 64 characters; a thing's name may have 128, and its certificate is found by
    // its id, not by this text.
    subject.push(
        DnType::CommonName,
        name.chars().take(64).collect::<String>(),
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
fn key_of(certificate: &Path) -> PathBuf {
    certificate.with_extension("key")
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::Read {
        path: path.to_owned(),
        source,
    })
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
