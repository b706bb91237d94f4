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
        assert_eq!(served.metric("portcullis_broker_denied_total", &labels), 1.0);
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
    let teller = served.enrol("teller", "tellers");
    let allows = FORBIDDING.replace("Deny", "Allow");
    served.site.write("policies/no-secrets.json", &allows);
    // The teller may publish secrets; who subscribes around the denied part does not get them.
    let denied = FORBIDDING.replace("\"iot:Publish\",", "");
    served.site.write("policies/no-reading.json", &denied);
    served
        .site
        .done(&["thing", "add", "other", "--group", "readers"]);
    served.site.replace(
        "policies/no-secrets.json",
        "[\"iot:Publish\",\"iot:Receive\"]",
        "[\"iot:Publish\"]",
    );
    served.start();
    let mut reader = Device::tls(served.mqtt, "sensor-1", &own);
    reader.subscribe("dt/sensor-1/#");
    served
        .site
        .write("policies/no-secrets.json", &allows.replace("\"iot:Receive\"", "\"iot:RetainPublish\""));
    served.site.replace(
        "policies/device.json",
        "arn:aws:iot:*:*:topic/dt/${iot:Connection.Thing.ThingName}/*\"\n      ]\n    }\n  ]",
        "arn:aws:iot:*:*:topic/dt/${iot:Connection.Thing.ThingName}/t\"\n      ]\n    }\n  ]",
    );
    eventually("the policy is in force", || {
        served.metric("portcullis_identity_generation", &[]) > 1.0
    });
    let mut publisher = Device::tls(served.mqtt, "teller", &teller);
    publisher.publish("dt/sensor-1/secret/x", "hidden");
    let mut own_publisher = Device::tls(served.mqtt, "sensor-1:pub", &own);
    own_publisher.publish("dt/sensor-1/t", "seen");
    reader.wait(|packet| match packet {
        Packet::Publish(got) => {
            assert_eq!(got.topic, "dt/sensor-1/t");
            true
        }
        _ => false,
    });
    let labels = ["action=\"receive\""];
    assert_eq!(served.metric("portcullis_broker_denied_total", &labels), 1.0);
    let parts = ["action=\"receive\"", "dt/sensor-1/secret/x"];
    assert!(line(&served, &parts).is_some());
}
