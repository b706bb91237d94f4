//! Quotas, room and waits: who uses them up does not stop others.

use super::*;

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

#[tokio::test]
async fn a_claim_that_asks_too_often_does_not_stop_another() {
    let (bench, claims) = claiming_twice();
    running(bench, async |running| {
        let [stolen, other] = claims.map(|claim| running.connect(&claim.certificate).unwrap());
        for _ in 0..CLAIM_REQUESTS_PER_CLAIM_PER_MINUTE_MAX {
            assert_eq!(
                running.ask(&stolen, PROVISION, "{").await.1["errorCode"],
                "InvalidPayload"
            );
        }
        let (_, answer) = running.ask(&stolen, PROVISION, "{").await;
        assert_eq!(answer["errorCode"], "TooManyRequests");
        assert!(running.ask(&other, CREATE, "").await.0);
        running.provisioner.0.held().claims = Quota::new(0);
        let (_, answer) = running.ask(&other, CREATE, "").await;
        assert_eq!(answer["errorCode"], "TooManyRequests", "all together");
    })
    .await;
}

#[tokio::test]
async fn a_claim_is_for_so_many_devices_and_the_gateway_takes_so_many_in_all() {
    let (mut bench, claims) = claiming_twice();
    bench.config.room = Room {
        devices_max: 3,
        devices_per_claim_max: 2,
    };
    running(bench, async |running| {
        let config = &running.bench.config;
        let principals = claims.map(|claim| running.connect(&claim.certificate).unwrap());
        let claimed = async |principal: &Principal, serial: &str| {
            let (_, made) = running.ask(principal, CREATE, "").await;
            let token = &made["certificateOwnershipToken"];
            let asked = provision(token, &json!({ "Serial": serial }));
            let (_, answer) = running.ask(principal, PROVISION, &asked).await;
            let error = answer["errorMessage"].as_str().unwrap_or_default();
            (parsed(&made["certificatePem"]).id, error.to_owned())
        };
        let [stolen, other] = &principals;
        let (id, error) = claimed(stolen, "1").await;
        assert_eq!(error, "");
        assert_eq!(claimed(stolen, "2").await.1, "");
        let (_, error) = claimed(stolen, "3").await;
        assert!(error.contains("`devices-per-claim-max`"), "{error}");
        assert_eq!(claimed(other, "4").await.1, "");
        let (_, error) = claimed(other, "5").await;
        assert!(error.contains("`devices-max`"), "{error}");
        // What is removed makes room.
        lifecycle::revoke(config, &id.to_string(), None).unwrap();
        assert_eq!(claimed(other, "6").await.1, "");
    })
    .await;
}

#[tokio::test]
async fn a_device_that_cannot_be_registered_does_not_stop_another() {
    let (bench, ca) = (Bench::new(), TestCa::root("factory"));
    bench.write("templates/factory.json", JUST_IN_TIME);
    bench.register(
        "factory",
        &ca,
        "template = \"factory\"\nauto-registration = \"ENABLE\"",
    );
    running(bench, async |running| {
        // `t1` is a thing of the registry that is nobody's to take.
        let failing = ca.leaf("t1");
        assert_eq!(failure(&running.introduce(&failing).await), "conflict");
        for _ in 0..2 * REGISTRATIONS_PER_MINUTE_MAX {
            assert_eq!(failure(&running.introduce(&failing).await), "retry");
        }
        let introduced = running.introduce(&ca.leaf("m")).await;
        assert!(matches!(introduced, Introduction::Provisioned(_)));
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
