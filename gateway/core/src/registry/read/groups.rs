//! `[[group]]` and `[[dynamic-group]]`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    NAME_REMEDY, Reader, Table, cache::Tables, check_attributes, check_policies, second_time,
};
use crate::{
    document::Section,
    identity::{GroupName, OnPublishDenied},
    limits::{
        ATTRIBUTES_PER_GROUP_MAX, CHILDREN_PER_GROUP_MAX, DYNAMIC_GROUPS_MAX, GROUP_DEPTH_MAX,
        POLICIES_PER_GROUP_MAX,
    },
    registry::{DynamicGroup, Group, PublishRates, Query},
};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct GroupToml {
    name: String,
    parent: Option<String>,
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    on_publish_denied: Option<OnPublishDenied>,
    publish_rate: Option<u64>,
    publish_bytes_per_second: Option<u64>,
    publish_rate_of_group: Option<u64>,
    publish_bytes_per_second_of_group: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DynamicGroupToml {
    name: String,
    query: String,
}

/// Where each group is in the list.
type Indices = HashMap<GroupName, usize>;

impl Table for GroupToml {
    const NAME: &str = "group";

    fn of(tables: &Tables) -> &[Arc<Self>] {
        &tables.groups
    }
}

impl Table for DynamicGroupToml {
    const NAME: &str = "dynamic-group";

    fn of(tables: &Tables) -> &[Arc<Self>] {
        &tables.dynamic_groups
    }
}

impl Reader<'_, '_> {
    pub(super) fn groups(&mut self) -> Vec<Group> {
        let policies = self.policies;
        let mut groups = Vec::new();
        let mut sections = Vec::new();
        let mut indices = Indices::new();
        for index in 0..self.count::<GroupToml>() {
            let (mut section, Some(toml)) = self.table::<GroupToml>(index) else {
                continue;
            };
            let max = POLICIES_PER_GROUP_MAX;
            check_policies(&mut section, policies, &toml.policies, max);
            check_attributes(&mut section, &toml.attributes);
            if toml.attributes.len() > ATTRIBUTES_PER_GROUP_MAX {
                let message = format!("the group has {} attributes", toml.attributes.len());
                let remedy = format!("keep at most {ATTRIBUTES_PER_GROUP_MAX}");
                section.problem("attributes", message, remedy);
            }
            let name = section.parsed("name", &toml.name, GroupName::parse, NAME_REMEDY);
            let parent = toml
                .parent
                .as_ref()
                .and_then(|parent| section.parsed("parent", parent, GroupName::parse, NAME_REMEDY));
            let Some(name) = name else { continue };
            if indices.contains_key(&name) {
                second_time(&mut section, "group", name.as_str());
                continue;
            }
            indices.insert(name.clone(), groups.len());
            sections.push(index);
            let toml = Arc::unwrap_or_clone(toml);
            groups.push(Group {
                name,
                parent,
                policies: toml.policies,
                attributes: toml.attributes,
                on_publish_denied: toml.on_publish_denied,
                publish_rates: PublishRates {
                    messages: toml.publish_rate,
                    bytes: toml.publish_bytes_per_second,
                    messages_of_group: toml.publish_rate_of_group,
                    bytes_of_group: toml.publish_bytes_per_second_of_group,
                },
            });
        }
        for (at, section) in sections.iter().enumerate() {
            self.check_parents(&mut groups, &indices, at, *section);
        }
        self.check_children(&groups, &sections);
        groups
    }

    /// A parent that is unknown, a circle, or a hierarchy that is too deep; the parent is then
    /// taken away, so that everyone else can walk upwards safely.
    fn check_parents(
        &mut self,
        groups: &mut [Group],
        indices: &Indices,
        at: usize,
        section: usize,
    ) {
        let mut depth = 1;
        let mut next = groups[at].parent.clone();
        while let Some(parent) = next {
            let Some(&index) = indices.get(&parent) else {
                // Told where that group stands.
                if depth == 1 {
                    let message = format!("the parent `{parent}` does not exist");
                    let names = groups.iter().map(|group| group.name.as_str());
                    let mut section = self.document.section_at("group", section);
                    let remedy = group_remedy(&section, parent.as_str(), names);
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

    fn check_children(&mut self, groups: &[Group], sections: &[usize]) {
        let mut children: HashMap<&GroupName, usize> = HashMap::new();
        for (group, section) in groups.iter().zip(sections) {
            let Some(parent) = &group.parent else {
                continue;
            };
            let count = children.entry(parent).or_default();
            *count += 1;
            if *count == CHILDREN_PER_GROUP_MAX + 1 {
                let message =
                    format!("`{parent}` has more than {CHILDREN_PER_GROUP_MAX} groups below it");
                let mut section = self.document.section_at("group", *section);
                section.problem("parent", message, "put a group between them");
            }
        }
    }

    pub(super) fn dynamic_groups(&mut self, groups: &[Group]) -> Vec<DynamicGroup> {
        let mut found: Vec<DynamicGroup> = Vec::new();
        for index in 0..self.count::<DynamicGroupToml>() {
            let (mut section, Some(toml)) = self.table::<DynamicGroupToml>(index) else {
                continue;
            };
            if index == DYNAMIC_GROUPS_MAX {
                let message = format!("there are more than {DYNAMIC_GROUPS_MAX} dynamic groups");
                section.problem("name", message, "remove some");
            }
            let name = section.parsed("name", &toml.name, GroupName::parse, NAME_REMEDY);
            let query = match Query::parse(&toml.query) {
                Ok(query) => Some(query),
                Err(mistake) => {
                    section.problem_within("query", &mistake);
                    None
                }
            };
            let (Some(name), Some(query)) = (name, query) else {
                continue;
            };
            let mut names = groups.iter().map(|group| &group.name);
            if names.any(|other| *other == name) || found.iter().any(|other| other.name == name) {
                second_time(&mut section, "group", name.as_str());
                continue;
            }
            found.push(DynamicGroup { name, query });
        }
        found
    }
}

pub(super) fn group_remedy<'a>(
    section: &Section<'_, '_>,
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> String {
    match section.nearest(wrong, names) {
        Some(near) => format!("write `{near}`"),
        None => format!("add `[[group]]` with `name = \"{wrong}\"`"),
    }
}
