//! A certificate for a thing: made by the local authority, listed in the registry.

use std::path::Path;

use portcullis_core::identity::ThingName;

use super::{
    Config,
    authority::{Authority, AuthorityError, Issued},
    edit::{self, EditError},
    files::{self, WriteError},
};

/// A certificate that may connect.
#[derive(Debug)]
pub struct Enrolment {
    /// The certificate, and its key unless the device has it.
    pub issued: Issued,
    /// The authority's certificate.
    pub ca_pem: String,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The authority refused.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The registry refused.
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// Makes a certificate for `thing`, which must be registered, with the first of the configured
/// authorities; `request` is a PKCS #10 file of a device that keeps its key.
pub fn enrol(
    config: &Config,
    thing: &ThingName,
    days: u32,
    request: Option<&Path>,
) -> Result<Enrolment, EnrolError> {
    let authority = config
        .ca_certificates
        .first()
        .expect("a validated configuration names a CA certificate");
    let authority = Authority::open(authority)?;
    let issued = match request {
        Some(request) => authority.sign_request(request, thing, days)?,
        None => authority.issue_device(thing, days)?,
    };
    edit::add_certificate(&config.registry, issued.id, thing)?;
    Ok(Enrolment {
        issued,
        ca_pem: authority.certificate_pem().to_owned(),
    })
}

impl Enrolment {
    /// Writes `cert.pem`, `key.pem` (0600) and `ca.pem` to `dir`.
    pub fn write(&self, dir: &Path) -> Result<(), WriteError> {
        let certificate = self.issued.certificate_pem.as_bytes();
        files::write(&dir.join("cert.pem"), certificate)?;
        if let Some(key) = &self.issued.key_pem {
            files::write_private(&dir.join("key.pem"), key.as_bytes())?;
        }
        files::write(&dir.join("ca.pem"), self.ca_pem.as_bytes())
    }
}
