//! Everything that authentication needs, at one moment.

mod authenticate;
mod load;
mod narrow;
mod rates;

pub use authenticate::{Credential, Refusal};
pub use load::{Inspection, inspect, inspect_change, load};
pub(super) use load::{Loader, Refused};
pub(super) use narrow::Taken;
pub use rates::{SharedRates, ThingRates};

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use portcullis_core::{
    identity::{CertificateId, GroupName, OnPublishDenied, Thing, ThingName},
    policy::{Policy, PolicySet, Rules},
    registry::{
        DynamicGroup, Group, QUARANTINE, RegisteredCertificate, RegisteredThing, line::Reading,
    },
};

use super::{Registry, Templates, Trust, watcher::Fingerprint};

/// Registry, policies and certificates of one successful load. Immutable; shared as `Arc`.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) generation: u64,
    pub(super) fingerprint: Fingerprint,
    pub(super) plain_policies: Vec<String>,
    require_thing: bool,
    rules: Arc<Rules>,
    sources: Sources,
    registry: Arc<Registry>,
    things: BTreeMap<ThingName, Entry>,
    certificates: HashMap<CertificateId, CertificateEntry>,
    policies: BTreeMap<String, Arc<Policy>>,
    templates: Templates,
    trust: Arc<Trust>,
}

/// What the registry in force was merged from.
#[derive(Clone, Debug)]
struct Sources {
    /// `registry.toml`.
    file: Arc<Registry>,
    /// The journal.
    journal: Arc<Reading>,
}

/// A thing and what its groups give it.
#[derive(Debug)]
struct Entry {
    /// Where it is in the registry.
    at: usize,
    thing: Arc<Thing>,
    groups: Arc<GroupsEntry>,
    /// In quarantine, and there is no such group.
    is_shut_out: bool,
}

/// What things of the same groups have in common.
#[derive(Debug)]
struct GroupsEntry {
    /// Of the groups and their ancestors.
    policies: PolicySet,
    on_publish_denied: Option<OnPublishDenied>,
    rates: ThingRates,
}

#[derive(Debug)]
struct CertificateEntry {
    /// Where it is in the registry.
    at: usize,
    /// Its own.
    policies: Vec<Arc<Policy>>,
}

/// To what a policy is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachedTo {
    /// A certificate.
    Certificate(CertificateId),
    /// A static group.
    Group {
        /// It.
        group: GroupName,
        /// The group below it that the thing is in; `None`: the thing is in it itself.
        inherited_by: Option<GroupName>,
    },
    /// A plain listener.
    Plain,
}

impl Snapshot {
    /// Looks everything up that authentication needs often.
    fn new(
        registry: Arc<Registry>,
        policies: BTreeMap<String, Arc<Policy>>,
        rules: Arc<Rules>,
        sources: Sources,
        trust: Arc<Trust>,
    ) -> Self {
        Self {
            generation: 1,
            fingerprint: Fingerprint::default(),
            plain_policies: Vec::new(),
            require_thing: true,
            things: things(&registry, &policies, &rules),
            certificates: certificates(&registry, &policies),
            rules,
            sources,
            registry,
            policies,
            templates: Templates::new(),
            trust,
        }
    }

    /// The same with other policies of plain listeners, which the caller has checked.
    pub(crate) fn with_plain_policies(self, plain_policies: Vec<String>) -> Self {
        Self {
            plain_policies,
            ..self
        }
    }

    /// Grows with every load.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Certificates and key of the TLS listener.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// All things, by name.
    pub fn things(&self) -> impl Iterator<Item = &Arc<Thing>> {
        self.things.values().map(|entry| &entry.thing)
    }

    /// The thing `name`.
    pub fn thing(&self, name: &str) -> Option<&Arc<Thing>> {
        self.things.get(name).map(|entry| &entry.thing)
    }

    /// The thing `name` with all that the registry says of it.
    pub fn registered(&self, name: &str) -> Option<&RegisteredThing> {
        let entry = self.things.get(name)?;
        self.registry.things.get(entry.at)
    }

    /// What the registry says of a certificate.
    pub fn certificate(&self, id: &CertificateId) -> Option<&RegisteredCertificate> {
        let entry = self.certificates.get(id)?;
        self.registry.certificates.get(entry.at)
    }

    /// The registry in force: `registry.toml` and what changed at run time.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The dynamic groups, the older ones first.
    pub fn dynamic_groups(&self) -> &[DynamicGroup] {
        &self.registry.dynamic_groups
    }

    /// The provisioning templates, by name.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// How policies are read.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// All policies, by name.
    pub fn policies(&self) -> &BTreeMap<String, Arc<Policy>> {
        &self.policies
    }

    /// Which policies hold for `thing` with `certificate`, and why each of them does. A policy that is
    /// attached in several places is there as often.
    pub fn policies_of(
        &self,
        thing: &ThingName,
        certificate: Option<&CertificateId>,
    ) -> Vec<(AttachedTo, Arc<Policy>)> {
        let mut found = Vec::new();
        if let Some(id) = certificate
            && let Some(entry) = self.certificates.get(id)
        {
            let policies = entry.policies.iter();
            found.extend(policies.map(|policy| (AttachedTo::Certificate(*id), policy.clone())));
        }
        let Some(registered) = self.registered(thing.as_str()) else {
            return found;
        };
        let groups: HashMap<&str, &Group> = by_name(&self.registry.groups);
        for (group, provenance) in self.registry.provenance(registered) {
            let inherited_by = match provenance {
                super::registry::Provenance::Inherited(heir) => Some(heir.clone()),
                _ => None,
            };
            let names = groups
                .get(group.as_str())
                .map(|group| group.policies.iter());
            let policies = names
                .into_iter()
                .flatten()
                .filter_map(|name| self.policies.get(name));
            found.extend(policies.map(|policy| {
                let attached = AttachedTo::Group {
                    group: group.clone(),
                    inherited_by: inherited_by.clone(),
                };
                (attached, policy.clone())
            }));
        }
        found
    }
}

fn by_name(groups: &[Group]) -> HashMap<&str, &Group> {
    groups
        .iter()
        .map(|group| (group.name.as_str(), group))
        .collect()
}

fn things(
    registry: &Registry,
    policies: &BTreeMap<String, Arc<Policy>>,
    rules: &Arc<Rules>,
) -> BTreeMap<ThingName, Entry> {
    let groups = by_name(&registry.groups);
    // Thousands of things are in the same few combinations of groups.
    let mut combinations: HashMap<&[GroupName], Arc<GroupsEntry>> = HashMap::new();
    let mut things = Vec::with_capacity(registry.things.len());
    for (at, registered) in registry.things.iter().enumerate() {
        let thing = &registered.thing;
        let combination = combinations.entry(&thing.groups).or_insert_with(|| {
            Arc::new(GroupsEntry {
                policies: PolicySet::with_rules(
                    policies_of_groups(&thing.groups, &groups, policies),
                    rules.clone(),
                ),
                on_publish_denied: on_publish_denied(registered, &groups),
                rates: rates::of(registered, &groups),
            })
        });
        let mut memberships = registered.memberships.iter();
        let entry = Entry {
            at,
            thing: thing.clone(),
            groups: combination.clone(),
            is_shut_out: !groups.contains_key(QUARANTINE)
                && memberships.any(|membership| membership.group.as_str() == QUARANTINE),
        };
        things.push((thing.name.clone(), entry));
    }
    things.into_iter().collect()
}

fn policies_of_groups(
    names: &[GroupName],
    groups: &HashMap<&str, &Group>,
    policies: &BTreeMap<String, Arc<Policy>>,
) -> Vec<Arc<Policy>> {
    let attached = names
        .iter()
        .filter_map(|name| groups.get(name.as_str()))
        .flat_map(|group| group.policies.iter());
    named(attached, policies)
}

/// A group overrules those above it; among hierarchies, the one that is closest to closed wins.
fn on_publish_denied(
    registered: &RegisteredThing,
    groups: &HashMap<&str, &Group>,
) -> Option<OnPublishDenied> {
    let of_hierarchy = |name: &GroupName| {
        let mut next = groups.get(name.as_str());
        while let Some(group) = next {
            if group.on_publish_denied.is_some() {
                return group.on_publish_denied;
            }
            let parent = group.parent.as_ref();
            next = parent.and_then(|parent| groups.get(parent.as_str()));
        }
        None
    };
    let strictness = |answer: &OnPublishDenied| match answer {
        OnPublishDenied::Disconnect => 2,
        OnPublishDenied::PubackError => 1,
        OnPublishDenied::DropAndAck => 0,
    };
    let added = registered.memberships.iter().map(|added| &added.group);
    let direct = registered.direct_groups.iter().chain(added);
    direct.filter_map(of_hierarchy).max_by_key(strictness)
}

fn certificates(
    registry: &Registry,
    policies: &BTreeMap<String, Arc<Policy>>,
) -> HashMap<CertificateId, CertificateEntry> {
    let entry = |(at, certificate): (usize, &RegisteredCertificate)| {
        let policies = named(certificate.policies.iter(), policies);
        (certificate.id, CertificateEntry { at, policies })
    };
    registry
        .certificates
        .iter()
        .enumerate()
        .map(entry)
        .collect()
}

/// The policies of these names, each once.
fn named<'a>(
    names: impl Iterator<Item = &'a String>,
    policies: &BTreeMap<String, Arc<Policy>>,
) -> Vec<Arc<Policy>> {
    let mut found: Vec<Arc<Policy>> = Vec::new();
    for policy in names.filter_map(|name| policies.get(name)) {
        if !found.iter().any(|earlier| Arc::ptr_eq(earlier, policy)) {
            found.push(policy.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests;
