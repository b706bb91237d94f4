//! Tricks below MQTT.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use super::{REFUSED, is_named_and_counted};
use crate::{
    device::{Device, client_config},
    served::{Served, eventually},
    wire::{Believer, Hello, Wire, framed, text},
};

#[test]
fn a_revoked_certificate_does_not_come_back_on_a_resumed_session() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut served = Served::new();
        let own = served.enrol("sensor-1", "cold-chain");
        served.start();
        // One configuration, so one memory of tickets and session ids.
        let config = Arc::new(client_config_of(&own, version));
        for _ in 0..2 {
            let mut wire = Wire::open(served.mqtt, &config, "localhost");
            assert_eq!(wire.connect(&Hello::v5("sensor-1")), Some(0));
            // Time for a ticket to arrive, if there were one.
            wire.send(&[0xc0, 0]).unwrap();
            assert_eq!(wire.receive().unwrap(), [0xd0, 0]);
            assert!(!wire.resumed());
        }
        served.site.done(&["cert", "revoke", "sensor-1"]);
        eventually("the revocation is in force", || {
            let mut wire = Wire::open(served.mqtt, &config, "localhost");
            let answer = wire.connect(&Hello::v5("sensor-1"));
            assert!(!wire.resumed());
            answer == Some(0x87)
        });
        assert!(served.metric(REFUSED, &["certificate-revoked"]) >= 1.0);
    }
}

fn client_config_of(
    own: &crate::served::Credentials,
    version: &'static rustls::SupportedProtocolVersion,
) -> rustls::ClientConfig {
    let mut config = client_config(own);
    let chosen = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[version])
    .unwrap();
    let resolver = Arc::clone(&config.client_auth_cert_resolver);
    config = chosen
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer))
        .with_client_cert_resolver(resolver);
    config
}

#[test]
fn a_renegotiation_is_not_taken_up() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let found = Command::new("openssl").arg("version").output().is_ok();
    if !found {
        let required = std::env::var_os("PORTCULLIS_TEST_REQUIRE_ALL").is_some();
        assert!(
            !required,
            "openssl is not installed: apt-get install openssl"
        );
        eprintln!("SKIPPED: openssl is not installed: apt-get install openssl");
        return;
    }
    let file = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &served.mqtt.to_string()])
        .args(["-cert", &file(&own.certificate), "-key", &file(&own.key)])
        .args(["-CAfile", &file(&own.ca), "-servername", "localhost"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // `R` on a line of its own asks s_client to renegotiate.
    client.stdin.take().unwrap().write_all(b"R\n").unwrap();
    let ended = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned()
        + &String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(
        said.contains("no renegotiation") || said.contains("alert") || said.contains("unexpected"),
        "{said}"
    );
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
}

#[test]
fn a_connect_of_two_megabytes_is_refused_by_its_header() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let config = Arc::new(client_config(&own));
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    // Remaining length 2 097 151, and then as much of it as the gateway takes.
    let mut header = vec![0x10, 0xff, 0xff, 0x7f];
    header.extend(text("MQTT"));
    header.extend([5, 2, 0, 30, 0]);
    let filling = vec![b'a'; 64 * 1024];
    let mut sent = wire.send(&header).is_ok();
    for _ in 0..32 {
        sent = sent && wire.send(&filling).is_ok();
    }
    assert!(wire.closes());
    is_named_and_counted(&served, REFUSED, "packet-too-large", 1.0, &["127.0.0.1"]);
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
}

#[test]
fn a_server_name_that_is_not_the_gateways_is_refused() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let config = Arc::new(client_config_of(&own, &rustls::version::TLS13));
    let mut wire = Wire::open(served.mqtt, &config, "other.example");
    assert_eq!(wire.connect(&Hello::v5("sensor-1")), None);
    is_named_and_counted(
        &served,
        REFUSED,
        "tls-sni-mismatch",
        1.0,
        &["other.example"],
    );
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(wire.connect(&Hello::v5("sensor-1")), Some(0));
}

#[test]
fn what_is_no_mqtt_is_refused_and_counted() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let config = Arc::new(client_config(&own));
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        framed(0x30, &text("dt/sensor-1/t")),
        vec![0xff; 64],
    ] {
        let mut wire = Wire::open(served.mqtt, &config, "localhost");
        // The gateway may close while this is being sent.
        drop(wire.send(&bytes));
        assert!(wire.closes());
    }
    eventually("all are counted", || {
        served.metric(REFUSED, &["not-mqtt"]) + served.metric(REFUSED, &["malformed"]) == 3.0
    });
    assert!(served.outbox().is_empty());
}
