use portcullis_core::{
    registry::{StateCertificate, StateThing, Status},
    timestamp::Timestamp,
};

use super::*;
use crate::{
    clock::now,
    identity::{
        Claim, Journal,
        enrol::{self, Wanted},
        load,
        registry::Change,
        testing::{Bench, TestCa},
    },
};

fn text(result: Result<Imported, ImportError>) -> String {
    result.unwrap_err().to_string()
}

fn lists(result: Result<Imported, ImportError>) -> Vec<ImportedList> {
    match result.unwrap() {
        Imported::Lists(lists) => lists,
        other => panic!("no list: {other:?}"),
    }
}

fn thing(name: &str) -> ThingName {
    ThingName::parse(name).unwrap()
}

#[test]
fn certificate_ca_and_list_are_taken_over_after_their_checks() {
    let bench = Bench::new();
    let ca = TestCa::root("theirs");
    let take = |text: &str, of: Option<&str>| {
        bench.write("import", text);
        let of = of.map(thing);
        import(
            &bench.config,
            &bench.path("import"),
            of.as_ref().map(Holder::Thing),
        )
    };
    let (leaf, nobody) = (ca.leaf("t1"), ca.leaf("nobody"));
    assert!(text(take(&leaf.pem, None)).contains("no CA here signed it"));
    assert!(text(take(&ca.crl(1, 30, &[]), None)).contains("which is no CA here"));
    assert!(text(take("nothing", None)).contains("neither a certificate nor"));

    let Imported::Ca { id, file, .. } = take(&ca.pem, None).unwrap() else {
        panic!("no CA");
    };
    assert_eq!(id, ca.id());
    assert_eq!(
        fs::read_to_string(file).unwrap().trim(),
        ca.pem.replace("\r\n", "\n").trim()
    );
    assert!(text(take(&ca.pem, None)).contains("is registered already"));
    let snapshot = load(&bench.config, &[]).unwrap();
    assert!(
        snapshot
            .trust()
            .authorities
            .iter()
            .all(|ca| !ca.registers()),
        "closed by default"
    );

    let Imported::Certificate { thing: of, .. } = take(&leaf.pem, None).unwrap() else {
        panic!("no certificate");
    };
    assert_eq!(of.as_str(), "t1");
    assert!(text(take(&leaf.pem, None)).contains("is registered already"));
    assert!(text(take(&nobody.pem, None)).contains("no such thing"));
    // DER, of another thing than it says.
    bench.write("import", "");
    fs::write(bench.path("import"), &*nobody.der).unwrap();
    assert!(
        import(
            &bench.config,
            &bench.path("import"),
            Some(Holder::Thing(&thing("t1")))
        )
        .is_ok()
    );
    let kept = issued::certificate(&bench.config, nobody.certificate.id).unwrap();
    assert_eq!(kept, *nobody.certificate);

    let [first] = lists(take(&ca.crl(2, 30, &[&leaf]), None))
        .try_into()
        .unwrap();
    assert_eq!((first.entries, first.is_expired), (1, false));
    assert!(
        load(&bench.config, &[])
            .unwrap()
            .trust()
            .revokes(&leaf.certificate)
    );
    assert!(text(take(&ca.crl(1, 30, &[]), None)).contains("older than"));
    let [newer] = lists(take(&ca.crl(3, 30, &[]), None)).try_into().unwrap();
    assert_eq!(
        newer.file, first.file,
        "a newer list replaces the older one"
    );
    assert!(
        !load(&bench.config, &[])
            .unwrap()
            .trust()
            .revokes(&leaf.certificate)
    );
    let forged = TestCa::root("theirs").crl(4, 30, &[]);
    assert!(text(take(&forged, None)).contains("whose signature it does not have"));
}

#[test]
fn what_is_weak_or_over_is_refused() {
    let bench = Bench::new();
    let ca = TestCa::root("theirs");
    bench.register("theirs", &ca, "");
    let take = |text: &str| {
        bench.write("import", text);
        import(&bench.config, &bench.path("import"), None)
    };
    let weak = include_str!("../../../core/src/certificate/fixtures/rsa-1024.pem");
    assert!(text(take(weak)).contains("1024 bits"));
    let bitcoin = include_str!("../../../core/src/certificate/fixtures/secp256k1.pem");
    assert!(text(take(bitcoin)).contains("on the curve secp256k1"));
    let stranger = TestCa::root("theirs").leaf("t1").pem;
    assert!(text(take(&stranger)).contains("no CA here signed it"));
    let expired = ca.leaf_with("t1", |params| {
        params.not_after = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    });
    assert!(text(take(&expired.pem)).contains("not valid now"));
    let future = ca.leaf_with("t1", |params| {
        params.not_before = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    });
    assert!(text(take(&future.pem)).contains("not valid now: it is from"));
    let server = ca.leaf_with("t1", |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(text(take(&server.pem)).contains("not for client authentication"));
    bench.register("closed", &TestCa::root("unused"), "status = \"INACTIVE\"");
    let closed = TestCa::root("closed");
    bench.write("pki/closed.pem", &closed.pem);
    assert!(text(take(&closed.leaf("t1").pem)).contains("is inactive"));
}

/// Makes `name` (a CA file of the settings) the only one that can sign.
fn only(bench: &mut Bench, name: &str, pem: &str, key_pem: &str) {
    fs::remove_file(bench.path("pki/ca.key")).unwrap();
    bench.write(&format!("pki/{name}.pem"), pem);
    bench.write(&format!("pki/{name}.key"), key_pem);
    bench
        .config
        .ca_certificates
        .push(bench.path(&format!("pki/{name}.pem")));
}

fn issue(bench: &Bench, name: &str, to: &str) -> enrol::Enrolment {
    let wanted = Wanted {
        days: 30,
        request: None,
        organization: Some("Acme"),
        unit: Some("cold"),
    };
    enrol::enrol(
        &bench.config,
        Holder::Thing(&thing(name)),
        &wanted,
        &bench.path(to),
    )
    .unwrap()
}

#[test]
fn an_intermediate_signs_and_its_chain_goes_along() {
    let mut bench = Bench::new();
    let root = TestCa::root("root");
    let below = root.intermediate("below");
    only(
        &mut bench,
        "below",
        &format!("{}{}", below.pem, root.pem),
        &below.key_pem,
    );
    let made = issue(&bench, "t1", "out");
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(bench.path("out/cert.pem"))
            .unwrap()
            .flatten()
            .collect();
    let ids: Vec<_> = chain.iter().map(|der| CertificateId::of_der(der)).collect();
    assert_eq!(
        ids,
        [made.issued.id, below.id()],
        "leaf and intermediate, not the root"
    );
    // What verifies the gateway is the CA that signed the server's certificate.
    let roots: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(bench.path("out/ca.pem"))
            .unwrap()
            .flatten()
            .collect();
    let first = CertificateDer::from_pem_file(bench.path("pki/ca.pem")).unwrap();
    assert_eq!(roots, [first]);
    let snapshot = load(&bench.config, &[]).unwrap();
    assert_eq!(
        snapshot.trust().ca_of(&chain[0], &chain[1..]).unwrap().id,
        below.id()
    );
    let kept = issued::certificate(&bench.config, made.issued.id).unwrap();
    assert_eq!(kept.subject.get(NameAttribute::Organization), ["Acme"]);
    assert_eq!(
        kept.subject.get(NameAttribute::OrganizationalUnit),
        ["cold"]
    );
}

#[test]
fn a_ca_with_an_rsa_key_signs_certificates_and_lists_of_it_are_verified() {
    let mut bench = Bench::new();
    let [pem, key] = [
        include_str!("../fixtures/rsa-ca.pem"),
        include_str!("../fixtures/rsa-ca.key"),
    ];
    only(&mut bench, "rsa", pem, key);
    let made = issue(&bench, "t1", "out");
    let der = CertificateDer::from_pem_slice(made.issued.certificate_pem.as_bytes()).unwrap();
    let snapshot = load(&bench.config, &[]).unwrap();
    let ca = snapshot.trust().ca_of(&der, &[]).unwrap();
    assert!(ca.subject.contains("RSA device CA"));
    fs::remove_file(bench.path("pki/rsa.key")).unwrap();
    let wanted = Wanted {
        days: 1,
        request: None,
        organization: None,
        unit: None,
    };
    let none = enrol::enrol(
        &bench.config,
        Holder::Thing(&thing("t1")),
        &wanted,
        &bench.path("other"),
    )
    .unwrap_err();
    assert!(none.to_string().contains("none of"), "{none}");
    assert!(!bench.path("other").exists());
}

#[test]
fn a_renewal_lets_the_others_end_wherever_they_stand() {
    let bench = Bench::new();
    let first = issue(&bench, "t1", "first").issued.id;
    let at_run_time = CertificateId::of_der(b"run time");
    let mut state = StateCertificate::new(at_run_time, Status::Active, now(), "test");
    state.things = vec![thing("t1")];
    Journal::open(&bench.config.journal)
        .append(&[Change::Certificate(state)])
        .unwrap();
    let until = Timestamp::from_millis(now().as_millis() / 1000 * 1000 + 7 * 24 * 3600 * 1000);
    let wanted = Wanted {
        days: 30,
        request: None,
        organization: None,
        unit: None,
    };
    let t1 = thing("t1");
    let (second, retired) =
        enrol::renew(&bench.config, &t1, &wanted, &bench.path("second"), until).unwrap();
    assert_eq!(retired, [first, at_run_time]);
    let ends = |id: CertificateId| {
        let known = lifecycle::read(&bench.config).unwrap();
        known.merged.certificate(&id).unwrap().until
    };
    assert_eq!(ends(first), Some(until));
    assert_eq!(ends(at_run_time), Some(until));
    assert_eq!(ends(second.issued.id), None);
    // A later end never prolongs an earlier one.
    let later = until.plus_millis(1000);
    let (_, retired) =
        enrol::renew(&bench.config, &t1, &wanted, &bench.path("third"), later).unwrap();
    assert_eq!(retired, [second.issued.id]);
    assert_eq!(ends(first), Some(until));

    // A thing that exists at run time alone.
    let at = now();
    Journal::open(&bench.config.journal)
        .append(&[Change::Thing(StateThing {
            name: thing("p1"),
            thing_type: None,
            attributes: Default::default(),
            groups: Vec::new(),
            at,
            why: "test".to_owned(),
        })])
        .unwrap();
    let p1 = thing("p1");
    let made = enrol::enrol(
        &bench.config,
        Holder::Thing(&p1),
        &wanted,
        &bench.path("p1"),
    )
    .unwrap();
    let known = lifecycle::read(&bench.config).unwrap();
    assert!(known.file.certificate(&made.issued.id).is_none());
    assert!(
        known
            .merged
            .certificate(&made.issued.id)
            .unwrap()
            .is_attached_to("p1")
    );
    assert_eq!(
        lifecycle::revoke(&bench.config, "p1", None).unwrap(),
        [made.issued.id]
    );
    assert!(lifecycle::revoke(&bench.config, "p1", None).is_err());
}

#[test]
fn all_lists_of_a_file_are_taken_over_or_none() {
    let bench = Bench::new();
    let [one, two] = ["one", "two"].map(TestCa::root);
    for (name, ca) in [("one", &one), ("two", &two)] {
        bench.register(name, ca, "");
    }
    let [of_one, of_two] = [one.leaf("t1"), two.leaf("t1")];
    let take = |lists: &[String]| {
        bench.write("import", &lists.concat());
        import(&bench.config, &bench.path("import"), None)
    };
    let revoked = || {
        let trust = load(&bench.config, &[]).unwrap().trust().clone();
        [&of_one, &of_two].map(|leaf| trust.revokes(&leaf.certificate))
    };
    let stranger = TestCa::root("stranger").crl(1, 30, &[]);
    let refused = take(&[one.crl(1, 30, &[&of_one]), stranger]).unwrap_err();
    assert!(
        refused.to_string().contains("import its CA first"),
        "{refused}"
    );
    assert_eq!(revoked(), [false, false], "none of them");

    let both = [
        one.crl(2, 30, &[&of_one]),
        two.crl(2, -1, &[&of_two]),
        one.crl(1, 30, &[]),
    ];
    let taken = lists(take(&both));
    let told: Vec<_> = taken.iter().map(|l| (l.entries, l.is_expired)).collect();
    assert_eq!(told, [(1, false), (1, true)], "the newest of each CA");
    assert_eq!(revoked(), [true, true]);

    let refused = take(&[two.crl(3, 30, &[]), one.crl(1, 30, &[])]).unwrap_err();
    assert!(
        refused.to_string().contains("the list of `CN=one`"),
        "{refused}"
    );
    assert_eq!(revoked(), [true, true], "nothing was replaced");
}

#[test]
fn the_list_of_an_intermediate_is_taken_over_with_its_certificate() {
    let bench = Bench::new();
    let root = TestCa::root("root");
    let below = root.intermediate("below");
    bench.register("root", &root, "");
    let lost = below.leaf("t1");
    let take = |text: &str| {
        bench.write("import", text);
        import(&bench.config, &bench.path("import"), None)
    };
    let list = below.crl(1, 30, &[&lost]);
    let refused = text(take(&list));
    assert!(
        refused.contains("of this intermediate into the same file"),
        "{refused}"
    );
    assert_eq!(lists(take(&format!("{}{list}", below.pem))).len(), 1);
    assert!(bench.problems().is_empty(), "{:?}", bench.problems());
    let trust = load(&bench.config, &[]).unwrap().trust().clone();
    assert!(trust.revokes(&lost.certificate));
    assert_eq!(trust.ca.len(), 2, "it is no CA because of that");
    // The next ones need not bring it along.
    assert_eq!(lists(take(&below.crl(2, 30, &[]))).len(), 1);
    assert!(
        !load(&bench.config, &[])
            .unwrap()
            .trust()
            .revokes(&lost.certificate)
    );
}

#[test]
fn a_mark_of_utf_8_and_line_ends_of_windows_are_no_hindrance() {
    let bench = Bench::new();
    let ca = TestCa::root("theirs");
    let windows = |text: &str| {
        let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        bench.write("import", &format!("\u{feff}{text}"));
        import(&bench.config, &bench.path("import"), None)
    };
    let Imported::Ca { file, .. } = windows(&ca.pem).unwrap() else {
        panic!("no CA");
    };
    windows(&ca.leaf("t1").pem).unwrap();
    assert_eq!(lists(windows(&ca.crl(1, 30, &[]))).len(), 1);
    // What people put there themselves.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, format!("\u{feff}{text}")).unwrap();
    assert!(bench.problems().is_empty(), "{:?}", bench.problems());
}

#[test]
fn a_claim_certificate_is_listed_with_its_template_and_policies() {
    let bench = Bench::new();
    let ca = TestCa::root("theirs");
    bench.register("theirs", &ca, "");
    bench.write("templates/fleet.json", TEMPLATE);
    let policies = ["extra".to_owned()];
    let take = |template: &str, policies: &[String], text: &str| {
        bench.write("import", text);
        let claim = Claim { template, policies };
        import(
            &bench.config,
            &bench.path("import"),
            Some(Holder::Claim(claim)),
        )
    };
    let leaf = ca.leaf("anything");
    let refused = |template: &str, policies: &[String], text: &str| {
        let error = take(template, policies, text).unwrap_err();
        assert_eq!(bench.problems(), [""; 0]);
        match error {
            ImportError::Lifecycle(LifecycleError::Edit(EditError::Mistakes(told))) => {
                told[0].to_string()
            }
            other => other.to_string(),
        }
    };
    assert!(refused("fleat", &policies, &leaf.pem).contains("write `fleet`"));
    assert!(refused("fleet", &["extro".to_owned()], &leaf.pem).contains("write `extra`"));
    assert!(refused("fleet", &policies, &ca.pem).contains("leave `--thing`"));
    assert!(refused("fleet", &policies, &ca.crl(1, 7, &[])).contains("leave `--thing`"));
    take("fleet", &policies, &leaf.pem).unwrap();
    assert!(refused("fleet", &policies, &leaf.pem).contains("is registered already"));

    let wanted = Wanted {
        days: 9,
        request: None,
        organization: None,
        unit: None,
    };
    let claim = Holder::Claim(Claim {
        template: "fleet",
        policies: &policies,
    });
    let made = enrol::enrol(&bench.config, claim, &wanted, &bench.path("claim")).unwrap();
    let snapshot = load(&bench.config, &[]).unwrap();
    for id in [leaf.certificate.id, made.issued.id] {
        let known = snapshot.certificate(&id).unwrap();
        assert_eq!(known.claim.as_deref(), Some("fleet"));
        assert_eq!(known.policies, policies);
        assert_eq!(
            (known.status, known.attached().count()),
            (Status::Active, 0)
        );
    }
}

const TEMPLATE: &str = r#"{"Parameters": {"Serial": {"Type": "String"},
    "AWS::IoT::Certificate::Id": {"Type": "String"}},
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Serial"}}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
      "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}}}}"#;
