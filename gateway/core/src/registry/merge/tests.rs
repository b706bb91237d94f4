//! Who wins: `registry.toml` or what happened at run time.

use std::path::Path;

use super::*;
use crate::{
    identity::{CertificateId, ThingTypeName},
    registry::Change,
    timestamp::Timestamp,
};

fn registry(text: &str) -> Registry {
    let (registry, problems) = Registry::parse(Path::new("r"), text, None);
    assert_eq!(problems, []);
    registry
}

fn state(changes: impl IntoIterator<Item = Change>) -> State {
    let mut state = State::default();
    for change in changes {
        state.apply(change);
    }
    state
}

fn id(n: u8) -> CertificateId {
    CertificateId::of_der(&[n])
}

fn thing(name: &str) -> ThingName {
    ThingName::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

fn certificate(status: Status) -> StateCertificate {
    StateCertificate::new(id(1), status, Timestamp::from_millis(1), "at run time")
}

fn member(name: &str, of: &str) -> Change {
    Change::Member {
        thing: thing(name),
        group: group(of),
        why: "stolen".to_owned(),
        at: Timestamp::from_millis(1),
    }
}

fn provisioned(name: &str, groups: &[&str]) -> Change {
    Change::Thing(StateThing {
        name: thing(name),
        thing_type: ThingTypeName::parse("sensor").ok(),
        attributes: [].into(),
        groups: groups.iter().map(|name| group(name)).collect(),
        at: Timestamp::from_millis(1),
        why: "JITP".to_owned(),
    })
}

fn groups(registry: &Registry, thing: &str) -> String {
    let registered = registry.thing(thing).unwrap();
    let from = registry.provenance(registered);
    let from: Vec<_> = from
        .iter()
        .map(|(group, from)| format!("{group} ({from})"))
        .collect();
    from.join(", ")
}

const REGISTRY: &str = r#"
[[group]]
name = "devices"
[[group]]
name = "locks"
parent = "devices"
[[group]]
name = "site"
[[group]]
name = "quarantine"
[[thing]]
name = "a"
groups = ["locks"]
"#;

#[test]
fn of_two_statuses_the_stricter_one_holds_and_says_who_decided() {
    for of_file in Status::ALL {
        for of_journal in Status::ALL {
            let text = format!(
                "[[certificate]]\nid = \"{}\"\nstatus = \"{}\"\n",
                id(1),
                of_file.as_str()
            );
            let state = state([Change::Certificate(certificate(of_journal))]);
            let (merged, notes) = state.merge_into(&registry(&text), None);
            assert!(notes.is_empty());
            let found = merged.certificate(&id(1)).unwrap();
            assert_eq!(found.status, of_file.max(of_journal));
            let by_journal = found.status_origin != Origin::File;
            assert_eq!(by_journal, of_journal > of_file);
            assert_eq!(found.reason.is_some(), by_journal);
        }
    }
}

#[test]
fn states_are_ordered_from_the_loosest_to_the_strictest() {
    use Status::{Active, Inactive, PendingActivation, Revoked};
    assert!(Active < PendingActivation && PendingActivation < Inactive && Inactive < Revoked);
    for status in Status::ALL {
        assert_eq!(Status::parse(status.as_str()), Some(status));
    }
}

#[test]
fn the_earlier_end_of_a_certificate_holds() {
    let text = format!(
        "[[certificate]]\nid = \"{}\"\nuntil = \"2026-11-22T10:00:00Z\"\n",
        id(1)
    );
    let in_file = Timestamp::parse_rfc3339("2026-11-22T10:00:00Z");
    for (until, expected) in [
        (None, in_file),
        (
            Some(Timestamp::from_millis(5)),
            Some(Timestamp::from_millis(5)),
        ),
        (Some(Timestamp::from_millis(u64::MAX)), in_file),
    ] {
        let known = StateCertificate {
            until,
            ..certificate(Status::Active)
        };
        let (merged, _) = state([Change::Certificate(known)]).merge_into(&registry(&text), None);
        assert_eq!(merged.certificate(&id(1)).unwrap().until, expected);
    }
}

#[test]
fn a_certificate_that_only_the_journal_knows_is_what_it_says_there() {
    let known = StateCertificate {
        things: vec![thing("a")],
        policies: vec!["device".to_owned()],
        ..certificate(Status::Active)
    };
    let policies = BTreeSet::from(["device".to_owned()]);
    let state_of = |known: &StateCertificate| state([Change::Certificate(known.clone())]);
    let (merged, notes) = state_of(&known).merge_into(&registry(REGISTRY), Some(&policies));
    assert!(notes.is_empty());
    let found = merged.certificate(&id(1)).unwrap();
    assert_eq!(
        (found.status, &found.thing),
        (Status::Active, &Some(thing("a")))
    );

    let shared = StateCertificate {
        things: vec![thing("a"), thing("b")],
        ..known.clone()
    };
    let (merged, _) = state_of(&shared).merge_into(&registry(REGISTRY), Some(&policies));
    let found = merged.certificate(&id(1)).unwrap();
    assert_eq!((&found.thing, found.things.len()), (&None, 2));

    // The policy that is gone may have denied what others allow.
    let (merged, notes) = state_of(&known).merge_into(&registry(REGISTRY), Some(&[].into()));
    assert_eq!(merged.certificate(&id(1)).unwrap().status, Status::Inactive);
    assert_eq!(notes.len(), 1, "{notes:?}");
}

#[test]
fn a_thing_of_the_file_beats_one_of_the_journal_and_others_are_added() {
    let state = state([
        provisioned("a", &["site"]),
        provisioned("b", &["locks", "site"]),
    ]);
    let (merged, notes) = state.merge_into(&registry(REGISTRY), None);
    assert!(notes.is_empty());
    assert_eq!(merged.things.len(), 2);
    assert_eq!(merged.thing("a").unwrap().origin, Origin::File);
    assert_eq!(
        groups(&merged, "a"),
        "devices (inherited from locks), locks (registry.toml)"
    );
    assert_eq!(
        groups(&merged, "b"),
        "devices (inherited from locks), locks (run time: JITP), site (run time: JITP)"
    );
}

#[test]
fn memberships_are_united_and_say_where_they_come_from() {
    let state = state([
        member("a", "site"),
        member("a", "locks"),
        member("a", "quarantine"),
    ]);
    let (merged, notes) = state.merge_into(&registry(REGISTRY), None);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(
        groups(&merged, "a"),
        "devices (inherited from locks), locks (registry.toml), site (run time: stolen), \
         quarantine (run time: stolen)"
    );
}

#[test]
fn what_cannot_be_merged_is_told_and_opens_nothing() {
    let state = state([
        member("a", "devices"),
        member("a", "gone"),
        member("nobody", "site"),
        provisioned("b", &["locks", "devices", "gone"]),
    ]);
    let (merged, notes) = state.merge_into(&registry(REGISTRY), None);
    let told: Vec<_> = notes.iter().map(|note| note.message.as_str()).collect();
    let expected = [
        "the thing `b` is not in `devices`: it is in `locks` of the same hierarchy",
        "the thing `b` is not in `gone`: the group does not exist",
        "the thing `a` cannot be put into `devices`: it is in `locks` of the same hierarchy",
        "the thing `a` cannot be put into `gone`: the group does not exist",
        "the thing `nobody`, which was put into a group, does not exist",
    ];
    assert_eq!(told, expected);
    assert!(merged.thing("a").unwrap().memberships.is_empty());
}

#[test]
fn quarantine_is_remembered_even_if_there_is_no_such_group_or_no_room() {
    let nine: String = (0..9)
        .map(|n| format!("[[group]]\nname = \"g{n}\"\n"))
        .collect();
    let names: Vec<_> = (0..9).map(|n| format!("\"g{n}\"")).collect();
    let full = format!(
        "{REGISTRY}{nine}[[thing]]\nname = \"b\"\ngroups = [\"site\", {}]\n",
        names.join(", ")
    );
    let (merged, notes) = state([member("b", "quarantine")]).merge_into(&registry(&full), None);
    assert_eq!(notes.len(), 1);
    assert!(groups(&merged, "b").contains("quarantine (run time: stolen)"));

    let without = REGISTRY.replace("name = \"quarantine\"", "name = \"other\"");
    let (merged, notes) = state([member("a", "quarantine")]).merge_into(&registry(&without), None);
    assert_eq!(notes.len(), 1);
    assert_eq!(merged.thing("a").unwrap().memberships.len(), 1);
}
