//! Queries as an operator writes them, well and badly; and against a slow evaluator.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    identity::{GroupName, ThingName, ThingTypeName},
    limits::{QUERY_BYTES_MAX, QUERY_DEPTH_MAX},
};

fn thing() -> Thing {
    let attributes = [
        ("model", "a b"),
        ("t", "7.5"),
        ("floor", "3"),
        ("odd:name", "x*y"),
    ];
    Thing {
        name: ThingName::parse("sensor-7").unwrap(),
        thing_type: ThingTypeName::parse("thermometer").ok(),
        attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        groups: [GroupName::parse("cold-chain").unwrap()].into(),
    }
}

fn finds(query: &str) -> bool {
    let parsed = Query::parse(query).unwrap_or_else(|mistake| panic!("{query}: {mistake:?}"));
    let alarms = BTreeSet::from([("p".to_owned(), "flood".to_owned())]);
    parsed.finds(&Subject {
        thing: &thing(),
        is_connected: true,
        alarms: &alarms,
    })
}

#[test]
fn every_field_is_found() {
    for query in [
        "thingName:sensor-7",
        "thingName:sensor*",
        "thingName:s?nsor-?",
        "thingName:*",
        "thingTypeName:thermometer",
        "thingGroupNames:cold*",
        "attributes.model:\"a b\"",
        "attributes.model:a\\ b",
        "attributes.t > 5",
        "attributes.t:>5",
        "attributes.t >= 7.5 AND attributes.t <= 7.5",
        "attributes.floor:[1 TO 5]",
        "attributes.floor:[3 TO 3]",
        "attributes.floor:{2 TO *]",
        "attributes.floor:[* TO 4}",
        "attributes.odd\\:name:x\\*y",
        "attributes.odd\\:name:\"x*y\"",
        "connectivity.connected:true",
        "deviceDefender.violationCount > 0",
        "deviceDefender.violationCount:1",
        "deviceDefender.p.flood.inViolation:true",
        "deviceDefender.p.quiet.inViolation:false",
    ] {
        assert!(finds(query), "{query}");
        assert!(!finds(&format!("NOT ({query})")), "{query}");
    }
    for query in [
        "thingName:sensor",
        "thingName:Sensor-7",
        "thingName:\"sensor*\"",
        "thingName:sensor-7?",
        "attributes.t < 7.5",
        "attributes.floor:{3 TO 5]",
        "attributes.floor:[1 TO 3}",
        "attributes.model > 1",
        "attributes.absent:*",
        "connectivity.connected:false",
        "deviceDefender.p.flood.inViolation:false",
        "deviceDefender.violationCount > 1",
    ] {
        assert!(!finds(query), "{query}");
        assert!(finds(&format!("NOT {query}")), "{query}");
    }
}

#[test]
fn not_binds_tighter_than_and_and_and_tighter_than_or() {
    let (yes, no) = ("thingName:*", "thingName:x");
    for (query, expected) in [
        (format!("{yes} OR {yes} AND {no}"), true),
        (format!("({yes} OR {yes}) AND {no}"), false),
        (format!("NOT {no} AND {no}"), false),
        (format!("NOT ({no} AND {no})"), true),
        (format!("{no} || !{no} && -{no}"), true),
        (format!("NOT NOT {yes}"), true),
    ] {
        assert_eq!(finds(&query), expected, "{query}");
    }
}

#[test]
fn every_mistake_has_a_place_and_a_remedy() {
    for (query, column, expected) in [
        ("", 1, "the query ends where a term is missing"),
        (
            "thingName:a AND",
            16,
            "the query ends where a term is missing",
        ),
        ("AND thingName:a", 1, "`AND` stands where a term should"),
        (
            "thingName:a thingName:b",
            13,
            "two terms stand side by side",
        ),
        (
            "(thingName:a thingName:b)",
            14,
            "two terms stand side by side",
        ),
        ("sensor", 1, "`sensor` is no field of a thing"),
        ("thingname:a", 1, "`thingname` is no field of a thing"),
        ("shadow.reported.x:1", 1, "`shadow.reported.x` is no field"),
        ("thingName", 10, "`thingName` is compared with nothing"),
        ("thingName:", 11, "a value is missing"),
        ("thingName:\"a", 11, "the text has no end"),
        ("thingName > 5", 11, "the field is a text, not a number"),
        ("attributes.t > x", 16, "`x` is no number"),
        ("attributes.t:[1 5]", 17, "`TO` is missing"),
        ("attributes.t:[1 TO 5", 19, "the range is not closed"),
        (
            "attributes.t:[5 TO 1]",
            20,
            "the range ends before it starts",
        ),
        ("attributes.t:[nan TO 1]", 15, "`nan` is no number"),
        (
            "connectivity.connected:yes",
            23,
            "the field is true or false",
        ),
        (
            "deviceDefender.violationCount:many",
            30,
            "the field is a number",
        ),
        ("(thingName:a", 1, "`(` is not closed"),
        ("thingName:a)", 12, "`)` closes nothing"),
        ("ä:a", 1, "`ä` is no field"),
        ("thingName:a\\", 12, "nothing stands behind `\\`"),
    ] {
        let mistake = Query::parse(query).unwrap_err();
        assert!(
            mistake.message.starts_with(expected),
            "{query}: {mistake:?}"
        );
        assert_eq!(
            mistake.place.map(|place| place.column),
            Some(column),
            "{query}"
        );
        assert!(!mistake.remedy.is_empty());
    }
    let remedy = Query::parse("thingname:a").unwrap_err().remedy;
    assert_eq!(remedy, "write `thingName`");
}

#[test]
fn nesting_and_length_are_bounded() {
    let nested = |n: usize| format!("{}thingName:*{}", "(".repeat(n), ")".repeat(n));
    assert!(Query::parse(&nested(QUERY_DEPTH_MAX)).is_ok());
    let message = Query::parse(&nested(QUERY_DEPTH_MAX + 1))
        .unwrap_err()
        .message;
    assert!(message.contains("nested more than"), "{message}");
    assert!(Query::parse(&"!".repeat(500)).is_err());
    let long = format!("thingName:{}", "a".repeat(QUERY_BYTES_MAX));
    assert!(Query::parse(&long).unwrap_err().message.contains("bytes"));
}

#[test]
fn a_query_knows_whether_it_depends_on_more_than_the_registry() {
    for (query, is_live) in [
        ("thingName:a OR NOT attributes.t > 5", false),
        ("thingName:a OR NOT connectivity.connected:true", true),
        ("deviceDefender.violationCount > 0", true),
        ("deviceDefender.p.b.inViolation:true AND thingName:a", true),
    ] {
        assert_eq!(Query::parse(query).unwrap().is_live(), is_live, "{query}");
    }
}

/// Whether `text` is like `pattern`, by trying everything.
fn slow_like(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(('*', rest)), _) => (0..=text.len()).any(|n| slow_like(rest, &text[n..])),
        (Some(('?', rest)), Some((_, text))) => slow_like(rest, text),
        (Some((c, rest)), Some((d, text))) => c == d && slow_like(rest, text),
        (Some(_), None) => false,
    }
}

/// A query as a tree, which writes itself and knows its answer.
#[derive(Clone, Debug)]
enum Tree {
    Name(String),
    Above(i32),
    Connected(bool),
    Not(Box<Tree>),
    Both(Box<Tree>, Box<Tree>),
    Either(Box<Tree>, Box<Tree>),
}

impl Tree {
    fn write(&self) -> String {
        match self {
            Self::Name(pattern) => format!("thingName:{pattern}"),
            Self::Above(n) => format!("attributes.t > {n}"),
            Self::Connected(is) => format!("connectivity.connected:{is}"),
            Self::Not(tree) => format!("NOT ({})", tree.write()),
            Self::Both(one, other) => format!("({}) AND ({})", one.write(), other.write()),
            Self::Either(one, other) => format!("({}) OR ({})", one.write(), other.write()),
        }
    }

    fn answer(&self, name: &str, t: Option<i32>, connected: bool) -> bool {
        let of = |tree: &Self| tree.answer(name, t, connected);
        match self {
            Self::Name(pattern) => {
                let [pattern, name] =
                    [pattern.as_str(), name].map(|s| s.chars().collect::<Vec<_>>());
                slow_like(&pattern, &name)
            }
            Self::Above(n) => t.is_some_and(|t| t > *n),
            Self::Connected(is) => connected == *is,
            Self::Not(tree) => !of(tree),
            Self::Both(one, other) => of(one) && of(other),
            Self::Either(one, other) => of(one) || of(other),
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        "[ab*?]{1,8}".prop_map(Tree::Name),
        (-3..3).prop_map(Tree::Above),
        any::<bool>().prop_map(Tree::Connected),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            inner.prop_map(|tree| Tree::Not(Box::new(tree))),
            pair.clone()
                .prop_map(|(a, b)| Tree::Both(Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Tree::Either(Box::new(a), Box::new(b))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn a_query_answers_as_a_slow_evaluator_does(
        tree in tree(),
        name in "[ab]{1,8}",
        t in proptest::option::of(-4..4),
        is_connected: bool,
    ) {
        let text = tree.write();
        prop_assume!(text.len() <= QUERY_BYTES_MAX);
        let attributes: BTreeMap<String, String> =
            t.map(|t: i32| ("t".to_owned(), t.to_string())).into_iter().collect();
        let thing = Thing {
            name: ThingName::parse(&name).unwrap(),
            thing_type: None,
            attributes,
            groups: [].into(),
        };
        let query = Query::parse(&text).unwrap();
        let subject = Subject { thing: &thing, is_connected, alarms: &BTreeSet::new() };
        prop_assert_eq!(query.finds(&subject), tree.answer(&name, t, is_connected), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-zA-Z\\\\\"():<>=\\[\\]{}*? .!&|5-]{0,60}") {
        if let Err(mistake) = Query::parse(&text) {
            prop_assert!(mistake.place.is_some());
        }
    }
}
