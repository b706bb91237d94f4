//! Who is connected, who departs from a profile, and so who is in which dynamic group.
//!
//! The broker says who comes and goes, detection says which alarms open and close, the registry says
//! what the queries are; [`Fleet::groups`] answers for one thing, and remembers the answer until
//! something that it depends on has changed.
//!
//! A thing is in at most ten groups. Static ones come first, then dynamic ones in the order of
//! `registry.toml`: the older one wins (specification A.10).
//!
//! Absent on purpose: policies of dynamic groups, which do not exist; memory of alarms across a
//! restart, which detection does not have either.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use portcullis_core::{
    identity::{GroupName, Thing, ThingName},
    limits::{FLEET_THINGS_MAX, GROUPS_PER_THING_MAX},
    registry::{
        Provenance,
        query::{Alarm, Subject},
    },
};

use super::{Snapshot, SnapshotWatch};

/// A thing as the gateway sees it.
#[derive(Debug)]
pub struct SeenThing {
    /// It.
    pub thing: Arc<Thing>,
    /// Whether it has a connection.
    pub is_connected: bool,
    /// Its groups, and where each of them comes from.
    pub groups: Vec<(GroupName, String)>,
}

/// The things as the gateway sees them at work. Cheap to clone; clones are the same fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    snapshots: SnapshotWatch,
    seen: Arc<RwLock<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Of the snapshot for which the answers hold.
    generation: u64,
    /// Those that are connected or in alarm.
    live: HashMap<Arc<str>, Live>,
    answers: HashMap<ThingName, Answer>,
}

#[derive(Clone, Debug, Default)]
struct Live {
    connections: usize,
    alarms: BTreeSet<Alarm>,
}

#[derive(Debug)]
struct Answer {
    /// The thing that was asked about: another one of the same name has another answer.
    thing: Arc<Thing>,
    groups: Arc<[GroupName]>,
    is_fresh: bool,
}

impl Fleet {
    /// Nobody is connected, nobody is in alarm.
    pub fn new(snapshots: SnapshotWatch) -> Self {
        Self {
            snapshots,
            seen: Arc::default(),
        }
    }

    /// A connection of `thing` was accepted.
    pub fn connected(&self, thing: &ThingName) {
        self.change(thing.as_str(), |live| live.connections += 1);
    }

    /// A connection of `thing` that was told as connected has ended.
    pub fn disconnected(&self, thing: &ThingName) {
        self.change(thing.as_str(), |live| {
            live.connections = live.connections.saturating_sub(1);
        });
    }

    /// An alarm of `device`, a thing's name, was raised or is over.
    pub fn alarm(&self, device: &str, profile: &str, behavior: &str, active: bool) {
        self.change(device, |live| {
            let alarm = (profile.to_owned(), behavior.to_owned());
            if active {
                live.alarms.insert(alarm);
            } else {
                live.alarms.remove(&alarm);
            }
        });
    }

    /// The groups of `thing`: static ones, their ancestors included, then dynamic ones. The same `Arc`
    /// while nothing changed.
    pub fn groups(&self, thing: &Arc<Thing>) -> Arc<[GroupName]> {
        let snapshot = {
            let snapshot = self.snapshots.borrow();
            if snapshot.dynamic_groups().is_empty() {
                return thing.groups.clone();
            }
            Arc::clone(&snapshot)
        };
        {
            let seen = self.read();
            if let Some(answer) = seen.answers.get(&thing.name)
                && seen.generation == snapshot.generation()
                && answer.is_fresh
                && Arc::ptr_eq(&answer.thing, thing)
            {
                return answer.groups.clone();
            }
        }
        let mut seen = self.write();
        seen.turn_to(&snapshot);
        let groups = seen.find(thing, &snapshot);
        let former = seen.answers.get(&thing.name).map(|answer| &answer.groups);
        let groups = match former {
            Some(former) if former[..] == groups[..] => former.clone(),
            _ => groups.into(),
        };
        // Of things of the registry alone, which is bounded by its file.
        if snapshot.thing(thing.name.as_str()).is_some() {
            let answer = Answer {
                thing: thing.clone(),
                groups: groups.clone(),
                is_fresh: true,
            };
            seen.answers.insert(thing.name.clone(), answer);
        }
        groups
    }

    /// The thing `name` as it is now; `None` if the registry in force has none.
    pub fn see(&self, name: &str) -> Option<SeenThing> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let thing = snapshot.thing(name)?;
        let registered = snapshot.registered(name)?;
        let provenance = snapshot.registry().provenance(registered);
        let from = |group: &GroupName| {
            let known = provenance.iter().find(|(known, _)| *known == group);
            if let Some((_, from)) = known {
                return from.to_string();
            }
            let mut dynamic = snapshot.dynamic_groups().iter();
            let found = dynamic.find(|dynamic| dynamic.name == *group);
            found.map_or_else(String::new, |found| {
                Provenance::Dynamic(found.query.text()).to_string()
            })
        };
        let groups = self.groups(thing);
        let live = self.read();
        let live = live.live.get(name);
        Some(SeenThing {
            is_connected: live.is_some_and(|live| live.connections > 0),
            groups: groups
                .iter()
                .map(|group| (group.clone(), from(group)))
                .collect(),
            thing: thing.clone(),
        })
    }

    fn change(&self, device: &str, change: impl FnOnce(&mut Live)) {
        let mut seen = self.write();
        if !seen.live.contains_key(device) {
            if seen.live.len() >= FLEET_THINGS_MAX {
                tracing::warn!(
                    device,
                    "Too many things are connected or in alarm for dynamic groups."
                );
                return;
            }
            seen.live.insert(device.into(), Live::default());
        }
        if let Some(live) = seen.live.get_mut(device) {
            change(live);
            if live.connections == 0 && live.alarms.is_empty() {
                seen.live.remove(device);
            }
        }
        if let Some(answer) = seen.answers.get_mut(device) {
            answer.is_fresh = false;
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Seen> {
        self.seen
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Seen {
    /// Keeps the answers of things that are still there, to be looked at again.
    fn turn_to(&mut self, snapshot: &Snapshot) {
        if self.generation == snapshot.generation() {
            return;
        }
        self.generation = snapshot.generation();
        self.answers
            .retain(|name, _| snapshot.thing(name.as_str()).is_some());
        for answer in self.answers.values_mut() {
            answer.is_fresh = false;
        }
    }

    fn find(&self, thing: &Thing, snapshot: &Snapshot) -> Vec<GroupName> {
        let nothing = Live::default();
        let live = self.live.get(thing.name.as_str()).unwrap_or(&nothing);
        let subject = Subject {
            thing,
            is_connected: live.connections > 0,
            alarms: &live.alarms,
        };
        // Ancestors are not memberships.
        let direct = snapshot
            .registered(thing.name.as_str())
            .map_or(thing.groups.len(), |registered| {
                registered.direct_groups.len() + registered.memberships.len()
            });
        let dynamic = snapshot
            .dynamic_groups()
            .iter()
            .filter(|group| group.query.finds(&subject))
            .map(|group| group.name.clone())
            .take(GROUPS_PER_THING_MAX.saturating_sub(direct));
        thing.groups.iter().cloned().chain(dynamic).collect()
    }
}

#[cfg(test)]
mod tests;
