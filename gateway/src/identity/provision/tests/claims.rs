//! What a claim gets, and what it does not.

use super::*;

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
        let weak = include_str!("../../fixtures/rsa-1024.csr");
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
