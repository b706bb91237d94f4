use std::fs;

use time::{Duration, OffsetDateTime};

use super::*;
use crate::identity::{
    issued, lifecycle,
    testing::{Bench, Leaf, TestCa},
};

/// Lists `leaf` as one of `t1`, with `more` keys.
fn listed(bench: &Bench, leaf: &Leaf, more: &str) {
    issued::keep(&bench.config, &leaf.der).unwrap();
    let id = leaf.certificate.id;
    bench.append(&format!(
        "[[certificate]]\nid = \"{id}\"\nthing = \"t1\"\n{more}"
    ));
}

/// What becomes of it, as people are told.
fn told(bench: &Bench, leaf: &Leaf) -> String {
    let known = lifecycle::read(&bench.config).unwrap();
    assert_eq!(known.mistakes, []);
    let examiner = Examiner::new(&bench.config, &known.merged, &known.state);
    let listed = known.merged.certificate(&leaf.certificate.id).unwrap();
    examiner.examine(listed).effective.to_string()
}

fn bench() -> (Bench, TestCa) {
    let bench = Bench::new();
    let ca = TestCa::root("Acme");
    bench.register("acme", &ca, "");
    (bench, ca)
}

#[test]
fn an_active_certificate_is_active() {
    let (bench, ca) = bench();
    let leaf = ca.leaf("t1");
    listed(&bench, &leaf, "");
    assert_eq!(told(&bench, &leaf), "ACTIVE");
    let known = lifecycle::read(&bench.config).unwrap();
    let examiner = Examiner::new(&bench.config, &known.merged, &known.state);
    let found = known.merged.certificate(&leaf.certificate.id).unwrap();
    let examined = examiner.examine(found);
    assert!(examined.effective.opens());
    assert_eq!(examined.ca, Some(ca.id()));
}

#[test]
fn a_revocation_list_is_above_the_registry_and_named() {
    let (bench, ca) = bench();
    let (leaf, other) = (ca.leaf("t1"), ca.leaf("t1"));
    listed(&bench, &leaf, "");
    listed(&bench, &other, "");
    bench.write("pki/crl/acme.crl", &ca.crl(1, 9, &[&leaf]));
    assert_eq!(told(&bench, &leaf), "REVOKED (listed in pki/crl/acme.crl)");
    assert_eq!(told(&bench, &other), "ACTIVE");
}

#[test]
fn a_time_that_is_over_is_told_with_the_moment() {
    let (bench, ca) = bench();
    let ended = ca.leaf("t1");
    listed(&bench, &ended, "until = \"2026-01-02T03:04:05Z\"");
    assert_eq!(told(&bench, &ended), "ENDED (at 2026-01-02T03:04:05.000Z)");
    let expired = ca.leaf_with("t1", |params| {
        params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    });
    listed(&bench, &expired, "");
    let not_after = expired.certificate.not_after;
    assert_eq!(told(&bench, &expired), format!("EXPIRED (at {not_after})"));
}

#[test]
fn what_the_registry_says_is_told_with_its_reason() {
    let (bench, ca) = bench();
    let leaf = ca.leaf("t1");
    listed(&bench, &leaf, "status = \"INACTIVE\"\nreason = \"service\"");
    assert_eq!(told(&bench, &leaf), "INACTIVE (service)");
}

#[test]
fn a_certificate_of_a_ca_that_is_gone_or_revoked_is_not_trusted_and_one_of_an_inactive_ca_is() {
    let (bench, ca) = bench();
    let leaf = ca.leaf("t1");
    listed(&bench, &leaf, "");
    let registry = fs::read_to_string(&bench.config.registry).unwrap();
    let entry = "[[ca]]\ncertificate = \"pki/acme.pem\"\n";
    assert!(registry.contains(entry));
    let inactive = registry.replace(entry, &format!("{entry}status = \"INACTIVE\"\n"));
    bench.write("registry.toml", &inactive);
    assert_eq!(
        told(&bench, &leaf),
        "ACTIVE",
        "it registers nobody new, that is all"
    );
    bench.write("registry.toml", &registry.replace(entry, ""));
    assert_eq!(
        told(&bench, &leaf),
        "ISSUER NOT TRUSTED (no CA here is or vouches for `CN=Acme`)"
    );

    let root = TestCa::root("Root");
    let below = root.intermediate("Below");
    let leaf = below.leaf("t1");
    bench.register("root", &root, "");
    bench.register("below", &below, "");
    listed(&bench, &leaf, "");
    assert_eq!(told(&bench, &leaf), "ACTIVE");
    let revoked = Leaf {
        certificate: Certificate::parse(&below.der).unwrap().into(),
        der: below.der.clone(),
        pem: below.pem.clone(),
    };
    bench.write("pki/crl/root.crl", &root.crl(1, 9, &[&revoked]));
    assert_eq!(
        told(&bench, &leaf),
        "ISSUER NOT TRUSTED (its CA `CN=Below` is listed in pki/crl/root.crl)"
    );
}

#[test]
fn an_intermediate_that_only_the_device_has_is_taken_from_what_was_imported() {
    let bench = Bench::new();
    let root = TestCa::root("Root");
    let below = root.intermediate("Below");
    let leaf = below.leaf("t1");
    bench.register("root", &root, "");
    bench.write("device.pem", &format!("{}{}", leaf.pem, below.pem));
    let file = bench.path("device.pem");
    crate::identity::import::import(&bench.config, &file, None).unwrap();
    assert_eq!(told(&bench, &leaf), "ACTIVE");
}

#[test]
fn of_a_certificate_that_was_never_seen_only_the_registry_speaks() {
    let (bench, ca) = bench();
    let leaf = ca.leaf("t1");
    let id = leaf.certificate.id;
    bench.append(&format!("[[certificate]]\nid = \"{id}\"\nthing = \"t1\"\n"));
    assert_eq!(told(&bench, &leaf), "ACTIVE");
}
