//! How much a client may publish: what is beyond it waits, goes nowhere, or ends the connection.
//!
//! The bursts are of bytes, and what comes back is a byte a second: a slow machine changes nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    device::{Device, client_config},
    served::{Credentials, Served, eventually},
    wire::{Hello, Wire, framed, publish_v5, text},
};

const PACED: &str = "portcullis_broker_publish_paced_total";
const PUBLISHES: &str = "portcullis_broker_publishes_total";
const DISCONNECTED: &str = "portcullis_broker_disconnected_total";
const TOPIC: &str = "dt/sensor-1/t";

/// A started site with `sensor-1`, a byte a second after a burst, and this beyond it.
fn served(per_second: u32, burst: u32, action: &str) -> (Served, Credentials) {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.write("policies/device.json", EVERYTHING);
    for (key, value) in [
        ("publish-bytes-per-second = 0", per_second),
        ("publish-bytes-burst = 0", burst),
    ] {
        let (name, _) = key.split_once(' ').unwrap();
        let line = format!("{name} = {value}");
        served.site.replace("gateway.toml", key, &line);
    }
    let line = format!("on-publish-rate = \"{action}\"");
    served
        .site
        .replace("gateway.toml", "on-publish-rate = \"delay\"", &line);
    served.start();
    (served, own)
}

const EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#;

fn v5(served: &Served, own: &Credentials, client_id: &str) -> Wire {
    let config = Arc::new(client_config(own));
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(wire.connect(&Hello::v5(client_id)), Some(0));
    wire
}

/// PUBLISH of 16 bytes of topic and payload.
fn sixteen(qos: u8, pkid: u8) -> Vec<u8> {
    publish_v5(TOPIC, qos, pkid, &[], b"xyz")
}

/// First byte, packet id and reason code of an answer.
fn code(answer: &[u8]) -> (u8, u8, u8) {
    (answer[0], answer[3], answer[4])
}

fn paced(served: &Served, fate: &str) -> f64 {
    served.metric(PACED, &[&format!("\"{fate}\"")])
}

#[test]
fn who_is_too_fast_is_slowed_down_to_its_rate() {
    let (mut served, own) = served(64, 64, "delay");
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    let started = Instant::now();
    // Four at once, the other eight four a second.
    for _ in 0..12 {
        device.publish(TOPIC, "xyz");
    }
    let took = started.elapsed();
    assert!(took > Duration::from_millis(1900), "{took:?}");
    assert!((1.0..=8.0).contains(&paced(&served, "delayed")));
    // Another client has a rate of its own.
    let mut other = Device::tls(served.mqtt, "sensor-1:2", &own);
    let took = other.publish(TOPIC, "xyz");
    assert!(took < Duration::from_millis(900), "{took:?}");
    served.stop();
}

#[test]
fn who_waits_for_its_turn_still_gets_messages_and_is_kicked_at_once() {
    let (mut served, own) = served(1, 16, "delay");
    let mut wire = v5(&served, &own, "sensor-1");
    let filter = [[0, 1, 0].as_slice(), &text("cmd"), &[0]].concat();
    assert_eq!(wire.ask(&framed(0x82, &filter))[0], 0x90);
    let taken = wire.ask(&sixteen(1, 1));
    assert_eq!(taken[..4], [0x40, 2, 0, 1], "{taken:?}");
    // Its turn is in sixteen minutes.
    wire.send(&publish_v5(TOPIC, 1, 2, &[], &[b'x'; 1000]))
        .unwrap();
    // Not read before that.
    wire.send(&framed(0xc0, &[])).unwrap();
    eventually("it waits", || paced(&served, "delayed") == 1.0);
    let mut other = Device::tls(served.mqtt, "sensor-1:2", &own);
    other.publish("cmd", "go");
    let got = wire.receive().unwrap();
    assert_eq!(got[0], 0x30, "{got:?}");
    assert!(got.ends_with(b"go"), "{got:?}");
    served.site.done(&["client", "kick", "sensor-1"]);
    let goodbye = wire.receive().unwrap();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x98), "{goodbye:?}");
    assert!(wire.closes());
    // What waited is not taken.
    assert_eq!(served.metric(PUBLISHES, &["\"1\""]), 2.0);
    // Who comes back has no more than who stayed.
    let mut again = v5(&served, &own, "sensor-1");
    again.send(&sixteen(1, 1)).unwrap();
    eventually("it waits as well", || paced(&served, "delayed") == 2.0);
    served.stop();
}

#[test]
fn what_is_too_much_is_dropped_and_answered_where_there_is_an_answer() {
    let (mut served, own) = served(1, 40, "drop");
    let mut wire = v5(&served, &own, "sensor-1");
    for pkid in [1, 2] {
        let taken = wire.ask(&sixteen(1, pkid));
        assert_eq!(taken[..4], [0x40, 2, 0, pkid], "{taken:?}");
    }
    let refused = wire.ask(&publish_v5(TOPIC, 1, 3, &[], &[b'x'; 100]));
    assert_eq!(code(&refused), (0x40, 3, 0x97), "{refused:?}");
    let refused = wire.ask(&publish_v5(TOPIC, 2, 4, &[], &[b'x'; 100]));
    assert_eq!(code(&refused), (0x50, 4, 0x97), "{refused:?}");
    wire.send(&publish_v5(TOPIC, 0, 0, &[], &[b'x'; 100]))
        .unwrap();
    assert_eq!(wire.ask(&framed(0xc0, &[])), [0xd0, 0]);
    assert_eq!(paced(&served, "dropped"), 3.0);
    assert_eq!(served.metric(PUBLISHES, &[]), 2.0);
    // MQTT 3.1.1 has no answer.
    let mut device = Device::tls(served.mqtt, "sensor-1:2", &own);
    device.publish(TOPIC, "xyz");
    device.send(TOPIC, &"x".repeat(100));
    device.publish(TOPIC, "xyz");
    assert_eq!(paced(&served, "dropped"), 4.0);
    assert!(device.is_refused(&"long/".repeat(10)));
    assert_eq!(served.metric(DISCONNECTED, &["\"publish-rate\""]), 1.0);
    let log = served.log();
    let told = |line: &str| line.contains("reason=\"publish-rate\"") && line.contains(TOPIC);
    assert!(log.lines().any(told), "{log}");
    served.stop();
}

#[test]
fn who_is_too_fast_is_disconnected_if_it_is_to_be() {
    let (mut served, own) = served(1, 40, "disconnect");
    let mut wire = v5(&served, &own, "sensor-1");
    assert_eq!(wire.ask(&sixteen(1, 1))[0], 0x40);
    let goodbye = wire.ask(&publish_v5(TOPIC, 0, 0, &[], &[b'x'; 100]));
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x96), "{goodbye:?}");
    assert!(wire.closes());
    eventually("it is counted", || {
        served.metric(DISCONNECTED, &["\"publish-rate\""]) == 1.0
    });
    assert_eq!(paced(&served, "disconnected"), 1.0);
    served.stop();
    let told = served.lifecycle();
    let throttled = |event: &serde_json::Value| event.to_string().contains("THROTTLED");
    assert!(told.iter().any(throttled), "{told:?}");
}

#[test]
fn a_rate_of_a_group_holds_for_all_its_things_and_from_the_moment_it_is_set() {
    let (mut served, own) = served(0, 0, "drop");
    let second = served.enrol("sensor-2", "cold-chain");
    let mut wires = Vec::new();
    eventually("both are known", || {
        let config = Arc::new(client_config(&second));
        Wire::open(served.mqtt, &config, "localhost").connect(&Hello::v5("sensor-2")) == Some(0)
    });
    for (own, name) in [(&own, "sensor-1"), (&second, "sensor-2")] {
        let mut wire = v5(&served, own, name);
        assert_eq!(wire.ask(&sixteen(1, 1))[1], 2);
        wires.push(wire);
    }
    served.site.replace(
        "registry.toml",
        "# publish-bytes-per-second-of-group = 1000000",
        "publish-bytes-per-second-of-group = 20",
    );
    // A burst of a second: one of twenty bytes at most, whoever it is from.
    let large = publish_v5(TOPIC, 1, 2, &[], b"12345678");
    eventually("it is in force", || {
        wires[0].ask(&large).get(4) == Some(&0x97)
    });
    assert_eq!(wires[1].ask(&large).get(4), Some(&0x97));
    assert!(paced(&served, "dropped") >= 2.0);
    served.stop();
}
