//! Debian's `mosquitto_pub` and `mosquitto_sub` against the gateway, both protocol versions.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
};

use crate::served::{Credentials, PATIENCE, Served, eventually};

/// Without the clients these tests cannot run; `.ci/test` installs them.
pub(crate) fn clients_installed() -> bool {
    let found = Command::new("mosquitto_pub").arg("--help").output().is_ok();
    if !found {
        let required = std::env::var_os("PORTCULLIS_TEST_REQUIRE_ALL").is_some();
        assert!(
            !required,
            "mosquitto_pub is not installed: apt-get install mosquitto-clients"
        );
        eprintln!("SKIPPED: mosquitto_pub is not installed: apt-get install mosquitto-clients");
    }
    found
}

pub(crate) fn tls(
    client: &str,
    served: &Served,
    ca: &Credentials,
    own: Option<&Credentials>,
    version: &str,
) -> Command {
    // A line at a time, although the output is a pipe.
    let mut command = Command::new("stdbuf");
    command
        .args(["-oL", client])
        .args([
            "-h",
            &served.mqtt.ip().to_string(),
            "-p",
            &served.mqtt.port().to_string(),
            "-V",
            version,
        ])
        .args(["--cafile", ca.ca.to_str().unwrap()]);
    if let Some(own) = own {
        command.args([
            "--cert",
            own.certificate.to_str().unwrap(),
            "--key",
            own.key.to_str().unwrap(),
        ]);
    }
    command
}

pub(crate) fn publish(mut command: Command, client_id: &str, topic: &str, message: &str) -> Output {
    command
        .args(["-i", client_id, "-q", "1", "-t", topic, "-m", message])
        .output()
        .unwrap()
}

/// A running `mosquitto_sub` that has its SUBACK.
pub(crate) struct Subscriber {
    child: Child,
    lines: Receiver<String>,
}

impl Subscriber {
    pub(crate) fn start(mut command: Command, client_id: &str, filter: &str) -> Self {
        let mut child = command
            .args([
                "-i",
                client_id,
                "-q",
                "1",
                "-t",
                filter,
                "-d",
                "-F",
                "RECEIVED %t %p",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let subscriber = Self { child, lines };
        subscriber.wait_for("Subscribed");
        subscriber
    }

    /// The first line that contains `text`.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no line with {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[test]
fn messages_travel_over_tls_in_both_versions() {
    if !clients_installed() {
        return;
    }
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    for version in ["mqttv311", "mqttv5"] {
        let subscriber = Subscriber::start(
            tls("mosquitto_sub", &served, &own, Some(&own), version),
            "sensor-1:sub",
            "dt/sensor-1/#",
        );
        let message = format!("{{\"t\":4.2,\"version\":\"{version}\"}}");
        let sent = publish(
            tls("mosquitto_pub", &served, &own, Some(&own), version),
            "sensor-1",
            "dt/sensor-1/temp",
            &message,
        );
        assert!(sent.status.success(), "{sent:?}");
        assert_eq!(
            subscriber.wait_for("RECEIVED"),
            format!("RECEIVED dt/sensor-1/temp {message}")
        );
    }
    eventually("both events are in the outbox", || {
        served.outbox().len() == 2
    });
    let event = served.outbox().remove(0);
    assert_eq!(event["schema"], "portcullis.event/1");
    assert_eq!(event["gateway_id"], "gw-test");
    assert!(event["seq"].as_u64() >= Some(1));
    assert_eq!(event["thing"], "sensor-1");
    assert_eq!(event["topic"], "dt/sensor-1/temp");
    assert_eq!(event["payload"]["t"], 4.2);
    served.stop();
}

#[test]
fn the_printed_mosquitto_line_works() {
    if !clients_installed() {
        return;
    }
    let mut served = Served::new();
    served
        .site
        .done(&["thing", "add", "pump-1", "--group", "factory"]);
    let out = served.site.path("../pump-1");
    let printed = served
        .site
        .done(&["cert", "issue", "pump-1", "--out", out.to_str().unwrap()]);
    let line = printed
        .lines()
        .find(|line| line.trim_start().starts_with("mosquitto_pub"))
        .unwrap();
    served.start();
    let ran = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(ran.status.success(), "{line}: {ran:?}");
    eventually("the event is in the outbox", || {
        served
            .outbox()
            .iter()
            .any(|event| event["thing"] == "pump-1")
    });
}

#[test]
fn a_connection_without_a_good_certificate_is_refused_and_the_log_says_who_and_why() {
    if !clients_installed() {
        return;
    }
    let mut served = Served::new();
    let good = served.enrol("sensor-1", "cold-chain");
    let expired = expired_certificate(&served, "sensor-2");
    let other = Served::new();
    let foreign = other.enrol("stranger-9", "cold-chain");
    served.start();

    let refused = |own: Option<&Credentials>, client_id: &str| {
        let command = tls("mosquitto_pub", &served, &good, own, "mqttv311");
        let sent = publish(command, client_id, "dt/sensor-1/temp", "1");
        assert!(!sent.status.success(), "{sent:?}");
    };
    refused(None, "sensor-1");
    refused(Some(&foreign), "stranger-9");
    refused(Some(&expired), "sensor-2");
    for (reason, named) in [
        ("tls-no-certificate", "127.0.0.1"),
        ("tls-certificate-unknown-issuer", "stranger-9"),
        ("tls-certificate-expired", "sensor-2"),
    ] {
        eventually(reason, || {
            served
                .log()
                .lines()
                .any(|line| line.contains(reason) && line.contains(named))
        });
        assert_eq!(
            served.metric("portcullis_broker_refused_total", &[reason]),
            1.0,
            "{reason}"
        );
    }
    assert!(served.outbox().is_empty());
}

/// Signed by the site's CA, registered, and past its time.
fn expired_certificate(served: &Served, thing: &str) -> Credentials {
    let own = served.enrol(thing, "cold-chain");
    let ca_key =
        rcgen::KeyPair::from_pem(&std::fs::read_to_string(served.site.path("pki/ca.key")).unwrap())
            .unwrap();
    let ca_pem = std::fs::read_to_string(served.site.path("pki/ca.pem")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca_pem, ca_key).unwrap();
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(&own.key).unwrap()).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, thing);
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    std::fs::write(&own.certificate, certificate.pem()).unwrap();
    own
}

#[test]
fn a_publish_that_no_policy_allows_reaches_neither_subscriber_nor_stream() {
    if !clients_installed() {
        return;
    }
    let mut served = Served::new();
    let victim = served.enrol("sensor-1", "cold-chain");
    let other = served.enrol("sensor-2", "cold-chain");
    served.start();
    let subscriber = Subscriber::start(
        tls("mosquitto_sub", &served, &victim, Some(&victim), "mqttv5"),
        "sensor-1:sub",
        "cmd/sensor-1/#",
    );
    let foreign = publish(
        tls("mosquitto_pub", &served, &other, Some(&other), "mqttv311"),
        "sensor-2",
        "cmd/sensor-1/open",
        "forged",
    );
    assert!(
        !foreign.status.success(),
        "a denied publish ends the connection: {foreign:?}"
    );
    let denied = || {
        served.metric(
            "portcullis_broker_denied_total",
            &["action=\"publish\"", "reason=\"implicit-deny\""],
        )
    };
    assert_eq!(denied(), 1.0);

    // What is allowed afterwards arrives, so what was denied would have, too.
    let own = publish(
        tls("mosquitto_pub", &served, &victim, Some(&victim), "mqttv311"),
        "sensor-1",
        "dt/sensor-1/temp",
        "\"allowed\"",
    );
    assert!(own.status.success(), "{own:?}");
    eventually("the allowed event is in the outbox", || {
        !served.outbox().is_empty()
    });
    assert!(
        served
            .outbox()
            .iter()
            .all(|event| event["payload"] == "allowed"),
        "{:?}",
        served.outbox()
    );
    assert!(
        subscriber
            .lines
            .try_iter()
            .all(|line| !line.contains("forged"))
    );
}
