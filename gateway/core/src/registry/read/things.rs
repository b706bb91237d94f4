//! `[[thing]]`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    NAME_REMEDY, Reader, Table, cache::Tables, check_attributes, groups::group_remedy, second_time,
};
use crate::{
    document::Section,
    identity::{GroupName, Thing, ThingName, ThingTypeName},
    limits::{ATTRIBUTES_PER_THING_MAX, ATTRIBUTES_WITHOUT_TYPE_MAX, GROUPS_PER_THING_MAX},
    registry::{DynamicGroup, Origin, RegisteredThing, ThingType, hierarchy::Hierarchy},
};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ThingToml {
    name: String,
    r#type: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    provisionable: bool,
}

impl Table for ThingToml {
    const NAME: &str = "thing";

    fn of(tables: &Tables) -> &[Arc<Self>] {
        &tables.things
    }
}

impl Reader<'_, '_> {
    pub(super) fn things(
        &mut self,
        types: &[ThingType],
        hierarchy: &Hierarchy<'_>,
        dynamic_groups: &[DynamicGroup],
    ) -> Vec<RegisteredThing> {
        let mut things = Vec::new();
        let mut names = HashSet::new();
        // Most things are in the same groups as many others, and of the same type.
        let mut with_ancestors: HashMap<Vec<GroupName>, Arc<[GroupName]>> = HashMap::new();
        let mut known_types: HashMap<String, ThingTypeName> = HashMap::new();
        for index in 0..self.count::<ThingToml>() {
            let (mut section, Some(toml)) = self.table::<ThingToml>(index) else {
                continue;
            };
            check_count(&mut section, &toml);
            check_attributes(&mut section, &toml.attributes);
            let thing_type = toml.r#type.as_ref().and_then(|name| {
                let known = known_types.get(name).cloned();
                known.or_else(|| {
                    let parsed = thing_type(&mut section, name, types)?;
                    known_types.insert(name.clone(), parsed.clone());
                    Some(parsed)
                })
            });
            let Some(name) = section.parsed("name", &toml.name, ThingName::parse, NAME_REMEDY)
            else {
                continue;
            };
            if !names.insert(name.clone()) {
                second_time(&mut section, "thing", name.as_str());
                continue;
            }
            let direct_groups =
                direct_groups(&mut section, &toml.groups, hierarchy, dynamic_groups);
            let groups = match with_ancestors.get(&direct_groups) {
                Some(groups) => Arc::clone(groups),
                None => {
                    let groups = hierarchy.with_ancestors(&direct_groups);
                    with_ancestors.insert(direct_groups.clone(), Arc::clone(&groups));
                    groups
                }
            };
            let provisionable = toml.provisionable;
            things.push(RegisteredThing {
                thing: Arc::new(Thing {
                    name,
                    thing_type,
                    attributes: Arc::unwrap_or_clone(toml).attributes,
                    groups,
                }),
                direct_groups,
                memberships: Vec::new(),
                provisionable,
                origin: Origin::File,
            });
        }
        things
    }
}

fn thing_type(
    section: &mut Section<'_, '_>,
    name: &str,
    types: &[ThingType],
) -> Option<ThingTypeName> {
    let parsed = section.parsed("type", name, ThingTypeName::parse, NAME_REMEDY)?;
    let mut declared = types.iter().map(|declared| &declared.name);
    if !types.is_empty() && !declared.any(|declared| *declared == parsed) {
        let names = types.iter().map(|declared| declared.name.as_str());
        let remedy = match section.nearest(name, names) {
            Some(near) => format!("write `{near}`"),
            None => format!("add `[[type]]` with `name = \"{name}\"`"),
        };
        section.problem("type", format!("the type `{name}` does not exist"), remedy);
        return None;
    }
    Some(parsed)
}

/// Those that exist, one of each hierarchy.
fn direct_groups(
    section: &mut Section<'_, '_>,
    groups: &[String],
    hierarchy: &Hierarchy<'_>,
    dynamic_groups: &[DynamicGroup],
) -> Vec<GroupName> {
    if groups.len() > GROUPS_PER_THING_MAX {
        let message = format!("the thing is in {} groups", groups.len());
        let remedy = format!("keep at most {GROUPS_PER_THING_MAX}");
        section.problem("groups", message, remedy);
    }
    let mut direct: Vec<GroupName> = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let mut dynamic = dynamic_groups.iter();
        if let Some(dynamic) = dynamic.find(|dynamic| dynamic.name.as_str() == group) {
            let message =
                format!("the group `{group}` is a dynamic one: its query finds its things");
            let query = dynamic.query.text();
            let remedy = format!("remove it, or make the query `{query}` find the thing");
            section.problem_at("groups", at, message, remedy);
            continue;
        }
        let Some(known) = hierarchy.get(group) else {
            let message = format!("the group `{group}` does not exist");
            let remedy = group_remedy(section, group, hierarchy.names());
            section.problem_at("groups", at, message, remedy);
            continue;
        };
        if direct.contains(&known.name) {
            let message = format!("the group `{group}` stands here a second time");
            section.problem_at("groups", at, message, "remove it");
            continue;
        }
        if let Some(other) = hierarchy.same_hierarchy(group, &direct) {
            let root = hierarchy
                .root(group)
                .map_or(group.as_str(), GroupName::as_str);
            let message = format!(
                "`{group}` and `{other}` are both of the hierarchy of `{root}`, of which a thing is \
                 in one group at most"
            );
            let remedy = format!(
                "keep one of them, or take `parent` away from the group that should stand beside `{root}`"
            );
            section.problem_at("groups", at, message, remedy);
            continue;
        }
        direct.push(known.name.clone());
    }
    direct
}

fn check_count(section: &mut Section<'_, '_>, toml: &ThingToml) {
    let (max, remedy) = match toml.r#type {
        Some(_) => (ATTRIBUTES_PER_THING_MAX, "remove some"),
        None => (
            ATTRIBUTES_WITHOUT_TYPE_MAX,
            "give the thing a `type`, with which it may have 50",
        ),
    };
    let count = toml.attributes.len();
    if count > max {
        let message = format!("the thing has {count} attributes, over {max}");
        section.problem("attributes", message, remedy);
    }
}
