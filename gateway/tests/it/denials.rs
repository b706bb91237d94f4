//! Every refusal is named in the log, counted, and shown by `status`.

use rumqttc::Packet;

use crate::{
    device::Device,
    served::{Served, eventually},
};

/// Statements of the policy that forbids `dt/THING/secret/*`, whatever else allows it.
const FORBIDDING: &str = r#"{"Version":"2012-10-17","Statement":[
  {"Sid":"NoSecrets","Effect":"Deny","Action":["iot:Publish","iot:Receive"],"Resource":"arn:aws:iot:*:*:topic/dt/*/secret/*"}]}"#;

/// A site where the group `devices` forbids secrets.
fn site() -> Served {
    let served = Served::new();
    served.site.write("policies/no-secrets.json", FORBIDDING);
    served.site.replace(
        "registry.toml",
        "policies = [\"device\"]",
        "policies = [\"device\", \"no-secrets\"]",
    );
    served
}

fn line(served: &Served, parts: &[&str]) -> Option<String> {
    let log = served.log();
    let mut lines = log.lines();
    let found = lines.find(|line| parts.iter().all(|part| line.contains(part)));
    found.map(str::to_owned)
}

#[test]
fn a_denial_names_client_thing_certificate_statement_and_policy() {
    let mut served = site();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    assert!(device.is_refused("dt/sensor-1/secret/x"));
    let parts = [
        "WARN",
        "client=\"sensor-1\"",
        "thing=\"sensor-1\"",
        "certificate=\"",
        "action=\"publish\"",
        "resource=\"dt/sensor-1/secret/x\"",
        "decision=\"EXPLICIT_DENY\"",
        "policy=\"no-secrets\"",
        "statement=0",
        "sid=\"NoSecrets\"",
    ];
    eventually("the denial is logged on one line", || {
        line(&served, &parts).is_some()
    });
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    assert!(device.is_refused("dt/sensor-2/x"));
    let parts = ["resource=\"dt/sensor-2/x\"", "decision=\"IMPLICIT_DENY\""];
    eventually("so is the other", || line(&served, &parts).is_some());
    for reason in ["explicit-deny", "implicit-deny"] {
        let labels = ["action=\"publish\"", reason];
        assert_eq!(
            served.metric("portcullis_broker_denied_total", &labels),
            1.0
        );
    }

    let status = served.site.done(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["denials"]["total"], 2);
    let last = &status["denials"]["last"];
    assert_eq!(last[0]["resource"], "dt/sensor-2/x");
    assert_eq!(last[1]["sid"], "NoSecrets");
    assert_eq!(last[1]["thing"], "sensor-1");
}

#[test]
fn a_delivery_that_is_not_allowed_is_held_back_and_logged() {
    let mut served = site();
    let own = served.enrol("sensor-1", "cold-chain");
    let teller = served.enrol("teller", "cold-chain");
    let receiving_alone = FORBIDDING.replace("\"iot:Publish\",", "");
    served
        .site
        .write("policies/no-secrets.json", &receiving_alone);
    let thing = "topic/dt/${iot:Connection.Thing.ThingName}/*";
    served
        .site
        .replace("policies/device.json", thing, "topic/dt/*");
    served.start();
    // A subscription around the part that is denied does not get at it.
    let mut reader = Device::tls(served.mqtt, "sensor-1", &own);
    reader.subscribe("dt/sensor-1/#");
    let mut publisher = Device::tls(served.mqtt, "teller", &teller);
    publisher.publish("dt/sensor-1/secret/x", "hidden");
    publisher.publish("dt/sensor-1/t", "seen");
    reader.wait(|packet| match packet {
        Packet::Publish(got) => {
            assert_eq!(got.topic, "dt/sensor-1/t");
            true
        }
        _ => false,
    });
    let labels = ["action=\"receive\"", "explicit-deny"];
    assert_eq!(
        served.metric("portcullis_broker_denied_total", &labels),
        1.0
    );
    let parts = ["action=\"receive\"", "dt/sensor-1/secret/x", "NoSecrets"];
    assert!(line(&served, &parts).is_some());
}

#[test]
fn a_flood_of_denials_is_counted_and_not_all_logged() {
    const FLOOD: usize = 200;
    let mut served = site();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.replace(
        "gateway.toml",
        "on-publish-denied = \"disconnect\"",
        "on-publish-denied = \"drop-and-ack\"",
    );
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    for n in 0..FLOOD {
        device.publish(&format!("cmd/{n}"), "x");
    }
    let denied = served.metric("portcullis_broker_denied_total", &["implicit-deny"]);
    assert_eq!(denied, FLOOD as f64);
    let log = served.log();
    let lines = log.lines().filter(|line| line.contains("Request denied."));
    let lines = lines.count();
    assert!(lines < FLOOD / 2, "{lines} lines");
    let unlogged = served.metric("portcullis_broker_denials_unlogged_total", &[]);
    assert_eq!(unlogged, (FLOOD - lines) as f64);
    eventually("what is not logged is summed up", || {
        line(&served, &["More was refused", "unlogged="]).is_some()
    });
}
