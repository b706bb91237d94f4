//! What commands decide while the gateway runs or not: in the journal, and where it must be in
//! `registry.toml`.

use std::path::Path;

use portcullis_core::{
    identity::{CertificateId, GroupName, ThingName},
    registry::{Change, Membership, QUARANTINE, State, StateCertificate, Status},
    timestamp::Timestamp,
};

use super::{
    Journal, Registry,
    edit::{self, EditError, NewThing},
};
use crate::document::read_text;

/// `registry.toml` with what changed at run time.
///
/// # Errors
/// Mistakes of the file, or a journal that cannot be read.
pub fn in_force(registry: &Path, journal: &Journal) -> Result<Registry, EditError> {
    let state = journal.read()?;
    Ok(state.merge_into(&file(registry)?, None).0)
}

fn file(registry: &Path) -> Result<Registry, EditError> {
    let text = read_text(registry).map_err(|problem| EditError::Mistakes(vec![problem]))?;
    match Registry::parse(registry, &text, None) {
        (registry, problems) if problems.is_empty() => Ok(registry),
        (_, problems) => Err(EditError::Mistakes(problems)),
    }
}

/// Puts a thing into quarantine, at once. While `registry.toml` has mistakes, who is in it is not
/// known: then any name will do.
///
/// # Errors
/// There is no such thing.
pub fn quarantine(
    registry: &Path,
    journal: &Journal,
    thing: &ThingName,
    why: &str,
    now: Timestamp,
) -> Result<(), EditError> {
    let file = match file(registry) {
        Ok(file) => Some(file),
        Err(EditError::Mistakes(_)) => None,
        Err(error) => return Err(error),
    };
    journal.append_if(|state| {
        if let Some(file) = &file {
            must_exist(file, state, thing)?;
        }
        let change = Change::Member {
            thing: thing.clone(),
            group: quarantine_group(),
            why: why.to_owned(),
            at: now,
        };
        Ok(((), vec![change]))
    })
}

/// Takes a thing out of the quarantine that it was put into at run time.
///
/// # Errors
/// It was not.
pub fn release(journal: &Journal, thing: &ThingName, now: Timestamp) -> Result<(), EditError> {
    journal.append_if(|state| {
        let mut memberships = state.memberships(thing.as_str()).iter();
        if !memberships.any(|membership| membership.group.as_str() == QUARANTINE) {
            let text = format!("thing `{thing}` that was put into quarantine at run time");
            return Err(EditError::Absent(text));
        }
        let change = Change::NotMember {
            thing: thing.clone(),
            group: quarantine_group(),
            at: now,
        };
        Ok(((), vec![change]))
    })
}

/// What came of adding a thing.
#[derive(Debug)]
pub struct Added {
    /// The groups that were made for it.
    pub made: Vec<GroupName>,
    /// Why it is in quarantine, if one of its name was.
    pub quarantined: Option<Membership>,
}

/// Adds a thing to `registry.toml`. Quarantine of its name stays.
///
/// # Errors
/// It exists already, there or as one that registered itself.
pub fn add(registry: &Path, journal: &Journal, new: &NewThing) -> Result<Added, EditError> {
    // As before the first start, when who runs this may not be the gateway's user: it has no journal yet,
    // and gets no lock of one.
    if journal.read()?.is_empty() {
        let made = edit::add_thing(registry, new)?;
        let quarantined = None;
        return Ok(Added { made, quarantined });
    }
    // Within: no device becomes it meanwhile.
    journal.append_if(|state| {
        let name = new.name.as_str();
        if state.thing(name).is_some() && file(registry)?.thing(name).is_none() {
            return Err(EditError::Provisioned(new.name.clone()));
        }
        let made = edit::add_thing(registry, new)?;
        let quarantined = quarantine_of(state, &new.name).cloned();
        Ok((Added { made, quarantined }, Vec::new()))
    })
}

/// What came of removing a thing.
#[derive(Debug)]
pub struct Removed {
    /// Its certificates, which are revoked.
    pub certificates: Vec<CertificateId>,
    /// Whether one that is added under its name is in quarantine.
    pub is_quarantined: bool,
}

/// Removes a thing wherever it is registered. Its certificates stay as revoked ones of no thing, and
/// its name in quarantine if it was: removing and adding is no way out.
///
/// # Errors
/// There is no such thing, or `registry.toml` has mistakes; then nothing is removed.
pub fn remove(
    registry: &Path,
    journal: &Journal,
    thing: &ThingName,
    now: Timestamp,
) -> Result<Removed, EditError> {
    let file = file(registry)?;
    let in_file = file.thing(thing.as_str());
    // First here: whatever happens next, its certificates open nothing.
    let (mut certificates, is_quarantined) = journal.append_if(|state| {
        let mut memberships = state.memberships(thing.as_str()).iter();
        if memberships.all(|known| known.group.as_str() == QUARANTINE) {
            must_exist(&file, state, thing)?;
        }
        let mut revoked = Vec::new();
        let mut changes = Vec::new();
        for certificate in state.certificates() {
            if !certificate.things.contains(thing) {
                continue;
            }
            let mut certificate = certificate.clone();
            certificate.things.retain(|other| other != thing);
            if certificate.things.is_empty() && certificate.status != Status::Revoked {
                revoked.push(certificate.id);
                certificate = StateCertificate {
                    status: Status::Revoked,
                    why: format!("its thing `{thing}` was removed"),
                    at: now,
                    ..certificate
                };
            }
            changes.push(Change::Certificate(certificate));
        }
        let is_known = state.thing(thing.as_str()).is_some();
        if is_known || !state.memberships(thing.as_str()).is_empty() {
            changes.push(Change::ForgetThing(thing.clone()));
        }
        let mut groups = in_file.iter().flat_map(|known| &known.direct_groups);
        let in_file = groups.any(|group| group.as_str() == QUARANTINE);
        let quarantined = match quarantine_of(state, thing) {
            Some(known) => Some((known.why.clone(), known.at)),
            None => in_file.then(|| ("in registry.toml until it was removed".to_owned(), now)),
        };
        let is_quarantined = quarantined.is_some();
        changes.extend(quarantined.map(|(why, at)| Change::Member {
            thing: thing.clone(),
            group: quarantine_group(),
            why,
            at,
        }));
        Ok::<_, EditError>(((revoked, is_quarantined), changes))
    })?;
    if in_file.is_some() {
        for id in edit::remove_thing(registry, thing)? {
            if !certificates.contains(&id) {
                certificates.push(id);
            }
        }
    }
    Ok(Removed {
        certificates,
        is_quarantined,
    })
}

fn quarantine_of<'s>(state: &'s State, thing: &ThingName) -> Option<&'s Membership> {
    let mut memberships = state.memberships(thing.as_str()).iter();
    memberships.find(|known| known.group.as_str() == QUARANTINE)
}

fn must_exist(file: &Registry, state: &State, thing: &ThingName) -> Result<(), EditError> {
    let name = thing.as_str();
    if file.thing(name).is_none() && state.thing(name).is_none() {
        return Err(EditError::Absent(format!("thing `{thing}`")));
    }
    Ok(())
}

fn quarantine_group() -> GroupName {
    GroupName::parse(QUARANTINE).expect("the name of the group is one")
}

#[cfg(test)]
mod tests;
