//! What the standards want of a broker on the wire, byte for byte, on the plain listener.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::{
    served::{PATIENCE, Served},
    wire::{framed, text},
};

/// A CONNECT of `sensor-1`; MQTT 5 with these properties.
pub(crate) fn connect(version: u8, flags: u8, properties: &[u8]) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([version, flags, 0, 30]);
    if version == 5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
    }
    body.extend(text("sensor-1"));
    framed(0x10, &body)
}

/// A CONNECT of `sensor-1` with a will to `topic` that is no text.
fn with_will(version: u8, properties: &[u8], topic: &str) -> Vec<u8> {
    let mut body = connect(version, 6, b"").split_off(2);
    if version == 5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
    }
    body.extend(text(topic));
    body.extend(b"\x00\x01\xff");
    framed(0x10, &body)
}

/// A MQTT 5 PUBLISH with QoS 0 to `topic` with an alias.
fn publish(topic: &str, alias: u16) -> Vec<u8> {
    let mut body = text(topic);
    body.extend([3, 0x23]);
    body.extend(alias.to_be_bytes());
    body.extend(b"payload");
    framed(0x30, &body)
}

/// A connection that speaks by hand.
pub(crate) struct Peer(TcpStream);

impl Peer {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next packet.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet).unwrap();
        let mut rest = vec![0; packet[1].into()];
        self.0.read_exact(&mut rest).unwrap();
        packet.extend(rest);
        packet
    }

    /// What comes until the gateway closes.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{bytes:02x?}");
                bytes
            }
        }
    }
}

/// A gateway with the thing `sensor-1`.
pub(crate) fn served() -> Served {
    let mut served = Served::new();
    served.enrol("sensor-1", "cold-chain");
    served.start();
    served
}

#[test]
fn a_client_of_mqtt_5_is_told_what_was_wrong() {
    let served = served();
    let own = "dt/sensor-1/t";
    for (wrong, code) in [
        (framed(0x36, b"\x00\x01a\x00\x01\x00"), 0x81), // QoS 3
        (framed(0x80, b"\x00\x01\x00\x00\x01a\x00"), 0x81), // flags of a SUBSCRIBE
        (framed(0x30, b"\x00\x01\x00\x00"), 0x81),      // U+0000
        (framed(0x82, b"\x00\x00\x00\x00\x01a\x00"), 0x82), // packet id 0
        (framed(0x82, b"\x00\x01\x00"), 0x82),          // no filter
        (framed(0xf0, b"\x18\x00"), 0x82),              // AUTH
        (connect(5, 2, b""), 0x82),                     // a second CONNECT
        (publish(own, 0), 0x94),
        (publish(own, 65), 0x94),
        (publish("", 1), 0x82),
        (publish("a/+", 1), 0x90),
        (b"\x30\xff\xff\x7f".to_vec(), 0x95),
    ] {
        let mut peer = Peer::open(served.plain);
        peer.send(&connect(5, 2, b""));
        assert_eq!(peer.receive()[3], 0, "connected");
        peer.send(&wrong);
        assert_eq!(peer.rest(), [0xe0, 1, code], "{wrong:02x?}");
    }
    // MQTT 3.1.1 has no words for it.
    for wrong in [
        framed(0x36, b"\x00\x01a\x00\x01"),
        framed(0x82, b"\x00\x01"),
    ] {
        let mut peer = Peer::open(served.plain);
        peer.send(&connect(4, 2, b""));
        assert_eq!(peer.receive(), [0x20, 2, 0, 0]);
        peer.send(&wrong);
        assert_eq!(peer.rest(), b"", "{wrong:02x?}");
    }
    let protocol = ["reason=\"protocol\""];
    let ended = served.metric("portcullis_broker_disconnected_total", &protocol);
    assert_eq!(ended, 14.0);
}

#[test]
fn a_connect_that_cannot_be_is_answered_as_its_version_says() {
    let served = served();
    let method = b"\x15\x00\x05SCRAM";
    let rows: &[(Vec<u8>, &[u8], &str)] = &[
        (connect(5, 3, b""), b"\x20\x03\x00\x81\x00", "malformed"),
        (
            connect(5, 2, b"\x21\x00\x00"),
            b"\x20\x03\x00\x82\x00",
            "protocol",
        ),
        (
            connect(5, 2, method),
            b"\x20\x03\x00\x8c\x00",
            "authentication-method",
        ),
        (connect(4, 3, b""), b"", "malformed"),
        (
            connect(3, 2, b""),
            b"\x20\x02\x00\x01",
            "unsupported-version",
        ),
        (
            connect(6, 2, b""),
            b"\x20\x03\x00\x84\x00",
            "unsupported-version",
        ),
        (with_will(4, b"", ""), b"", "will-topic"),
        (with_will(5, b"", ""), b"\x20\x03\x00\x90\x00", "will-topic"),
        (
            with_will(5, b"\x01\x01", "dt/sensor-1/will"),
            b"\x20\x03\x00\x99\x00",
            "will-payload",
        ),
        (framed(0xc0, b""), b"", "not-mqtt"),
    ];
    for (hello, answer, reason) in rows {
        let labels = [&*format!("reason=\"{reason}\"")];
        let refused = || served.metric("portcullis_broker_refused_total", &labels);
        let before = refused();
        let mut peer = Peer::open(served.plain);
        peer.send(hello);
        assert_eq!(peer.rest(), *answer, "{hello:02x?}");
        assert_eq!(refused(), before + 1.0, "{reason}");
    }
}

#[test]
fn topic_aliases_hold_in_both_directions() {
    let served = served();
    let topic = "dt/sensor-1/temperature";
    let mut peer = Peer::open(served.plain);
    // It takes two aliases.
    peer.send(&connect(5, 2, b"\x22\x00\x02"));
    let ack = peer.receive();
    assert_eq!(ack[3], 0);
    let offered = b"\x22\x00\x40";
    assert!(ack.windows(3).any(|bytes| bytes == offered), "{ack:02x?}");
    let mut subscribe = vec![0, 1, 0];
    subscribe.extend(text(topic));
    subscribe.push(0);
    peer.send(&framed(0x82, &subscribe));
    assert_eq!(peer.receive(), [0x90, 4, 0, 1, 0, 0]);

    let deliver = |topic: &str, alias: u16| {
        let mut body = text(topic);
        body.extend([3, 0x23]);
        body.extend(alias.to_be_bytes());
        body.extend(b"payload");
        framed(0x30, &body)
    };
    // The client's alias is 9, ours is 1; neither reaches the other side.
    for (said, heard) in [
        (topic, deliver(topic, 1)),
        ("", deliver("", 1)),
        ("", deliver("", 1)),
        (topic, deliver("", 1)),
    ] {
        peer.send(&publish(said, 9));
        assert_eq!(peer.receive(), heard);
    }
}

#[test]
fn a_message_that_is_too_large_for_a_client_leaves_its_place_in_the_window_to_the_next() {
    let served = served();
    let mut peer = Peer::open(served.plain);
    // A window of one, and packets of up to 60 bytes.
    peer.send(&connect(5, 2, b"\x21\x00\x01\x27\x00\x00\x00\x3c"));
    assert_eq!(peer.receive()[3], 0, "connected");
    let topic = "dt/sensor-1/t";
    let mut subscribe = vec![0, 1, 0];
    subscribe.extend(text(topic));
    subscribe.push(1);
    peer.send(&framed(0x82, &subscribe));
    assert_eq!(peer.receive(), b"\x90\x04\x00\x01\x00\x01");
    for (id, length) in [(2, 50), (3, 50), (4, 1)] {
        let mut body = text(topic);
        body.extend([0, id, 0]);
        body.extend(vec![b'x'; length]);
        peer.send(&framed(0x32, &body));
    }
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(peer.receive()[0]);
    }
    kinds.sort_unstable();
    // The one message that fits, and three answers.
    assert_eq!(kinds, [0x32, 0x40, 0x40, 0x40]);
}
