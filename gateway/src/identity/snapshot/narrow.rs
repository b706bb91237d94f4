//! A change with a mistake is refused, but what it takes away is taken away at once.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use portcullis_core::{
    identity::{CertificateId, GroupName, Thing, ThingName},
    registry::{
        Membership, QUARANTINE, RegisteredCertificate, RegisteredThing, Registry, line::Reading,
    },
};

use super::{Snapshot, Sources};
use crate::{clock::now, identity::trust::Lists};

/// How much was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::identity) struct Taken {
    /// Things that are gone, in quarantine, or out of a group.
    pub(in crate::identity) things: usize,
    /// Certificates that are gone, less active, or have less time or policies.
    pub(in crate::identity) certificates: usize,
}

impl Snapshot {
    /// The `registry.toml` that this was made of.
    pub(in crate::identity) fn file(&self) -> &Arc<Registry> {
        &self.sources.file
    }

    /// The journal that this was made of.
    pub(in crate::identity) fn journal(&self) -> &Arc<Reading> {
        &self.sources.journal
    }

    /// `newer`, a newer `registry.toml`, together with the things, certificates and groups that it
    /// lacks and this one's has. `None`: it lacks none.
    pub(in crate::identity) fn with_lost(&self, newer: &Registry) -> Option<Registry> {
        let former = &self.sources.file;
        let things: HashSet<&ThingName> =
            newer.things.iter().map(|known| &known.thing.name).collect();
        let ids: HashSet<CertificateId> = newer.certificates.iter().map(|known| known.id).collect();
        let groups: HashSet<&GroupName> = newer.groups.iter().map(|group| &group.name).collect();
        let things = former
            .things
            .iter()
            .filter(|known| !things.contains(&known.thing.name));
        let certificates = former
            .certificates
            .iter()
            .filter(|known| !ids.contains(&known.id));
        let groups = former
            .groups
            .iter()
            .filter(|group| !groups.contains(&group.name));
        let mut whole = newer.clone();
        whole.things.extend(things.cloned());
        whole.certificates.extend(certificates.cloned());
        whole.groups.extend(groups.cloned());
        let len = |registry: &Registry| {
            registry.things.len() + registry.certificates.len() + registry.groups.len()
        };
        (len(&whole) > len(newer)).then_some(whole)
    }

    /// The same without what a newer registry takes away: things that are gone, in quarantine or out of
    /// a group that they were in, certificates that are gone, less active, with less time, without a
    /// policy that they had, or of a thing that is gone. What is new is left out. `file` is the newer
    /// `registry.toml` and `journal` the newer journal, each if it has no mistake; `lists` are revocation
    /// lists, whatever else has a mistake. `None` if they take nothing away.
    pub(in crate::identity) fn narrowed(
        &self,
        file: Option<&Registry>,
        journal: Option<&Arc<Reading>>,
        lists: &Lists,
    ) -> Option<(Self, Taken)> {
        let file = file.unwrap_or(&self.sources.file);
        let journal = journal.unwrap_or(&self.sources.journal);
        let (newer, _) = journal.state.merge_into(file, None);
        let mut narrowed = Registry::clone(&self.registry);
        narrow_things(&mut narrowed, &newer);
        narrow_certificates(&mut narrowed, &newer);
        let is_same = narrowed.things == self.registry.things
            && narrowed.certificates == self.registry.certificates;
        let narrower = self.trust.with_lists(lists);
        if is_same && narrower.is_none() {
            return None;
        }
        let taken = Taken {
            things: differing(&self.registry.things, &narrowed.things, |known| {
                known.thing.name.clone()
            }),
            certificates: differing(
                &self.registry.certificates,
                &narrowed.certificates,
                |known| known.id,
            ),
        };
        let sources = Sources {
            file: self.sources.file.clone(),
            journal: journal.clone(),
        };
        let rules = self.rules.clone();
        let trust = narrower.map_or_else(|| self.trust.clone(), Arc::new);
        let narrowed = Self {
            generation: self.generation + 1,
            fingerprint: self.fingerprint.clone(),
            plain_policies: self.plain_policies.clone(),
            require_thing: self.require_thing,
            templates: self.templates.clone(),
            ..Self::new(
                Arc::new(narrowed),
                self.policies.clone(),
                rules,
                sources,
                trust,
            )
        };
        Some((narrowed, taken))
    }
}

/// How many of `before` are not the same in `after`, or not there.
fn differing<T: PartialEq, K: Eq + Hash>(
    before: &[T],
    after: &[T],
    key: impl Fn(&T) -> K,
) -> usize {
    let after: HashMap<K, &T> = after.iter().map(|known| (key(known), known)).collect();
    let is_same = |known: &&T| after.get(&key(known)).is_some_and(|other| other == known);
    before.iter().filter(|known| !is_same(known)).count()
}

fn narrow_things(registry: &mut Registry, newer: &Registry) {
    let newer: HashMap<&ThingName, &RegisteredThing> = newer
        .things
        .iter()
        .map(|registered| (&registered.thing.name, registered))
        .collect();
    let quarantine = registry.group(QUARANTINE).map(|group| group.name.clone());
    registry.things.retain_mut(|registered| {
        let Some(newer) = newer.get(&registered.thing.name) else {
            return false;
        };
        let groups = &newer.thing.groups;
        // A policy of the group may have denied something: who lost one is shut out.
        let is_lost = |group: &&GroupName| group.as_str() != QUARANTINE && !groups.contains(group);
        if registered.thing.groups.iter().any(|group| is_lost(&group)) {
            return false;
        }
        let in_file = || {
            let group = groups.iter().find(|group| group.as_str() == QUARANTINE)?;
            Some(Membership {
                group: group.clone(),
                why: "in registry.toml".to_owned(),
                at: now(),
            })
        };
        let mut memberships = newer.memberships.iter();
        let quarantined = memberships
            .find(|membership| membership.group.as_str() == QUARANTINE)
            .cloned()
            .or_else(in_file);
        let groups = &registered.thing.groups;
        let is_in = |groups: &[_]| {
            quarantine
                .as_ref()
                .is_some_and(|group| groups.contains(group))
        };
        let knows = |memberships: &[Membership]| {
            let mut known = memberships.iter();
            known.any(|membership| membership.group.as_str() == QUARANTINE)
        };
        if let Some(membership) = quarantined
            && !is_in(groups)
            && !knows(&registered.memberships)
        {
            registered.memberships.push(membership);
            let groups = groups.iter().chain(&quarantine).cloned().collect();
            registered.thing = Arc::new(Thing {
                groups,
                ..Thing::clone(&registered.thing)
            });
        }
        true
    });
}

fn narrow_certificates(registry: &mut Registry, newer: &Registry) {
    let things: HashSet<ThingName> = registry
        .things
        .iter()
        .map(|registered| registered.thing.name.clone())
        .collect();
    let newer: HashMap<CertificateId, &RegisteredCertificate> = newer
        .certificates
        .iter()
        .map(|certificate| (certificate.id, certificate))
        .collect();
    registry.certificates.retain_mut(|certificate| {
        let Some(newer) = newer.get(&certificate.id) else {
            return false;
        };
        let mut policies = certificate.policies.iter();
        if policies.any(|policy| !newer.policies.contains(policy)) {
            return false;
        }
        if newer.status > certificate.status {
            certificate.status = newer.status;
            certificate.reason.clone_from(&newer.reason);
            certificate.status_origin = newer.status_origin.clone();
        }
        certificate.until = match (certificate.until, newer.until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let thing = certificate.thing.as_ref();
        let is_gone =
            |thing: &ThingName| !things.contains(thing) || !newer.is_attached_to(thing.as_str());
        if certificate.things.iter().any(is_gone) {
            certificate.things.retain(|thing| !is_gone(thing));
            if certificate.things.is_empty() {
                return false;
            }
        }
        thing.is_none_or(|thing| !is_gone(thing))
            && (certificate.claim.is_none() || certificate.claim == newer.claim)
    });
}
