//! A certificate for a thing: made by the local authority, written to files, listed in the registry.
//!
//! In this order: a certificate that is listed exists, and a key that a device may be using is never
//! overwritten.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use portcullis_core::identity::ThingName;

use super::{
    Config, Registry,
    authority::{Authority, AuthorityError, Issued},
    edit::{self, EditError},
    files::{self, WriteError},
};
use crate::document::read_text;

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
    /// The registry refused.
    #[error(transparent)]
    Edit(#[from] EditError),
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

/// Makes a certificate for `thing`, which must be registered, with the first of the configured
/// authorities, and writes `cert.pem`, `key.pem` (0600) and `ca.pem` to `dir`; `request` is a
/// PKCS #10 file of a device that keeps its key.
pub fn enrol(
    config: &Config,
    thing: &ThingName,
    days: u32,
    request: Option<&Path>,
    dir: &Path,
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
    must_be_registered(config, thing)?;
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
        files::write(&dir.join("ca.pem"), authority.certificate_pem().as_bytes())?;
        files::write(&certificate, issued.certificate_pem.as_bytes())?;
        Ok(edit::add_certificate(&config.registry, issued.id, thing)?)
    };
    if let Err(error) = listed() {
        // Of no use to anybody, and in the way of the next attempt.
        for file in written {
            drop(fs::remove_file(file));
        }
        return Err(error);
    }
    Ok(Enrolment { issued })
}

/// Before anything is written; [`edit::add_certificate`] has the last word.
fn must_be_registered(config: &Config, thing: &ThingName) -> Result<(), EditError> {
    let text = read_text(&config.registry).map_err(|problem| EditError::Mistakes(vec![problem]))?;
    let (registry, _) = Registry::parse(&config.registry, &text, None);
    match registry.thing(thing.as_str()) {
        Some(_) => Ok(()),
        None => Err(EditError::Absent(format!("thing `{thing}`"))),
    }
}
