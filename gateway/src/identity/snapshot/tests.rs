//! Who a client is, for every kind of certificate and state of it, and what a newer registry takes away
//! while something else has a mistake.

use std::{fs, net::Ipv4Addr, sync::Arc};

use portcullis_core::{
    certificate::Certificate,
    identity::{CertificateId, ClientId, GroupName, OnPublishDenied, ThingName},
    registry::{Change, QUARANTINE, StateCertificate, Status},
    timestamp::Timestamp,
};
use rcgen::IsCa;

use super::*;
use crate::{
    clock::now,
    identity::{
        Config, Journal, JournalError,
        testing::{Bench, TestCa},
        tests::{Site, connect, connect_with, may_publish},
        trust::Lists,
    },
};

#[test]
fn a_11_only_an_active_certificate_connects_and_every_other_state_says_why() {
    let site = Site::new();
    let id = |status: Status| CertificateId::of_der(status.as_str().as_bytes());
    for status in Status::ALL {
        let (id, word) = (id(status), status.as_str());
        site.append(&format!(
            "[[certificate]]\nid = \"{id}\"\nthing = \"t1\"\nstatus = \"{word}\"\n"
        ));
    }
    let snapshot = site.load();
    for (status, expected) in [
        (Status::Active, None),
        (Status::PendingActivation, Some("certificate-pending")),
        (Status::RegisterInactive, Some("certificate-not-active")),
        (Status::PendingTransfer, Some("certificate-not-active")),
        (Status::Inactive, Some("certificate-not-active")),
        (Status::Revoked, Some("certificate-revoked")),
    ] {
        let refused = connect_with(&snapshot, id(status), "t1").err();
        assert_eq!(
            refused.map(|refusal| refusal.reason()),
            expected,
            "{status:?}"
        );
    }
}

#[test]
fn a_certificate_ends_with_its_own_time_or_with_that_of_the_registry() {
    let site = Site::new();
    let id = CertificateId::of_der(b"1");
    site.append(&format!(
        "[[certificate]]\nid = \"{id}\"\nthing = \"t1\"\nuntil = \"2100-01-01T00:00:00Z\"\n"
    ));
    let snapshot = site.load();
    let until = Timestamp::parse_rfc3339("2100-01-01T00:00:00Z").unwrap();
    let connect_at = |not_after, now| {
        let certificate = Arc::new(Certificate {
            not_after,
            ..Certificate::unseen(id)
        });
        let credential = Credential::certificate(&certificate);
        let client_id = ClientId::parse("t1").unwrap();
        snapshot.authenticate_at(&credential, &client_id, Ipv4Addr::LOCALHOST.into(), now)
    };
    let forever = Timestamp::from_millis(u64::MAX);
    let earlier = Timestamp::from_millis(until.as_millis() - 5);
    let valid_until = |not_after| connect_at(not_after, now()).unwrap().valid_until;
    assert_eq!(valid_until(forever), Some(until));
    assert_eq!(valid_until(earlier), Some(earlier));
    for (not_after, at) in [(forever, until), (earlier, earlier)] {
        let refused = connect_at(not_after, at).unwrap_err();
        assert_eq!(refused, Refusal::CertificateExpired);
    }
}

#[test]
fn a_shared_certificate_is_the_thing_named_like_the_client_id_if_it_is_attached() {
    let site = Site::new();
    let id = CertificateId::of_der(b"1");
    site.append("[[thing]]\nname = \"t2\"\n[[thing]]\nname = \"t3\"\n");
    site.append(&format!(
        "[[certificate]]\nid = \"{id}\"\nthings = [\"t1\", \"t2\"]\n"
    ));
    let snapshot = site.load();
    for name in ["t1", "t2"] {
        let principal = connect_with(&snapshot, id, name).unwrap();
        assert_eq!(principal.device(), name);
        assert_eq!(
            may_publish(&principal, "dt/x"),
            name == "t1",
            "its own groups' policies"
        );
    }
    for escaping in ["t3", "random"] {
        let refused = connect_with(&snapshot, id, escaping).unwrap_err();
        assert_eq!(refused, Refusal::NotAttached);
    }
}

#[test]
fn a_claim_is_no_thing_and_has_the_policies_of_its_certificate_alone() {
    let site = Site::new();
    let id = CertificateId::of_der(b"1");
    let template = r#"{"Parameters":{"Serial":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},"Resources":{
        "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Serial"}}},
        "certificate":{"Type":"AWS::IoT::Certificate",
            "Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}}}}"#;
    fs::create_dir(&site.config.templates).unwrap();
    fs::write(site.config.templates.join("fleet.json"), template).unwrap();
    site.append(&format!(
        "[[certificate]]\nid = \"{id}\"\nclaim = \"fleet\"\npolicies = [\"extra\"]\n"
    ));
    let principal = connect_with(&site.load(), id, "t1").unwrap();
    assert!(principal.thing.is_none());
    assert_eq!(principal.claim.as_deref(), Some("fleet"));
    assert!(may_publish(&principal, "extra") && !may_publish(&principal, "dt/x"));
}

#[test]
fn a_certificate_whose_thing_is_gone_is_refused_even_where_things_are_not_required() {
    let site = Site::new();
    let id = CertificateId::of_der(b"1");
    let mut known = StateCertificate::new(id, Status::Active, now(), "JITP");
    known.things = vec![ThingName::parse("gone").unwrap()];
    let journal = Journal::open(&site.config.journal);
    journal.append(&[Change::Certificate(known)]).unwrap();
    let config = Config {
        require_thing: false,
        ..site.config.clone()
    };
    let snapshot = load(&config, &[]).unwrap();
    assert_eq!(
        connect_with(&snapshot, id, "c").unwrap_err(),
        Refusal::NoThing
    );
}

#[test]
fn the_answer_to_a_denied_publish_is_that_of_the_nearest_group_and_the_strictest() {
    let site = Site::new();
    let answer = |registry: &str| {
        fs::write(&site.config.registry, registry).unwrap();
        let plain = Credential::Plain {
            thing: None,
            unknown_policy: None,
        };
        connect(&site.load(), plain, "t").unwrap().on_publish_denied
    };
    let group = |name: &str, parent: &str, denied: &str| {
        let mut text = format!("[[group]]\nname = \"{name}\"\n");
        for (key, value) in [("parent", parent), ("on-publish-denied", denied)] {
            if !value.is_empty() {
                text += &format!("{key} = \"{value}\"\n");
            }
        }
        text
    };
    let thing = |groups: &str| format!("[[thing]]\nname = \"t\"\ngroups = [{groups}]\n");
    let tree = group("root", "", "disconnect")
        + &group("leaf", "root", "drop-and-ack")
        + &group("bare", "root", "")
        + &group("other", "", "puback-error")
        + &group("silent", "", "");
    for (groups, expected) in [
        ("\"silent\"", None),
        ("\"leaf\"", Some(OnPublishDenied::DropAndAck)),
        ("\"bare\"", Some(OnPublishDenied::Disconnect)),
        ("\"leaf\", \"other\"", Some(OnPublishDenied::PubackError)),
        ("\"bare\", \"other\"", Some(OnPublishDenied::Disconnect)),
    ] {
        assert_eq!(
            answer(&(tree.clone() + &thing(groups))),
            expected,
            "{groups}"
        );
    }
}

#[test]
fn policies_say_to_what_they_are_attached() {
    let site = Site::new();
    let id = CertificateId::of_der(b"1");
    site.append(&format!(
        "[[certificate]]\nid = \"{id}\"\nthing = \"t1\"\npolicies = [\"extra\"]\n"
    ));
    let snapshot = site.load();
    let t1 = ThingName::parse("t1").unwrap();
    let [devices, cold] = ["devices", "cold"].map(|name| GroupName::parse(name).unwrap());
    let found: Vec<_> = snapshot
        .policies_of(&t1, Some(&id))
        .into_iter()
        .map(|(attached, policy)| (attached, policy.name().to_owned()))
        .collect();
    let inherited = AttachedTo::Group {
        group: devices,
        inherited_by: Some(cold),
    };
    let expected = [
        (AttachedTo::Certificate(id), "extra".to_owned()),
        (inherited, "device".to_owned()),
    ];
    assert_eq!(found, expected);
    assert_eq!(snapshot.policies_of(&t1, None).len(), 1);
}

#[test]
fn a_thing_in_quarantine_keeps_nothing_but_what_the_group_leaves_it() {
    let site = Site::new();
    let quarantine = Change::Member {
        thing: ThingName::parse("t1").unwrap(),
        group: GroupName::parse(QUARANTINE).unwrap(),
        why: "stolen".to_owned(),
        at: now(),
    };
    Journal::open(&site.config.journal)
        .append(&[quarantine])
        .unwrap();
    let plain = Credential::Plain {
        thing: None,
        unknown_policy: None,
    };
    // There is no such group that could deny anything.
    let refused = connect(&site.load(), plain, "t1").unwrap_err();
    assert_eq!(refused, Refusal::Quarantined);
    let policy = r#"{"Version":"2012-10-17","Statement":
        {"Effect":"Deny","NotAction":"iot:Connect","Resource":"*"}}"#;
    fs::write(site.config.policies.join("quarantine.json"), policy).unwrap();
    site.append("[[group]]\nname = \"quarantine\"\npolicies = [\"quarantine\"]\n");
    let principal = connect(&site.load(), plain, "t1").unwrap();
    assert!(!may_publish(&principal, "dt/x"));
}

#[test]
fn quarantine_in_the_file_and_a_lost_group_count_beside_a_mistake() {
    let site = Site::new();
    site.append("[[thing]]\nname = \"t2\"\ngroups = [\"cold\"]\n[[thing]]\nname = \"t3\"\n");
    let plain = Credential::Plain {
        thing: None,
        unknown_policy: None,
    };
    for declared in ["", "[[group]]\nname = \"quarantine\"\n"] {
        site.append(declared);
        let snapshot = site.load();
        let text = fs::read_to_string(&site.config.registry).unwrap();
        let group = if declared.is_empty() {
            "[[group]]\nname = \"quarantine\"\n"
        } else {
            ""
        };
        let cold = "groups = [\"cold\"]";
        let text = text.replacen(cold, "groups = [\"cold\", \"quarantine\"]", 1);
        let text = format!("{}\n{group}", text.replacen(cold, "", 1));
        let (newer, problems) = Registry::parse(&site.config.registry, &text, None);
        assert!(problems.is_empty(), "{problems:?}");
        let (narrowed, taken) = snapshot
            .narrowed(Some(&newer), None, &Lists::default())
            .unwrap();
        assert_eq!(taken.things, 2);
        let (registered, known) = (narrowed.registered("t1").unwrap(), narrowed.thing("t2"));
        assert_eq!(registered.memberships.len(), 1);
        assert!(known.is_none(), "it lost a group");
        assert!(connect(&narrowed, plain, "t3").is_ok());
        if declared.is_empty() {
            let refused = connect(&narrowed, plain, "t1").unwrap_err();
            assert_eq!(refused, Refusal::Quarantined);
        } else {
            let groups = &narrowed.thing("t1").unwrap().groups;
            assert!(groups.iter().any(|group| group.as_str() == QUARANTINE));
        }
    }
}

#[test]
fn a_certificate_that_lost_a_policy_is_refused_beside_a_mistake() {
    let site = Site::new();
    let policy = fs::read(site.config.policies.join("device.json")).unwrap();
    fs::write(site.config.policies.join("cold.json"), policy).unwrap();
    let ids = [1, 2].map(|n| CertificateId::of_der(&[n]));
    for id in ids {
        site.append(&format!(
            "[[certificate]]\nid = \"{id}\"\nthing = \"t1\"\npolicies = [\"cold\"]\n"
        ));
    }
    let snapshot = site.load();
    let text = fs::read_to_string(&site.config.registry).unwrap();
    let detached = format!("id = \"{}\"\nthing = \"t1\"\npolicies = []", ids[1]);
    let attached = detached.replace("[]", "[\"cold\"]");
    let text = text.replacen(&attached, &detached, 1);
    let (newer, problems) = Registry::parse(&site.config.registry, &text, None);
    assert!(problems.is_empty(), "{problems:?}");
    let (narrowed, taken) = snapshot
        .narrowed(Some(&newer), None, &Lists::default())
        .unwrap();
    assert_eq!((taken.things, taken.certificates), (0, 1));
    assert!(narrowed.certificate(&ids[0]).is_some());
    assert!(narrowed.certificate(&ids[1]).is_none());
}

#[test]
fn a_damaged_line_of_the_journal_opens_nothing_and_no_gateway_starts_until_it_is_accepted() {
    let site = Site::new();
    let ids = [1, 2].map(|n| CertificateId::of_der(&[n]));
    let journal = Journal::open(&site.config.journal);
    let change = |id, status| {
        let mut certificate = StateCertificate::new(id, status, now(), "test");
        certificate.things = vec![ThingName::parse("t1").unwrap()];
        Change::Certificate(certificate)
    };
    let active = ids.map(|id| change(id, Status::Active));
    journal.append(&active).unwrap();
    journal.append(&[change(ids[0], Status::Revoked)]).unwrap();
    let good = site.load();
    let refused = |snapshot: &Snapshot, id| {
        let refused = connect_with(snapshot, id, "t1").err();
        refused.map(|refusal| refusal.reason())
    };
    assert_eq!(refused(&good, ids[0]), Some("certificate-revoked"));

    // One digit of the id in the third line.
    let text = fs::read_to_string(journal.path()).unwrap();
    let (before, line) = text.trim_end().rsplit_once('\n').unwrap();
    let id = ids[0].to_string();
    let other = if id.starts_with('0') { "1" } else { "0" };
    let damaged = line.replacen(&id, &format!("{other}{}", id.get(1..).unwrap()), 1);
    fs::write(journal.path(), format!("{before}\n{damaged}\n")).unwrap();
    let problems = load(&site.config, &[]).unwrap_err();
    let told = problems[0].to_string();
    assert!(told.contains("registry.journal:3:1"), "{told}");
    assert!(told.contains("write `#` before it"), "{told}");

    // Running: what it knew stays, and commands still take access away.
    journal.append(&[change(ids[1], Status::Revoked)]).unwrap();
    let mut loader = Loader::new(site.config.clone());
    let newer = loader.reload(&[]).unwrap_err();
    let (narrowed, taken) = good
        .narrowed(None, newer.journal.as_ref(), &Lists::default())
        .unwrap();
    assert_eq!(taken.certificates, 1);
    for id in ids {
        assert_eq!(refused(&narrowed, id), Some("certificate-revoked"));
    }
    let started = Journal::open(journal.path());
    let granted = started.append_for_device(|_| Ok::<_, JournalError>(((), active.to_vec())));
    assert!(matches!(
        granted,
        Err(JournalError::Damaged { line: 3, .. })
    ));

    // Where it stands, as an editor that keeps the file does it.
    let text = fs::read_to_string(journal.path()).unwrap();
    let accepted = text.replacen(&damaged, &format!("#{damaged}"), 1);
    fs::write(journal.path(), accepted).unwrap();
    assert!(loader.reload(&[]).is_ok());
    let warnings = inspect(&site.config, &[]).warnings;
    assert!(warnings[0].message.contains("is shut out"), "{warnings:?}");
}

#[test]
fn what_the_registry_names_and_is_not_there_is_told_where_it_is_named() {
    let bench = Bench::new();
    let ca = TestCa::root("claims");
    let claim = ca.leaf_with("claim", |params| params.is_ca = IsCa::ExplicitNoCa);
    let claim_id = claim.certificate.id;
    bench.write("pki/leaf.pem", &claim.pem);
    let text = format!(
        "\
# At the start, so that the lines are known.
[[ca]]
certificate = \"pki/none.pem\"
[[ca]]
certificate = \"pki/leaf.pem\"
auto-registration = \"ENABLE\"
template = \"flet\"
[[certificate]]
id = \"{claim_id}\"
claim = \"flet\"
"
    );
    let before = fs::read_to_string(&bench.config.registry).unwrap();
    bench.write("registry.toml", &(text + &before));
    let mut told = bench.problems();
    told.sort();
    let file = bench.config.registry.display();
    let no_template = "the provisioning template `flet` does not exist; create";
    let expected = [
        format!("{file}:10:9: {no_template}"),
        format!("{file}:3:15: `pki/none.pem`: the file cannot be read"),
        format!("{file}:5:15: `pki/leaf.pem`: "),
        format!("{file}:7:12: {no_template}"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(&expected) {
        assert!(told.starts_with(expected), "{told}\n{expected}");
    }
}
