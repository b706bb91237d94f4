//! The buffer is full: who waits for it is held to the rights of the moment.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    device::{Device, client_config},
    emulators::free_port,
    served::{Served, eventually},
    support::CREDENTIALS,
    wire::{Hello, Wire, framed, text},
};

const EVENTS: &str = "portcullis_pipeline_events_total";
const DISCONNECTED: &str = "portcullis_broker_disconnected_total";

/// A policy that allows everything, and these further statements.
fn policy(served: &Served, further: &str) {
    let allow = r#"{"Effect":"Allow","Action":"iot:*","Resource":"*"}"#;
    served.site.write(
        "policies/device.json",
        &format!(r#"{{"Version":"2012-10-17","Statement":[{allow}{further}]}}"#),
    );
}

const FILLERS: usize = 24;

/// A gateway with a small buffer and no cloud.
fn site() -> Served {
    let served = Served::new();
    served.ship_to(&format!("http://127.0.0.1:{}", free_port()));
    for (key, value) in [
        ("bytes-max = 2147483648", 4),
        ("generation-bytes-max = 8388608", 1),
    ] {
        let (name, _) = key.split_once(' ').unwrap();
        let small = format!("{name} = {}", value << 20);
        served.site.replace("gateway.toml", key, &small);
    }
    policy(&served, "");
    served
        .site
        .done(&["thing", "add", "filler", "--group", "cold-chain"]);
    // Without rules an event waits for the buffer where its publisher feels it.
    served
        .site
        .done(&["thing", "add", "elsewhere", "--group", "apps"]);
    served.site.replace(
        "gateway.toml",
        "[[chain]]\ngroup = \"cold-chain\"",
        "[[chain]]\ngroup = \"apps\"",
    );
    served.site.replace(
        "gateway.toml",
        "kind = \"plain\"",
        "kind = \"plain\"\nplain-thing = \"filler\"",
    );
    served
}

/// Publishes until nothing more is taken.
fn fill(served: &Served) -> Vec<TcpStream> {
    // Together they have more shares of the way to the buffer than that is long.
    let mut fillers: Vec<_> = (0..FILLERS).map(|n| filler(served, n)).collect();
    // QoS 0: nothing but the buffer slows it down. Remaining length in three bytes.
    let mut body = text("dt/filler/x");
    body.resize(120_000, b'x');
    let mut packet = vec![0x30, 0xc0, 0xa9, 0x07];
    packet.extend(body);
    let (mut sent, mut blocked) = ([0; FILLERS], Instant::now());
    eventually("the buffer is full", || {
        for (filler, at) in fillers.iter_mut().zip(&mut sent) {
            loop {
                match filler.write(&packet[*at..]) {
                    Ok(written) => {
                        (*at, blocked) = ((*at + written) % packet.len(), Instant::now());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        blocked.elapsed() > Duration::from_secs(1)
            && served.metric("portcullis_buffer_backpressure_waits_total", &[]) > 0.0
    });
    fillers
}

fn filler(served: &Served, number: usize) -> TcpStream {
    let mut filler = TcpStream::connect(served.plain).unwrap();
    let mut hello = text("MQTT");
    hello.extend([4, 2, 0, 0]);
    hello.extend(text(&format!("filler-{number}")));
    filler.write_all(&framed(0x10, &hello)).unwrap();
    filler.read_exact(&mut [0; 4]).unwrap();
    filler.set_nonblocking(true).unwrap();
    filler
}

/// Publishes with QoS 0, and waits until the gateway holds it.
fn publish_and_wait(served: &Served, wire: &mut Wire, topic: &str) {
    let before = served.metric(EVENTS, &[]);
    let mut body = text(topic);
    body.extend(b"1");
    wire.send(&framed(0x30, &body)).unwrap();
    eventually("it waits", || served.metric(EVENTS, &[]) > before);
}

#[test]
fn a_revoked_client_that_waits_for_the_buffer_is_disconnected() {
    let mut served = site();
    let own = served.enrol("sensor-1", "cold-chain");
    let config = Arc::new(client_config(&own));
    served.start_with(CREDENTIALS);
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(wire.connect(&Hello::v4("sensor-1")), Some(0));
    let _filler = fill(&served);
    publish_and_wait(&served, &mut wire, "dt/sensor-1/t");
    served.site.done(&["cert", "revoke", "sensor-1"]);
    assert!(wire.closes(), "it waits for ever");
    eventually("the reason is counted", || {
        served.metric(DISCONNECTED, &["\"shut-out\""]) == 1.0
    });
}

#[test]
fn what_waited_for_the_buffer_is_refused_if_it_is_forbidden_meanwhile() {
    let mut served = site();
    let own = served.enrol("sensor-1", "cold-chain");
    let watching = served.enrol("watcher", "apps");
    let config = Arc::new(client_config(&own));
    served.start_with(CREDENTIALS);
    let mut watcher = Device::tls(served.mqtt, "watcher", &watching);
    watcher.subscribe("dt/sensor-1/#");
    watcher.subscribe("$aws/things/marker/#");
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(wire.connect(&Hello::v4("sensor-1")), Some(0));
    let _filler = fill(&served);
    publish_and_wait(&served, &mut wire, "dt/sensor-1/late");
    policy(
        &served,
        r#",{"Effect":"Deny","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/dt/sensor-1/late"}"#,
    );
    assert!(wire.closes(), "it is not decided again");
    eventually("the reason is counted", || {
        served.metric(DISCONNECTED, &["\"not-authorized\""]) == 1.0
    });
    let labels = ["action=\"publish\"", "explicit-deny"];
    assert_eq!(
        served.metric("portcullis_broker_denied_total", &labels),
        1.0
    );
    // Nor did the local subscribers get it. What goes to no stream does not wait.
    let mut marker = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(marker.connect(&Hello::v4("sensor-1")), Some(0));
    let mut body = text("$aws/things/marker/shadow/update");
    body.extend(b"{}");
    marker.send(&framed(0x30, &body)).unwrap();
    let got = watcher.messages_until("$aws/things/marker/shadow/update");
    assert_eq!(got.len(), 1, "{got:?}");
}

/// What a MQTT 5 client is answered to a publish: type of the packet, packet id, reason.
fn answer_to(wire: &mut Wire, first: u8, pkid: u8, topic: &str) -> (u8, u8, u8) {
    let mut body = text(topic);
    body.extend([0, pkid, 0]);
    body.extend(b"kept");
    wire.send(&framed(first, &body)).unwrap();
    let packet = wire.receive().unwrap();
    (packet[0], packet[3], packet.get(4).copied().unwrap_or(0))
}

const QOS_1: u8 = 0x32;
const QOS_2: u8 = 0x34;

#[test]
fn a_client_of_mqtt_5_is_told_that_the_buffer_is_full() {
    let mut served = site();
    let own = served.enrol("sensor-1", "cold-chain");
    let watching = served.enrol("watcher", "apps");
    served.start_with(CREDENTIALS);
    let _filler = fill(&served);
    // Now, as filling may take longer than their keep-alive.
    let mut watcher = Device::tls(served.mqtt, "watcher", &watching);
    watcher.subscribe("dt/sensor-1/#");
    watcher.subscribe("$aws/things/marker/#");
    let mut wire = Wire::open(served.mqtt, &Arc::new(client_config(&own)), "localhost");
    assert_eq!(wire.connect(&Hello::v5("sensor-1")), Some(0));
    let refused = answer_to(&mut wire, QOS_1, 2, "dt/sensor-1/refused");
    assert_eq!(refused, (0x40, 2, 0x97));
    let refused = answer_to(&mut wire, QOS_2, 3, "dt/sensor-1/refused");
    assert_eq!(refused, (0x50, 3, 0x97));
    assert_eq!(
        served.metric("portcullis_broker_quota_exceeded_total", &[]),
        2.0
    );
    // What was refused went nowhere. What goes to no stream needs no room.
    let (_, _, reason) = answer_to(&mut wire, QOS_1, 4, "$aws/things/marker/shadow/update");
    assert!(reason < 0x80);
    let got = watcher.messages_until("$aws/things/marker/shadow/update");
    assert_eq!(got.len(), 1, "{got:?}");
}
