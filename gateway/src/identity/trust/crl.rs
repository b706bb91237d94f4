//! Certificate revocation lists: parsed, verified against the CAs and the intermediates under them,
//! newest first.
//!
//! A list by somebody unknown is a mistake: it may be of an intermediate whose devices get in, and
//! would revoke nothing. So is one whose signature is wrong, or that TLS here cannot use. While the
//! gateway runs, a list of a CA that was removed is a warning, since it must not keep the CA.
//! An expired list is used and warned about: forgetting revocations because nobody fetched the next
//! list would let the revoked in again. For the same reason a directory that cannot be listed, or
//! that was there and is gone, is a mistake. Absent on purpose: delta and indirect lists, and
//! fetching.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use portcullis_core::{
    certificate::{Certificate, Names},
    limits::{CONFIG_FILE_BYTES_MAX, REVOCATION_LISTS_MAX},
    problem::Problem,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use webpki::OwnedCertRevocationList;
use x509_parser::{
    prelude::{CertificateRevocationList, FromDer, X509Certificate},
    time::ASN1Time,
};

use super::{
    TrustedCa,
    issuers::{Issuers, certificates_in},
    problem,
};

/// The newest list of every CA.
#[derive(Clone, Debug, Default)]
pub(in crate::identity) struct Lists {
    pub(super) ders: Vec<CertificateRevocationListDer<'static>>,
    pub(super) revoked: Arc<Revoked>,
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
    /// Nobody known here has its issuer's name.
    #[error(
        "the revocation list is by `{0}`, which is no CA here and no known intermediate of one"
    )]
    UnknownIssuer(String),
    /// Its issuer may sign certificates alone.
    #[error("the revocation list is by `{0}`, whose certificate does not let it sign such lists")]
    NoCrlSigner(String),
    /// A CA has its issuer's name, and did not sign it.
    #[error("the revocation list says it is by `{0}`, whose signature it does not have")]
    BadSignature(String),
}

/// A list that a CA signed, or an intermediate under one.
#[derive(Debug)]
pub struct VerifiedCrl {
    /// It.
    pub der: CertificateRevocationListDer<'static>,
    /// Who signed it.
    pub issuer: String,
    /// The intermediates from there up to a CA, as far as it takes any.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whether that CA is none any more.
    is_former: bool,
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

    /// Whether it should have been replaced already.
    pub fn is_expired(&self) -> bool {
        self.next_update.is_some_and(|next| next < ASN1Time::now())
    }
}

/// What a file holds.
#[derive(Debug, Default)]
struct Content {
    lists: Vec<CertificateRevocationListDer<'static>>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Content {
    /// PEM or DER; what is neither is taken for a list, which is then no good.
    fn of(bytes: &[u8]) -> Self {
        let certificates = certificates_in(bytes);
        let pem: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
        let lists = match pem {
            Ok(lists) if !lists.is_empty() || !certificates.is_empty() => lists,
            Ok(_) if X509Certificate::from_der(bytes).is_ok() => {
                return Self {
                    certificates: vec![bytes.to_vec().into()],
                    ..Self::default()
                };
            }
            _ => vec![bytes.to_vec().into()],
        };
        Self {
            lists,
            certificates,
        }
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

/// Files as they are, of directories what ends in `.pem`, `.crl`, `.der`, `.crt` or `.cer`.
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
        if matches!(extension, Some("pem" | "crl" | "der" | "crt" | "cer")) {
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
    cas: (&[TrustedCa], &[CertificateDer<'static>]),
    chains: Vec<CertificateDer<'static>>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Lists {
    let files = find(paths, known, problems, warnings);
    let contents = contents(&files, problems);
    let (cas, former) = cas;
    let mut candidates = chains;
    let beside = contents
        .iter()
        .flat_map(|(_, content)| &content.certificates);
    candidates.extend(beside.cloned());
    let issuers = Issuers::new(cas, former, &candidates);
    let mut newest: BTreeMap<Vec<u8>, VerifiedCrl> = BTreeMap::new();
    for (file, content) in contents {
        warn_if_useless(file, &content, &issuers, warnings);
        for list in content.lists {
            let list = match verify(list, &issuers) {
                Ok(list) => list,
                Err(error) => {
                    problems.push(problem(file, error.to_string(), remedy(&error)));
                    continue;
                }
            };
            match newest.get(&list.key) {
                Some(other) if other.this_update >= list.this_update => {}
                _ => {
                    warn(file, &list, warnings);
                    newest.insert(list.key.clone(), list);
                }
            }
        }
    }
    let mut ders = Vec::new();
    let mut revoked = Revoked::default();
    for list in newest.into_values() {
        ders.push(list.der);
        revoked.0.extend(list.serials);
    }
    Lists {
        ders,
        revoked: Arc::new(revoked),
    }
}

/// The files to read, with what is said of the search for them.
fn find(
    paths: &[PathBuf],
    known: &[PathBuf],
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Vec<PathBuf> {
    let Listing {
        mut files,
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
    files.truncate(REVOCATION_LISTS_MAX);
    files
}

fn contents<'f>(files: &'f [PathBuf], problems: &mut Vec<Problem>) -> Vec<(&'f Path, Content)> {
    let mut contents = Vec::new();
    for file in files {
        match read_bounded(file) {
            Ok(bytes) => contents.push((file.as_path(), Content::of(&bytes))),
            Err(error) => {
                let remedy = "correct the path, or make it readable for the gateway's user";
                let message = format!("the file cannot be read: {error}");
                problems.push(problem(file, message, remedy));
            }
        }
    }
    contents
}

fn remedy(error: &CrlError) -> &'static str {
    match error {
        CrlError::UnknownIssuer(_) => {
            "put the certificate of this intermediate into the same file in PEM, or beside it; or name \
             its CA in `ca-certificates` or a `[[ca]]`; or remove the file"
        }
        CrlError::NoCrlSigner(_) => "let its CA sign the list, or remove the file",
        _ => "fetch it again from its CA, or remove the file",
    }
}

/// A certificate beside the lists of which none is.
fn warn_if_useless(file: &Path, content: &Content, issuers: &Issuers, warnings: &mut Vec<Problem>) {
    if content.lists.is_empty() && !content.certificates.iter().any(|der| issuers.knows(der)) {
        let message = "the file holds no revocation list, and its certificate leads to no CA here";
        let remedy = "put certificates of intermediates under your CAs here, or remove the file";
        warnings.push(problem(file, message, remedy));
    }
}

fn warn(file: &Path, list: &VerifiedCrl, warnings: &mut Vec<Problem>) {
    let issuer = &list.issuer;
    if list.is_former {
        let message = format!("the revocation list is by `{issuer}`, which is no CA here any more");
        let remedy = "remove the file: the next start would be refused";
        warnings.push(problem(file, message, remedy));
    }
    if let Some(next) = list.next_update
        && list.is_expired()
    {
        let message =
            format!("the revocation list of `{issuer}` should have been replaced at {next}");
        let remedy = "fetch the next one; until then this one stays in force";
        warnings.push(problem(file, message, remedy));
    }
}

/// Who may sign lists: `cas`, and what leads to them of `more`, of `chains` and of the certificates
/// beside the lists in `paths`.
pub(in crate::identity) fn issuers(
    paths: &[PathBuf],
    cas: &[TrustedCa],
    mut candidates: Vec<CertificateDer<'static>>,
) -> Issuers {
    let files = files(paths);
    for (_, content) in contents(&files, &mut Vec::new()) {
        candidates.extend(content.certificates);
    }
    Issuers::new(cas, &[], &candidates)
}

/// A file, if it is not absurdly large; see [`without_mark`].
pub(in crate::identity) fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > CONFIG_FILE_BYTES_MAX {
        let text = format!("it has more than {CONFIG_FILE_BYTES_MAX} bytes");
        return Err(io::Error::other(text));
    }
    fs::read(file).map(without_mark)
}

/// Without the mark of UTF-8 that some editors put in front of a text.
fn without_mark(bytes: Vec<u8>) -> Vec<u8> {
    match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    }
}

/// The lists in `bytes`, PEM or DER, each verified.
pub(in crate::identity) fn parse(
    bytes: &[u8],
    issuers: &Issuers,
) -> Vec<Result<VerifiedCrl, CrlError>> {
    let lists = Content::of(bytes).lists.into_iter();
    lists.map(|list| verify(list, issuers)).collect()
}

fn verify(
    der: CertificateRevocationListDer<'static>,
    issuers: &Issuers,
) -> Result<VerifiedCrl, CrlError> {
    let (rest, list) = CertificateRevocationList::from_der(&der).map_err(|_| CrlError::NoList)?;
    if !rest.is_empty() {
        return Err(CrlError::NoList);
    }
    OwnedCertRevocationList::from_der(&der).map_err(CrlError::Unsupported)?;
    let signer = issuers.of(&list)?;
    let fingerprint = Names::fingerprint_of(list.issuer().as_raw());
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
        issuer: list.issuer().to_string(),
        chain: signer.chain.clone(),
        is_former: signer.is_former,
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
