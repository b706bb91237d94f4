//! Which certificate is meant: its id, the beginning of it, a thing that has one, or a file with it.

use std::path::Path;

use portcullis_core::{
    identity::{CertificateId, ThingName},
    registry::{RegisteredCertificate, Registry},
};

use crate::{cli::Failure, identity::issued::Kept};

/// Fewer digits are a slip rather than an id.
const DIGITS_MIN: usize = 4;

/// Certificates that are looked for by a name.
pub(in crate::cli) struct Named<'n> {
    /// Whether a certificate goes by the name.
    pub(in crate::cli) belongs: &'n dyn Fn(&RegisteredCertificate, &str) -> bool,
    /// Of several: whether this one can be meant.
    pub(in crate::cli) is_meant: &'n dyn Fn(&RegisteredCertificate) -> bool,
}

/// The things that it belongs to are its names.
pub(in crate::cli) fn of_thing(certificate: &RegisteredCertificate, name: &str) -> bool {
    certificate.is_attached_to(name)
}

/// The certificate that `text` means. A thing comes before the beginning of an id: more digits say
/// the id.
pub(in crate::cli) fn one(
    registry: &Registry,
    text: &str,
    named: &Named<'_>,
) -> Result<CertificateId, Failure> {
    if let Some(id) = CertificateId::parse(text) {
        return Ok(id);
    }
    let certificates = registry.certificates.iter();
    let its: Vec<_> = certificates
        .filter(|certificate| (named.belongs)(certificate, text))
        .collect();
    if !its.is_empty() {
        return of_several(text, &its, named.is_meant);
    }
    if registry.thing(text).is_some() {
        let text = format!("the thing `{text}` has no such certificate");
        return Err(Failure::BadInput(text));
    }
    match in_file(text)? {
        Some(id) => Ok(id),
        None => beginning(registry, text)?.ok_or_else(|| unknown(text)),
    }
}

/// The certificate in the file `text`, if there is such a file.
pub(in crate::cli) fn in_file(text: &str) -> Result<Option<CertificateId>, Failure> {
    let file = Path::new(text);
    if !file.is_file() {
        return Ok(None);
    }
    match Kept::read(file) {
        Some(kept) => Ok(Some(kept.certificate.id)),
        None => Err(Failure::BadInput(format!(
            "`{text}` holds no certificate in PEM or DER"
        ))),
    }
}

/// The one certificate whose id begins like this.
pub(in crate::cli) fn beginning(
    registry: &Registry,
    text: &str,
) -> Result<Option<CertificateId>, Failure> {
    if !begins_an_id(text) {
        return Ok(None);
    }
    let ids = registry
        .certificates
        .iter()
        .map(|certificate| certificate.id);
    let mut found: Vec<CertificateId> = ids.filter(|id| begins(*id, text)).collect();
    found.dedup();
    match found[..] {
        [] => Ok(None),
        [id] => Ok(Some(id)),
        _ => Err(Failure::BadInput(format!(
            "{} certificates begin with `{text}`; write more of its digits",
            found.len()
        ))),
    }
}

/// Whether the text may be the beginning of an id.
pub(in crate::cli) fn begins_an_id(text: &str) -> bool {
    text.len() >= DIGITS_MIN && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether the id begins like this.
pub(in crate::cli) fn begins(id: CertificateId, text: &str) -> bool {
    id.to_string().starts_with(&text.to_ascii_lowercase())
}

fn of_several(
    name: &str,
    its: &[&RegisteredCertificate],
    is_meant: &dyn Fn(&RegisteredCertificate) -> bool,
) -> Result<CertificateId, Failure> {
    let meant: Vec<_> = its.iter().copied().filter(|its| is_meant(its)).collect();
    let among = if meant.is_empty() { its } else { &meant };
    if let [one] = among {
        return Ok(one.id);
    }
    let ids: Vec<String> = among
        .iter()
        .map(|one| format!("{} ({})", one.id, one.status.as_str()))
        .collect();
    Err(Failure::BadInput(format!(
        "`{name}` has {} certificates; say which one: {}",
        among.len(),
        ids.join(", ")
    )))
}

fn unknown(text: &str) -> Failure {
    let is_name = ThingName::parse(text).is_ok();
    let as_thing = if is_name { ", no thing with one" } else { "" };
    Failure::BadInput(format!(
        "`{text}` is no certificate id{as_thing} and no file; write {DIGITS_MIN} or more of the digits \
         that `portcullis cert list` shows"
    ))
}
