use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::topic::Subscribed;

type Table = Routes<u8, u32>;

fn subscribed(text: &str) -> Subscribed {
    Subscribed::parse(text).unwrap()
}

fn insert(routes: &mut Table, text: &str, key: u8, value: u32) -> Option<u32> {
    let Subscribed { share, filter } = subscribed(text);
    routes.insert(&filter, share.as_ref(), key, value)
}

fn remove(routes: &mut Table, text: &str, key: u8) -> Option<u32> {
    let Subscribed { share, filter } = subscribed(text);
    routes.remove(&filter, share.as_ref(), &key)
}

fn direct(routes: &Table, topic: &str) -> BTreeSet<(u8, u32)> {
    let mut found = BTreeSet::new();
    routes.matching(&TopicName::parse(topic).unwrap(), |matched| {
        if let Match::Direct(&key, &value) = matched {
            assert!(found.insert((key, value)), "{key} twice");
        }
    });
    found
}

#[test]
fn members_of_shares_are_counted_apart_as_well() {
    let mut routes = Table::default();
    for (text, key) in [("a/#", 1), ("$share/s/a/#", 1), ("$share/s/a/#", 2)] {
        insert(&mut routes, text, key, 0);
    }
    assert_eq!(insert(&mut routes, "$share/s/a/#", 2, 1), Some(0));
    assert_eq!((routes.len(), routes.shared_len()), (3, 2));
    remove(&mut routes, "$share/s/a/#", 1);
    remove(&mut routes, "$share/t/a/#", 2);
    remove(&mut routes, "a/#", 1);
    assert_eq!((routes.len(), routes.shared_len()), (1, 1));
}

#[test]
fn a_key_has_one_value_a_filter() {
    let mut routes = Table::default();
    assert_eq!(insert(&mut routes, "a/+", 1, 1), None);
    assert_eq!(insert(&mut routes, "a/+", 1, 2), Some(1));
    assert_eq!(insert(&mut routes, "a/b", 1, 3), None);
    assert_eq!(direct(&routes, "a/b"), [(1, 2), (1, 3)].into());
    assert_eq!(routes.len(), 2);
    assert_eq!(remove(&mut routes, "a/+", 2), None);
    assert_eq!(remove(&mut routes, "a/+", 1), Some(2));
    assert_eq!(remove(&mut routes, "a/#", 1), None);
    assert_eq!(direct(&routes, "a/b"), [(1, 3)].into());
}

#[test]
fn of_a_share_the_members_take_turns() {
    let mut routes = Table::default();
    for key in 1..=3 {
        insert(&mut routes, "$share/g/a/#", key, 0);
    }
    insert(&mut routes, "$share/h/a/#", 9, 0);
    insert(&mut routes, "a/#", 1, 7);
    let mut picked = BTreeMap::new();
    for _ in 0..30 {
        routes.matching(&TopicName::parse("a/b").unwrap(), |matched| {
            if let Match::Shared(group) = matched {
                let (&key, _) = group.in_turn().next().unwrap();
                *picked.entry(key).or_insert(0) += 1;
            }
        });
    }
    assert_eq!(picked, [(1, 10), (2, 10), (3, 10), (9, 30)].into());
    assert_eq!(direct(&routes, "a/b"), [(1, 7)].into());
    remove(&mut routes, "$share/g/a/#", 2);
    let mut members = Vec::new();
    routes.matching(&TopicName::parse("a").unwrap(), |matched| {
        if let Match::Shared(group) = matched {
            members.push(
                group
                    .in_turn()
                    .map(|(&key, _)| key)
                    .collect::<BTreeSet<_>>(),
            );
        }
    });
    assert_eq!(members, [[1, 3].into(), [9].into()]);
}

#[test]
fn what_is_removed_leaves_nothing_behind() {
    let mut routes = Table::default();
    let filters = ["#", "+", "a/+/#", "$SYS/#", "a/b/c", "$share/g/a/+"];
    for (key, filter) in (0..).zip(filters) {
        insert(&mut routes, filter, key, 0);
    }
    for (key, filter) in (0..).zip(filters) {
        remove(&mut routes, filter, key);
    }
    assert!(routes.is_empty());
    assert!(routes.root.is_empty());
}

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just(""), Just("$x"), Just("é")]
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![4 => level(), 2 => Just("+")];
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |text| !text.is_empty())
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |text| !text.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_finds_what_comparing_every_filter_finds(
        changes in prop::collection::vec((filter(), 0..4_u8, any::<bool>()), 1..60),
        topics in prop::collection::vec(topic(), 1..10),
    ) {
        let mut routes = Table::default();
        let mut list = BTreeMap::new();
        for (number, (filter, key, add)) in (0..).zip(&changes) {
            let entry = (filter.clone(), *key);
            if *add {
                prop_assert_eq!(insert(&mut routes, filter, *key, number), list.insert(entry, number));
            } else {
                prop_assert_eq!(remove(&mut routes, filter, *key), list.remove(&entry));
            }
        }
        prop_assert_eq!(routes.len(), list.len());
        for topic in &topics {
            let name = TopicName::parse(topic).unwrap();
            let expected = list
                .iter()
                .filter(|((filter, _), _)| TopicFilter::parse(filter).unwrap().matches(&name))
                .map(|((_, key), value)| (*key, *value))
                .collect();
            prop_assert_eq!(direct(&routes, topic), expected, "{}", topic);
        }
    }
}
