//! The buffer is full: who waits for it is held to the rights of the moment.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    device::{Device, client_config},
    emulators::free_port,
    fake_kinesis::{FakeKinesis, Step},
    served::{Served, eventually},
    support::{CREDENTIALS, SmallDisk},
    wire::{Hello, Wire, framed, packet, text},
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

/// Takes whatever is left of the disk.
fn take_the_rest(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    while file.write(&[7; 4096]).is_ok_and(|written| written > 0) {}
}

/// Takes the disk until the gateway finds it full; the file that has it.
fn fill_the_disk(served: &Served, first: &mut Wire) -> PathBuf {
    let ballast = served.site.path("data/ballast");
    take_the_rest(&ballast);
    // More than what the file of the generation has room for already.
    let mut body = text("dt/sensor-1/waits");
    body.extend([0, 2, 0]);
    body.resize(100_000, b'x');
    let mut random = fastrand::Rng::with_seed(7);
    body[22..].fill_with(|| random.u8(b'a'..=b'z'));
    let mut sent = 0;
    eventually("the disk is found full", || {
        if sent < 30 {
            sent += 1;
            body[20] = sent;
            first.send(&packet(QOS_1, &body)).unwrap();
        }
        served.log().contains("The disk is full")
    });
    ballast
}

#[test]
fn on_a_full_disk_devices_are_held_back_and_all_goes_on_when_there_is_space() {
    let stream = FakeKinesis::start([]);
    stream.afterwards(Step::Refuse(503, "ServiceUnavailable"));
    let mut served = Served::new();
    served.ship_to(&stream.endpoint);
    policy(&served, "");
    // A violation would be given the reserve, and what it leaves of that is room for events.
    served.site.write("profiles/device.json", DENIED_PROFILE);
    let credentials = ["sensor-1", "sensor-2"].map(|thing| served.enrol(thing, "cold-chain"));
    let data = served.site.path("data");
    fs::create_dir_all(&data).unwrap();
    let Some(_disk) = SmallDisk::mount(&data, 24) else {
        return;
    };
    served.start_with(CREDENTIALS);
    let [mut first, mut second] = [0, 1].map(|at: usize| {
        let config = Arc::new(client_config(&credentials[at]));
        Wire::open(served.mqtt, &config, "localhost")
    });
    assert_eq!(first.connect(&Hello::v5("sensor-1")), Some(0));
    assert_eq!(second.connect(&Hello::v5("sensor-2")), Some(0));
    let taken = answer_to(&mut first, QOS_1, 1, "dt/sensor-1/before");
    assert!(taken.2 < 0x80, "{taken:?}");
    let ballast = fill_the_disk(&served, &mut first);
    let refused = answer_to(&mut second, QOS_1, 3, "dt/sensor-2/refused");
    assert_eq!(refused, (0x40, 3, 0x97));
    assert!(served.proc("status").contains("VmHWM"), "it lives");
    fs::remove_file(&ballast).unwrap();
    eventually("there is room again", || {
        answer_to(&mut second, QOS_1, 4, "dt/sensor-2/after").2 < 0x80
    });
    stream.afterwards(Step::Take);
    let has = |topic: &str| {
        let taken = stream.taken();
        let bodies = taken.iter();
        bodies
            .filter_map(|(_, data)| serde_json::from_slice::<serde_json::Value>(data).ok())
            .any(|body| body["topic"] == topic)
    };
    for topic in [
        "dt/sensor-1/before",
        "dt/sensor-1/waits",
        "dt/sensor-2/after",
    ] {
        eventually(topic, || has(topic));
    }
    assert!(!has("dt/sensor-2/refused"), "what was refused went nowhere");
    drop((first, second));
    served.stop();
}

/// What goes wrong three times is a violation.
const DENIED_PROFILE: &str = r#"{"securityProfileName":"full","targets":["all/things"],"behaviors":[
    {"name":"denied","metric":"aws:num-authorization-failures","criteria":{
     "comparisonOperator":"less-than","value":{"count":3},"durationSeconds":300}}]}"#;

#[test]
fn on_a_full_disk_a_violation_lands_while_events_are_refused() {
    let stream = FakeKinesis::start([]);
    stream.afterwards(Step::Refuse(503, "ServiceUnavailable"));
    let mut served = Served::new();
    served.ship_to(&stream.endpoint);
    policy(
        &served,
        r#",{"Effect":"Deny","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/forbidden"}"#,
    );
    served.site.write("profiles/device.json", DENIED_PROFILE);
    let credentials = ["sensor-1", "sensor-2"].map(|thing| served.enrol(thing, "cold-chain"));
    let data = served.site.path("data");
    fs::create_dir_all(&data).unwrap();
    let Some(_disk) = SmallDisk::mount(&data, 24) else {
        return;
    };
    served.start_with(CREDENTIALS);
    let configs = credentials.map(|own| Arc::new(client_config(&own)));
    let connect = |at: usize| {
        let mut wire = Wire::open(served.mqtt, &configs[at], "localhost");
        let hello = Hello::v5(["sensor-1", "sensor-2"][at]);
        assert_eq!(wire.connect(&hello), Some(0));
        wire
    };
    let mut first = connect(0);
    let mut second = connect(1);
    let ballast = fill_the_disk(&served, &mut first);
    let refused = answer_to(&mut second, QOS_1, 3, "dt/sensor-2/refused");
    assert_eq!(refused, (0x40, 3, 0x97));
    let critical = || {
        let stats = served.site.done(&["buffer", "stats", "--json"]);
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        let lanes = stats["lanes"].as_array().unwrap();
        let lane = lanes
            .iter()
            .find(|lane| lane["lane"] == "critical")
            .unwrap();
        lane["undelivered"].as_u64().unwrap()
    };
    assert_eq!(critical(), 0);
    let mut forbidden = text("forbidden");
    forbidden.extend([0, 4, 0]);
    for _ in 0..4 {
        second = connect(1);
        second.send(&packet(QOS_1, &forbidden)).unwrap();
        assert!(second.closes(), "it is denied");
    }
    eventually("the violation is on the disk", || critical() > 0);
    served.accounts();
    fs::remove_file(&ballast).unwrap();
    stream.afterwards(Step::Take);
    eventually("the violation arrives", || {
        let taken = stream.taken();
        let mut bodies = taken.iter();
        bodies.any(|(_, data)| {
            let body: serde_json::Value = serde_json::from_slice(data).unwrap();
            body["schema"] == "portcullis.violation/1" && body["thingName"] == "sensor-2"
        })
    });
    drop((first, second));
    served.stop();
}
