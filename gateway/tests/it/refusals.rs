//! What a client is answered when it is refused: as much as it asks for, and as it has proved.

use std::sync::Arc;

use crate::{
    device::client_config,
    served::Served,
    standard::{Peer, connect, served},
    wire::{Hello, Wire, framed, text},
};

const OWN: &str = "dt/sensor-1/t";

/// A SUBSCRIBE with packet id 1 and QoS 0.
fn subscribe(version: u8, filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend((version == 5).then_some(0));
    body.extend(text(filter));
    body.push(0);
    framed(0x82, &body)
}

/// A MQTT 5 PUBLISH with packet id 1, and a payload that is said to be text.
fn publish(topic: &str, qos: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend([0, 1]);
    }
    body.extend([2, 1, 1]);
    body.extend(payload);
    framed(0x30 | qos << 1, &body)
}

fn connected(served: &Served, version: u8, properties: &[u8]) -> Peer {
    let mut peer = Peer::open(served.plain);
    peer.send(&connect(version, 2, properties));
    assert_eq!(peer.receive()[3], 0, "connected");
    peer
}

/// The reason string with this text, as a property.
fn reason(words: &str) -> Vec<u8> {
    let mut property = vec![0x1f];
    property.extend(text(words));
    property
}

#[test]
fn a_denied_subscription_is_told_as_much_as_the_client_has_proved() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let foreign = "dt/sensor-2/#";
    // On the plain listener anybody can say that he is `sensor-1`.
    for (version, answer) in [
        (4, &b"\x90\x03\x00\x01\x80"[..]),
        (5, b"\x90\x04\x00\x01\x00\x80"),
    ] {
        let mut peer = connected(&served, version, b"");
        peer.send(&subscribe(version, foreign));
        assert_eq!(peer.receive(), answer);
    }
    // Nor is he told why, should he ask.
    let mut peer = connected(&served, 5, b"\x17\x01");
    peer.send(&subscribe(5, foreign));
    assert_eq!(peer.receive(), b"\x90\x04\x00\x01\x00\x80");
    // A certificate shows who it is.
    let config = Arc::new(client_config(&own));
    for (hello, answer) in [
        (Hello::v4("sensor-1"), &b"\x90\x03\x00\x01\x80"[..]),
        (Hello::v5("sensor-1"), b"\x90\x04\x00\x01\x00\x87"),
    ] {
        let mut wire = Wire::open(served.mqtt, &config, "localhost");
        assert_eq!(wire.connect(&hello), Some(0));
        wire.send(&subscribe(hello.version, foreign)).unwrap();
        assert_eq!(wire.receive().unwrap(), answer);
    }
}

#[test]
fn a_client_that_asks_for_problem_information_is_told_why() {
    let mut served = Served::new();
    served.enrol("sensor-1", "cold-chain");
    served.site.replace(
        "gateway.toml",
        "on-publish-denied = \"disconnect\"",
        "on-publish-denied = \"puback-error\"",
    );
    served.start();
    let not_text = "the payload is not the UTF-8 text that its format indicator says";
    let not_there = "no message is in flight under this packet identifier";
    let mut unsubscribe = vec![0, 1, 0];
    unsubscribe.extend(text("a/#/b"));
    let rows = [
        (
            subscribe(5, "a/#/b"),
            0x90,
            "`a/#/b`: no topic filter that the gateway takes",
        ),
        (
            framed(0xa2, &unsubscribe),
            0xb0,
            "`a/#/b`: no topic filter that the gateway takes",
        ),
        (publish(OWN, 1, b"\xff"), 0x40, not_text),
        (publish(OWN, 2, b"\xff"), 0x50, not_text),
        (
            publish("dt/sensor-2/t", 1, b""),
            0x40,
            "no policy allows it",
        ),
        (framed(0x62, b"\x00\x09"), 0x70, not_there),
        (framed(0x50, b"\x00\x09"), 0x62, not_there),
        (publish(OWN, 0, b"\xff"), 0xe0, not_text),
        (
            framed(0x82, b"\x00\x01\x00"),
            0xe0,
            "protocol error: a SUBSCRIBE to nothing",
        ),
    ];
    for (wrong, kind, why) in &rows {
        let why = reason(why);
        // Asked for; not asked for; refused; asked for by one that takes no packet of that size.
        for (properties, is_told) in [
            (&b"\x17\x01"[..], true),
            (b"", false),
            (b"\x17\x00", false),
            (b"\x17\x01\x27\x00\x00\x00\x14", false),
        ] {
            let mut peer = connected(&served, 5, properties);
            peer.send(wrong);
            let answer = peer.receive();
            assert_eq!(answer[0], *kind, "{wrong:02x?}");
            let has = answer.windows(why.len()).any(|found| found == why);
            assert_eq!(has, is_told, "{answer:02x?} to {wrong:02x?}");
        }
    }
    // The CONNACK of a refused CONNECT.
    let mut with_will = connect(5, 6, b"\x17\x01").split_off(2);
    with_will.extend(b"\x00\x00\x00\x00\x00");
    let mut peer = Peer::open(served.plain);
    peer.send(&framed(0x10, &with_will));
    let answer = peer.receive();
    assert_eq!((answer[0], answer[3]), (0x20, 0x90), "{answer:02x?}");
    assert_eq!(answer[5], 0x1f, "{answer:02x?}");
}

#[test]
fn a_payload_that_is_not_the_text_it_is_said_to_be_goes_nowhere() {
    let served = served();
    let mut watcher = connected(&served, 5, b"");
    watcher.send(&subscribe(5, OWN));
    assert_eq!(watcher.receive(), b"\x90\x04\x00\x01\x00\x00");
    watcher.send(&publish(OWN, 1, b"\xff"));
    assert_eq!(watcher.receive(), b"\x40\x03\x00\x01\x99");
    // The packet identifier is free again: what comes under it is a new message.
    watcher.send(&publish(OWN, 2, b"\xc3"));
    assert_eq!(watcher.receive(), b"\x50\x03\x00\x01\x99");
    watcher.send(&publish(OWN, 2, "gr\u{fc}n".as_bytes()));
    let mut got = [watcher.receive(), watcher.receive()];
    got.sort();
    let delivered = publish(OWN, 0, "gr\u{fc}n".as_bytes());
    assert_eq!(got, [delivered, b"\x50\x02\x00\x01".to_vec()]);
    watcher.send(&publish(OWN, 0, b"\xff"));
    assert_eq!(watcher.rest(), b"\xe0\x01\x99");
}
