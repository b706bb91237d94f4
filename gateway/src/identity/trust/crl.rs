//! Certificate revocation lists: parsed, verified against the CAs, newest first.
//!
//! A list that nobody here signed has no effect, and is a warning: with the CA gone, its
//! certificates are refused anyway. A list whose signature is wrong, or that TLS here cannot use, is
//! a mistake. An expired list is used and warned about: forgetting revocations because nobody
//! fetched the next list would let the revoked in again. For the same reason a directory that cannot
//! be listed, or that was there and is gone, is a mistake. Absent on purpose: delta and indirect
//! lists, and fetching.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use portcullis_core::{
    certificate::{Certificate, Names},
    limits::{CONFIG_FILE_BYTES_MAX, REVOCATION_LISTS_MAX},
    problem::Problem,
};
use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
use webpki::OwnedCertRevocationList;
use x509_parser::{
    prelude::{CertificateRevocationList, FromDer},
    time::ASN1Time,
};

use super::{TrustedCa, problem};

/// The newest list of every CA.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) ders: Vec<CertificateRevocationListDer<'static>>,
    pub(super) revoked: Revoked,
}

/// Issuer and serial number of a certificate.
pub(super) type Serial = ([u8; 32], Vec<u8>);

/// Revoked certificates.
#[derive(Debug, Default)]
pub(super) struct Revoked(HashSet<Serial>);

impl Revoked {
    pub(super) fn contains(&self, certificate: &Certificate) -> bool {
        // CAs with the same name share their lists here: refusing too much is the safe side.
        !self.0.is_empty() && serial(certificate).is_some_and(|serial| self.0.contains(&serial))
    }

    /// All of both; `None` if `other` has nothing new.
    pub(super) fn union(&self, other: &Self) -> Option<Self> {
        if other.0.is_subset(&self.0) {
            return None;
        }
        Some(Self(self.0.union(&other.0).cloned().collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Why a list is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// Not a list at all.
    #[error("it holds no certificate revocation list in PEM or DER")]
    NoList,
    /// TLS here cannot use it.
    #[error("the revocation list is of a kind that is not supported here: {0:?}")]
    Unsupported(webpki::Error),
    /// No CA here has its issuer's name.
    #[error("the revocation list is by `{0}`, which is no CA here")]
    UnknownIssuer(String),
    /// A CA has its issuer's name, and did not sign it.
    #[error("the revocation list says it is by `{0}`, whose signature it does not have")]
    BadSignature(String),
}

/// A list that one of the CAs signed.
#[derive(Debug)]
pub struct VerifiedCrl {
    /// It.
    pub der: CertificateRevocationListDer<'static>,
    /// The CA.
    pub issuer: String,
    /// When it was made.
    pub this_update: ASN1Time,
    /// When the next one is due.
    pub next_update: Option<ASN1Time>,
    /// How many certificates it lists.
    pub entries: usize,
    key: Vec<u8>,
    serials: Vec<([u8; 32], Vec<u8>)>,
}

impl VerifiedCrl {
    /// Lists with the same key replace each other: of one CA, for the same distribution point.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The files that the settings name, as far as they can be found; see [`listing`].
pub(in crate::identity) fn files(paths: &[PathBuf]) -> Vec<PathBuf> {
    listing(paths).files
}

/// What the settings name.
#[derive(Debug, Default)]
struct Listing {
    files: Vec<PathBuf>,
    /// Directories that are not there.
    absent: Vec<PathBuf>,
    /// What cannot be looked into.
    failed: Vec<(PathBuf, io::Error)>,
}

/// Files as they are, of directories what ends in `.pem`, `.crl` or `.der`.
fn listing(paths: &[PathBuf]) -> Listing {
    let mut listing = Listing::default();
    for path in paths {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => match list(path) {
                Ok(mut inside) => listing.files.append(&mut inside),
                Err(error) => listing.failed.push((path.clone(), error)),
            },
            Ok(_) => listing.files.push(path.clone()),
            // A file that is not there is told when it is read.
            Err(_) if path.extension().is_some() => listing.files.push(path.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                listing.absent.push(path.clone());
            }
            Err(error) => listing.failed.push((path.clone(), error)),
        }
    }
    listing
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut inside = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|e| e.to_str());
        if matches!(extension, Some("pem" | "crl" | "der")) {
            inside.push(path);
        }
    }
    inside.sort();
    Ok(inside)
}

/// Those of `paths` that are directories now: a reload that misses one is refused.
pub(in crate::identity) fn directories(paths: &[PathBuf]) -> Vec<PathBuf> {
    let found = paths.iter().filter(|path| path.is_dir());
    found.cloned().collect()
}

/// Reads all lists; what is wrong with them goes to `problems` and `warnings`. That a directory is
/// not there is a mistake if it is among the `known`, which were there before.
pub(super) fn read(
    (paths, known): (&[PathBuf], &[PathBuf]),
    cas: &[TrustedCa],
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Lists {
    let Listing {
        files,
        absent,
        failed,
    } = listing(paths);
    for (path, error) in failed {
        let message = format!("the revocation lists cannot be looked for: {error}");
        let remedy = "make it readable for the gateway's user";
        problems.push(problem(&path, message, remedy));
    }
    for path in absent {
        let message = "the directory of revocation lists is not there";
        if known.contains(&path) {
            let remedy = "bring it back: without it, the revoked would get in again";
            problems.push(problem(&path, message, remedy));
        } else {
            warnings.push(problem(&path, message, "create it, even if it stays empty"));
        }
    }
    if let Some(file) = files.get(REVOCATION_LISTS_MAX) {
        problems.push(problem(
            file,
            format!("there are {} files with revocation lists", files.len()),
            &format!("keep at most {REVOCATION_LISTS_MAX}: the newest of each CA"),
        ));
    }
    let mut newest: BTreeMap<Vec<u8>, VerifiedCrl> = BTreeMap::new();
    for file in files.iter().take(REVOCATION_LISTS_MAX) {
        let bytes = match read_bounded(file) {
            Ok(bytes) => bytes,
            Err(error) => {
                let remedy = "correct the path, or make it readable for the gateway's user";
                let message = format!("the file cannot be read: {error}");
                problems.push(problem(file, message, remedy));
                continue;
            }
        };
        for list in parse(&bytes, cas) {
            let list = match list {
                Ok(list) => list,
                Err(error @ CrlError::UnknownIssuer(_)) => {
                    let remedy = "name its CA in `ca-certificates`, or remove the file";
                    warnings.push(problem(file, error.to_string(), remedy));
                    continue;
                }
                Err(error) => {
                    let remedy = "fetch it again from its CA, or remove the file";
                    problems.push(problem(file, error.to_string(), remedy));
                    continue;
                }
            };
            match newest.get(&list.key) {
                Some(other) if other.this_update >= list.this_update => {}
                _ => {
                    warn_if_expired(file, &list, warnings);
                    newest.insert(list.key.clone(), list);
                }
            }
        }
    }
    let mut lists = Lists::default();
    for list in newest.into_values() {
        lists.ders.push(list.der);
        lists.revoked.0.extend(list.serials);
    }
    lists
}

fn warn_if_expired(file: &Path, list: &VerifiedCrl, warnings: &mut Vec<Problem>) {
    if let Some(next) = list.next_update
        && next < ASN1Time::now()
    {
        let message = format!(
            "the revocation list of `{}` should have been replaced at {next}",
            list.issuer
        );
        let remedy = "fetch the next one; until then this one stays in force";
        warnings.push(problem(file, message, remedy));
    }
}

/// A file, if it is not absurdly large.
pub(in crate::identity) fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > CONFIG_FILE_BYTES_MAX {
        let text = format!("it has more than {CONFIG_FILE_BYTES_MAX} bytes");
        return Err(io::Error::other(text));
    }
    fs::read(file)
}

/// The lists in `bytes`, PEM or DER, each verified.
pub(in crate::identity) fn parse(
    bytes: &[u8],
    cas: &[TrustedCa],
) -> Vec<Result<VerifiedCrl, CrlError>> {
    let pem: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    match pem {
        Ok(lists) if !lists.is_empty() => lists.into_iter().map(|list| verify(list, cas)).collect(),
        _ => vec![verify(bytes.to_vec().into(), cas)],
    }
}

fn verify(
    der: CertificateRevocationListDer<'static>,
    cas: &[TrustedCa],
) -> Result<VerifiedCrl, CrlError> {
    let (rest, list) = CertificateRevocationList::from_der(&der).map_err(|_| CrlError::NoList)?;
    if !rest.is_empty() {
        return Err(CrlError::NoList);
    }
    OwnedCertRevocationList::from_der(&der).map_err(CrlError::Unsupported)?;
    let issuer = list.issuer().to_string();
    let name = list.issuer().as_raw();
    let mut named = cas
        .iter()
        .filter(|ca| ca.subject_der() == Some(name))
        .peekable();
    if named.peek().is_none() {
        return Err(CrlError::UnknownIssuer(issuer));
    }
    let signer = named
        .find(|ca| ca.with_key(|key| list.verify_signature(key).is_ok()) == Some(true))
        .ok_or_else(|| CrlError::BadSignature(issuer.clone()))?;
    let fingerprint = Names::fingerprint_of(name);
    let revoked = list.iter_revoked_certificates();
    let serials: Vec<_> = revoked
        .map(|entry| (fingerprint, canonical(entry.raw_serial())))
        .collect();
    // Lists of one CA for different distribution points stand side by side.
    let mut key = signer.id.to_string().into_bytes();
    let scope = list
        .extensions()
        .iter()
        .find(|extension| extension.oid == ISSUING_DISTRIBUTION_POINT);
    key.extend(scope.map_or(&[][..], |extension| extension.value));
    Ok(VerifiedCrl {
        issuer,
        this_update: list.last_update(),
        next_update: list.next_update(),
        entries: serials.len(),
        key,
        serials,
        der: der.clone(),
    })
}

const ISSUING_DISTRIBUTION_POINT: x509_parser::der_parser::oid::Oid<'static> =
    x509_parser::der_parser::oid!(2.5.29.28);

/// How lists name a certificate; `None` if it was never seen.
pub(super) fn serial(certificate: &Certificate) -> Option<Serial> {
    let issuer = certificate.issuer.fingerprint()?;
    Some((issuer, serial_of_hex(&certificate.serial_hex)))
}

/// What the lists of `paths` name, and in which file, for people: nothing is verified.
pub(super) fn entries(paths: &[PathBuf]) -> HashMap<Serial, PathBuf> {
    let mut entries = HashMap::new();
    for file in files(paths).iter().take(REVOCATION_LISTS_MAX) {
        let Ok(bytes) = read_bounded(file) else {
            continue;
        };
        let pem: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let ders = match pem {
            Ok(lists) if !lists.is_empty() => lists,
            _ => vec![bytes.into()],
        };
        for der in &ders {
            let Ok((_, list)) = CertificateRevocationList::from_der(der) else {
                continue;
            };
            let issuer = Names::fingerprint_of(list.issuer().as_raw());
            for entry in list.iter_revoked_certificates() {
                let serial = (issuer, canonical(entry.raw_serial()));
                entries.entry(serial).or_insert_with(|| file.clone());
            }
        }
    }
    entries
}

/// Without leading zeros, which some write and some do not.
fn canonical(serial: &[u8]) -> Vec<u8> {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default().to_vec()
}

fn serial_of_hex(hex: &str) -> Vec<u8> {
    let bytes: Vec<u8> = hex
        .as_bytes()
        .chunks_exact(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    canonical(&bytes)
}
