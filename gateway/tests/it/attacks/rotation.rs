//! Changes that touch one device or none: everybody else keeps the connection.

use std::sync::Arc;

use super::REFUSED;
use crate::{
    device::{Device, client_config},
    served::{Credentials, Served, eventually},
    wire::{Hello, Wire},
};

type Fleet = Vec<(String, Device)>;

fn all_publish(fleet: &mut Fleet) {
    for (name, device) in fleet {
        device.publish(&format!("dt/{name}/t"), "1");
    }
}

fn connected(served: &Served) -> f64 {
    served.metric("portcullis_broker_connected_total", &[])
}

fn generation(served: &Served) -> f64 {
    served.metric("portcullis_identity_generation", &[])
}

/// A gateway with these devices connected, and a further one that may connect.
fn site() -> (Served, Credentials, Fleet) {
    let mut served = Served::new();
    let probe = served.enrol("probe", "cold-chain");
    let own = NAMES.map(|name| served.enrol(name, "cold-chain"));
    served.start();
    let connect =
        |(name, own): (&str, &Credentials)| (name.to_owned(), Device::tls(served.mqtt, name, own));
    let fleet = NAMES.into_iter().zip(&own).map(connect).collect();
    (served, probe, fleet)
}

const NAMES: [&str; 4] = ["sensor-1", "sensor-2", "sensor-3", "sensor-4"];

/// A new one, which the CA of the site signs.
fn server_certificate(served: &Served) -> (rcgen::KeyPair, rcgen::Certificate) {
    let key = rcgen::KeyPair::generate().unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&served.site.read("pki/ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&served.site.read("pki/ca.pem"), ca_key).unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let parameters = rcgen::CertificateParams::new(names).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    (key, certificate)
}

#[test]
fn tls_is_made_anew_for_new_certificates_alone() {
    let (served, probe, _fleet) = site();
    let config = Arc::new(client_config(&probe));
    let shown = || {
        let mut wire = Wire::open(served.mqtt, &config, "localhost");
        assert_eq!(wire.connect(&Hello::v5("probe")), Some(0));
        // Once it is served, it is counted.
        wire.send(&[0xc0, 0]).unwrap();
        assert_eq!(wire.receive().unwrap(), [0xd0, 0]);
        wire.server_certificate()
    };
    // Listeners look when somebody comes.
    let after = |change: &dyn Fn()| {
        let before = generation(&served);
        change();
        eventually("the change is in force", || generation(&served) > before);
        shown();
        served.log().matches("New certificates serve.").count()
    };
    let policy = served.site.read("policies/device.json");
    let policies = || {
        served
            .site
            .write("policies/device.json", &format!("{policy}\n"))
    };
    assert_eq!(after(&policies), 0);
    let quarantine = || drop(served.site.done(&["thing", "quarantine", "sensor-1"]));
    assert_eq!(after(&quarantine), 0);
    let (key, certificate) = server_certificate(&served);
    served.site.write("pki/server.key", &key.serialize_pem());
    served.site.write("pki/server.pem", &certificate.pem());
    // One of two listeners of this site has TLS.
    eventually("the new certificate serves", || {
        shown() == certificate.der().to_vec()
    });
    let made = served.log().matches("New certificates serve.").count();
    assert!(made >= 1);
    assert_eq!(
        after(&|| drop(served.site.done(&["thing", "quarantine", "sensor-2"]))),
        made
    );
}

#[test]
fn a_new_server_certificate_serves_without_dropping_anybody() {
    let (served, probe, mut fleet) = site();
    let config = Arc::new(client_config(&probe));
    let shown = || {
        let mut wire = Wire::open(served.mqtt, &config, "localhost");
        assert_eq!(wire.connect(&Hello::v5("probe")), Some(0));
        // Once it is served, it is counted.
        wire.send(&[0xc0, 0]).unwrap();
        assert_eq!(wire.receive().unwrap(), [0xd0, 0]);
        wire.server_certificate()
    };
    let former = shown();
    let before = connected(&served);
    let (key, certificate) = server_certificate(&served);
    let applied = generation(&served);
    served.site.write("pki/server.key", &key.serialize_pem());
    served.site.write("pki/server.pem", &certificate.pem());
    eventually("the new certificate serves", || {
        generation(&served) > applied && shown() == certificate.der().to_vec()
    });
    assert_ne!(former, shown());
    let probes = served.metric("portcullis_broker_connected_total", &[]);
    all_publish(&mut fleet);
    assert!(probes > before);
    assert_eq!(
        connected(&served),
        probes,
        "a device came back, so it was dropped"
    );
    assert_eq!(served.metric("portcullis_broker_connections", &[]), 4.0);
}

#[test]
fn another_ca_is_trusted_and_dropped_again_without_dropping_anybody() {
    let (served, _, mut fleet) = site();
    let before = connected(&served);
    let other = Served::new();
    let stranger = other.enrol("sensor-9", "cold-chain");
    let stranger_id = other.site.done(&["cert", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&stranger_id).unwrap();
    let stranger_id = listed[0]["certificateId"].as_str().unwrap();
    served.site.append(
        "registry.toml",
        &format!(
            "\n[[thing]]\nname = \"sensor-9\"\ngroups = [\"devices\"]\n\n[[certificate]]\nid = \"{stranger_id}\"\nthing = \"sensor-9\"\n"
        ),
    );
    // The stranger's certificate, and the CA of this site to check the gateway's.
    let own_ca = served.site.read("pki/ca.pem");
    std::fs::write(&stranger.ca, &own_ca).unwrap();
    let config = Arc::new(client_config(&stranger));
    let answer = || Wire::open(served.mqtt, &config, "localhost").connect(&Hello::v5("sensor-9"));
    assert_eq!(answer(), None);
    assert_eq!(
        served.metric(REFUSED, &["tls-certificate-unknown-issuer"]),
        1.0
    );

    served.site.write(
        "pki/ca.pem",
        &format!("{own_ca}{}", other.site.read("pki/ca.pem")),
    );
    eventually("the other CA is trusted", || answer() == Some(0));
    served.site.write("pki/ca.pem", &own_ca);
    eventually("the other CA is not trusted any more", || {
        answer().is_none()
    });
    let newcomers = connected(&served) - before;
    assert!(newcomers >= 1.0);
    let total = connected(&served);
    all_publish(&mut fleet);
    assert_eq!(connected(&served), total);
    assert_eq!(served.metric("portcullis_broker_connections", &[]), 4.0);
}

#[test]
fn a_change_with_a_mistake_is_refused_whole_and_everybody_stays() {
    let (served, probe, mut fleet) = site();
    let before = (connected(&served), generation(&served));
    let policy = served.site.read("policies/device.json");
    served.site.write(
        "policies/device.json",
        &policy.replace("iot:Publish", "iot:Pubish"),
    );
    eventually("the mistake is shown", || {
        served.metric("portcullis_identity_stale", &[]) == 1.0
    });
    let ready = crate::served::get(served.http, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(
        ready.contains("device.json") && ready.contains("last good"),
        "{ready}"
    );
    assert!(served.log().contains("iot:Pubish"));
    all_publish(&mut fleet);
    let config = Arc::new(client_config(&probe));
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(wire.connect(&Hello::v5("probe")), Some(0));
    assert_eq!(generation(&served), before.1);
    served.site.write("policies/device.json", &policy);
    eventually("the correction is in force", || {
        served.metric("portcullis_identity_stale", &[]) == 0.0
    });
    let ready = crate::served::get(served.http, "/readyz").unwrap();
    assert!(!ready.contains("refused"), "{ready}");
    all_publish(&mut fleet);
    assert_eq!(connected(&served), before.0 + 1.0);
}
