//! What was seen and allowed, in bounded memory: facts, not events.
//!
//! A fact is an action on a [`Shape`]. Facts of things that are in the same groups share a table,
//! so that a noisy group takes nothing from a quiet one. A table that is full first gives up
//! telling values apart that nobody could list; what does not fit then is counted as lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Ground, Grounds,
    shape::{Actor, Shape},
    unbounded,
};
use crate::{
    identity::{GroupName, ThingName},
    policy::Action,
    timestamp::Timestamp,
};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Combinations of groups.
    pub tables_max: usize,
    /// Facts of one combination of groups.
    pub facts_max: usize,
    /// Things that are remembered to be in groups of one combination and to have done something.
    pub active_max: usize,
    /// Things that are remembered to have done one fact.
    pub doers_max: usize,
    /// Resources that are remembered as they were.
    pub examples_max: usize,
    /// Statements that are remembered to have allowed one fact.
    pub grounds_max: usize,
}

/// Who was seen to do a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doer {
    /// The thing.
    pub thing: ThingName,
    /// The client id of its connection.
    pub client_id: Arc<str>,
}

/// Something that things were seen to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The action.
    pub action: Action,
    /// On what.
    pub shape: Shape,
    /// How often.
    pub times: u64,
    /// When for the first time.
    pub first: Timestamp,
    /// When for the last time.
    pub last: Timestamp,
    /// Who, and how often; a sample if `more_doers`.
    pub doers: BTreeMap<Doer, u64>,
    /// Whether others did it as well.
    pub more_doers: bool,
    /// Some resources as they were, if the shape has an unbounded level.
    pub examples: BTreeSet<(Doer, String)>,
    /// What allowed it.
    pub grounds: Grounds,
}

impl Fact {
    /// Whether it tells more now than how often: who did it, an example, what allowed it.
    fn absorb(&mut self, other: Self, bounds: &Bounds) -> bool {
        self.times = self.times.saturating_add(other.times);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.more_doers |= other.more_doers;
        let mut tells_more = false;
        for (doer, times) in other.doers {
            if let Some(known) = self.doers.get_mut(&doer) {
                *known = known.saturating_add(times);
            } else if self.doers.len() < bounds.doers_max {
                self.doers.insert(doer, times);
                tells_more = true;
            } else {
                self.more_doers = true;
            }
        }
        for example in other.examples {
            if self.examples.len() < bounds.examples_max {
                tells_more |= self.examples.insert(example);
            }
        }
        self.grounds.absorb(other.grounds, bounds.grounds_max) || tells_more
    }
}

type Key = (&'static str, Shape);

/// What the things of one combination of groups did.
#[derive(Clone, Debug, Default)]
pub struct Table {
    facts: BTreeMap<Key, Fact>,
    /// The things that did anything.
    active: BTreeSet<ThingName>,
}

impl Table {
    /// The facts, in a stable order.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.facts.values()
    }

    /// The things that did anything.
    pub fn active(&self) -> impl Iterator<Item = &ThingName> {
        self.active.iter()
    }

    /// Whether the fact, who did it or what allowed it is new; `None` if there is no room for it.
    fn add(&mut self, mut fact: Fact, bounds: &Bounds) -> Option<bool> {
        let mut is_new_thing = false;
        for doer in fact.doers.keys() {
            if self.active.len() < bounds.active_max && !self.active.contains(&doer.thing) {
                self.active.insert(doer.thing.clone());
                is_new_thing = true;
            }
        }
        let mut key = (fact.action.name(), fact.shape.clone());
        if !self.facts.contains_key(&key) {
            if let Some(known) = self.collapsed(&fact) {
                generalize(&mut fact, &known);
                key.1 = known;
            } else if self.facts.len() >= bounds.facts_max {
                self.compact(bounds);
                if let Some(known) = self.collapsed(&fact) {
                    generalize(&mut fact, &known);
                    key.1 = known;
                } else if self.facts.len() >= bounds.facts_max {
                    return None;
                }
            }
        }
        match self.facts.get_mut(&key) {
            Some(known) => Some(known.absorb(fact, bounds) || is_new_thing),
            None => {
                self.facts.insert(key, fact);
                Some(true)
            }
        }
    }

    /// The shape with an unbounded level of which `fact` is one case.
    fn collapsed(&self, fact: &Fact) -> Option<Shape> {
        let same_action = self
            .facts
            .values()
            .filter(|known| known.action == fact.action);
        let mut wide = same_action.filter(|known| known.shape.has_any());
        let found = wide.find(|known| known.shape.covers(&fact.shape))?;
        Some(found.shape.clone())
    }

    fn compact(&mut self, bounds: &Bounds) {
        for action in Action::ALL {
            let its = self.facts.values().filter(|fact| fact.action == action);
            for (before, after) in unbounded::collapse(its.map(|fact| &fact.shape)) {
                if let Some(mut fact) = self.facts.remove(&(action.name(), before)) {
                    generalize(&mut fact, &after);
                    match self.facts.get_mut(&(action.name(), after.clone())) {
                        Some(known) => _ = known.absorb(fact, bounds),
                        None => drop(self.facts.insert((action.name(), after), fact)),
                    }
                }
            }
        }
    }
}

/// Makes a case of `shape` of it.
fn generalize(fact: &mut Fact, shape: &Shape) {
    if !fact.shape.has_any()
        && let Some(doer) = fact.doers.keys().next()
    {
        // Variables stay as they are in an example: its thing may have changed when it is read.
        fact.examples.insert((doer.clone(), fact.shape.to_string()));
    }
    fact.shape = shape.clone();
}

/// What was made of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// A new fact, or a known one that another statement allowed.
    New,
    /// Another case of a known one.
    Known,
    /// There was no room for it.
    Lost,
}

/// All facts of some time.
#[derive(Clone, Debug)]
pub struct Observations {
    bounds: Bounds,
    tables: BTreeMap<Arc<[GroupName]>, Table>,
    lost: u64,
}

impl Observations {
    /// None yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tables: BTreeMap::new(),
            lost: 0,
        }
    }

    /// `actor` was allowed `action` on `resource` by `ground`, `times` times until `last`.
    pub fn note(
        &mut self,
        actor: &Actor<'_>,
        action: Action,
        resource: &str,
        times: u64,
        (first, last): (Timestamp, Timestamp),
        ground: &Arc<Ground>,
    ) -> Noted {
        let doer = Doer {
            thing: actor.thing.name.clone(),
            client_id: actor.client_id.into(),
        };
        let fact = Fact {
            action,
            shape: Shape::of(actor, action, resource),
            times,
            first,
            last,
            doers: BTreeMap::from([(doer, times)]),
            more_doers: false,
            examples: BTreeSet::new(),
            grounds: Grounds::one(ground.clone()),
        };
        self.add(&actor.thing.groups, fact)
    }

    /// Adds a fact that was kept elsewhere.
    pub fn add(&mut self, groups: &Arc<[GroupName]>, fact: Fact) -> Noted {
        let times = fact.times;
        let added = match self.table(groups) {
            Some((table, bounds)) => table.add(fact, &bounds),
            None => None,
        };
        match added {
            Some(true) => Noted::New,
            Some(false) => Noted::Known,
            None => {
                self.lost = self.lost.saturating_add(times);
                Noted::Lost
            }
        }
    }

    /// Adds a thing that did something.
    pub fn add_active(&mut self, groups: &Arc<[GroupName]>, thing: ThingName) {
        if let Some((table, bounds)) = self.table(groups)
            && table.active.len() < bounds.active_max
        {
            table.active.insert(thing);
        }
    }

    /// Adds to the number of observations for which there was no room.
    pub fn add_lost(&mut self, times: u64) {
        self.lost = self.lost.saturating_add(times);
    }

    /// Adds everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (groups, table) in &other.tables {
            for thing in &table.active {
                self.add_active(groups, thing.clone());
            }
            for fact in table.facts.values() {
                self.add(groups, fact.clone());
            }
        }
        self.add_lost(other.lost);
    }

    fn table(&mut self, groups: &Arc<[GroupName]>) -> Option<(&mut Table, Bounds)> {
        if !self.tables.contains_key(groups) {
            if self.tables.len() >= self.bounds.tables_max {
                return None;
            }
            self.tables.insert(groups.clone(), Table::default());
        }
        Some((self.tables.get_mut(groups)?, self.bounds))
    }

    /// The tables, each with the groups whose things it is of.
    pub fn tables(&self) -> impl Iterator<Item = (&Arc<[GroupName]>, &Table)> {
        self.tables.iter()
    }

    /// All facts.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.tables.values().flat_map(Table::facts)
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.tables.values().map(|table| table.facts.len()).sum()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(|table| table.facts.is_empty())
    }

    /// How many observations there was no room for.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{ground, thing},
        *,
    };

    const BOUNDS: Bounds = Bounds {
        tables_max: 2,
        facts_max: 8,
        active_max: 3,
        doers_max: 2,
        examples_max: 2,
        grounds_max: 2,
    };

    fn note(all: &mut Observations, name: &str, topic: &str, at: u64) -> Noted {
        let thing = thing(name, None, &[]);
        let actor = Actor {
            thing: &thing,
            client_id: name,
        };
        let at = Timestamp::from_millis(at);
        all.note(
            &actor,
            Action::Publish,
            topic,
            1,
            (at, at),
            &ground(0, None),
        )
    }

    fn shapes(all: &Observations) -> Vec<String> {
        all.facts().map(|fact| fact.shape.to_string()).collect()
    }

    #[test]
    fn things_share_a_fact_under_their_own_names() {
        let mut all = Observations::new(BOUNDS);
        assert_eq!(note(&mut all, "s-1", "dt/s-1/t", 5), Noted::New);
        assert_eq!(note(&mut all, "s-2", "dt/s-2/t", 3), Noted::New, "who");
        assert_eq!(note(&mut all, "s-2", "dt/s-2/t", 3), Noted::Known);
        assert_eq!(note(&mut all, "s-3", "dt/s-3/t", 9), Noted::New, "a thing");
        assert_eq!(note(&mut all, "s-3", "dt/s-3/t", 9), Noted::Known);
        let fact = all.facts().next().unwrap();
        assert_eq!(
            fact.shape.to_string(),
            "dt/${iot:Connection.Thing.ThingName}/t"
        );
        assert_eq!(
            (fact.times, fact.first.as_millis(), fact.last.as_millis()),
            (5, 3, 9)
        );
        assert_eq!((fact.doers.len(), fact.more_doers), (2, true), "a sample");
    }

    #[test]
    fn a_full_table_gives_up_listing_before_it_loses() {
        let mut all = Observations::new(BOUNDS);
        for i in 0..100 {
            note(&mut all, "s-1", &format!("cmd/1795341600{i:03}"), i);
        }
        assert_eq!(shapes(&all), ["cmd/*"]);
        let fact = all.facts().next().unwrap();
        assert_eq!(
            (fact.times, fact.examples.len()),
            (100, BOUNDS.examples_max)
        );
        assert_eq!(all.lost(), 0);
        assert_eq!(
            note(&mut all, "s-1", "dt/a", 0),
            Noted::New,
            "there is room again"
        );
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut all = Observations::new(BOUNDS);
        for i in 0..10 {
            note(&mut all, "s-1", &format!("room/{i}"), i);
        }
        assert_eq!((all.len(), all.lost()), (8, 2));
        let other =
            |group: &str| -> Arc<[GroupName]> { Arc::from([GroupName::parse(group).unwrap()]) };
        let fact = all.facts().next().unwrap().clone();
        assert_eq!(all.add(&other("a"), fact.clone()), Noted::New);
        assert_eq!(all.add(&other("b"), fact), Noted::Lost, "no third table");
    }

    #[test]
    fn merging_is_the_same_as_seeing_all() {
        let (mut whole, mut a, mut b) = (
            Observations::new(BOUNDS),
            Observations::new(BOUNDS),
            Observations::new(BOUNDS),
        );
        for (i, half) in [&mut a, &mut b].into_iter().enumerate() {
            for j in 0..3 {
                let topic = format!("dt/{}", i + j);
                note(half, "s-1", &topic, 7);
                note(&mut whole, "s-1", &topic, 7);
            }
        }
        a.merge(&b);
        assert!(a.facts().eq(whole.facts()));
    }

    #[test]
    fn what_allowed_a_fact_is_kept_with_it_up_to_the_bound() {
        let mut all = Observations::new(BOUNDS);
        let s1 = thing("s-1", None, &[]);
        let actor = Actor {
            thing: &s1,
            client_id: "s-1",
        };
        let at = Timestamp::from_millis(1);
        let mut note = |ground| all.note(&actor, Action::Publish, "a", 1, (at, at), &ground);
        let limited = Some(r#"{"Bool":{"a":"true"}}"#);
        assert_eq!(note(ground(0, limited)), Noted::New);
        assert_eq!(note(ground(0, limited)), Noted::Known);
        assert_eq!(note(ground(1, None)), Noted::New, "another statement");
        assert_eq!(note(ground(2, None)), Noted::Known, "no room for it");
        let grounds = &all.facts().next().unwrap().grounds;
        assert_eq!((grounds.known.len(), grounds.more), (2, true));
        assert_eq!(grounds.condition(), None);
    }

    #[test]
    fn active_things_are_remembered_up_to_the_bound() {
        let mut all = Observations::new(BOUNDS);
        for i in 0..9 {
            note(&mut all, &format!("s-{i}"), "dt/x", 0);
        }
        let (_, table) = all.tables().next().unwrap();
        assert_eq!(table.active().count(), BOUNDS.active_max);
    }
}
