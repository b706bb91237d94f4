//! What one address, one certificate and one client may have of the gateway.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use tokio::net::TcpSocket;

use rumqttc::QoS;

use crate::{
    device::{Device, client_config},
    served::{Credentials, PATIENCE, Served, eventually},
    support::run,
    wire::{Hello, Wire, framed, publish_v5, text},
};

const BEYOND: &str = "portcullis_broker_beyond_total";
const DROPPED: &str = "portcullis_broker_delivery_dropped_total";
const REFUSED: &str = "portcullis_broker_refused_total";

/// A started site with `sensor-1` and these settings in `[broker]` instead of the defaults.
fn served(settings: &[(&str, &str)]) -> (Served, Credentials) {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    for (from, to) in settings {
        served.site.replace("gateway.toml", from, to);
    }
    served.start();
    (served, own)
}

/// `sensor-1` over MQTT 5.
fn v5(served: &Served, own: &Credentials) -> Wire {
    let config = Arc::new(client_config(own));
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(wire.connect(&Hello::v5("sensor-1")), Some(0));
    wire
}

/// What clients said beyond a bound.
fn beyond(served: &Served, bound: &str) -> f64 {
    served.metric(BEYOND, &[&format!("\"{bound}\"")])
}

/// SUBSCRIBE of MQTT 5 at QoS 1.
fn subscribe_v5(filters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    for filter in filters {
        body.extend(text(filter));
        body.push(1);
    }
    framed(0x82, &body)
}

/// The code with which a CONNECT of MQTT 5 is answered.
fn code(served: &Served, own: &Credentials, client_id: &str) -> Option<u8> {
    let config = Arc::new(client_config(own));
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    wire.connect(&Hello::v5(client_id))
}

/// Connections from a loopback address, each with these bytes sent.
fn crowd(served: &Served, source: &str, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    run(async {
        let mut crowd = Vec::new();
        for _ in 0..count {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
            let stream = socket
                .connect(served.mqtt)
                .await
                .unwrap()
                .into_std()
                .unwrap();
            stream.set_nonblocking(false).unwrap();
            drop((&stream).write_all(bytes));
            crowd.push(stream);
        }
        crowd
    })
}

/// How many of them the gateway has closed.
fn left(crowd: &[TcpStream]) -> usize {
    let has_left = |stream: &&TcpStream| {
        let mut stream: &TcpStream = stream;
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        !read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    crowd.iter().filter(has_left).count()
}

/// Counted so often, and told in the log with these words.
fn is_refused(served: &Served, reason: &str, times: f64, words: &str) {
    eventually("it is counted", || {
        served.metric(REFUSED, &[&format!("\"{reason}\"")]) == times
    });
    let log = served.log();
    let line = log
        .lines()
        .find(|line| line.contains("WARN") && line.contains(&format!("reason=\"{reason}\"")));
    assert!(line.is_some_and(|line| line.contains(words)), "{log}");
}

#[test]
fn a_certificate_has_so_many_clients_and_one_that_comes_back_takes_its_own_place() {
    let (mut served, own) = served(&[(
        "connections-per-certificate-max = 0",
        "connections-per-certificate-max = 1",
    )]);
    let mut first = Device::tls(served.mqtt, "sensor-1", &own);
    first.publish("dt/sensor-1/t", "1");
    assert_eq!(code(&served, &own, "sensor-1:2"), Some(0x97));
    is_refused(&served, "connected-per-certificate", 1.0, "sensor-1:2");
    first.publish("dt/sensor-1/t", "2");
    let mut again = Device::tls(served.mqtt, "sensor-1", &own);
    again.publish("dt/sensor-1/t", "3");
    assert!(first.closes());
    served.stop();
}

#[test]
fn an_address_has_so_many_connections_whether_they_say_connect_or_not() {
    let (mut served, own) = served(&[(
        "connections-per-address-max = 0",
        "connections-per-address-max = 3",
    )]);
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    let silent = crowd(&served, "127.0.0.1", 2, b"");
    assert_eq!(code(&served, &own, "sensor-1:2"), None);
    is_refused(&served, "connected-per-address", 1.0, "127.0.0.1");
    device.publish("dt/sensor-1/t", "1");
    // Applications of this machine come to the plain listener, and are not counted.
    let plain: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(served.plain).unwrap())
        .collect();
    assert_eq!(served.metric(REFUSED, &[]), 1.0);
    drop((silent, plain));
    eventually("there is room again", || {
        code(&served, &own, "sensor-1:2") == Some(0)
    });
    served.stop();
}

#[test]
fn an_address_begins_so_many_handshakes_and_is_refused_before_any_tls() {
    let (mut served, own) = served(&[
        ("handshakes-per-second = 100", "handshakes-per-second = 1"),
        ("handshakes-burst = 1000", "handshakes-burst = 3"),
    ]);
    // Of this machine ten times as many.
    let mut refused = crowd(&served, "127.0.0.2", 150, b"\x16");
    eventually("most are refused", || {
        served.metric(REFUSED, &["\"handshakes-per-address\""]) >= 60.0
    });
    let held = refused.len() as f64 - served.metric(REFUSED, &[]);
    assert!(held >= 30.0, "{held}");
    let told = served.metric(REFUSED, &["\"handshakes-per-address\""]);
    is_refused(&served, "handshakes-per-address", told, "127.0.0.2");
    // Not even an alert is said to them.
    let last = refused.last_mut().unwrap();
    assert!(matches!(last.read(&mut [0]), Ok(0) | Err(_)));
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    served.stop();
}

/// The first flight of a client of TLS: a whole ClientHello.
fn client_hello(own: &Credentials) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let config = Arc::new(client_config(own));
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn peers_that_stop_within_a_handshake_do_not_hold_a_turn() {
    let (mut served, own) = served(&[
        ("handshakes-max = 64", "handshakes-max = 1"),
        (
            "handshake-timeout-ms = 10000",
            "handshake-timeout-ms = 600000",
        ),
    ]);
    let hello = client_hello(&own);
    let (half, _) = hello.split_at(hello.len() / 2);
    // From the very address of the device: there is one turn, and it is not theirs.
    let slow: Vec<_> = [b"\x16".as_slice(), half, &hello]
        .iter()
        .flat_map(|bytes| crowd(&served, "127.0.0.1", 20, bytes))
        .collect();
    for n in 0..5 {
        let mut device = Device::tls(served.mqtt, &format!("sensor-1:{n}"), &own);
        device.publish("dt/sensor-1/t", "1");
    }
    assert_eq!(served.metric(REFUSED, &[]), 0.0);
    // Nor do they lose their handshake with their turn.
    let answered = |stream: &TcpStream| stream.peek(&mut [0]).is_ok_and(|bytes| bytes == 1);
    assert!(slow[40..].iter().all(answered));
    drop(slow);
    served.stop();
}

#[test]
fn a_client_has_so_many_subscriptions() {
    let (mut served, own) = served(&[(
        "subscriptions-per-client-max = 50",
        "subscriptions-per-client-max = 2",
    )]);
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    assert!(device.may_subscribe("dt/sensor-1/a"));
    assert!(device.may_subscribe("dt/sensor-1/b"));
    assert!(!device.may_subscribe("dt/sensor-1/c"));
    assert!(device.may_subscribe("dt/sensor-1/a"), "it has this one");
    served.stop();
}

#[test]
fn sizes_can_be_set_lower() {
    let (mut served, own) = served(&[
        ("client-id-bytes-max = 128", "client-id-bytes-max = 10"),
        ("topic-bytes-max = 256", "topic-bytes-max = 15"),
    ]);
    assert_eq!(code(&served, &own, "sensor-1:22"), Some(0x85));
    is_refused(&served, "client-id", 1.0, "longer than 10 bytes");
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/abc", "1");
    assert!(!device.may_subscribe("dt/sensor-1/abcd"));
    assert!(device.is_refused("dt/sensor-1/abcd"));
    served.stop();
}

#[test]
fn what_is_beyond_a_size_ends_the_connection_with_the_reason_code_and_is_counted() {
    let (mut served, own) = served(&[
        ("topic-bytes-max = 256", "topic-bytes-max = 20"),
        ("topic-levels-max = 16", "topic-levels-max = 4"),
        ("property-bytes-max = 8192", "property-bytes-max = 16"),
        ("packet-bytes-max = 149504", "packet-bytes-max = 1024"),
    ]);
    // Content Type, a property of 16 bytes and one of 17.
    let content = |length: usize| [[3].as_slice(), &text(&"x".repeat(length))].concat();
    let publish = |topic: &str, properties: &[u8], payload: usize| {
        publish_v5(topic, 1, 1, properties, &vec![b'x'; payload])
    };
    let mut wire = v5(&served, &own);
    let taken = wire.ask(&publish("dt/sensor-1/t/7890ab", &content(16), 900));
    assert_eq!(taken[..4], [0x40, 2, 0, 1], "{taken:?}");
    for (packet, code, bound) in [
        (
            publish("dt/sensor-1/t/7890abc", &[], 1),
            0x90,
            "topic-bytes-max",
        ),
        (
            publish("dt/sensor-1/t/7/8", &[], 1),
            0x90,
            "topic-levels-max",
        ),
        (
            publish("dt/sensor-1/t", &content(17), 1),
            0x97,
            "property-bytes-max",
        ),
        (
            publish("dt/sensor-1/t", &[], 1020),
            0x95,
            "packet-bytes-max",
        ),
    ] {
        let mut wire = v5(&served, &own);
        let goodbye = wire.ask(&packet);
        assert_eq!(
            (goodbye[0], goodbye[2]),
            (0xe0, code),
            "{bound}: {goodbye:?}"
        );
        assert!(wire.closes(), "{bound}");
        assert_eq!(beyond(&served, bound), 1.0, "{bound}");
    }
    // Filters are refused, and the connection stays. Name and slash of a share are not counted.
    let mut wire = v5(&served, &own);
    let answer = wire.ask(&subscribe_v5(&[
        "dt/sensor-1/t/7890ab",
        "dt/sensor-1/t/7890abc",
        "dt/sensor-1/t/7/8",
        "$share/sharers/dt/sensor-1/t/789",
    ]));
    assert_eq!(answer[0], 0x90, "{answer:?}");
    assert_eq!(answer[5..], [1, 0x8f, 0x8f, 1], "{answer:?}");
    assert_eq!(beyond(&served, "topic-bytes-max"), 2.0);
    assert_eq!(beyond(&served, "topic-levels-max"), 2.0);
    served.stop();
}

#[test]
fn a_subscription_too_many_is_refused_with_its_code_and_counted() {
    let (mut served, own) = served(&[(
        "subscriptions-per-client-max = 50",
        "subscriptions-per-client-max = 2",
    )]);
    let mut wire = v5(&served, &own);
    let answer = wire.ask(&subscribe_v5(&[
        "dt/sensor-1/a",
        "$share/s/dt/sensor-1/a",
        "dt/sensor-1/b",
        "dt/sensor-1/a",
    ]));
    assert_eq!(answer[5..], [1, 1, 0x97, 1], "{answer:?}");
    assert_eq!(beyond(&served, "subscriptions-per-client-max"), 1.0);
    // Nine filters in one packet.
    let answer = wire.ask(&subscribe_v5(&["dt/sensor-1/a"; 9]));
    assert_eq!(answer[5..], [1, 1, 1, 1, 1, 1, 1, 1, 0x97], "{answer:?}");
    assert_eq!(beyond(&served, "filters-of-one-subscribe"), 1.0);
    served.stop();
}

#[test]
fn connections_in_all_are_bounded_and_who_does_not_get_on_makes_room() {
    let (mut served, own) = served(&[
        ("connections-max = 10000", "connections-max = 32"),
        ("connect-timeout-ms = 10000", "connect-timeout-ms = 600000"),
        (
            "handshake-timeout-ms = 10000",
            "handshake-timeout-ms = 600000",
        ),
    ]);
    let displaced = |served: &Served| served.metric(REFUSED, &["\"displaced\""]);
    // Of this machine half of all, and of one address not more.
    let silent: Vec<_> = (1..=3)
        .flat_map(|n| crowd(&served, &format!("127.0.0.{n}"), 12, b""))
        .collect();
    eventually("some are too many", || displaced(&served) == 4.0);
    is_refused(&served, "displaced", 4.0, "127.0.0.1");
    // The oldest went; clients come in, and stay, until they have every place.
    assert_eq!(left(&silent[..4]), 4);
    assert_eq!(left(&silent[4..]), 0);
    let mut clients: Vec<_> = (0..32)
        .map(|n| Device::tls(served.mqtt, &format!("sensor-1:{n}"), &own))
        .collect();
    assert_eq!(displaced(&served), 36.0);
    assert_eq!(left(&silent), silent.len());
    assert_eq!(code(&served, &own, "sensor-1:late"), None);
    assert_eq!(served.metric(REFUSED, &["\"connections-max\""]), 1.0);
    for client in &mut clients {
        client.publish("dt/sensor-1/t", "1");
    }
    drop(clients);
    eventually("there is room again", || {
        code(&served, &own, "sensor-1:late") == Some(0)
    });
    served.stop();
}

#[test]
fn who_says_no_connect_leaves_in_time() {
    let (mut served, _) = served(&[("connect-timeout-ms = 10000", "connect-timeout-ms = 500")]);
    let plain = TcpStream::connect(served.plain).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!((&plain).read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(served.metric(REFUSED, &["\"connect-timeout\""]), 1.0);
    served.stop();
}

#[test]
fn a_client_hello_is_bounded() {
    let (mut served, own) = served(&[(
        "handshake-timeout-ms = 10000",
        "handshake-timeout-ms = 600000",
    )]);
    // One of 64 000 bytes, in records of 15 000.
    let mut bytes = vec![1, 0, 0xfa, 0, 3, 3];
    bytes.resize(4 + 64_000 - 1, 0);
    let mut stream = crowd(&served, "127.0.0.2", 1, b"").remove(0);
    for part in bytes.chunks(15_000) {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        let record = [&[0x16, 3, 1], length.as_slice(), part].concat();
        // It may be gone before the last one.
        stream.write_all(&record).ok();
    }
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(served.metric(REFUSED, &["\"tls-protocol\""]), 1.0);
    Device::tls(served.mqtt, "sensor-1", &own).publish("dt/sensor-1/t", "1");
    served.stop();
}

#[test]
fn sessions_are_bounded_and_who_has_one_comes_back_to_it() {
    let (mut served, own) = served(&[("sessions-max = 20000", "sessions-max = 1")]);
    served.enrol("sensor-2", "cold-chain");
    let (away, _) = Device::persistent(served.plain, "sensor-1");
    away.disconnect();
    // The registry may be read again later than this.
    eventually("the other one is refused for that", || {
        Device::is_refused_plain(served.plain, "sensor-2")
            && served.metric(REFUSED, &["\"sessions-max\""]) >= 1.0
    });
    assert_eq!(code(&served, &own, "sensor-1:2"), Some(0x97));
    let (back, had_one) = Device::persistent(served.plain, "sensor-1");
    assert!(had_one);
    drop(back);
    served.stop();
}

#[test]
fn what_waits_for_a_client_is_bounded_in_messages_and_in_bytes() {
    let (mut served, own) = served(&[
        ("queue-messages-max = 10000", "queue-messages-max = 4"),
        ("queue-bytes-max = 4194304", "queue-bytes-max = 3000"),
    ]);
    let (mut reader, _) = Device::persistent(served.plain, "sensor-1");
    reader.subscribe_at("dt/sensor-1/t", QoS::AtLeastOnce);
    reader.disconnect();
    let full = |served: &Served| served.metric(DROPPED, &["\"queue-full\""]);
    let mut writer = Device::tls(served.mqtt, "sensor-1:w", &own);
    let large = "x".repeat(2000);
    for payload in ["1", large.as_str(), large.as_str(), "2", "3", "4"] {
        writer.publish("dt/sensor-1/t", payload);
    }
    // The second large one has no room in bytes, the last small one none in number.
    assert_eq!(full(&served), 2.0);
    let (mut reader, _) = Device::persistent(served.plain, "sensor-1");
    for payload in ["1", large.as_str(), "2", "3"] {
        assert_eq!(reader.next_message().1, payload);
    }
    // What it has acknowledged before this has left the queue.
    reader.publish("dt/sensor-1/u", "done");
    writer.publish("dt/sensor-1/t", "5");
    assert_eq!(reader.next_message().1, "5");
    served.stop();
}
