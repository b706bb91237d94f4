//! Takes over what others made: a device's certificate, a CA, a revocation list. Nothing is taken
//! over unchecked (specification A.11).

use std::{
    fs,
    path::{Path, PathBuf},
};

use portcullis_core::{
    certificate::{Certificate, KeyError, NameAttribute, check_key},
    identity::{CertificateId, ThingName},
    registry::CaStatus,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Config, CrlError, Unfit,
    authority::pem_of,
    edit::{self, EditError},
    files::{self, WriteError},
    issued,
    lifecycle::{self, LifecycleError},
    trust,
};

/// What was taken over.
#[derive(Debug)]
pub enum Imported {
    /// A device's certificate may connect.
    Certificate {
        /// It.
        id: CertificateId,
        /// As whom.
        thing: ThingName,
        /// The CA that signed it.
        ca: String,
    },
    /// Certificates of a CA may be registered.
    Ca {
        /// It.
        id: CertificateId,
        /// Its name.
        subject: String,
        /// Where it is.
        file: PathBuf,
    },
    /// Certificates are revoked.
    Crl {
        /// The CA.
        issuer: String,
        /// How many certificates it lists.
        entries: usize,
        /// When the next one is due.
        next_update: Option<String>,
        /// Where it is.
        file: PathBuf,
    },
}

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing of what can be imported.
    #[error("`{0}` holds neither a certificate nor a revocation list, in PEM or DER")]
    Nothing(PathBuf),
    /// A certificate is not fit.
    #[error("the certificate in `{path}` is refused: {source}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Unfit,
    },
    /// A CA is not fit.
    #[error("the CA in `{path}` is refused: {why}")]
    UnfitCa {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A revocation list is not to be believed.
    #[error("the revocation list in `{path}` is refused: {source}")]
    Crl {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CrlError,
    },
    /// A newer list is there.
    #[error("`{0}` is older than the revocation list that is in force")]
    OldCrl(PathBuf),
    /// No directory for lists is configured.
    #[error("`crls` in gateway.toml names no directory; write `crls = [\"pki/crl\"]`")]
    NoCrlDirectory,
    /// It is there already.
    #[error("{0} is registered already")]
    Known(String),
    /// Nobody knows whose it is.
    #[error(
        "the certificate is for `{0}`, and there is no such thing; add it with `portcullis thing add`, or say `--thing NAME`"
    )]
    NoThing(String),
    /// Registry or journal refused.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Takes over what is in `file`. A device's certificate becomes one of `thing`, or else of the thing
/// named like its common name.
pub fn import(
    config: &Config,
    file: &Path,
    thing: Option<&ThingName>,
) -> Result<Imported, ImportError> {
    let bytes = trust::read_bounded(file).map_err(|source| ImportError::Read {
        path: file.to_owned(),
        source,
    })?;
    let pem: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&bytes).collect();
    let mut certificates = pem.unwrap_or_default();
    if certificates.is_empty() && X509Certificate::from_der(&bytes).is_ok() {
        certificates.push(bytes.clone().into());
    }
    let Some((first, rest)) = certificates.split_first() else {
        return crl(config, file, &bytes);
    };
    let (_, parsed) =
        X509Certificate::from_der(first).map_err(|_| ImportError::Nothing(file.to_owned()))?;
    if parsed.is_ca() {
        ca(config, file, &parsed, &certificates)
    } else {
        certificate(config, file, first, rest, thing)
    }
}

fn certificate(
    config: &Config,
    file: &Path,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    thing: Option<&ThingName>,
) -> Result<Imported, ImportError> {
    let known = lifecycle::read(config)?;
    let unfit = |source| ImportError::Unfit {
        path: file.to_owned(),
        source,
    };
    let cas = trust::authorities(config, &known.file.cas);
    let ca = trust::check(&cas, leaf, intermediates).map_err(unfit)?;
    if ca.status != CaStatus::Active {
        let why = format!(
            "the CA `{}` is inactive and registers nobody new",
            ca.subject
        );
        let path = file.to_owned();
        return Err(ImportError::UnfitCa { path, why });
    }
    let certificate = Certificate::parse(leaf).map_err(|_| unfit(Unfit::NoCertificate))?;
    let id = certificate.id;
    if known.merged.certificate(&id).is_some() {
        return Err(ImportError::Known(format!("the certificate `{id}`")));
    }
    let common_name = certificate.subject.get(NameAttribute::CommonName).first();
    let common_name = common_name.map_or("", String::as_str);
    let named = thing.map_or(common_name, ThingName::as_str);
    let registered = known.merged.thing(named);
    let thing = registered.map(|registered| registered.thing.name.clone());
    let thing = thing.ok_or_else(|| ImportError::NoThing(named.to_owned()))?;
    issued::keep_chain(config, leaf, intermediates)?;
    lifecycle::attach(config, id, &thing, Some(ca.id), "imported by command")?;
    Ok(Imported::Certificate {
        id,
        thing,
        ca: ca.subject.clone(),
    })
}

fn ca(
    config: &Config,
    file: &Path,
    parsed: &X509Certificate<'_>,
    chain: &[CertificateDer<'static>],
) -> Result<Imported, ImportError> {
    let known = lifecycle::read(config)?;
    let unfit = |why: String| ImportError::UnfitCa {
        path: file.to_owned(),
        why,
    };
    let weak = |error: KeyError| unfit(error.to_string());
    check_key(parsed.public_key()).map_err(weak)?;
    if !parsed.validity().is_valid() {
        return Err(unfit("it is not valid now".to_owned()));
    }
    let may_sign = parsed.key_usage().ok().flatten();
    if may_sign.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(unfit("it may not sign certificates".to_owned()));
    }
    if parsed.subject() == parsed.issuer() && parsed.verify_signature(None).is_err() {
        return Err(unfit("its own signature is wrong".to_owned()));
    }
    let id = chain.first().map(|der| CertificateId::of_der(der));
    let id = id.ok_or_else(|| ImportError::Nothing(file.to_owned()))?;
    let cas = trust::authorities(config, &known.file.cas);
    if cas.iter().any(|ca| ca.id == id) {
        return Err(ImportError::Known(format!("the CA `{}`", parsed.subject())));
    }
    let short: String = id.to_string().chars().take(16).collect();
    let name = format!("ca-{short}.pem");
    let target = config.pki.join(&name);
    fs::create_dir_all(&config.pki).map_err(|source| WriteError {
        path: config.pki.clone(),
        source,
    })?;
    let text: String = chain.iter().map(pem_of).collect();
    files::write(&target, text.as_bytes())?;
    let dir = config.registry.parent().unwrap_or(Path::new(""));
    let entry = target.strip_prefix(dir).unwrap_or(&target);
    let added = edit::add_ca(&config.registry, &entry.to_string_lossy());
    if let Err(error) = added {
        drop(fs::remove_file(&target));
        return Err(LifecycleError::from(error).into());
    }
    Ok(Imported::Ca {
        id,
        subject: parsed.subject().to_string(),
        file: target,
    })
}

fn crl(config: &Config, file: &Path, bytes: &[u8]) -> Result<Imported, ImportError> {
    let known = lifecycle::read(config)?;
    let cas = trust::authorities(config, &known.file.cas);
    let refused = |source| ImportError::Crl {
        path: file.to_owned(),
        source,
    };
    let mut lists = trust::parse_crls(bytes, &cas).into_iter();
    let list = match lists.next() {
        Some(Ok(list)) => list,
        Some(Err(CrlError::NoList)) | None => {
            return Err(ImportError::Nothing(file.to_owned()));
        }
        Some(Err(error)) => return Err(refused(error)),
    };
    // The directory that is watched; it need not be there yet.
    let is_directory = |path: &&PathBuf| path.is_dir() || path.extension().is_none();
    let dir = config.crls.iter().find(is_directory);
    let dir = dir.ok_or(ImportError::NoCrlDirectory)?;
    fs::create_dir_all(dir).map_err(|source| WriteError {
        path: dir.clone(),
        source,
    })?;
    let digest = Sha256::digest(list.key());
    let short: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let target = dir.join(format!("{short}.crl"));
    for other in trust::crl_files(&config.crls) {
        let Ok(bytes) = trust::read_bounded(&other) else {
            continue;
        };
        let newer = trust::parse_crls(&bytes, &cas).into_iter().flatten();
        let mut newer = newer.filter(|other| other.key() == list.key());
        if newer.any(|other| other.this_update > list.this_update) {
            return Err(ImportError::OldCrl(file.to_owned()));
        }
    }
    files::write(&target, &list.der)?;
    Ok(Imported::Crl {
        issuer: list.issuer,
        entries: list.entries,
        next_update: list.next_update.map(|time| time.to_string()),
        file: target,
    })
}

impl From<EditError> for ImportError {
    fn from(error: EditError) -> Self {
        Self::Lifecycle(error.into())
    }
}

#[cfg(test)]
mod tests;
