//! Things that are shut out, let in again, and removed for good.

use std::{fs, path::PathBuf};

use super::*;

const REGISTRY: &str = r#"
[[group]]
name = "quarantine"
[[thing]]
name = "a"
[[thing]]
name = "b"
"#;

fn site() -> (tempfile::TempDir, PathBuf, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry.toml");
    fs::write(&registry, REGISTRY).unwrap();
    let journal = Journal::open(&dir.path().join("data/registry.journal"));
    (dir, registry, journal)
}

fn thing(name: &str) -> ThingName {
    ThingName::parse(name).unwrap()
}

fn of_journal(n: u8, things: &[&str]) -> StateCertificate {
    let id = CertificateId::of_der(&[n]);
    let mut certificate = StateCertificate::new(id, Status::Active, Timestamp::default(), "JITP");
    certificate.things = things.iter().map(|name| thing(name)).collect();
    certificate
}

fn new(name: &str) -> NewThing {
    NewThing {
        name: thing(name),
        thing_type: None,
        attributes: [].into(),
        groups: vec![],
    }
}

#[test]
fn a_thing_is_in_quarantine_until_it_is_released() {
    let (_dir, registry, journal) = site();
    let now = Timestamp::from_millis(1);
    let groups = || {
        let registry = in_force(&registry, &journal).unwrap();
        let registered = registry.thing("a").unwrap();
        registry
            .provenance(registered)
            .iter()
            .map(|(group, from)| format!("{group}: {from}"))
            .collect::<Vec<_>>()
    };
    assert!(groups().is_empty());
    quarantine(&registry, &journal, &thing("a"), "stolen", now).unwrap();
    assert_eq!(groups(), ["quarantine: run time: stolen"]);
    release(&journal, &thing("a"), now).unwrap();
    assert!(groups().is_empty());
    for refused in [
        release(&journal, &thing("a"), now),
        quarantine(&registry, &journal, &thing("nobody"), "", now),
    ] {
        assert!(matches!(refused, Err(EditError::Absent(_))), "{refused:?}");
    }
}

#[test]
fn a_removed_thing_leaves_revoked_certificates_that_nothing_revives() {
    let (_dir, registry, journal) = site();
    let now = Timestamp::from_millis(1);
    let in_file = CertificateId::of_der(b"file");
    edit::add_certificate(&registry, in_file, &thing("a")).unwrap();
    let shared = "[[certificate]]\nid = \"%\"\nthings = [\"a\", \"b\"]\n";
    let shared_id = CertificateId::of_der(b"shared");
    let text = fs::read_to_string(&registry).unwrap();
    fs::write(
        &registry,
        text + &shared.replace('%', &shared_id.to_string()),
    )
    .unwrap();
    let (own, both) = (of_journal(1, &["a"]), of_journal(2, &["a", "b"]));
    let changes = [own.clone(), both.clone()].map(Change::Certificate);
    journal.append(&changes).unwrap();

    let removed = remove(&registry, &journal, &thing("a"), now).unwrap();
    assert_eq!(removed.certificates, [own.id, in_file]);
    assert!(!removed.is_quarantined);
    let added = add(&registry, &journal, &new("a")).unwrap();
    assert!(added.quarantined.is_none());
    let again = in_force(&registry, &journal).unwrap();
    for id in [own.id, in_file] {
        let certificate = again.certificate(&id).unwrap();
        assert_eq!(certificate.status, Status::Revoked);
        assert_eq!(certificate.attached().count(), 0);
    }
    for id in [shared_id, both.id] {
        let certificate = again.certificate(&id).unwrap();
        assert_eq!(certificate.status, Status::Active);
        assert!(!certificate.is_attached_to("a") && certificate.is_attached_to("b"));
    }
    assert!(again.thing("a").unwrap().memberships.is_empty());
}

#[test]
fn a_thing_that_was_provisioned_can_be_removed() {
    let (_dir, registry, journal) = site();
    let provisioned = portcullis_core::registry::StateThing {
        name: thing("c"),
        thing_type: None,
        attributes: [].into(),
        groups: vec![],
        at: Timestamp::default(),
        why: "JITP".to_owned(),
    };
    journal.append(&[Change::Thing(provisioned)]).unwrap();
    assert!(in_force(&registry, &journal).unwrap().thing("c").is_some());
    let over = add(&registry, &journal, &new("c")).unwrap_err();
    assert!(matches!(over, EditError::Provisioned(_)), "{over:?}");
    let before = fs::read_to_string(&registry).unwrap();
    remove(&registry, &journal, &thing("c"), Timestamp::default()).unwrap();
    assert!(in_force(&registry, &journal).unwrap().thing("c").is_none());
    assert_eq!(fs::read_to_string(&registry).unwrap(), before);
    let again = remove(&registry, &journal, &thing("c"), Timestamp::default());
    assert!(matches!(again, Err(EditError::Absent(_))));
}

#[test]
fn a_thing_that_is_removed_and_added_again_is_in_quarantine_as_before() {
    let (_dir, registry, journal) = site();
    let (a, b) = (thing("a"), thing("b"));
    let now = Timestamp::from_millis(1);
    quarantine(&registry, &journal, &a, "stolen", now).unwrap();
    let text = fs::read_to_string(&registry).unwrap();
    fs::write(&registry, text + "groups = [\"quarantine\"]\n").unwrap();
    for name in [&a, &b] {
        let removed = remove(&registry, &journal, name, now).unwrap();
        assert!(removed.is_quarantined, "{name}");
        let gone = remove(&registry, &journal, name, now);
        assert!(matches!(gone, Err(EditError::Absent(_))), "{gone:?}");
        let (_, notes) = journal
            .read()
            .unwrap()
            .merge_into(&file(&registry).unwrap(), None);
        assert!(notes[0].remedy.contains("--release"), "{notes:?}");
        let added = add(&registry, &journal, &new(name.as_str())).unwrap();
        assert!(added.quarantined.is_some());
        let registry = in_force(&registry, &journal).unwrap();
        let memberships = &registry.thing(name.as_str()).unwrap().memberships;
        assert_eq!(memberships[0].group.as_str(), QUARANTINE);
    }
    let known = journal.read().unwrap();
    assert_eq!(known.memberships("a")[0].why, "stolen");
    release(&journal, &a, now).unwrap();
    remove(&registry, &journal, &a, now).unwrap();
    let added = add(&registry, &journal, &new("a")).unwrap();
    assert!(added.quarantined.is_none());
}

#[test]
fn a_first_thing_is_added_without_a_journal() {
    let (dir, registry, journal) = site();
    add(&registry, &journal, &new("c")).unwrap();
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_thing_is_put_into_quarantine_whatever_mistakes_the_registry_has() {
    let (_dir, registry, journal) = site();
    fs::write(&registry, format!("{REGISTRY}[[thing")).unwrap();
    let now = Timestamp::from_millis(1);
    quarantine(&registry, &journal, &thing("a"), "stolen", now).unwrap();
    fs::write(&registry, REGISTRY).unwrap();
    let memberships = &in_force(&registry, &journal).unwrap();
    assert_eq!(memberships.thing("a").unwrap().memberships.len(), 1);
}
