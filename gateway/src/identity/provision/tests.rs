use std::{future::Future, net::Ipv4Addr};

use portcullis_core::{
    identity::{ClientId, ThingName},
    limits::{OWNERSHIP_TOKEN_LIFE, OWNERSHIP_TOKENS_PER_CLAIM_MAX, PROVISION_REQUEST_BYTES_MAX},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::identity::{
    Credential, Refusal, Watcher, lifecycle, load,
    testing::{Bench, Leaf, TestCa},
};

const JUST_IN_TIME: &str = r#"{
  "Parameters": {
    "AWS::IoT::Certificate::CommonName": {"Type": "String"},
    "AWS::IoT::Certificate::Id": {"Type": "String"}
  },
  "Resources": {
    "thing": {
      "Type": "AWS::IoT::Thing",
      "Properties": {
        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
        "ThingGroups": ["devices", "north"],
        "AttributePayload": {"line": "7"}
      }
    },
    "certificate": {
      "Type": "AWS::IoT::Certificate",
      "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}
    },
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "extra"}}
  }
}"#;

const CLAIM: &str = r#"{
  "Parameters": {"Serial": {"Type": "String"}, "Group": {"Type": "String", "Default": "north"}},
  "Resources": {
    "thing": {
      "Type": "AWS::IoT::Thing",
      "Properties": {
        "ThingName": {"Fn::Join": ["-", ["logger", {"Ref": "Serial"}]]},
        "ThingGroups": ["devices", {"Ref": "Group"}]
      }
    },
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"Status": "Active"}}
  },
  "DeviceConfiguration": {"interval": "60"}
}"#;

/// A site with its watcher and a provisioner.
struct Running {
    bench: Bench,
    provisioner: Provisioner,
    snapshots: SnapshotWatch,
    metrics: Metrics,
}

async fn running<F: Future<Output = ()>>(bench: Bench, test: impl FnOnce(Running) -> F) {
    let registry = prometheus::Registry::new();
    let snapshot = load(&bench.config, &[]).unwrap();
    let (watcher, snapshots) = Watcher::new(
        bench.config.clone(),
        snapshot,
        crate::identity::Metrics::register(&registry),
    );
    let (reload, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let metrics = Metrics::register(&registry);
    let provisioner = Provisioner::new(
        bench.config.clone(),
        "123456789012",
        snapshots.clone(),
        Journal::open(&bench.config.journal),
        reload.clone(),
        metrics.clone(),
    );
    let test = test(Running {
        bench,
        provisioner,
        snapshots,
        metrics,
    });
    let stopped = async {
        timeout(Duration::from_secs(60), test).await.unwrap();
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(watcher.run(reload, stop.clone()), stopped);
    ended.unwrap();
}

impl Running {
    async fn introduce(&self, leaf: &Leaf) -> Introduction {
        let chain = [leaf.der.clone()];
        self.provisioner.introduce(&leaf.certificate, &chain).await
    }

    fn connect(&self, certificate: &Arc<Certificate>) -> Result<Principal, Refusal> {
        let client_id = ClientId::parse("whoever").unwrap();
        let credential = Credential::certificate(certificate);
        let source = Ipv4Addr::LOCALHOST.into();
        self.snapshots
            .borrow()
            .authenticate(&credential, &client_id, source)
    }

    /// Once `id` is in a snapshot with this status.
    async fn until(&self, id: CertificateId, status: Status) {
        let mut snapshots = self.snapshots.clone();
        let is_so = |snapshot: &Arc<Snapshot>| {
            snapshot
                .certificate(&id)
                .is_some_and(|found| found.status == status)
        };
        snapshots.wait_for(is_so).await.unwrap();
    }

    async fn ask(&self, principal: &Principal, topic: &str, payload: &str) -> (bool, Value) {
        let asked = TopicName::parse(topic).unwrap();
        assert!(Provisioner::serves(&asked));
        let answer = self
            .provisioner
            .answer(principal, &asked, payload.as_bytes())
            .await;
        let is_accepted = answer.topic.as_str() == format!("{topic}/accepted");
        assert!(is_accepted || answer.topic.as_str() == format!("{topic}/rejected"));
        (
            is_accepted,
            serde_json::from_slice(&answer.payload).unwrap(),
        )
    }
}

/// The label of a failure.
fn failure(introduction: &Introduction) -> &'static str {
    match introduction {
        Introduction::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

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
async fn registrations_are_so_many_a_minute() {
    let (bench, ca) = (Bench::new(), TestCa::root("factory"));
    bench.register("factory", &ca, "auto-registration = \"ENABLE\"");
    running(bench, async |running| {
        let quota = || running.provisioner.0.held();
        while quota().introductions.take() {}
        assert_eq!(failure(&running.introduce(&ca.leaf("t1")).await), "rate");
        quota().introductions = Quota::new(1);
        assert!(matches!(
            running.introduce(&ca.leaf("t1")).await,
            Introduction::Pending(_)
        ));
        assert_eq!(failure(&running.introduce(&ca.leaf("t1")).await), "rate");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_starts_anew_after_a_minute() {
    let mut quota = Quota::new(2);
    assert_eq!([(); 3].map(|()| quota.take()), [true, true, false]);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(quota.take());
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

#[tokio::test]
async fn a_thing_whose_certificate_was_revoked_is_not_provisioned_again() {
    let (bench, claim) = claiming();
    let ca = TestCa::root("factory");
    bench.write("templates/factory.json", JUST_IN_TIME);
    bench.register(
        "factory",
        &ca,
        "template = \"factory\"\nauto-registration = \"ENABLE\"",
    );
    running(bench, async |running| {
        let config = &running.bench.config;
        let principal = running.connect(&claim.certificate).unwrap();
        let claimed = async || {
            let (_, made) = running.ask(&principal, CREATE, "").await;
            let token = &made["certificateOwnershipToken"];
            let asked = provision(token, &json!({ "Serial": "11" }));
            let (accepted, answer) = running.ask(&principal, PROVISION, &asked).await;
            let id: CertificateId = parsed(&made["certificatePem"]).id;
            (accepted, answer["errorCode"].clone(), id)
        };
        let (accepted, _, id) = claimed().await;
        assert!(accepted);
        lifecycle::set_active(config, id, Status::Inactive, None).unwrap();
        assert_eq!(claimed().await.1, "ResourceConflict", "inactive");
        lifecycle::revoke(config, &id.to_string(), None).unwrap();
        assert_eq!(claimed().await.1, "ResourceConflict", "revoked");

        // Nor just in time, by the CA whose certificate it was.
        let first = ca.leaf("m");
        let introduced = running.introduce(&first).await;
        assert!(matches!(introduced, Introduction::Provisioned(_)));
        let id = first.certificate.id;
        running.until(id, Status::Active).await;
        lifecycle::revoke(config, &id.to_string(), None).unwrap();
        assert_eq!(failure(&running.introduce(&ca.leaf("m")).await), "conflict");
    })
    .await;
}

#[tokio::test]
async fn a_thing_of_the_registry_is_claimed_only_if_it_says_so() {
    let (bench, claim) = claiming();
    bench.append("[[thing]]\nname = \"logger-1\"\n");
    bench.append("[[thing]]\nname = \"logger-2\"\nprovisionable = true\n");
    running(bench, async |running| {
        let principal = running.connect(&claim.certificate).unwrap();
        let (_, made) = running.ask(&principal, CREATE, "").await;
        let token = &made["certificateOwnershipToken"];
        let asked = |serial: &str| provision(token, &json!({ "Serial": serial }));
        let (accepted, answer) = running.ask(&principal, PROVISION, &asked("1")).await;
        assert!(!accepted);
        assert_eq!(answer["errorCode"], "ResourceConflict");
        assert!(running.ask(&principal, PROVISION, &asked("2")).await.0);
    })
    .await;
}

/// A site with a claim, and its principal.
fn claiming() -> (Bench, Leaf) {
    let (bench, ca) = (Bench::new(), TestCa::root("claims"));
    bench.write("templates/fleet.json", CLAIM);
    bench.register("claims", &ca, "");
    let leaf = ca.leaf("claim");
    let id = leaf.certificate.id;
    bench.append(&format!(
        "[[certificate]]\nid = \"{id}\"\nclaim = \"fleet\"\npolicies = [\"extra\"]\n"
    ));
    (bench, leaf)
}

const CREATE: &str = "$aws/certificates/create/json";
const FROM_CSR: &str = "$aws/certificates/create-from-csr/json";
const PROVISION: &str = "$aws/provisioning-templates/fleet/provision/json";

fn provision(token: &Value, parameters: &Value) -> String {
    json!({ "certificateOwnershipToken": token, "parameters": parameters }).to_string()
}

fn parsed(pem: &Value) -> Arc<Certificate> {
    let der = CertificateDer::from_pem_slice(pem.as_str().unwrap().as_bytes()).unwrap();
    Arc::new(Certificate::parse(&der).unwrap())
}

#[tokio::test]
async fn a_claim_gets_a_certificate_and_becomes_a_thing() {
    let (bench, claim) = claiming();
    running(bench, async |running| {
        let principal = running.connect(&claim.certificate).unwrap();
        assert_eq!(principal.claim.as_deref(), Some("fleet"));
        let (accepted, made) = running.ask(&principal, CREATE, "").await;
        assert!(accepted, "{made}");
        let certificate = parsed(&made["certificatePem"]);
        assert_eq!(made["certificateId"], certificate.id.to_string());
        assert!(KeyPair::from_pem(made["privateKey"].as_str().unwrap()).is_ok());
        let unknown = running.connect(&certificate).unwrap_err();
        assert_eq!(
            unknown,
            Refusal::CertificateUnknown,
            "not before it is provisioned"
        );

        let token = &made["certificateOwnershipToken"];
        let (accepted, answer) = running
            .ask(
                &principal,
                PROVISION,
                &provision(token, &json!({ "Serial": "7" })),
            )
            .await;
        assert!(accepted, "{answer}");
        assert_eq!(answer["thingName"], "logger-7");
        assert_eq!(answer["deviceConfiguration"], json!({ "interval": "60" }));
        // At once: the answer waited until it is in force.
        assert_eq!(running.connect(&certificate).unwrap().device(), "logger-7");
        let (accepted, again) = running
            .ask(
                &principal,
                PROVISION,
                &provision(token, &json!({ "Serial": "8" })),
            )
            .await;
        assert!(!accepted, "a token is good once");
        assert_eq!(again["statusCode"], 400);
        assert_eq!(again["errorCode"], "InvalidCertificateOwnershipToken");
        assert!(again["errorMessage"].is_string());
    })
    .await;
}

#[tokio::test]
async fn a_signing_request_gives_its_key_and_nothing_else() {
    let (bench, claim) = claiming();
    running(bench, async |running| {
        let principal = running.connect(&claim.certificate).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "admins");
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let asked = json!({ "certificateSigningRequest": request }).to_string();
        let (accepted, made) = running.ask(&principal, FROM_CSR, &asked).await;
        assert!(accepted, "{made}");
        assert!(made.get("privateKey").is_none());
        let certificate = parsed(&made["certificatePem"]);
        use portcullis_core::certificate::NameAttribute;
        assert!(
            certificate
                .subject
                .get(NameAttribute::Organization)
                .is_empty()
        );
        assert!(certificate.subject.get(NameAttribute::DnsName).is_empty());

        // The signature is not that of the key: whoever asks does not have it.
        let mut der = params.serialize_request(&key).unwrap().der().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let forged = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            BASE64_STANDARD.encode(der)
        );
        let weak = include_str!("../fixtures/rsa-1024.csr");
        for bad in [forged.as_str(), weak, "nothing"] {
            let asked = json!({ "certificateSigningRequest": bad }).to_string();
            let (accepted, answer) = running.ask(&principal, FROM_CSR, &asked).await;
            assert!(!accepted);
            assert_eq!(
                answer["errorCode"], "InvalidCertificateSigningRequest",
                "{answer}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_claim_may_not_is_rejected_with_the_reason() {
    let (bench, claim) = claiming();
    let ca = TestCa::root("owner");
    let owned = ca.leaf("logger-1");
    bench.append("[[thing]]\nname = \"logger-1\"\nprovisionable = true\n");
    let id = owned.certificate.id;
    bench.append(&format!(
        "[[certificate]]\nid = \"{id}\"\nthing = \"logger-1\"\n"
    ));
    running(bench, async |running| {
        let principal = running.connect(&claim.certificate).unwrap();
        let rejected = async |principal: &Principal, topic: &str, payload: &str| {
            let (accepted, answer) = running.ask(principal, topic, payload).await;
            assert!(!accepted, "{answer}");
            (
                answer["statusCode"].as_u64().unwrap(),
                answer["errorCode"].as_str().unwrap().to_owned(),
            )
        };
        let no_claim = Principal {
            claim: None,
            ..principal.clone()
        };
        assert_eq!(
            rejected(&no_claim, CREATE, "").await,
            (403, "Forbidden".to_owned())
        );
        let other = "$aws/provisioning-templates/other/provision/json";
        assert_eq!(rejected(&principal, other, "{}").await.0, 403);
        for payload in ["", "{}", "[]", "{\"certificateOwnershipToken\":7}"] {
            assert_eq!(
                rejected(&principal, PROVISION, payload).await,
                (400, "InvalidPayload".to_owned())
            );
        }
        let large = "x".repeat(PROVISION_REQUEST_BYTES_MAX + 1);
        assert_eq!(rejected(&principal, FROM_CSR, &large).await.0, 413);

        let (_, made) = running.ask(&principal, CREATE, "").await;
        let token = &made["certificateOwnershipToken"];
        for (parameters, expected) in [
            (json!({}), (400, "InvalidParameters")),
            (json!({ "Serial": "a b" }), (400, "InvalidParameters")),
            (
                json!({ "Serial": "1", "AWS::IoT::Certificate::Id": "x" }),
                (400, "InvalidParameters"),
            ),
            (
                json!({ "Serial": "2", "Group": "nowhere" }),
                (404, "ResourceNotFound"),
            ),
            (
                json!({ "Serial": "2", "Group": "devices:none" }),
                (404, "ResourceNotFound"),
            ),
            (
                json!({ "Serial": "2", "Group": "a b" }),
                (400, "InvalidParameters"),
            ),
            (json!({ "Serial": "1" }), (409, "ResourceConflict")),
        ] {
            let answer = rejected(&principal, PROVISION, &provision(token, &parameters)).await;
            assert_eq!(answer, (expected.0, expected.1.to_owned()), "{parameters}");
        }
        // Another claim has nothing of the token, and its owner still does.
        let mut stranger = principal.clone();
        stranger.certificate = Some(owned.certificate.clone());
        let body = provision(token, &json!({ "Serial": "9" }));
        assert_eq!(
            rejected(&stranger, PROVISION, &body).await.1,
            "InvalidCertificateOwnershipToken"
        );
        assert!(running.ask(&principal, PROVISION, &body).await.0);

        while running.provisioner.0.held().claims.take() {}
        assert_eq!(
            rejected(&principal, CREATE, "").await,
            (429, "TooManyRequests".to_owned())
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn tokens_are_bounded_and_end_after_an_hour() {
    let leaf = TestCa::root("x").leaf("d");
    let [claim, other] = [b"1", b"2"].map(|der| CertificateId::of_der(der));
    let given = |claim| tokens::Given {
        certificate: Certificate::clone(&leaf.certificate),
        der: leaf.der.clone(),
        ca: other,
        claim,
    };
    let mut held = Tokens::default();
    let first = held.give(given(claim));
    for _ in 1..OWNERSHIP_TOKENS_PER_CLAIM_MAX {
        held.has_room(claim).unwrap();
        held.give(given(claim));
    }
    assert!(held.has_room(claim).is_err());
    assert!(held.has_room(other).is_ok(), "a claim stops no other");
    let taken = held.take(&first, claim).unwrap();
    held.put_back(&first, taken);
    tokio::time::advance(OWNERSHIP_TOKEN_LIFE - Duration::from_secs(1)).await;
    assert!(
        held.has_room(claim).is_err(),
        "an attempt that failed prolongs nothing"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(held.take(&first, claim).is_none());
    assert_eq!(held.len(), 0);
}

#[test]
fn only_the_services_own_topics_are_served() {
    for (topic, is_served) in [
        (CREATE, true),
        (FROM_CSR, true),
        (PROVISION, true),
        ("$aws/certificates/create/cbor", false),
        ("$aws/certificates/create/json/accepted", false),
        ("$aws/provisioning-templates/a/b/provision/json", false),
        ("$aws/provisioning-templates//provision/json", false),
        ("$aws/things/t/shadow/get", false),
        ("dt/x", false),
    ] {
        let topic = TopicName::parse(topic).unwrap();
        assert_eq!(Provisioner::serves(&topic), is_served, "{topic}");
    }
}
