//! What holds: `registry.toml` together with the run-time state.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Membership, Origin, QUARANTINE, RegisteredCertificate, RegisteredThing, Registry, State,
    StateCertificate, StateThing, Status, hierarchy::Hierarchy,
};
use crate::{
    identity::{GroupName, Thing, ThingName},
    limits::GROUPS_PER_THING_MAX,
    problem::Mistake,
};

impl State {
    /// The registry in force, and what of the state could not be taken over. `policies` are those
    /// that there are: a certificate with another is not active, because that may have denied what
    /// others allow. `None`: any.
    pub fn merge_into(
        &self,
        registry: &Registry,
        policies: Option<&BTreeSet<String>>,
    ) -> (Registry, Vec<Mistake>) {
        let mut merged = registry.clone();
        let mut notes = Vec::new();
        if self.is_empty() {
            return (merged, notes);
        }
        self.merge_things(registry, &mut merged, &mut notes);
        self.merge_memberships(registry, &mut merged, &mut notes);
        self.merge_certificates(&mut merged, policies, &mut notes);
        (merged, notes)
    }

    fn merge_things(&self, registry: &Registry, merged: &mut Registry, notes: &mut Vec<Mistake>) {
        let hierarchy = Hierarchy::new(&registry.groups);
        let known: BTreeSet<&ThingName> = registry
            .things
            .iter()
            .map(|registered| &registered.thing.name)
            .collect();
        for thing in self.things().filter(|thing| !known.contains(&thing.name)) {
            merged.things.push(provisioned(thing, &hierarchy, notes));
        }
    }

    fn merge_memberships(
        &self,
        registry: &Registry,
        merged: &mut Registry,
        notes: &mut Vec<Mistake>,
    ) {
        if self.members().next().is_none() {
            return;
        }
        let hierarchy = Hierarchy::new(&registry.groups);
        let indices: HashMap<ThingName, usize> = merged
            .things
            .iter()
            .enumerate()
            .map(|(at, registered)| (registered.thing.name.clone(), at))
            .collect();
        for (thing, memberships) in self.members() {
            let Some(at) = indices.get(thing) else {
                let mut groups = memberships.iter().map(|added| added.group.as_str());
                let forget = match groups.any(|group| group == QUARANTINE) {
                    true => format!("portcullis thing quarantine {thing} --release"),
                    false => format!("portcullis thing remove {thing}"),
                };
                notes.push(note(
                    format!("the thing `{thing}`, which was put into a group, does not exist"),
                    format!("add it, or forget it with `{forget}`"),
                ));
                continue;
            };
            let registered = &mut merged.things[*at];
            for membership in memberships {
                join(registered, membership, &hierarchy, notes);
            }
            let added = registered.memberships.iter().map(|added| &added.group);
            let groups = hierarchy.with_ancestors(registered.direct_groups.iter().chain(added));
            registered.thing = Arc::new(Thing {
                groups,
                ..Thing::clone(&registered.thing)
            });
        }
    }

    fn merge_certificates(
        &self,
        merged: &mut Registry,
        policies: Option<&BTreeSet<String>>,
        notes: &mut Vec<Mistake>,
    ) {
        let mut in_file = BTreeSet::new();
        for certificate in &mut merged.certificates {
            let Some(known) = self.certificate(&certificate.id) else {
                continue;
            };
            in_file.insert(certificate.id);
            if known.status > certificate.status {
                certificate.status = known.status;
                certificate.reason = Some(known.why.clone());
                certificate.status_origin = at_run_time(known);
            }
            certificate.until = match (certificate.until, known.until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        for known in self
            .certificates()
            .filter(|known| !in_file.contains(&known.id))
        {
            merged.certificates.push(registered(known, policies, notes));
        }
    }
}

fn note(message: String, remedy: String) -> Mistake {
    Mistake {
        place: None,
        message,
        remedy,
    }
}

fn at_run_time(known: &StateCertificate) -> Origin {
    Origin::RunTime {
        why: known.why.clone(),
        at: known.at,
    }
}

/// A thing of the run-time state, with those of its groups that it can be in.
fn provisioned(
    thing: &StateThing,
    hierarchy: &Hierarchy<'_>,
    notes: &mut Vec<Mistake>,
) -> RegisteredThing {
    let mut direct_groups: Vec<GroupName> = Vec::new();
    for group in &thing.groups {
        match why_not(group, &direct_groups, hierarchy) {
            None => direct_groups.push(group.clone()),
            Some(why) => notes.push(note(
                format!("the thing `{}` is not in `{group}`: {why}", thing.name),
                "correct its groups, or write the thing into registry.toml".to_owned(),
            )),
        }
    }
    RegisteredThing {
        thing: Arc::new(Thing {
            name: thing.name.clone(),
            thing_type: thing.thing_type.clone(),
            attributes: thing.attributes.clone(),
            groups: hierarchy.with_ancestors(&direct_groups),
        }),
        direct_groups,
        memberships: Vec::new(),
        provisionable: true,
        origin: Origin::RunTime {
            why: thing.why.clone(),
            at: thing.at,
        },
    }
}

/// Quarantine is for everybody, and is remembered even if there is no such group: who is in it
/// without its policy must not go free.
fn join(
    registered: &mut RegisteredThing,
    membership: &Membership,
    hierarchy: &Hierarchy<'_>,
    notes: &mut Vec<Mistake>,
) {
    let group = &membership.group;
    if registered.direct_groups.contains(group) {
        return;
    }
    let added = registered.memberships.iter().map(|added| &added.group);
    let groups: Vec<GroupName> = registered
        .direct_groups
        .iter()
        .chain(added)
        .cloned()
        .collect();
    let why = why_not(group, &groups, hierarchy);
    if let Some(why) = &why {
        let thing = &registered.thing.name;
        notes.push(note(
            format!("the thing `{thing}` cannot be put into `{group}`: {why}"),
            format!("correct registry.toml, or `portcullis thing quarantine {thing} --release`"),
        ));
    }
    if why.is_none() || group.as_str() == QUARANTINE {
        registered.memberships.push(membership.clone());
    }
}

/// Why a thing of `groups` cannot be in `group`, too.
fn why_not(group: &GroupName, groups: &[GroupName], hierarchy: &Hierarchy<'_>) -> Option<String> {
    if hierarchy.get(group.as_str()).is_none() {
        return Some("the group does not exist".to_owned());
    }
    if let Some(other) = hierarchy.same_hierarchy(group.as_str(), groups) {
        return Some(format!("it is in `{other}` of the same hierarchy"));
    }
    (groups.len() >= GROUPS_PER_THING_MAX)
        .then(|| format!("it is in {GROUPS_PER_THING_MAX} groups already"))
}

/// A certificate that the file does not know.
fn registered(
    known: &StateCertificate,
    policies: Option<&BTreeSet<String>>,
    notes: &mut Vec<Mistake>,
) -> RegisteredCertificate {
    let (thing, things) = match known.things.as_slice() {
        [only] => (Some(only.clone()), Vec::new()),
        things => (None, things.to_vec()),
    };
    let mut status = known.status;
    let mut reason = (status != Status::Active).then(|| known.why.clone());
    let missing = policies.and_then(|policies| {
        let mut attached = known.policies.iter();
        attached.find(|policy| !policies.contains(*policy))
    });
    if let Some(policy) = missing {
        let message = format!(
            "the policy `{policy}` of the certificate {} is gone",
            known.id
        );
        if status == Status::Active {
            status = Status::Inactive;
            reason = Some(format!("the policy `{policy}` does not exist"));
        }
        let remedy =
            format!("create `policies/{policy}.json`; the certificate is inactive until then");
        notes.push(note(message, remedy));
    }
    RegisteredCertificate {
        id: known.id,
        thing,
        things,
        claim: known.claim.clone(),
        status,
        policies: known.policies.clone(),
        reason,
        until: known.until,
        origin: at_run_time(known),
        status_origin: at_run_time(known),
    }
}

#[cfg(test)]
mod tests;
