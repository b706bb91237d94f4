//! `registry.toml`: things, groups, certificates (specification A.10, A.11).
//!
//! Absent on purpose: AWS's rule that a thing is in at most one group of a hierarchy. Here all
//! groups may hang under one group whose policies every thing inherits.

pub mod line;
mod model;
pub mod query;
pub mod state;

pub use model::{
    AutoRegistration, CaStatus, DynamicGroup, Group, Membership, Origin, RegisteredCa,
    RegisteredCertificate, RegisteredThing, Status, ThingType,
};
pub use query::Query;
pub use state::{Change, QUARANTINE, State, StateCertificate, StateThing};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use crate::{
    document::{Document, Section},
    identity::{CertificateId, GroupName, Thing, ThingName, ThingTypeName},
    limits::{
        ATTRIBUTES_PER_THING_MAX, ATTRIBUTES_WITHOUT_TYPE_MAX, GROUP_DEPTH_MAX,
        GROUPS_PER_THING_MAX, POLICIES_PER_CERTIFICATE_MAX, POLICIES_PER_GROUP_MAX,
    },
    problem::{Problem, nearest},
};
use serde::Deserialize;

/// The content of a registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// In the order of the file.
    pub types: Vec<ThingType>,
    /// In the order of the file.
    pub groups: Vec<Group>,
    /// In the order of the file: the older ones first.
    pub dynamic_groups: Vec<DynamicGroup>,
    /// In the order of the file, those of the run-time state behind.
    pub things: Vec<RegisteredThing>,
    /// In the order of the file, those of the run-time state behind.
    pub certificates: Vec<RegisteredCertificate>,
    /// In the order of the file.
    pub cas: Vec<RegisteredCa>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct GroupToml {
    name: String,
    parent: Option<String>,
    #[serde(default)]
    policies: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ThingToml {
    name: String,
    r#type: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct CertificateToml {
    id: String,
    thing: Option<String>,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    policies: Vec<String>,
    reason: Option<String>,
}

const NAME_REMEDY: &str = "use 1 to 128 letters, digits, `:`, `_` and `-`";

impl Registry {
    /// Reads `text`, the content of `file`. `policies` are the names that may be attached; `None`
    /// takes any. What is in order is in the registry even if there are problems elsewhere.
    pub fn parse(
        file: &Path,
        text: &str,
        policies: Option<&BTreeSet<String>>,
    ) -> (Self, Vec<Problem>) {
        let mut reader = Reader {
            document: Document::parse(file, text),
            policies,
            group_indices: HashMap::new(),
        };
        reader
            .document
            .refuse_unknown(&["group", "thing", "certificate"]);
        let groups = reader.groups();
        let things = reader.things(&groups);
        let certificates = reader.certificates(&things);
        let registry = Self {
            groups,
            things,
            certificates,
            ..Self::default()
        };
        (registry, reader.document.into_problems())
    }

    /// The group `name`.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name.as_str() == name)
    }

    /// The thing `name`.
    pub fn thing(&self, name: &str) -> Option<&RegisteredThing> {
        self.things
            .iter()
            .find(|registered| registered.thing.name.as_str() == name)
    }
}

struct Reader<'r, 't> {
    document: Document<'t>,
    policies: Option<&'r BTreeSet<String>>,
    group_indices: HashMap<String, usize>,
}

impl Reader<'_, '_> {
    fn groups(&mut self) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut sections = Vec::new();
        for index in 0..self.document.section_count("group") {
            let mut section = self.document.section_at("group", index);
            let Some(toml) = section.read::<GroupToml>() else {
                continue;
            };
            check_policies(
                &mut section,
                self.policies,
                &toml.policies,
                POLICIES_PER_GROUP_MAX,
            );
            let name = section.parsed("name", &toml.name, GroupName::parse, NAME_REMEDY);
            let parent = toml
                .parent
                .as_ref()
                .and_then(|parent| section.parsed("parent", parent, GroupName::parse, NAME_REMEDY));
            let Some(name) = name else { continue };
            if self.group_indices.contains_key(name.as_str()) {
                let message = format!("the group `{name}` stands here a second time");
                section.problem("name", message, "remove it, or give it another name");
                continue;
            }
            self.group_indices
                .insert(name.as_str().to_owned(), groups.len());
            sections.push(index);
            groups.push(Group {
                name,
                parent,
                policies: toml.policies,
                attributes: BTreeMap::new(),
                on_publish_denied: None,
            });
        }
        for (at, section) in sections.into_iter().enumerate() {
            self.check_parents(&mut groups, at, section);
        }
        groups
    }

    /// A parent that is unknown, a circle, or a hierarchy that is too deep; the parent is then
    /// taken away, so that everyone else can walk upwards safely.
    fn check_parents(&mut self, groups: &mut [Group], at: usize, section: usize) {
        let mut depth = 1;
        let mut next = groups[at].parent.clone();
        while let Some(parent) = next {
            let Some(&index) = self.group_indices.get(parent.as_str()) else {
                // Told where that group stands.
                if depth == 1 {
                    let message = format!("the parent `{parent}` does not exist");
                    let remedy = self.known_group_remedy(parent.as_str());
                    let mut section = self.document.section_at("group", section);
                    section.problem("parent", message, remedy);
                    groups[at].parent = None;
                }
                return;
            };
            depth += 1;
            if depth > GROUP_DEPTH_MAX {
                let message = format!(
                    "the group is more than {GROUP_DEPTH_MAX} levels deep, or its own ancestor"
                );
                let mut section = self.document.section_at("group", section);
                section.problem("parent", message, "name a parent nearer to the top");
                groups[at].parent = None;
                return;
            }
            next = groups[index].parent.clone();
        }
    }

    fn known_group_remedy(&self, wrong: &str) -> String {
        match nearest(wrong, self.group_indices.keys().map(String::as_str)) {
            Some(near) => format!("write `{near}`"),
            None => format!("add `[[group]]` with `name = \"{wrong}\"`"),
        }
    }

    fn things(&mut self, groups: &[Group]) -> Vec<RegisteredThing> {
        let mut things = Vec::new();
        let mut names = BTreeSet::new();
        for index in 0..self.document.section_count("thing") {
            let mut section = self.document.section_at("thing", index);
            let Some(toml) = section.read::<ThingToml>() else {
                continue;
            };
            check_attributes(&mut section, &toml);
            let thing_type = toml
                .r#type
                .as_ref()
                .and_then(|name| section.parsed("type", name, ThingTypeName::parse, NAME_REMEDY));
            if toml.groups.len() > GROUPS_PER_THING_MAX {
                let message = format!("the thing is in {} groups", toml.groups.len());
                let remedy = format!("keep at most {GROUPS_PER_THING_MAX}");
                section.problem("groups", message, remedy);
            }
            let Some(name) = section.parsed("name", &toml.name, ThingName::parse, NAME_REMEDY)
            else {
                continue;
            };
            if !names.insert(name.clone()) {
                let message = format!("the thing `{name}` stands here a second time");
                section.problem("name", message, "remove it, or give it another name");
                continue;
            }
            let mut direct_groups = Vec::new();
            for (at, group) in toml.groups.iter().enumerate() {
                match self.group_indices.get(group) {
                    Some(&known) => direct_groups.push(groups[known].name.clone()),
                    None => {
                        let message = format!("the group `{group}` does not exist");
                        let remedy = self.known_group_remedy(group);
                        let mut section = self.document.section_at("thing", index);
                        section.problem_at("groups", at, message, remedy);
                    }
                }
            }
            things.push(RegisteredThing {
                thing: Arc::new(Thing {
                    name,
                    thing_type,
                    attributes: toml.attributes,
                    groups: self.with_ancestors(groups, &direct_groups),
                }),
                direct_groups,
                memberships: Vec::new(),
                origin: Origin::File,
            });
        }
        things
    }

    /// In the order of the registry, each once.
    fn with_ancestors(&self, groups: &[Group], direct: &[GroupName]) -> Arc<[GroupName]> {
        let mut indices = BTreeSet::new();
        for name in direct {
            let mut next = self.group_indices.get(name.as_str());
            while let Some(&index) = next
                && indices.insert(index)
            {
                let parent = groups[index].parent.as_ref();
                next = parent.and_then(|parent| self.group_indices.get(parent.as_str()));
            }
        }
        indices
            .into_iter()
            .map(|index| groups[index].name.clone())
            .collect()
    }

    fn certificates(&mut self, things: &[RegisteredThing]) -> Vec<RegisteredCertificate> {
        let names: BTreeSet<&str> = things
            .iter()
            .map(|registered| registered.thing.name.as_str())
            .collect();
        let mut certificates = Vec::new();
        let mut ids = BTreeSet::new();
        for index in 0..self.document.section_count("certificate") {
            let mut section = self.document.section_at("certificate", index);
            let Some(toml) = section.read::<CertificateToml>() else {
                continue;
            };
            check_policies(
                &mut section,
                self.policies,
                &toml.policies,
                POLICIES_PER_CERTIFICATE_MAX,
            );
            let mut thing = None;
            if let Some(name) = &toml.thing {
                if names.contains(name.as_str()) {
                    thing = ThingName::parse(name).ok();
                } else {
                    let message = format!("the thing `{name}` does not exist");
                    let remedy = match nearest(name, names.iter().copied()) {
                        Some(near) => {
                            format!("write `{near}`, or add it with `portcullis thing add`")
                        }
                        None => "add it with `portcullis thing add`".to_owned(),
                    };
                    section.problem("thing", message, remedy);
                }
            }
            let Some(id) = CertificateId::parse(&toml.id) else {
                section.problem(
                    "id",
                    format!("`{}` is no certificate id", toml.id),
                    "write the SHA-256 of the certificate's DER form as 64 hex digits",
                );
                continue;
            };
            if !ids.insert(id) {
                section.problem(
                    "id",
                    "the certificate stands here a second time",
                    "keep one of the two entries",
                );
                continue;
            }
            certificates.push(RegisteredCertificate {
                id,
                thing,
                things: Vec::new(),
                claim: None,
                status: toml.status,
                policies: toml.policies,
                reason: toml.reason,
                until: None,
                origin: Origin::File,
                status_origin: Origin::File,
            });
        }
        certificates
    }
}

fn check_policies(
    section: &mut Section<'_, '_>,
    known: Option<&BTreeSet<String>>,
    attached: &[String],
    max: usize,
) {
    if attached.len() > max {
        let message = format!("{} policies are attached", attached.len());
        section.problem("policies", message, format!("keep at most {max}"));
    }
    let Some(known) = known else { return };
    for (index, policy) in attached.iter().enumerate() {
        if !known.contains(policy) {
            let message = format!("the policy `{policy}` does not exist");
            let remedy = match nearest(policy, known.iter().map(String::as_str)) {
                Some(near) => format!("write `{near}`"),
                None => format!("create `policies/{policy}.json`"),
            };
            section.problem_at("policies", index, message, remedy);
        }
    }
}

fn check_attributes(section: &mut Section<'_, '_>, toml: &ThingToml) {
    let (max, remedy) = match toml.r#type {
        Some(_) => (ATTRIBUTES_PER_THING_MAX, "remove some"),
        None => (
            ATTRIBUTES_WITHOUT_TYPE_MAX,
            "give the thing a `type`, with which it may have 50",
        ),
    };
    if toml.attributes.len() > max {
        let message = format!(
            "the thing has {} attributes, over {max}",
            toml.attributes.len()
        );
        section.problem("attributes", message, remedy);
    }
    let among = |c: char, others: &str| c.is_ascii_alphanumeric() || others.contains(c);
    for (name, value) in &toml.attributes {
        if name.is_empty() || name.len() > 128 || !name.chars().all(|c| among(c, "_.,@/:#-")) {
            section.problem(
                "attributes",
                format!("`{name}` is no attribute name"),
                "use 1 to 128 letters, digits and `_.,@/:#-`",
            );
        }
        if value.len() > 800 || !value.chars().all(|c| among(c, "_.,@/:#=[]-")) {
            section.problem(
                "attributes",
                format!("the attribute `{name}` has no valid value"),
                "use at most 800 letters, digits and `_.,@/:#=[]-`",
            );
        }
    }
}

#[cfg(test)]
mod tests;
