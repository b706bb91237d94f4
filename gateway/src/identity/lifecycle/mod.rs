//! What people decide about certificates: approve, activate, deactivate, revoke, let end.
//!
//! A certificate stands in `registry.toml`, in the journal, or in both, and the stricter state holds;
//! so what takes access away goes to wherever it stands, and what gives it back to wherever it was
//! taken.

use std::path::Path;

use portcullis_core::{
    certificate::NameAttribute,
    identity::{CertificateId, ThingName},
    problem::Problem,
    registry::{Change, Origin, StateCertificate, Status},
    timestamp::Timestamp,
};

use super::{
    Config, Journal, JournalError, Registry,
    edit::{self, EditError},
    issued,
};
use crate::{clock::now, document::read_text};

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The registry refused.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// There is no such certificate.
    #[error(
        "neither registry nor journal has the certificate `{0}`; `portcullis cert list` says what they have"
    )]
    Absent(String),
    /// It does not wait for approval.
    #[error("the certificate `{id}` is {}, it does not wait for approval; {remedy}", .status.as_str())]
    NotPending {
        /// It.
        id: CertificateId,
        /// What it is.
        status: Status,
        /// What to do instead.
        remedy: &'static str,
    },
    /// It waits for approval, so it cannot be activated.
    #[error(
        "the certificate `{0}` waits for approval and belongs to no thing yet; use `portcullis cert approve`"
    )]
    Pending(CertificateId),
    /// A revoked certificate stays revoked.
    #[error(
        "the certificate `{0}` is revoked for good; issue another one with `portcullis cert issue`"
    )]
    Revoked(CertificateId),
    /// Nobody knows which thing it is to be.
    #[error(
        "the certificate `{0}` names no thing that exists; add it with `portcullis thing add`, or say `--thing NAME`"
    )]
    NoThing(CertificateId),
}

/// Registry and journal, as commands see them.
#[derive(Debug)]
pub struct Known {
    /// Of `registry.toml` alone.
    pub file: Registry,
    /// With the journal.
    pub merged: Registry,
    /// The journal.
    pub state: super::registry::State,
    /// Mistakes of `registry.toml`: it may list more than is known.
    pub mistakes: Vec<Problem>,
}

/// Reads both; mistakes of the registry that do not concern the question are for `check` to tell.
pub fn read(config: &Config) -> Result<Known, LifecycleError> {
    let text = read_text(&config.registry).map_err(|problem| EditError::Mistakes(vec![problem]))?;
    let (file, mistakes) = Registry::parse(&config.registry, &text, None);
    let state = Journal::open(&config.journal).read()?;
    let (merged, _) = state.merge_into(&file, None);
    Ok(Known {
        file,
        merged,
        state,
        mistakes,
    })
}

/// Makes a certificate that waits for approval one of `thing`, or else of the thing named like its
/// common name. Returns the thing.
pub fn approve(
    config: &Config,
    id: CertificateId,
    thing: Option<&ThingName>,
) -> Result<ThingName, LifecycleError> {
    let known = read(config)?;
    let common_name = issued::certificate(config, id).and_then(|certificate| {
        let names = certificate.subject.get(NameAttribute::CommonName);
        names.first().and_then(|name| ThingName::parse(name).ok())
    });
    let thing = thing.cloned().or(common_name);
    let thing = thing.filter(|name| known.merged.thing(name.as_str()).is_some());
    let thing = thing.ok_or(LifecycleError::NoThing(id));
    let in_file = known.file.certificate(&id).map(|found| found.status);
    Journal::open(&config.journal).append_if(|state| {
        let entry = state.certificate(&id);
        let status = match (entry, in_file) {
            (Some(entry), Some(status)) => entry.status.max(status),
            (Some(entry), None) => entry.status,
            (None, Some(status)) => status,
            (None, None) => return Err(LifecycleError::Absent(id.to_string())),
        };
        let (Some(entry), Status::PendingActivation, None) = (entry, status, in_file) else {
            let remedy = "`portcullis cert activate` lets it connect";
            return Err(LifecycleError::NotPending { id, status, remedy });
        };
        let thing = thing?;
        let approved = StateCertificate {
            status: Status::Active,
            things: vec![thing.clone()],
            at: now(),
            why: format!("approved; {}", entry.why),
            ..entry.clone()
        };
        Ok((thing, vec![Change::Certificate(approved)]))
    })
}

/// Makes a certificate ACTIVE or INACTIVE.
pub fn set_active(
    config: &Config,
    id: CertificateId,
    status: Status,
    reason: Option<&str>,
) -> Result<(), LifecycleError> {
    let known = read(config)?;
    let in_file = known.file.certificate(&id);
    let in_state = known.state.certificate(&id);
    let states = in_file
        .map(|found| found.status)
        .into_iter()
        .chain(in_state.map(|found| found.status));
    match states.max() {
        // It may stand where nothing can be made out; the journal takes access away all the same.
        None if status == Status::Inactive && !known.mistakes.is_empty() => {
            return shut(config, &[id], status, reason.unwrap_or("by command"));
        }
        None => return Err(LifecycleError::Absent(id.to_string())),
        Some(Status::Revoked) => return Err(LifecycleError::Revoked(id)),
        Some(Status::PendingActivation) if status == Status::Active && in_file.is_none() => {
            let is_attached = in_state.is_some_and(|found| !found.things.is_empty());
            if !is_attached {
                return Err(LifecycleError::Pending(id));
            }
        }
        Some(_) => {}
    }
    if in_state.is_some() {
        record(config, &[id], status, reason.unwrap_or("by command"))?;
    }
    if in_file.is_some() {
        match edit::set_status(&config.registry, id, status, reason) {
            Err(EditError::Mistakes(_)) if status == Status::Inactive => {
                return shut(config, &[id], status, reason.unwrap_or("by command"));
            }
            Err(EditError::Revoked(id)) => return Err(LifecycleError::Revoked(id)),
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Revokes the certificate whose id is `which`, or all of the thing of that name. Returns their ids.
pub fn revoke(
    config: &Config,
    which: &str,
    reason: Option<&str>,
) -> Result<Vec<CertificateId>, LifecycleError> {
    let wanted = CertificateId::parse(which);
    let why = reason.unwrap_or("revoked by command");
    // The journal first: it takes changes even if the registry has a mistake.
    let mut ids = Journal::open(&config.journal).append_if(|state| {
        let matching = state.certificates().filter(|known| match wanted {
            Some(id) => known.id == id,
            None => {
                let is_of_thing = known.things.iter().any(|thing| thing.as_str() == which);
                is_of_thing && known.status != Status::Revoked
            }
        });
        let revoked: Vec<StateCertificate> = matching
            .map(|known| StateCertificate {
                status: Status::Revoked,
                at: now(),
                why: why.to_owned(),
                ..known.clone()
            })
            .collect();
        let ids: Vec<CertificateId> = revoked.iter().map(|known| known.id).collect();
        let changes = revoked.into_iter().map(Change::Certificate).collect();
        Ok::<_, LifecycleError>((ids, changes))
    })?;
    match edit::revoke(&config.registry, which, reason) {
        Ok(more) => ids.extend(
            more.into_iter()
                .filter(|id| !ids.contains(id))
                .collect::<Vec<_>>(),
        ),
        Err(EditError::Absent(_)) if !ids.is_empty() => {}
        Err(EditError::Mistakes(problems)) => {
            let more = match wanted {
                Some(id) => vec![id],
                None => {
                    let listed = read(config)?.file.certificates.into_iter();
                    listed
                        .filter(|known| known.is_attached_to(which))
                        .map(|known| known.id)
                        .collect()
                }
            };
            if more.is_empty() {
                // Which ones the file lists is not known: better say so than half of it.
                return Err(EditError::Mistakes(problems).into());
            }
            shut(config, &more, Status::Revoked, why)?;
            ids.extend(
                more.into_iter()
                    .filter(|id| !ids.contains(id))
                    .collect::<Vec<_>>(),
            );
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ids)
}

/// Lets every active certificate of `thing` but `except` end at `until`. Returns their ids.
pub fn retire(
    config: &Config,
    thing: &ThingName,
    except: CertificateId,
    until: Timestamp,
) -> Result<Vec<CertificateId>, LifecycleError> {
    let known = read(config)?;
    let retiring = known.merged.certificates.iter().filter(|known| {
        known.id != except
            && known.status == Status::Active
            && known.is_attached_to(thing.as_str())
            && known.until.is_none_or(|earlier| earlier > until)
    });
    let (in_file, at_run_time): (Vec<_>, Vec<_>) =
        retiring.partition(|known| known.origin == Origin::File);
    let ids = |of: &[&super::registry::RegisteredCertificate]| -> Vec<CertificateId> {
        of.iter().map(|known| known.id).collect()
    };
    let (in_file, at_run_time) = (ids(&in_file), ids(&at_run_time));
    if !at_run_time.is_empty() {
        Journal::open(&config.journal).append_if(|state| {
            let ending = at_run_time.iter().filter_map(|id| state.certificate(id));
            let changes = ending.map(|known| {
                Change::Certificate(StateCertificate {
                    until: Some(until),
                    at: now(),
                    why: format!("renewed; {}", known.why),
                    ..known.clone()
                })
            });
            Ok::<_, LifecycleError>(((), changes.collect()))
        })?;
    }
    if !in_file.is_empty() {
        edit::set_until(&config.registry, &in_file, until)?;
    }
    Ok(in_file.into_iter().chain(at_run_time).collect())
}

/// Lists a certificate as an active one of `thing`: beside the thing, in registry or journal.
pub(super) fn attach(
    config: &Config,
    id: CertificateId,
    thing: &ThingName,
    ca: Option<CertificateId>,
    why: &str,
) -> Result<(), LifecycleError> {
    let known = read(config)?;
    let is_at_run_time =
        known.file.thing(thing.as_str()).is_none() && known.state.thing(thing.as_str()).is_some();
    if !is_at_run_time {
        return Ok(edit::add_certificate(&config.registry, id, thing)?);
    }
    let mut certificate = StateCertificate::new(id, Status::Active, now(), why);
    certificate.things = vec![thing.clone()];
    certificate.ca = ca;
    let changes = [Change::Certificate(certificate)];
    Ok(Journal::open(&config.journal).append(&changes)?)
}

/// Makes certificates less active in the journal, whether it knows them or not: that is enough, and it
/// takes changes when `registry.toml`, which has mistakes, does not.
fn shut(
    config: &Config,
    ids: &[CertificateId],
    status: Status,
    why: &str,
) -> Result<(), LifecycleError> {
    Journal::open(&config.journal).append_if(|state| {
        let shut = ids.iter().map(|id| match state.certificate(id) {
            Some(known) => StateCertificate {
                status: status.max(known.status),
                at: now(),
                why: why.to_owned(),
                ..known.clone()
            },
            None => StateCertificate::new(*id, status, now(), why),
        });
        Ok(((), shut.map(Change::Certificate).collect()))
    })
}

fn record(
    config: &Config,
    ids: &[CertificateId],
    status: Status,
    why: &str,
) -> Result<(), LifecycleError> {
    Journal::open(&config.journal).append_if(|state| {
        let known: Vec<_> = ids.iter().filter_map(|id| state.certificate(id)).collect();
        // Somebody may have revoked it since it was looked at.
        let revoked = known.iter().find(|known| known.status == Status::Revoked);
        if let Some(revoked) = revoked {
            return Err(LifecycleError::Revoked(revoked.id));
        }
        let changes = known.into_iter().map(|known| {
            Change::Certificate(StateCertificate {
                status,
                at: now(),
                why: why.to_owned(),
                ..known.clone()
            })
        });
        Ok(((), changes.collect()))
    })
}

/// Whether two paths are the same file.
pub(super) fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;
