//! Takes over what others made: a device's certificate, a CA, a revocation list. Nothing is taken
//! over unchecked (specification A.11).

mod lists;

pub use lists::ImportedList;

use std::{
    fs,
    path::{Path, PathBuf},
};

use portcullis_core::{
    certificate::{Certificate, KeyError, NameAttribute, check_key},
    identity::{CertificateId, ThingName},
    registry::CaStatus,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Config, CrlError, Holder, Unfit,
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
    /// A certificate may connect and ask for another one.
    Claim {
        /// It.
        id: CertificateId,
        /// Under which template.
        template: String,
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
    Lists(Vec<ImportedList>),
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
    #[error("nothing of `{path}` is taken over: {source}{}", hint(.source))]
    Crl {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CrlError,
    },
    /// A newer list is there.
    #[error("the list of `{issuer}` in `{path}` is older than the one that is in force")]
    OldCrl {
        /// The file.
        path: PathBuf,
        /// Whose list.
        issuer: String,
    },
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
    /// What the file holds belongs to nobody.
    #[error("`{0}` holds no device's certificate, so leave `--thing` and `--claim` out")]
    NoDevice(PathBuf),
    /// Registry or journal refused.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What to do about it.
fn hint(error: &CrlError) -> &'static str {
    match error {
        CrlError::UnknownIssuer(_) => {
            "; import its CA first, or put the certificate of this intermediate into the same file, \
             in PEM"
        }
        _ => "",
    }
}

/// Takes over what is in `file`. A device's certificate becomes that of `holder`, or else of the
/// thing named like its common name.
pub fn import(
    config: &Config,
    file: &Path,
    holder: Option<Holder<'_>>,
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
    let mut of_lists = CertificateRevocationListDer::pem_slice_iter(&bytes);
    let leaf = certificates.split_first();
    let Some((first, rest)) = leaf.filter(|_| !of_lists.any(|list| list.is_ok())) else {
        // What is neither is told first.
        let imported = lists::check(config, file, &bytes)?;
        return match holder {
            Some(_) => Err(ImportError::NoDevice(file.to_owned())),
            None => lists::write(config, imported),
        };
    };
    let (_, parsed) =
        X509Certificate::from_der(first).map_err(|_| ImportError::Nothing(file.to_owned()))?;
    match (parsed.is_ca(), holder) {
        (true, Some(_)) => Err(ImportError::NoDevice(file.to_owned())),
        (true, None) => ca(config, file, &parsed, &certificates),
        (false, holder) => certificate(config, file, first, rest, holder),
    }
}

fn certificate(
    config: &Config,
    file: &Path,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    holder: Option<Holder<'_>>,
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
    let why = "imported by command";
    let ca_name = ca.subject.clone();
    if let Some(holder @ Holder::Claim(claim)) = holder {
        let checked = holder.check(config, &known.merged);
        checked.map_err(LifecycleError::from)?;
        issued::keep(config, leaf)?;
        holder.list(config, id, ca.id, why)?;
        let template = claim.template.to_owned();
        return Ok(Imported::Claim {
            id,
            template,
            ca: ca_name,
        });
    }
    let common_name = certificate.subject.get(NameAttribute::CommonName).first();
    let named = match (&holder, common_name) {
        (Some(holder), _) => holder.name(),
        (None, Some(name)) => name,
        (None, None) => "",
    };
    let registered = known.merged.thing(named);
    let thing = registered.map(|registered| registered.thing.name.clone());
    let thing = thing.ok_or_else(|| ImportError::NoThing(named.to_owned()))?;
    issued::keep_chain(config, leaf, intermediates)?;
    Holder::Thing(&thing).list(config, id, ca.id, why)?;
    Ok(Imported::Certificate {
        id,
        thing,
        ca: ca_name,
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
    let is_usable = |der: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(der).is_ok();
    if !chain.first().is_some_and(is_usable) {
        let why = "TLS here cannot verify certificates with it; make a new one with a current tool";
        return Err(unfit(why.to_owned()));
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

impl From<EditError> for ImportError {
    fn from(error: EditError) -> Self {
        Self::Lifecycle(error.into())
    }
}

#[cfg(test)]
mod tests;
