//! What one address, one certificate and one client may have of the gateway.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use tokio::net::TcpSocket;

use crate::{
    device::{Device, client_config},
    served::{Credentials, Served, eventually},
    support::run,
    wire::{Hello, Wire},
};

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
    let mut refused = crowd(&served, "127.0.0.2", 50, b"\x16");
    eventually("most are refused", || {
        served.metric(REFUSED, &["\"handshakes-per-address\""]) >= 40.0
    });
    let told = served.metric(REFUSED, &["\"handshakes-per-address\""]);
    is_refused(&served, "handshakes-per-address", told, "127.0.0.2");
    // Not even an alert is said to them.
    let last = refused.last_mut().unwrap();
    assert!(matches!(last.read(&mut [0]), Ok(0) | Err(_)));
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    served.stop();
}

#[test]
fn peers_that_send_one_byte_do_not_hold_every_turn() {
    let (mut served, own) = served(&[
        ("handshakes-max = 64", "handshakes-max = 4"),
        (
            "handshake-timeout-ms = 10000",
            "handshake-timeout-ms = 600000",
        ),
    ]);
    let slow = crowd(&served, "127.0.0.2", 64, b"\x16");
    for n in 0..5 {
        let mut device = Device::tls(served.mqtt, &format!("sensor-1:{n}"), &own);
        device.publish("dt/sensor-1/t", "1");
    }
    assert_eq!(served.metric(REFUSED, &[]), 0.0);
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
