//! `cert approve`, `activate`, `deactivate` and `revoke`.

use portcullis_core::{
    certificate::NameAttribute,
    identity::{CertificateId, ThingName},
    registry::{RegisteredCertificate, Status},
};
use serde_json::json;

use super::{
    answer,
    which::{self, Named},
};
use crate::{
    cli::{Failure, outcome::say_error},
    identity::{Config, effective::Examiner, issued, lifecycle},
};

/// Lets the certificate that `text` means connect as `thing`.
pub(super) fn approve(
    identity: &Config,
    text: &str,
    thing: Option<&ThingName>,
    as_json: bool,
) -> Result<(), Failure> {
    let is_pending = |listed: &RegisteredCertificate| listed.status == Status::PendingActivation;
    // It belongs to no thing yet; it says whose it is to be.
    let calls_itself = |listed: &RegisteredCertificate, name: &str| {
        let says_so = || {
            let kept = issued::certificate(identity, listed.id);
            kept.is_some_and(|kept| {
                let mut names = kept.subject.get(NameAttribute::CommonName).iter();
                names.any(|common_name| common_name == name)
            })
        };
        which::of_thing(listed, name) || is_pending(listed) && says_so()
    };
    let named = Named {
        belongs: &calls_itself,
        is_meant: &is_pending,
    };
    let id = which::one(&lifecycle::read(identity)?.merged, text, &named)?;
    let thing = lifecycle::approve(identity, id, thing)?;
    let mut value = json!({
        "certificateId": id.to_string(), "thingName": thing.as_str(), "status": "ACTIVE",
    });
    let warning = warning(identity, id, &mut value)?;
    answer(&format!("Approved {id} as `{thing}`."), &value, as_json);
    warn(warning);
    Ok(())
}

/// Makes the certificate that `text` means ACTIVE or INACTIVE.
pub(super) fn set_active(
    identity: &Config,
    text: &str,
    status: Status,
    reason: Option<&str>,
    as_json: bool,
) -> Result<(), Failure> {
    let named = Named {
        belongs: &which::of_thing,
        is_meant: &|listed| listed.status != Status::Revoked && listed.status != status,
    };
    let id = which::one(&lifecycle::read(identity)?.merged, text, &named)?;
    lifecycle::set_active(identity, id, status, reason)?;
    let mut value = json!({ "certificateId": id.to_string(), "status": status.as_str() });
    let warning = warning(identity, id, &mut value)?;
    answer(&format!("{id} is {}.", status.as_str()), &value, as_json);
    if status == Status::Active {
        warn(warning);
    }
    Ok(())
}

/// Adds what a certificate comes to; what is to be said if it cannot connect.
fn warning(
    identity: &Config,
    id: CertificateId,
    value: &mut serde_json::Value,
) -> Result<Option<String>, Failure> {
    let known = lifecycle::read(identity)?;
    let Some(listed) = known.merged.certificate(&id) else {
        return Ok(None);
    };
    let examiner = Examiner::new(identity, &known.merged, &known.state);
    let effective = examiner.examine(listed).effective;
    value["effectiveStatus"] = effective.outcome.as_str().into();
    value["why"] = effective.why.clone().into();
    Ok((!effective.opens()).then(|| effective.to_string()))
}

fn warn(warning: Option<String>) {
    if let Some(effective) = warning {
        say_error(&format!("warning: it still cannot connect: {effective}"));
    }
}

/// Revokes the certificate that `text` means, or all of the thing of that name.
pub(super) fn revoke(
    identity: &Config,
    text: &str,
    reason: Option<&str>,
    as_json: bool,
) -> Result<(), Failure> {
    let which = meant(identity, text)?;
    let ids = lifecycle::revoke(identity, &which, reason)?;
    let known = lifecycle::read(identity)?.merged;
    let shared = |id| {
        let known = known.certificate(id).map(|known| known.things.as_slice());
        let things: Vec<_> = known
            .unwrap_or_default()
            .iter()
            .map(ThingName::as_str)
            .collect();
        match things.len() {
            0 | 1 => format!("Revoked {id}."),
            _ => format!(
                "Revoked {id}, which was that of {} alike.",
                things.join(", ")
            ),
        }
    };
    let text: Vec<_> = ids.iter().map(shared).collect();
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    answer(&text.join("\n"), &json!({ "revoked": ids }), as_json);
    Ok(())
}

/// An id or the name of a thing. What is neither stays as it is: it may stand where a mistake keeps
/// it from being read.
fn meant(identity: &Config, text: &str) -> Result<String, Failure> {
    let known = lifecycle::read(identity)?.merged;
    let certificates = &known.certificates;
    let is_name =
        known.thing(text).is_some() || certificates.iter().any(|c| c.is_attached_to(text));
    if is_name || CertificateId::parse(text).is_some() {
        return Ok(text.to_owned());
    }
    let id = match which::in_file(text)? {
        Some(id) => Some(id),
        None => which::beginning(&known, text)?,
    };
    Ok(id.map_or_else(|| text.to_owned(), |id| id.to_string()))
}
