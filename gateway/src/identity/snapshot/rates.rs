//! How much a thing may publish, as its groups say.

use std::collections::HashMap;

use portcullis_core::{
    identity::{GroupName, Thing},
    registry::{Group, PublishRates, RegisteredThing},
};

use super::Snapshot;

/// What its groups let a thing publish in a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThingRates {
    /// Publishes; 0 is no limit, `None` the gateway's setting.
    pub messages: Option<u64>,
    /// Bytes; 0 is no limit, `None` the gateway's setting.
    pub bytes: Option<u64>,
    /// What its groups have for all their things together.
    pub shared: Vec<SharedRates>,
}

/// What all things of a group may publish together in a second; 0 is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedRates {
    /// The group.
    pub group: GroupName,
    /// Publishes.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Snapshot {
    /// How much `thing` may publish; `None` if the registry has no such thing.
    pub fn publish_rates(&self, thing: &Thing) -> Option<&ThingRates> {
        let entry = self.things.get(thing.name.as_str())?;
        Some(&entry.groups.rates)
    }
}

/// Of each hierarchy the group counts that is nearest to the thing and says something; of those the one
/// that says least.
pub(super) fn of(registered: &RegisteredThing, groups: &HashMap<&str, &Group>) -> ThingRates {
    let added = registered.memberships.iter().map(|added| &added.group);
    let direct: Vec<_> = registered.direct_groups.iter().chain(added).collect();
    let lowest = |of: fn(&PublishRates) -> Option<u64>| {
        let said = direct.iter().filter_map(|name| nearest(name, groups, of));
        said.min_by_key(|rate| rate.checked_sub(1).unwrap_or(u64::MAX))
    };
    let all = registered.thing.groups.iter();
    let shared = all.filter_map(|name| {
        let group = groups.get(name.as_str())?;
        let rates = SharedRates {
            group: group.name.clone(),
            messages: group.publish_rates.messages_of_group.unwrap_or(0),
            bytes: group.publish_rates.bytes_of_group.unwrap_or(0),
        };
        (rates.messages > 0 || rates.bytes > 0).then_some(rates)
    });
    ThingRates {
        messages: lowest(|rates| rates.messages),
        bytes: lowest(|rates| rates.bytes),
        shared: shared.collect(),
    }
}

/// What `name` says, or the first group above it that says something.
fn nearest(
    name: &GroupName,
    groups: &HashMap<&str, &Group>,
    of: fn(&PublishRates) -> Option<u64>,
) -> Option<u64> {
    let mut next = groups.get(name.as_str());
    while let Some(group) = next {
        if let Some(rate) = of(&group.publish_rates) {
            return Some(rate);
        }
        let parent = group.parent.as_ref();
        next = parent.and_then(|parent| groups.get(parent.as_str()));
    }
    None
}
