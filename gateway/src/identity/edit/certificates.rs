//! Edits of `[[certificate]]` and `[[ca]]`.

use std::path::Path;

use portcullis_core::{identity::CertificateId, registry::Status, timestamp::Timestamp};

use super::{EditError, append, edit, quoted, set};
use crate::identity::Claim;

/// Sets the status of a certificate that stands in the registry, and why.
pub fn set_status(
    registry: &Path,
    id: CertificateId,
    status: Status,
    reason: Option<&str>,
) -> Result<(), EditError> {
    edit(registry, |current, text| {
        let Some(known) = current.certificate(&id) else {
            return Err(EditError::Absent(format!("certificate `{id}`")));
        };
        if known.status == Status::Revoked && status != Status::Revoked {
            return Err(EditError::Revoked(id));
        }
        set(text, &id.to_string(), "status", &quoted(status.as_str()));
        if let Some(reason) = reason {
            set(text, &id.to_string(), "reason", &quoted(reason));
        }
        Ok(())
    })
}

/// Lets certificates end at `until`, unless they end before.
pub fn set_until(
    registry: &Path,
    ids: &[CertificateId],
    until: Timestamp,
) -> Result<(), EditError> {
    edit(registry, |current, text| {
        for id in ids {
            let Some(known) = current.certificate(id) else {
                continue;
            };
            if known.until.is_none_or(|earlier| earlier > until) {
                set(text, &id.to_string(), "until", &quoted(&until.to_string()));
            }
        }
        Ok(())
    })
}

/// Adds a CA; `certificate` is relative to the registry. Whether it stands there already is for the
/// caller to say.
pub fn add_ca(registry: &Path, certificate: &str) -> Result<(), EditError> {
    edit(registry, |_, text| {
        let block = format!(
            "[[ca]]\ncertificate = {}\nstatus = \"ACTIVE\"\nauto-registration = \"DISABLE\"\n",
            quoted(certificate)
        );
        append(text, &block);
        Ok(())
    })
}

/// Adds a claim certificate. Whether it stands there already is for the caller to say.
pub fn add_claim(registry: &Path, id: CertificateId, claim: &Claim<'_>) -> Result<(), EditError> {
    edit(registry, |_, text| {
        let policies: Vec<_> = claim.policies.iter().map(|name| quoted(name)).collect();
        let block = format!(
            "[[certificate]]\nid = \"{id}\"\nclaim = {}\npolicies = [{}]\nstatus = \"ACTIVE\"\n",
            quoted(claim.template),
            policies.join(", ")
        );
        append(text, &block);
        Ok(())
    })
}
