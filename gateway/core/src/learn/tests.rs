use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    identity::{ClientId, GroupName, Thing, ThingName, ThingTypeName},
    limits::POLICY_CHARACTERS_MAX,
    policy::{Action, Context, Policy, PolicySet},
    timestamp::Timestamp,
};

pub(super) const BOUNDS: Bounds = Bounds {
    tables_max: 16,
    facts_max: 256,
    active_max: 1000,
    doers_max: 64,
    examples_max: 16,
    grounds_max: 8,
};

/// A thing in the group `g`.
pub(super) fn thing(name: &str, thing_type: Option<&str>, attributes: &[(&str, &str)]) -> Thing {
    Thing {
        name: ThingName::parse(name).unwrap(),
        thing_type: thing_type.map(|name| ThingTypeName::parse(name).unwrap()),
        attributes: attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        groups: Arc::from([group("g")]),
    }
}

pub(super) fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

/// The statement `index` of the policy `device`.
pub(super) fn ground(index: usize, condition: Option<&str>) -> Arc<Ground> {
    Arc::new(Ground {
        policy: "device".into(),
        index,
        sid: None,
        condition: condition.map(Into::into),
    })
}

/// What things did, their client ids being their names.
pub(super) fn observed(things: &[Thing], seen: &[(&str, Action, &str)]) -> Observations {
    let seen: Vec<_> = seen.iter().map(|seen| (*seen, ground(0, None))).collect();
    observed_by(things, &seen)
}

/// Who did what on which resource, and what allowed it.
pub(super) type Seen<'a> = ((&'a str, Action, &'a str), Arc<Ground>);

/// The same, with what allowed it.
pub(super) fn observed_by(things: &[Thing], seen: &[Seen<'_>]) -> Observations {
    let mut all = Observations::new(BOUNDS);
    for (at, ((name, action, resource), ground)) in (0..).zip(seen) {
        let thing = things.iter().find(|t| t.name.as_str() == *name).unwrap();
        let actor = Actor {
            thing,
            client_id: if *action == Action::Connect {
                resource
            } else {
                name
            },
        };
        let at = Timestamp::from_millis(at);
        all.note(&actor, *action, resource, 1, (at, at), ground);
    }
    all
}

pub(super) fn shared(things: &[Thing]) -> Vec<Arc<Thing>> {
    things.iter().cloned().map(Arc::new).collect()
}

pub(super) fn policies(proposal: &Proposal<'_>) -> PolicySet {
    let parsed = proposal.policies.iter().map(|policy| {
        assert!(policy.characters <= POLICY_CHARACTERS_MAX);
        Arc::new(Policy::parse("learned", &policy.json).unwrap())
    });
    PolicySet::new(parsed.collect())
}

pub(super) fn allows(set: &PolicySet, thing: &Thing, action: Action, resource: &str) -> bool {
    let client_id = match action {
        Action::Connect => ClientId::parse(resource).unwrap(),
        _ => ClientId::parse(thing.name.as_str()).unwrap(),
    };
    let context = Context {
        thing: Some(thing),
        ..Context::of(&client_id)
    };
    set.decide(&context, action, resource).is_ok()
}

fn resources(proposal: &Proposal<'_>) -> Vec<String> {
    let lines = proposal.basis.iter();
    lines
        .map(|line| {
            let resource = line.grant.resource().replace("arn:aws:iot:*:*:", "");
            resource.replace("iot:Connection.Thing.", "")
        })
        .collect()
}

pub(super) fn sensors() -> [Thing; 3] {
    ["sensor-1", "sensor-2", "sensor-3"].map(|name| thing(name, None, &[]))
}

#[test]
fn a_proposal_names_what_was_done_and_nothing_else() {
    let things = sensors();
    let seen = [
        ("sensor-1", Action::Connect, "sensor-1"),
        ("sensor-1", Action::Connect, "sensor-1:sub"),
        ("sensor-1", Action::Publish, "dt/sensor-1/t"),
        ("sensor-2", Action::Connect, "sensor-2"),
        ("sensor-2", Action::Publish, "dt/sensor-2/t"),
        ("sensor-2", Action::RetainPublish, "dt/sensor-2/t"),
        ("sensor-1", Action::Subscribe, "cmd/sensor-1/#"),
        ("sensor-1", Action::Receive, "cmd/sensor-1/reboot"),
    ];
    let (all, things) = (observed(&things, &seen), shared(&things));
    let proposal = propose(&all, &things, &group("g")).unwrap();
    assert_eq!(
        resources(&proposal),
        [
            "client/${ThingName}",
            "client/${ThingName}:sub",
            "topic/dt/${ThingName}/t",
            "topicfilter/cmd/${ThingName}/#",
            "topic/cmd/${ThingName}/reboot",
        ]
    );
    let sids: Vec<_> = proposal
        .basis
        .iter()
        .map(|line| line.sid.as_str())
        .collect();
    assert_eq!(
        sids,
        [
            "Connect",
            "Connect",
            "PublishAndRetainPublish",
            "Subscribe",
            "Receive"
        ]
    );
    let publish = &proposal.basis[2];
    assert_eq!(
        (publish.things, publish.times, publish.more_things),
        (2, 3, false)
    );
    assert_eq!(
        (publish.first.as_millis(), publish.last.as_millis()),
        (2, 5)
    );
    assert_eq!(publish.examples, ["dt/sensor-1/t", "dt/sensor-2/t"]);
    assert_eq!(proposal.silent, [&things[2].name]);
    assert_eq!((proposal.things, proposal.left_out.len()), (3, 0));
    let set = policies(&proposal);
    assert!(
        allows(&set, &things[2], Action::Publish, "dt/sensor-3/t"),
        "as its like do"
    );
    assert!(!allows(&set, &things[2], Action::Publish, "dt/sensor-1/t"));
    assert!(!allows(&set, &things[0], Action::Connect, "sensor-2"));
    assert!(!allows(&set, &things[0], Action::Subscribe, "#"));
}

#[test]
fn the_same_observations_make_the_same_proposal() {
    let things = sensors();
    let mut seen = vec![
        ("sensor-1", Action::Publish, "dt/sensor-1/t"),
        ("sensor-2", Action::Publish, "dt/sensor-2/t"),
        ("sensor-3", Action::Publish, "dt/all"),
        ("sensor-3", Action::Subscribe, "dt/+/t"),
    ];
    let registry = shared(&things);
    let json = |seen: &[_]| {
        let all = observed(&things, seen);
        let proposal = propose(&all, &registry, &group("g")).unwrap();
        proposal.policies[0].json.clone()
    };
    let first = json(&seen);
    seen.reverse();
    assert_eq!(json(&seen), first);
}

#[test]
fn things_that_left_the_group_do_not_count() {
    let mut things = sensors();
    let seen = [
        ("sensor-1", Action::Publish, "dt/sensor-1/t"),
        ("sensor-2", Action::Publish, "secret"),
    ];
    let all = observed(&things, &seen);
    things[1].groups = Arc::from([group("other")]);
    let things = shared(&things);
    let proposal = propose(&all, &things, &group("g")).unwrap();
    assert_eq!(resources(&proposal), ["topic/dt/${ThingName}/t"]);
    assert_eq!(proposal.things, 2);
}

#[test]
fn without_observations_there_is_no_proposal() {
    let things = sensors();
    let all = observed(&things, &[("sensor-1", Action::Publish, "x")]);
    let only_silent = shared(&things[1..]);
    let error = propose(&all, &only_silent, &group("g")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing was observed of the 2 things of the group `g`"
    );
    let error = propose(&all, &only_silent, &group("elsewhere")).unwrap_err();
    assert_eq!(error.to_string(), "the group `elsewhere` has no things");
}

#[test]
fn ids_of_requests_are_one_line() {
    let things = sensors();
    let topics: Vec<String> = (0..600)
        .map(|i| format!("cmd/sensor-1/res/1795341600{i:03}/done"))
        .collect();
    let seen: Vec<_> = topics
        .iter()
        .map(|topic| ("sensor-1", Action::Publish, topic.as_str()))
        .collect();
    let (all, things) = (observed(&things, &seen), shared(&things));
    assert_eq!(all.lost(), 0);
    let proposal = propose(&all, &things, &group("g")).unwrap();
    assert_eq!(resources(&proposal), ["topic/cmd/${ThingName}/res/*/done"]);
    let line = &proposal.basis[0];
    assert_eq!((line.wider, line.times), (Some(Wider::Unbounded), 600));
    assert_eq!(line.examples[0], topics[0]);
}

#[test]
fn a_reader_of_many_things_is_not_given_more_than_it_subscribed_to() {
    let mut things: Vec<Thing> = (0..80)
        .map(|i| thing(&format!("s-{i}"), None, &[]))
        .collect();
    things.push(thing("dash", None, &[]));
    let topics: Vec<String> = (0..80).map(|i| format!("dt/s-{i}/t")).collect();
    let mut seen: Vec<_> = topics
        .iter()
        .map(|topic| ("dash", Action::Receive, topic.as_str()))
        .collect();
    let registry = shared(&things);
    let proposal = |seen: &[_]| {
        let all = observed(&things, seen);
        let proposal = propose(&all, &registry, &group("g")).unwrap();
        (resources(&proposal), proposal.left_out.len())
    };
    // 80 names may be unbounded, but nobody knows that they may all be read.
    let (without, left_out) = proposal(&seen);
    assert!(
        without.iter().all(|line| !line.contains('*')),
        "{without:?}"
    );
    assert_eq!((without.len(), left_out), (80, 0));
    seen.push(("dash", Action::Subscribe, "dt/+/t"));
    let (with, _) = proposal(&seen);
    assert_eq!(with, ["topicfilter/dt/+/t", "topic/dt/*/t"]);
}

#[test]
fn anonymous_client_ids_do_not_open_the_door_to_all() {
    let things = sensors();
    let ids: Vec<String> = (0..300).map(|i| format!("17953416{i:04}")).collect();
    let mut seen: Vec<_> = ids
        .iter()
        .map(|id| ("sensor-1", Action::Connect, id.as_str()))
        .collect();
    seen.push(("sensor-1", Action::Publish, "dt/sensor-1/t"));
    let (all, things) = (observed(&things, &seen), shared(&things));
    let proposal = propose(&all, &things, &group("g")).unwrap();
    assert_eq!(proposal.left_out[0].action, Action::Connect);
    let set = policies(&proposal);
    assert!(!allows(&set, &things[0], Action::Connect, "sensor-2"));
}

#[test]
fn lines_that_do_not_fit_are_not_widened_over_what_a_thing_named_like_their_level_does() {
    let topics: Vec<String> = (0..100)
        .map(|i| format!("a/some-quite-long-name-of-a-room-{i:03}"))
        .collect();
    let mut seen: Vec<_> = topics
        .iter()
        .map(|topic| ("dt", Action::Publish, topic.as_str()))
        .collect();
    let dt = [thing("dt", None, &[])];
    let (all, alone) = (observed(&dt, &seen), shared(&dt));
    let proposal = propose(&all, &alone, &group("g")).unwrap();
    assert_eq!(resources(&proposal), ["topic/a/*"]);
    // Now `a` is a name, and `a/*` would reach what its thing does under it.
    let things = [thing("a", None, &[]), thing("dt", None, &[])];
    seen.push(("a", Action::Publish, "a/a/a"));
    let (all, things) = (observed(&things, &seen), shared(&things));
    let error = propose(&all, &things, &group("g")).unwrap_err();
    assert!(matches!(error, NoProposal::TooLarge(_)), "{error}");
}

#[test]
fn an_attribute_that_was_taken_away_is_said() {
    let mut things = [
        thing("s-1", None, &[("zone", "a")]),
        thing("s-2", None, &[("zone", "b")]),
    ];
    let seen = [
        ("s-1", Action::Publish, "zone/a"),
        ("s-2", Action::Publish, "zone/b"),
    ];
    let all = observed(&things, &seen);
    things[0].attributes.clear();
    let things = shared(&things);
    let proposal = propose(&all, &things, &group("g")).unwrap();
    assert_eq!(resources(&proposal), ["topic/zone/b"]);
    assert_eq!(proposal.left_out.len(), 1);
}

/// Names that contain each other, that are levels, and that look like patterns.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["s-1", "s-10", "s-1-2", "dt", "a", "b", "gw:1"])
        .prop_map(str::to_owned)
}

fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("OWN".to_owned()),
        1 => Just("pre_OWN".to_owned()),
        3 => name(),
        3 => prop::sample::select(vec!["dt", "cmd", "t", "a", "b", "x*y", "?", "$aws", "${", "", "é"])
            .prop_map(str::to_owned),
        1 => (0..20_u32).prop_map(|i| format!("17953416000{i:02}")),
    ]
}

fn deed() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<String>)> {
    (
        any::<prop::sample::Index>(),
        0..4_usize,
        prop::collection::vec(level(), 1..4).prop_filter("no topic is empty", |levels| {
            levels.concat() != "" || levels.len() > 1
        }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_was_seen_is_allowed_and_what_others_do_under_their_names_is_not(
        names in prop::collection::btree_set(name(), 1..5),
        zones in prop::collection::vec(prop::sample::select(vec!["a", "b", "dt", "x+y"]), 5),
        deeds in prop::collection::vec(deed(), 1..80),
    ) {
        let things: Vec<Thing> = names
            .iter()
            .zip(&zones)
            .map(|(name, zone)| thing(name, None, &[("zone", zone)]))
            .collect();
        let topics = [Action::Publish, Action::RetainPublish, Action::Receive, Action::Subscribe];
        let seen: Vec<(String, Action, String)> = deeds
            .iter()
            .map(|(who, action, levels)| {
                let name = who.get(&things).name.as_str();
                let topic = levels.join("/").replace("OWN", name);
                (name.to_owned(), topics[*action], topic)
            })
            .collect();
        let as_text: Vec<_> = seen
            .iter()
            .map(|(name, action, topic)| (name.as_str(), *action, topic.as_str()))
            .collect();
        let all = observed(&things, &as_text);
        let things = shared(&things);
        let proposal = match propose(&all, &things, &group("g")) {
            Ok(proposal) => proposal,
            Err(NoProposal::TooLarge(_)) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let set = policies(&proposal);
        for (name, action, topic) in &seen {
            let thing = things.iter().find(|t| t.name.as_str() == name).unwrap();
            prop_assert!(
                allows(&set, thing, *action, topic),
                "{name} {action} {topic:?}: {}", proposal.policies[0].json
            );
        }
        // A level that is another thing's name is reached only by who was seen there, as the same
        // level in the same place, or by everybody to whom that is no name.
        let literal: BTreeSet<&str> = seen
            .iter()
            .filter(|(name, _, topic)| !topic.split('/').any(|level| level == name))
            .map(|(_, _, topic)| topic.as_str())
            .collect();
        for (name, action, topic) in &seen {
            let is_its_own = topic.split('/').any(|level| level == name)
                && !topic.split('/').any(|level| level != name && names.contains(level))
                && !literal.contains(topic.as_str());
            if !is_its_own || topic.split('/').any(|level| zones.contains(&level)) {
                continue;
            }
            for other in things.iter().filter(|thing| thing.name.as_str() != name) {
                prop_assert!(
                    !allows(&set, other, *action, topic),
                    "{} may {action} {topic:?} of {name}: {}", other.name, proposal.policies[0].json
                );
            }
        }
    }

    #[test]
    fn a_shape_reads_back_and_gives_its_resource_back(
        name in name(),
        levels in prop::collection::vec(level(), 1..6),
    ) {
        let thing = thing(&name, Some("a"), &[("zone", "b")]);
        let actor = Actor { thing: &thing, client_id: "gw:1" };
        let resource = levels.join("/").replace("OWN", &name);
        let shape = Shape::of(&actor, Action::Publish, &resource);
        prop_assert_eq!(Shape::parse(&shape.to_string()), Some(shape.clone()));
        prop_assert_eq!(shape.fill(&actor), Some(resource.clone()));
        prop_assert!(shape.takes(&actor, &resource));
    }
}
