use super::{issuers::Issuers, *};
use crate::identity::{
    Refusal, inspect, load,
    testing::{Bench, Leaf, TestCa},
};

fn found(bench: &Bench, leaf: &Leaf, intermediates: &[CertificateDer<'static>]) -> Option<String> {
    let snapshot = load(&bench.config, &[]).unwrap();
    let ca = snapshot.trust().ca_of(&leaf.der, intermediates)?;
    Some(ca.id.to_string())
}

#[test]
fn the_ca_of_a_certificate_is_found_among_namesakes_and_through_intermediates() {
    let bench = Bench::new();
    // Names are equal, keys are not: only the signature tells.
    let [one, other] = [(); 2].map(|()| TestCa::root("same name"));
    let below = one.intermediate("below");
    bench.register("one", &one, "auto-registration = \"ENABLE\"");
    bench.register("other", &other, "status = \"INACTIVE\"");
    let id = |ca: &TestCa| Some(ca.id().to_string());
    assert_eq!(found(&bench, &one.leaf("d"), &[]), id(&one));
    assert_eq!(found(&bench, &other.leaf("d"), &[]), id(&other));
    let deep = below.leaf("d");
    assert_eq!(found(&bench, &deep, &[]), None, "the chain is not whole");
    assert_eq!(
        found(&bench, &deep, std::slice::from_ref(&below.der)),
        id(&one)
    );
    assert_eq!(
        found(&bench, &TestCa::root("same name").leaf("d"), &[]),
        None
    );

    // Once it is registered itself, it is the nearest.
    bench.register("below", &below, "");
    assert_eq!(
        found(&bench, &deep, std::slice::from_ref(&below.der)),
        id(&below)
    );

    let snapshot = load(&bench.config, &[]).unwrap();
    let registers: Vec<_> = snapshot
        .trust()
        .authorities
        .iter()
        .map(|ca| (ca.file.file_name().unwrap().to_owned(), ca.registers()))
        .collect();
    let expected = [
        ("ca.pem", false),
        ("one.pem", true),
        ("other.pem", false),
        ("below.pem", false),
    ];
    assert_eq!(registers, expected.map(|(name, is)| (name.into(), is)));
    assert_eq!(snapshot.trust().ca.len(), 4);
}

#[test]
fn a_file_of_a_registered_ca_trusts_its_first_certificate_alone() {
    let bench = Bench::new();
    let root = TestCa::root("root");
    let below = root.intermediate("below");
    bench.register("below", &below, "");
    bench.write("pki/below.pem", &format!("{}{}", below.pem, root.pem));
    assert!(found(&bench, &below.leaf("d"), &[]).is_some());
    assert!(found(&bench, &root.leaf("d"), &[]).is_none());
}

#[test]
fn what_is_no_ca_or_is_there_twice_or_too_often_is_a_mistake() {
    let bench = Bench::new();
    let ca = TestCa::root("ca");
    bench.register("one", &ca, "");
    bench.register("two", &ca, "");
    assert!(
        bench.problems()[0].contains("stands in the registry twice"),
        "{:?}",
        bench.problems()
    );
    bench.write("pki/two.pem", &ca.leaf("d").pem);
    // A leaf without basic constraints, but usable for clients alone: rustls would take it for a CA.
    let leaf = ca.leaf_with("d", |params| {
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
    });
    bench.write("pki/two.pem", &leaf.pem);
    assert!(
        bench.problems()[0].contains("is no CA"),
        "{:?}",
        bench.problems()
    );
    bench.write(
        "pki/two.pem",
        include_str!("../../../core/src/certificate/fixtures/rsa-1024.pem"),
    );
    assert!(
        bench.problems()[0].contains("1024 bits"),
        "{:?}",
        bench.problems()
    );
    bench.write("pki/two.pem", "nothing");
    assert!(bench.problems()[0].contains("no certificate in PEM"));

    let bench = Bench::new();
    for n in 0..=CAS_PER_SUBJECT_MAX {
        bench.register(&format!("ca{n}"), &TestCa::root("same"), "");
    }
    assert_eq!(bench.problems().len(), 1);
    assert!(bench.problems()[0].contains("more than 10 CAs called"));
}

fn refusal(bench: &Bench, leaf: &Leaf) -> Option<Refusal> {
    use crate::identity::Credential;
    let client_id = portcullis_core::identity::ClientId::parse("t1").unwrap();
    let source = std::net::Ipv4Addr::LOCALHOST.into();
    let snapshot = load(&bench.config, &[]).unwrap();
    let credential = Credential::certificate(&leaf.certificate);
    snapshot.authenticate(&credential, &client_id, source).err()
}

/// A site with a CA `x` and two certificates of `t1`.
fn revoking() -> (Bench, TestCa, Leaf, Leaf) {
    let bench = Bench::new();
    let ca = TestCa::root("x");
    bench.register("x", &ca, "");
    let (lost, kept) = (ca.leaf("t1"), ca.leaf("t1"));
    for leaf in [&lost, &kept] {
        bench.append(&format!(
            "[[certificate]]\nid = \"{}\"\nthing = \"t1\"",
            leaf.certificate.id
        ));
    }
    (bench, ca, lost, kept)
}

#[test]
fn a_revocation_list_wins_over_the_registry_until_a_newer_one_says_otherwise() {
    let (bench, ca, lost, kept) = revoking();
    assert_eq!(refusal(&bench, &lost), None);
    std::fs::create_dir_all(bench.path("pki/crl")).unwrap();
    bench.write("pki/crl/x.pem", &ca.crl(1, 30, &[&lost]));
    assert_eq!(refusal(&bench, &lost), Some(Refusal::CertificateRevoked));
    assert_eq!(refusal(&bench, &kept), None);
    let snapshot = load(&bench.config, &[]).unwrap();
    assert_eq!(snapshot.trust().crls.len(), 1);
    assert_eq!(snapshot.trust().revoked_count(), 1);

    // An older one does not bring anybody back, whatever its file is called.
    bench.write("pki/crl/a.pem", &ca.crl(0, 30, &[]));
    bench.write("pki/crl/z.pem", &ca.crl(0, 30, &[]));
    assert_eq!(refusal(&bench, &lost), Some(Refusal::CertificateRevoked));
    bench.write("pki/crl/a.pem", &ca.crl(2, 30, &[&kept]));
    assert_eq!(refusal(&bench, &lost), None);
    assert_eq!(refusal(&bench, &kept), Some(Refusal::CertificateRevoked));

    // DER, expired: used, and warned about.
    let pem = ca.crl(3, -1, &[&lost]);
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
    std::fs::write(bench.path("pki/crl/a.pem"), &*der).unwrap();
    assert_eq!(refusal(&bench, &lost), Some(Refusal::CertificateRevoked));
    let warnings = inspect(&bench.config, &[]).warnings;
    assert!(
        warnings
            .iter()
            .any(|w| w.message.contains("should have been replaced")),
        "{warnings:?}"
    );
}

#[test]
fn a_chain_through_a_revoked_authority_is_revoked_and_one_to_nobody_unknown() {
    let bench = Bench::new();
    let root = TestCa::root("root");
    let below = root.intermediate("below");
    let device = below.leaf("t1");
    let revoked = Leaf {
        der: below.der.clone(),
        pem: below.pem.clone(),
        certificate: std::sync::Arc::new(Certificate::parse(&below.der).unwrap()),
    };
    let registered = |name: &str, ca: &TestCa| bench.register(name, ca, "");
    let leads = |chain: &Chain| chain.leads(load(&bench.config, &[]).unwrap().trust());
    let whole = || Chain::new(vec![device.der.clone(), below.der.clone()]);
    let alone = || Chain::new(vec![device.der.clone()]);
    assert_eq!(leads(&whole()), Leads::Nowhere);
    let registry = std::fs::read_to_string(&bench.config.registry).unwrap();
    registered("root", &root);
    registered("below", &below);
    // Of connections that were there before.
    let (whole, alone) = (whole(), alone());
    assert_eq!(leads(&whole), Leads::ToCa);
    assert_eq!(leads(&alone), Leads::ToCa);
    bench.write("pki/crl/root.pem", &root.crl(1, 30, &[&revoked]));
    assert_eq!(leads(&whole), Leads::ToRevoked);
    assert_eq!(leads(&alone), Leads::ToRevoked);
    // A stranger to both.
    let stranger = Chain::new(vec![TestCa::root("other").leaf("t1").der]);
    assert_eq!(leads(&stranger), Leads::Nowhere);
    std::fs::remove_file(bench.path("pki/crl/root.pem")).unwrap();
    assert_eq!(leads(&whole), Leads::ToCa);
    bench.write("registry.toml", &registry);
    assert_eq!(leads(&whole), Leads::Nowhere);
    assert_eq!(leads(&alone), Leads::Nowhere);
}

#[test]
fn a_list_that_is_not_to_be_believed_is_told_and_changes_nothing() {
    let (bench, _, lost, _) = revoking();
    std::fs::create_dir_all(bench.path("pki/crl")).unwrap();
    bench.write("pki/crl/x.pem", &TestCa::root("x").crl(1, 30, &[&lost]));
    assert!(bench.problems()[0].contains("whose signature it does not have"));
    bench.write("pki/crl/x.pem", "nothing");
    assert!(bench.problems()[0].contains("holds no certificate revocation list"));
    bench.write(
        "pki/crl/x.pem",
        &TestCa::root("stranger").crl(1, 30, &[&lost]),
    );
    let problem = bench.problems().remove(0);
    assert!(problem.contains("which is no CA here"), "{problem}");
    assert!(problem.contains("put the certificate of this"), "{problem}");
    std::fs::remove_file(bench.path("pki/crl/x.pem")).unwrap();
    for n in 0..=portcullis_core::limits::REVOCATION_LISTS_MAX {
        std::fs::write(bench.path(&format!("pki/crl/{n}.crl")), "").unwrap();
    }
    assert!(
        bench
            .problems()
            .iter()
            .any(|p| p.contains("keep at most 256"))
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn mutated_lists_and_certificates_never_panic(
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..5),
    ) {
        use std::sync::LazyLock;
        static REAL: LazyLock<(Vec<TrustedCa>, Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
            let ca = TestCa::root("x");
            let leaf = ca.leaf("d");
            let pem = ca.crl(1, 30, &[&leaf]);
            let list = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
            (vec![TrustedCa::new(Path::new("x"), ca.der)], list.to_vec(), leaf.der.to_vec())
        });
        let (cas, list, leaf) = &*REAL;
        let mutated = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes
        };
        let changed = mutated(list);
        let is_same = changed == *list;
        proptest::prop_assert_eq!(parse_crls(&changed, &Issuers::new(cas, &[], &[])).iter().all(Result::is_ok), is_same);
        let changed = mutated(leaf);
        let is_same = changed == *leaf;
        proptest::prop_assert_eq!(check(cas, &changed.into(), &[]).is_ok(), is_same);
    }
}

#[test]
fn a_directory_of_lists_that_is_gone_or_unreadable_forgets_no_revocation() {
    let (bench, ca, lost, _) = revoking();
    bench.write("pki/crl/x.crl", &ca.crl(1, 7, &[&lost]));
    let mut loader = crate::identity::snapshot::Loader::new(bench.config.clone());
    loader.reload(&[]).unwrap();

    let (dir, away) = (bench.path("pki/crl"), bench.path("pki/away"));
    fs::rename(&dir, &away).unwrap();
    let refused = loader.reload(&[]).unwrap_err();
    let told: Vec<_> = refused.problems.iter().map(ToString::to_string).collect();
    assert!(told[0].contains("is not there"), "{told:?}");

    // A link to itself can be neither followed nor listed, whoever asks.
    std::os::unix::fs::symlink(&dir, &dir).unwrap();
    let refused = loader.reload(&[]).unwrap_err();
    let told: Vec<_> = refused.problems.iter().map(ToString::to_string).collect();
    assert!(told[0].contains("cannot be looked for"), "{told:?}");
    assert!(
        bench.problems()[0].contains("cannot be looked for"),
        "at start too"
    );

    fs::remove_file(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    loader.reload(&[]).unwrap();
}

#[test]
fn a_directory_of_lists_that_never_was_is_a_warning() {
    let bench = Bench::new();
    fs::remove_dir(bench.path("pki/crl")).unwrap();
    let inspection = inspect(&bench.config, &[]);
    assert!(inspection.problems.is_empty());
    let warning = inspection.warnings.first().map(ToString::to_string);
    assert!(warning.unwrap().contains("is not there"));
}

#[test]
fn a_new_list_holds_while_the_servers_certificate_is_broken() {
    let (bench, ca, lost, kept) = revoking();
    let snapshot = load(&bench.config, &[]).unwrap();
    let mut loader = crate::identity::snapshot::Loader::new(bench.config.clone());
    bench.write("pki/server.pem", "half a certif");
    bench.write("pki/server.key", "no key");
    bench.write("pki/crl/x.crl", &ca.crl(1, 7, &[&lost]));
    let refused = loader.reload(&[]).unwrap_err();
    let (narrowed, _) = snapshot
        .narrowed(
            refused.file.as_deref(),
            refused.journal.as_ref(),
            &refused.lists,
        )
        .unwrap();
    assert!(narrowed.trust().revokes(&lost.certificate));
    assert!(!narrowed.trust().revokes(&kept.certificate));
    assert_eq!(narrowed.trust().crls.len(), 1);
    assert_eq!(narrowed.trust().server_chain, snapshot.trust().server_chain);
}

#[test]
fn a_list_of_an_intermediate_counts_once_its_certificate_is_found() {
    let bench = Bench::new();
    let root = TestCa::root("root");
    let upper = root.intermediate("upper");
    let lower = upper.intermediate("lower");
    bench.register("root", &root, "");
    let (lost, kept) = (lower.leaf("t1"), lower.leaf("t1"));
    for leaf in [&lost, &kept] {
        let id = leaf.certificate.id;
        bench.append(&format!("[[certificate]]\nid = \"{id}\"\nthing = \"t1\""));
    }
    bench.write("pki/crl/lower.crl", &lower.crl(1, 30, &[&lost]));
    let problem = bench.problems().remove(0);
    assert!(problem.contains("no known intermediate"), "{problem}");
    let holds = |bench: &Bench| {
        assert!(bench.problems().is_empty(), "{:?}", bench.problems());
        assert_eq!(refusal(bench, &lost), Some(Refusal::CertificateRevoked));
        assert_eq!(refusal(bench, &kept), None);
        let trust = load(&bench.config, &[]).unwrap().trust().clone();
        assert_eq!((trust.crls.len(), trust.ca.len()), (1, 2));
    };
    // Beside the list.
    bench.write("pki/crl/chain.pem", &format!("{}{}", lower.pem, upper.pem));
    holds(&bench);
    // Half of what leads to the CA is nothing.
    bench.write("pki/crl/chain.pem", &lower.pem);
    assert!(!bench.problems().is_empty());
    // In the same file, and above the server's certificate.
    fs::remove_file(bench.path("pki/crl/chain.pem")).unwrap();
    let list = lower.crl(1, 30, &[&lost]);
    bench.write("pki/crl/lower.crl", &format!("{list}{}", lower.pem));
    let server = fs::read_to_string(bench.path("pki/server.pem")).unwrap();
    bench.write("pki/server.pem", &format!("{server}{}", upper.pem));
    holds(&bench);
    bench.write("pki/server.pem", &server);
    assert!(!bench.problems().is_empty());
    // In the file of a `[[ca]]`.
    bench.write("pki/root.pem", &format!("{}{}", root.pem, upper.pem));
    holds(&bench);
    // One of the same name that nobody here signed is none.
    let forger = TestCa::root("root").intermediate("lower");
    let forged = forger.crl(2, 30, &[&kept]);
    bench.write("pki/crl/lower.crl", &format!("{forged}{}", forger.pem));
    assert!(bench.problems()[0].contains("no known intermediate"));
}

#[test]
fn the_list_of_a_ca_that_is_removed_does_not_keep_it() {
    let (bench, ca, lost, _) = revoking();
    bench.write("pki/crl/x.crl", &ca.crl(1, 7, &[&lost]));
    let snapshot = load(&bench.config, &[]).unwrap();
    let config = bench.config.clone();
    let mut loader = crate::identity::snapshot::Loader::after(config, snapshot.trust());
    let text = fs::read_to_string(&bench.config.registry).unwrap();
    let without = text.replace("[[ca]]\ncertificate = \"pki/x.pem\"\n", "");
    assert_ne!(without, text);
    bench.write("registry.toml", &without);
    let reloaded = loader.reload(&[]).unwrap();
    assert_eq!(reloaded.trust().ca.len(), 1);
    assert!(
        bench.problems()[0].contains("which is no CA here"),
        "at the next start"
    );
}

#[tokio::test]
async fn a_new_list_takes_effect_while_the_certificate_and_key_of_the_server_are_broken() {
    use crate::identity::{Metrics, Watcher, tests::until};
    use std::time::Duration;
    use tokio::time::timeout;
    let (bench, ca, lost, kept) = revoking();
    let metrics = Metrics::register(&prometheus::Registry::new());
    let initial = load(&bench.config, &[]).unwrap();
    let (watcher, mut snapshots) = Watcher::new(bench.config.clone(), initial, metrics.clone());
    let stop = tokio_util::sync::CancellationToken::new();
    let test = async {
        bench.write("pki/server.pem", "half a certif");
        bench.write("pki/server.key", "");
        let refused = metrics.reloads.with_label_values(&["refused"]);
        until(|| refused.get() >= 1).await;
        assert!(!snapshots.has_changed().unwrap());
        bench.write("pki/crl/x.crl", &ca.crl(1, 7, &[&lost]));
        timeout(Duration::from_secs(60), snapshots.changed())
            .await
            .unwrap()
            .unwrap();
        let snapshot = snapshots.borrow_and_update().clone();
        assert!(snapshot.trust().revokes(&lost.certificate));
        assert!(!snapshot.trust().revokes(&kept.certificate));
        assert_eq!(snapshot.trust().crls.len(), 1);
        assert_eq!(metrics.stale.get(), 1);
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(watcher.run(Arc::default(), stop.clone()), test);
    ended.unwrap();
}
