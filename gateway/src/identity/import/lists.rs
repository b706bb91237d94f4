//! Takes over revocation lists: all that a file holds, or none of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use x509_parser::time::ASN1Time;

use super::{ImportError, Imported};
use crate::identity::{
    Config, CrlError, VerifiedCrl,
    authority::{pem, pem_of},
    files::{self, WriteError},
    lifecycle,
    trust::{self, certificates_in},
};

/// A revocation list that was taken over.
#[derive(Debug)]
pub struct ImportedList {
    /// Who signed it.
    pub issuer: String,
    /// How many certificates it lists.
    pub entries: usize,
    /// When the next one is due.
    pub next_update: Option<String>,
    /// Whether that is over.
    pub is_expired: bool,
    /// Where it is.
    pub file: PathBuf,
}

/// The newest list of each CA in `bytes`, the content of `file`; certificates of intermediates may be
/// among it.
pub(super) fn check(
    config: &Config,
    file: &Path,
    bytes: &[u8],
) -> Result<Vec<VerifiedCrl>, ImportError> {
    let known = lifecycle::read(config)?;
    let cas = trust::authorities(config, &known.file.cas);
    let mut candidates = trust::chains(config, &known.file.cas);
    candidates.extend(certificates_in(bytes));
    let issuers = trust::crl_issuers(&config.crls, &cas, candidates);
    let mut newest: Vec<VerifiedCrl> = Vec::new();
    for list in trust::parse_crls(bytes, &issuers) {
        let list = list.map_err(|error| match error {
            CrlError::NoList => ImportError::Nothing(file.to_owned()),
            source => ImportError::Crl {
                path: file.to_owned(),
                source,
            },
        })?;
        match newest.iter_mut().find(|other| other.key() == list.key()) {
            Some(other) if other.this_update < list.this_update => *other = list,
            Some(_) => {}
            None => newest.push(list),
        }
    }
    for other in trust::crl_files(&config.crls) {
        let Ok(bytes) = trust::read_bounded(&other) else {
            continue;
        };
        for in_force in trust::parse_crls(&bytes, &issuers).into_iter().flatten() {
            let is_newer = |list: &&VerifiedCrl| {
                in_force.key() == list.key() && in_force.this_update > list.this_update
            };
            if let Some(old) = newest.iter().find(is_newer) {
                return Err(ImportError::OldCrl {
                    path: file.to_owned(),
                    issuer: old.issuer.clone(),
                });
            }
        }
    }
    Ok(newest)
}

/// Puts the lists where they are watched.
pub(super) fn write(config: &Config, lists: Vec<VerifiedCrl>) -> Result<Imported, ImportError> {
    let dir = directory(config)?;
    let written = lists.into_iter().map(|list| write_one(dir, list));
    Ok(Imported::Lists(written.collect::<Result<_, _>>()?))
}

/// The directory that is watched; it need not be there yet.
fn directory(config: &Config) -> Result<&PathBuf, ImportError> {
    let is_directory = |path: &&PathBuf| path.is_dir() || path.extension().is_none();
    let dir = config.crls.iter().find(is_directory);
    let dir = dir.ok_or(ImportError::NoCrlDirectory)?;
    fs::create_dir_all(dir).map_err(|source| WriteError {
        path: dir.clone(),
        source,
    })?;
    Ok(dir)
}

/// In DER; in PEM if certificates of intermediates are to stand beside it.
fn write_one(dir: &Path, list: VerifiedCrl) -> Result<ImportedList, ImportError> {
    let digest = Sha256::digest(list.key());
    let short: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let file = dir.join(format!("{short}.crl"));
    if list.chain.is_empty() {
        files::write(&file, &list.der)?;
    } else {
        let chain: String = list.chain.iter().map(pem_of).collect();
        files::write(&file, (pem("X509 CRL", &list.der) + &chain).as_bytes())?;
    }
    Ok(ImportedList {
        is_expired: list.is_expired(),
        entries: list.entries,
        next_update: list.next_update.map(|time: ASN1Time| time.to_string()),
        issuer: list.issuer,
        file,
    })
}
