//! The fewest shapes that take everything that was done.
//!
//! Each deed can be read in several ways (`dt/b/t` may be zone b's topic, or everybody's). The
//! reading that explains most deeds wins, again and again until all are explained.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    proposal::Deed,
    shape::{Shape, Variable},
};
use crate::policy::Action;

/// A thing may be named like a level that many others use: from so many on, they explain it.
const OTHERS_MIN: usize = 3;

/// Shapes, and the deeds (positions in `deeds`) that each explains. Every deed is in one at least.
pub(super) fn cover(deeds: &[Deed<'_>], action: Action) -> BTreeMap<Shape, Vec<usize>> {
    let mut readings: BTreeMap<Shape, Vec<usize>> = BTreeMap::new();
    let its = (0..deeds.len()).filter(|index| deeds[*index].action == action);
    let mut open: BTreeSet<usize> = its.collect();
    for index in &open {
        let deed = &deeds[*index];
        for shape in Shape::readings(&deed.actor(), action, &deed.resource) {
            readings.entry(shape).or_default().push(*index);
        }
    }
    readings.retain(|shape, explained| has_evidence(shape, deeds, explained));
    let mut chosen: BTreeMap<Shape, Vec<usize>> = BTreeMap::new();
    while !open.is_empty() {
        let count = |explained: &[usize]| explained.iter().filter(|i| open.contains(i)).count();
        let best = readings
            .iter()
            .map(|(shape, explained)| (count(explained), rank(shape), shape))
            // Of equals the first, so that the outcome depends on nothing else.
            .reduce(|best, next| {
                if (next.0, next.1) > (best.0, best.1) {
                    next
                } else {
                    best
                }
            });
        let Some((1.., _, shape)) = best else { break };
        let shape = shape.clone();
        let explained = readings.remove(&shape).unwrap_or_default();
        for index in &explained {
            open.remove(index);
        }
        chosen.insert(shape, explained);
    }
    // Readings cannot run out: the last one of every deed needs no evidence.
    for index in open {
        let shape = Shape::literal(&deeds[index].resource);
        chosen.entry(shape).or_default().push(index);
    }
    drop_namesakes(&mut chosen, deeds);
    chosen
}

/// More names and fewer guesses: what is preferred among shapes that explain equally much.
fn rank(shape: &Shape) -> (usize, std::cmp::Reverse<usize>) {
    let own = shape.variables().filter(|v| v.is_identity()).count();
    let guesses = shape.variables().filter(|v| !v.is_identity()).count();
    (own, std::cmp::Reverse(guesses))
}

/// That a level is a type or an attribute takes two values that agree with it; one may be chance.
fn has_evidence(shape: &Shape, deeds: &[Deed<'_>], explained: &[usize]) -> bool {
    let has_two_values = |variable: &Variable| {
        let values: BTreeSet<_> = explained
            .iter()
            .filter_map(|index| deeds[*index].actor().value(variable))
            .collect();
        values.len() >= 2
    };
    shape
        .variables()
        .filter(|variable| !variable.is_identity())
        .all(has_two_values)
}

/// A thing that is named like a topic which others use as well did nothing of its own there.
fn drop_namesakes(chosen: &mut BTreeMap<Shape, Vec<usize>>, deeds: &[Deed<'_>]) {
    let doers = |explained: &[usize]| -> BTreeSet<&str> {
        let names = explained
            .iter()
            .map(|index| deeds[*index].thing.name.as_str());
        names.collect()
    };
    let common: Vec<Shape> = chosen
        .iter()
        .filter(|(_, explained)| doers(explained).len() >= OTHERS_MIN)
        .map(|(shape, _)| shape.clone())
        .collect();
    let is_namesake = |explained: &[usize]| {
        doers(explained).len() == 1
            && explained.iter().all(|index| {
                let deed = &deeds[*index];
                common
                    .iter()
                    .any(|shape| shape.takes(&deed.actor(), &deed.resource))
            })
    };
    let mut moved = Vec::new();
    chosen.retain(|_, explained| {
        let is_one = is_namesake(explained);
        if is_one {
            moved.append(explained);
        }
        !is_one
    });
    for index in moved {
        let deed = &deeds[index];
        let found = chosen
            .iter_mut()
            .find(|(shape, _)| shape.takes(&deed.actor(), &deed.resource));
        if let Some((_, explained)) = found {
            explained.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::thing, *};
    use crate::{identity::Thing, timestamp::Timestamp};

    fn shapes(things: &[Thing], deeds: &[(&str, &str)]) -> Vec<String> {
        let deeds: Vec<Deed<'_>> = deeds
            .iter()
            .map(|(name, resource)| Deed {
                thing: things.iter().find(|t| t.name.as_str() == *name).unwrap(),
                client_id: (*name).into(),
                action: Action::Publish,
                resource: (*resource).to_owned(),
                times: 1,
                first: Timestamp::from_millis(0),
                last: Timestamp::from_millis(0),
                grounds: crate::learn::Grounds::default(),
            })
            .collect();
        let chosen = cover(&deeds, Action::Publish);
        for (shape, explained) in &chosen {
            for index in explained {
                assert!(shape.takes(&deeds[*index].actor(), &deeds[*index].resource));
            }
        }
        let explained: BTreeSet<usize> = chosen.values().flatten().copied().collect();
        assert_eq!(explained.len(), deeds.len(), "every deed is explained");
        chosen
            .keys()
            .map(|shape| shape.to_string().replace("iot:Connection.Thing.", ""))
            .collect()
    }

    fn fleet() -> [Thing; 4] {
        [
            thing("s-1", Some("cold"), &[("zone", "a")]),
            thing("s-2", Some("cold"), &[("zone", "b")]),
            thing("s-3", Some("hot"), &[("zone", "a")]),
            thing("dt", Some("hot"), &[("zone", "a")]),
        ]
    }

    #[test]
    fn own_names_become_the_variable_even_for_a_single_thing() {
        assert_eq!(
            shapes(&fleet(), &[("s-1", "dt/s-1/t")]),
            ["dt/${ThingName}/t"]
        );
    }

    #[test]
    fn names_of_others_stay_names() {
        let deeds = [("s-1", "dt/s-2/t"), ("s-2", "dt/s-2/t")];
        assert_eq!(shapes(&fleet(), &deeds), ["dt/s-2/t", "dt/${ThingName}/t"]);
    }

    #[test]
    fn an_attribute_with_two_values_becomes_a_variable() {
        let deeds = [
            ("s-1", "zone/a/t"),
            ("s-2", "zone/b/t"),
            ("s-3", "zone/a/t"),
        ];
        assert_eq!(shapes(&fleet(), &deeds), ["zone/${Attributes[zone]}/t"]);
    }

    #[test]
    fn an_attribute_with_one_value_may_be_chance() {
        let deeds = [("s-1", "zone/a/t"), ("s-3", "zone/a/t")];
        assert_eq!(shapes(&fleet(), &deeds), ["zone/a/t"]);
    }

    #[test]
    fn a_topic_that_everybody_uses_is_nobodys_attribute() {
        let deeds = [
            ("s-1", "zone/a/t"),
            ("s-1", "zone/b/t"),
            ("s-2", "zone/a/t"),
            ("s-2", "zone/b/t"),
        ];
        assert_eq!(shapes(&fleet(), &deeds), ["zone/a/t", "zone/b/t"]);
    }

    #[test]
    fn type_and_attribute_are_found_together() {
        let deeds = [("s-1", "cold/a/t"), ("s-2", "cold/b/t"), ("s-3", "hot/a/t")];
        let both = ["${ThingTypeName}/${Attributes[zone]}/t"];
        assert_eq!(shapes(&fleet(), &deeds), both);
    }

    #[test]
    fn a_thing_named_like_a_level_confuses_nobody() {
        let deeds = [("s-1", "dt/s-1/t"), ("s-2", "dt/s-2/t"), ("dt", "dt/dt/t")];
        assert_eq!(shapes(&fleet(), &deeds), ["dt/${ThingName}/t"]);
        let all = ["s-1", "s-2", "s-3", "dt"].map(|name| (name, "dt/common"));
        assert_eq!(shapes(&fleet(), &all), ["dt/common"]);
    }
}
