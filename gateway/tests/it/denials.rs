//! Every refusal is named in the log, counted, and shown by `status`.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use rumqttc::Packet;

use crate::{
    device::Device,
    served::{PATIENCE, Served, eventually},
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
        "statement=1",
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

/// What the gateway answers to `bytes` on the plain listener, until it closes.
fn answer(served: &Served, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(served.plain).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The gateway may have closed before it has all.
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    answer
}

/// A MQTT 3.1.1 CONNECT.
fn connect(client_id: &str) -> Vec<u8> {
    let length = u8::try_from(client_id.len()).unwrap();
    let mut packet = vec![0x10, 12 + length];
    packet.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x1e\x00");
    packet.push(length);
    packet.extend_from_slice(client_id.as_bytes());
    packet
}

#[test]
fn a_connect_that_cannot_be_is_refused_counted_and_named() {
    let mut served = Served::new();
    served.start();
    // 2 MB by its header; nothing is read of it beyond the limit.
    let mut huge = vec![0x10, 0x80, 0x80, 0x80, 0x01];
    huge.resize(100_000, b'x');
    assert!(answer(&served, &huge).is_empty());
    let ids = ["+", "#", "*", "?", "${iot:ClientId}", "a/b", "a\u{7}b"];
    for id in ids {
        assert_eq!(answer(&served, &connect(id)), b"\x20\x02\x00\x02", "{id:?}");
    }
    let refused = |reason: &str| served.metric("portcullis_broker_refused_total", &[reason]);
    assert_eq!(refused("\"packet-too-large\""), 1.0);
    assert_eq!(refused("\"client-id\""), 7.0);
    let too_large = ["WARN", "packet-too-large", "127.0.0.1", "packet of 2097"];
    assert!(line(&served, &too_large).is_some());
    for id in ids {
        let shown = format!("client={id:?}");
        assert!(
            line(&served, &["WARN", "client-id", &shown]).is_some(),
            "{id:?}"
        );
    }
}
