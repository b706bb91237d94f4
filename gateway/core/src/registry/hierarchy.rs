//! Who inherits from whom, and where a membership comes from.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use super::{Group, Membership, Origin, RegisteredThing, Registry};
use crate::identity::GroupName;

/// The static groups, by name. Parents that do not exist and circles are gone from them.
#[derive(Debug)]
pub(super) struct Hierarchy<'g> {
    groups: &'g [Group],
    indices: HashMap<&'g str, usize>,
}

/// Where a membership comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance<'r> {
    /// The thing's entry in `registry.toml`.
    File,
    /// It is an ancestor of this group, which the thing is in.
    Inherited(&'r GroupName),
    /// Something put it there while the gateway ran, for this reason.
    RunTime(&'r str),
    /// A query finds it.
    Dynamic(&'r str),
}

/// `registry.toml`, `inherited from X`, `run time: WHY`, `dynamic: QUERY`.
impl fmt::Display for Provenance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("registry.toml"),
            Self::Inherited(group) => write!(f, "inherited from {group}"),
            Self::RunTime(why) => write!(f, "run time: {why}"),
            Self::Dynamic(query) => write!(f, "dynamic: {query}"),
        }
    }
}

impl<'g> Hierarchy<'g> {
    pub(super) fn new(groups: &'g [Group]) -> Self {
        let names = groups.iter().map(|group| group.name.as_str());
        Self {
            groups,
            indices: names.enumerate().map(|(at, name)| (name, at)).collect(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'g Group> {
        self.indices.get(name).map(|at| &self.groups[*at])
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'g str> {
        self.groups.iter().map(|group| group.name.as_str())
    }

    /// The group and its ancestors, upwards.
    pub(super) fn upwards(&self, name: &str) -> impl Iterator<Item = &'g Group> {
        std::iter::successors(self.get(name), |group| {
            group
                .parent
                .as_ref()
                .and_then(|parent| self.get(parent.as_str()))
        })
    }

    /// The top of the group's hierarchy.
    pub(super) fn root(&self, name: &str) -> Option<&'g GroupName> {
        self.upwards(name).last().map(|group| &group.name)
    }

    /// The one of `others` that is of the same hierarchy as `name`.
    pub(super) fn same_hierarchy<'o>(
        &self,
        name: &str,
        others: impl IntoIterator<Item = &'o GroupName>,
    ) -> Option<&'o GroupName> {
        let root = self.root(name)?;
        let mut others = others.into_iter();
        others.find(|other| self.root(other.as_str()) == Some(root))
    }

    /// `direct` and their ancestors in the order of the registry, each once.
    pub(super) fn with_ancestors<'n>(
        &self,
        direct: impl IntoIterator<Item = &'n GroupName>,
    ) -> Arc<[GroupName]> {
        let mut found: BTreeSet<usize> = BTreeSet::new();
        for name in direct {
            let groups = self.upwards(name.as_str());
            found.extend(groups.filter_map(|group| self.indices.get(group.name.as_str()).copied()));
        }
        found
            .into_iter()
            .map(|at| self.groups[at].name.clone())
            .collect()
    }
}

impl Registry {
    /// The top of the hierarchy of `group`; `None` if there is no such group.
    pub fn root_of(&self, group: &str) -> Option<&GroupName> {
        Hierarchy::new(&self.groups).root(group)
    }

    /// Where each of the static groups of `registered`, which is of this registry, comes from; in the
    /// order of its groups.
    pub fn provenance<'r>(
        &'r self,
        registered: &'r RegisteredThing,
    ) -> Vec<(&'r GroupName, Provenance<'r>)> {
        let hierarchy = Hierarchy::new(&self.groups);
        let of = |group: &'r GroupName| {
            if registered.direct_groups.contains(group) {
                return match &registered.origin {
                    Origin::File => Provenance::File,
                    Origin::RunTime { why, .. } => Provenance::RunTime(why),
                };
            }
            let memberships = &registered.memberships;
            let is_it = |membership: &&Membership| membership.group == *group;
            if let Some(membership) = memberships.iter().find(is_it) {
                return Provenance::RunTime(&membership.why);
            }
            let added = memberships.iter().map(|membership| &membership.group);
            let mut below = registered.direct_groups.iter().chain(added);
            let heir = below.find(|below| {
                let mut above = hierarchy.upwards(below.as_str());
                above.any(|above| above.name == *group)
            });
            heir.map_or(Provenance::File, Provenance::Inherited)
        };
        let groups = registered.thing.groups.iter();
        groups.map(|group| (group, of(group))).collect()
    }
}
