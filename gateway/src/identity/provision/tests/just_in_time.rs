//! Just-in-time registration and provisioning.

use super::*;

#[tokio::test]
async fn an_unknown_certificate_waits_for_approval_and_is_announced_each_time() {
    let (bench, ca) = (Bench::new(), TestCa::root("factory"));
    bench.register("factory", &ca, "auto-registration = \"ENABLE\"");
    running(bench, async |running| {
        let leaf = ca.leaf("t1");
        let id = leaf.certificate.id;
        assert_eq!(
            running.connect(&leaf.certificate).unwrap_err(),
            Refusal::CertificateUnknown
        );
        let Introduction::Pending(announced) = running.introduce(&leaf).await else {
            panic!("not pending");
        };
        let topic = format!("$aws/events/certificates/registered/{}", ca.id());
        assert_eq!(announced[0].topic.as_str(), topic);
        let payload: Value = serde_json::from_slice(&announced[0].payload).unwrap();
        assert_eq!(payload["certificateId"], id.to_string());
        assert_eq!(payload["caCertificateId"], ca.id().to_string());
        assert_eq!(payload["certificateStatus"], "PENDING_ACTIVATION");
        assert_eq!(payload["awsAccountId"], "123456789012");
        assert!(payload["timestamp"].is_u64());
        assert!(payload["certificateRegistrationTimestamp"].is_string());

        running.until(id, Status::PendingActivation).await;
        assert_eq!(
            running.connect(&leaf.certificate).unwrap_err(),
            Refusal::CertificatePending
        );
        // A device that comes back at once is not announced faster than once a second.
        assert_eq!(
            running.introduce(&leaf).await,
            Introduction::Pending(Vec::new())
        );
        running.provisioner.0.held().announced.clear();
        let Introduction::Pending(again) = running.introduce(&leaf).await else {
            panic!("not pending");
        };
        assert_eq!(again[0].topic, announced[0].topic);

        let config = &running.bench.config;
        let thing = lifecycle::approve(config, id, None).unwrap();
        assert_eq!(thing.as_str(), "t1", "named like its common name");
        running.until(id, Status::Active).await;
        assert_eq!(running.connect(&leaf.certificate).unwrap().device(), "t1");
        assert_eq!(running.introduce(&leaf).await, Introduction::NotRegistered);
        let again = lifecycle::approve(config, id, None).unwrap_err();
        assert!(
            again.to_string().contains("does not wait for approval"),
            "{again}"
        );
        lifecycle::revoke(config, "t1", Some("lost")).unwrap();
        running.until(id, Status::Revoked).await;
        assert_eq!(
            running.connect(&leaf.certificate).unwrap_err(),
            Refusal::CertificateRevoked
        );
        assert_eq!(running.introduce(&leaf).await, Introduction::NotRegistered);
        let back = lifecycle::set_active(config, id, Status::Active, None).unwrap_err();
        assert!(back.to_string().contains("revoked for good"), "{back}");
        let pending = running
            .metrics
            .introductions
            .with_label_values(&["pending"]);
        assert_eq!(pending.get(), 3);
    })
    .await;
}

#[tokio::test]
async fn approval_needs_a_thing_that_exists() {
    let (bench, ca) = (Bench::new(), TestCa::root("factory"));
    bench.register("factory", &ca, "auto-registration = \"ENABLE\"");
    running(bench, async |running| {
        let leaf = ca.leaf("nobody");
        running.introduce(&leaf).await;
        let (config, id) = (&running.bench.config, leaf.certificate.id);
        let none = lifecycle::approve(config, id, None).unwrap_err();
        assert!(
            none.to_string().contains("names no thing that exists"),
            "{none}"
        );
        let active = lifecycle::set_active(config, id, Status::Active, None).unwrap_err();
        assert!(active.to_string().contains("cert approve"), "{active}");
        let t1 = ThingName::parse("t1").unwrap();
        lifecycle::approve(config, id, Some(&t1)).unwrap();
        running.until(id, Status::Active).await;
        lifecycle::set_active(config, id, Status::Inactive, Some("service")).unwrap();
        running.until(id, Status::Inactive).await;
        let refused = running.connect(&leaf.certificate).unwrap_err();
        assert_eq!(refused, Refusal::CertificateNotActive);
        lifecycle::set_active(config, id, Status::Active, None).unwrap();
        running.until(id, Status::Active).await;
    })
    .await;
}

#[tokio::test]
async fn a_ca_registers_nobody_unless_it_is_told_to() {
    let bench = Bench::new();
    let [closed, inactive, open] = ["closed", "inactive", "open"].map(TestCa::root);
    bench.register("closed", &closed, "");
    bench.register(
        "inactive",
        &inactive,
        "auto-registration = \"ENABLE\"\nstatus = \"INACTIVE\"",
    );
    bench.register("open", &open, "auto-registration = \"ENABLE\"");
    running(bench, async |running| {
        for ca in [&closed, &inactive] {
            assert_eq!(
                running.introduce(&ca.leaf("t1")).await,
                Introduction::NotRegistered
            );
        }
        let foreign = TestCa::root("open").leaf("t1");
        assert_eq!(failure(&running.introduce(&foreign).await), "unfit");
        let expired = open.leaf_with("t1", |params| {
            params.not_after = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
        });
        assert_eq!(failure(&running.introduce(&expired).await), "unfit");
        // What it shows is not what it says it is.
        let (one, other) = (open.leaf("t1"), open.leaf("t1"));
        let chain = [other.der];
        let odd = running
            .provisioner
            .introduce(&one.certificate, &chain)
            .await;
        assert_eq!(odd, Introduction::NotRegistered);
        assert_eq!(
            running.provisioner.introduce(&one.certificate, &[]).await,
            odd
        );
        let below = open.intermediate("below");
        let deep = below.leaf("t1");
        let chain = [deep.der.clone(), below.der.clone()];
        let introduced = running
            .provisioner
            .introduce(&deep.certificate, &chain)
            .await;
        assert!(
            matches!(introduced, Introduction::Pending(_)),
            "{introduced:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_template_makes_thing_policy_and_certificate_at_once() {
    let (bench, ca) = (Bench::new(), TestCa::root("factory"));
    bench.write("templates/factory.json", JUST_IN_TIME);
    bench.register(
        "factory",
        &ca,
        "template = \"factory\"\nauto-registration = \"ENABLE\"",
    );
    bench.append("[[thing]]\nname = \"t2\"\nprovisionable = true\n");
    running(bench, async |running| {
        let leaf = ca.leaf("m-1");
        let id = leaf.certificate.id;
        let Introduction::Provisioned(announced) = running.introduce(&leaf).await else {
            panic!("not provisioned");
        };
        let payload: Value = serde_json::from_slice(&announced[0].payload).unwrap();
        assert_eq!(payload["certificateStatus"], "ACTIVE");
        running.until(id, Status::Active).await;
        let principal = running.connect(&leaf.certificate).unwrap();
        assert_eq!(principal.device(), "m-1");
        let groups: Vec<_> = principal.groups().iter().map(ToString::to_string).collect();
        assert_eq!(groups, ["devices", "loggers", "north"]);
        let thing = principal.thing.as_ref().unwrap();
        assert_eq!(thing.attributes["line"], "7");
        assert_eq!(
            principal.policies.policies().len(),
            2,
            "its own and that of its group"
        );
        let kept = issued::certificate(&running.bench.config, id).unwrap();
        assert_eq!(kept, *leaf.certificate);

        // Another one of the same CA for the same thing: that is how it renews.
        let renewed = ca.leaf("m-1");
        assert!(matches!(
            running.introduce(&renewed).await,
            Introduction::Provisioned(_)
        ));
        // t1 is in registry.toml, and nobody said that devices may become it.
        assert_eq!(
            failure(&running.introduce(&ca.leaf("t1")).await),
            "conflict"
        );
        // t2 may be given a certificate, and stays as it is.
        let listed = ca.leaf("t2");
        assert!(matches!(
            running.introduce(&listed).await,
            Introduction::Provisioned(_)
        ));
        running.until(listed.certificate.id, Status::Active).await;
        let principal = running.connect(&listed.certificate).unwrap();
        assert!(principal.thing.unwrap().attributes.is_empty());
        // What cannot be filled in.
        let nameless = running.introduce(&ca.leaf("a b")).await;
        assert_eq!(failure(&nameless), "parameters");
    })
    .await;
}

#[tokio::test]
async fn a_ca_takes_over_no_thing_of_another() {
    let bench = Bench::new();
    let [one, other] = ["one", "other"].map(TestCa::root);
    bench.write("templates/factory.json", JUST_IN_TIME);
    bench.register(
        "one",
        &one,
        "template = \"factory\"\nauto-registration = \"ENABLE\"",
    );
    bench.register(
        "other",
        &other,
        "template = \"factory\"\nauto-registration = \"ENABLE\"",
    );
    let of_file = one.leaf("t2");
    let id = of_file.certificate.id;
    bench.append("[[thing]]\nname = \"t2\"\nprovisionable = true\n");
    bench.append(&format!("[[certificate]]\nid = \"{id}\"\nthing = \"t2\"\n"));
    running(bench, async |running| {
        assert!(matches!(
            running.introduce(&one.leaf("m")).await,
            Introduction::Provisioned(_)
        ));
        assert_eq!(
            failure(&running.introduce(&other.leaf("m")).await),
            "conflict"
        );
        // Of a certificate in registry.toml nobody knows the CA.
        assert_eq!(
            failure(&running.introduce(&other.leaf("t2")).await),
            "conflict"
        );
        lifecycle::revoke(&running.bench.config, &id.to_string(), None).unwrap();
        running.until(id, Status::Revoked).await;
        assert_eq!(
            failure(&running.introduce(&other.leaf("t2")).await),
            "conflict",
            "who was revoked does not come back by another CA"
        );
    })
    .await;
}
