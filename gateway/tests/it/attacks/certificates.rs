//! Certificates that are not, or no longer, good for anything.

use std::sync::Arc;

use portcullis_core::identity::CertificateId;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{REFUSED, is_named_and_counted};
use crate::{
    device::{Device, client_config},
    served::{Credentials, Served, eventually},
    wire::{Hello, Wire},
};

/// Replaces the certificate in `own` by another one that the site's CA signs for the same key.
fn sign_anew(
    served: &Served,
    own: &Credentials,
    not_before: (i32, u8, u8),
    not_after: (i32, u8, u8),
) {
    let read = |name: &str| served.site.read(name);
    let ca_key = rcgen::KeyPair::from_pem(&read("pki/ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("pki/ca.pem"), ca_key).unwrap();
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(&own.key).unwrap()).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, "forged-7");
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let day = |(year, month, day)| rcgen::date_time_ymd(year, month, day);
    parameters.not_before = day(not_before);
    parameters.not_after = day(not_after);
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    std::fs::write(&own.certificate, certificate.pem()).unwrap();
}

fn id(own: &Credentials) -> String {
    let der = CertificateDer::from_pem_file(&own.certificate).unwrap();
    CertificateId::of_der(&der).to_string()
}

/// The codes of a CONNECT in both versions.
fn answers(served: &Served, own: &Credentials, client_id: &str) -> [Option<u8>; 2] {
    let config = Arc::new(client_config(own));
    [Hello::v4(client_id), Hello::v5(client_id)]
        .map(|hello| Wire::open(served.mqtt, &config, "localhost").connect(&hello))
}

const NOT_AUTHORIZED: [Option<u8>; 2] = [Some(5), Some(0x87)];

#[test]
fn a_certificate_of_the_right_ca_that_nobody_registered_is_refused() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    sign_anew(&served, &own, (2020, 1, 1), (2090, 1, 1));
    served.start();
    assert_eq!(answers(&served, &own, "sensor-1"), NOT_AUTHORIZED);
    is_named_and_counted(
        &served,
        REFUSED,
        "certificate-unknown",
        2.0,
        &["sensor-1", &id(&own)],
    );
}

#[test]
fn a_certificate_before_its_time_is_refused() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    sign_anew(&served, &own, (2080, 1, 1), (2090, 1, 1));
    served.start();
    assert_eq!(answers(&served, &own, "sensor-1"), [None, None]);
    is_named_and_counted(
        &served,
        REFUSED,
        "tls-certificate-not-yet-valid",
        2.0,
        &["forged-7", &id(&own)],
    );
}

#[test]
fn a_deleted_thing_goes_and_does_not_come_back_with_its_name() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    let other = served.enrol("sensor-2", "cold-chain");
    served.start();
    let mut gone = Device::tls(served.mqtt, "sensor-1", &own);
    let mut stays = Device::tls(served.mqtt, "sensor-2", &other);
    served.site.done(&["thing", "remove", "sensor-1"]);
    assert!(gone.closes());
    assert_eq!(answers(&served, &own, "sensor-1"), NOT_AUTHORIZED);
    // A new thing of the old name is not the old thing.
    served
        .site
        .done(&["thing", "add", "sensor-1", "--group", "cold-chain"]);
    let new = served.issue_into("sensor-1", "again");
    eventually("the new certificate is in force", || {
        answers(&served, &new, "sensor-1") == [Some(0), Some(0)]
    });
    assert_eq!(answers(&served, &own, "sensor-1"), NOT_AUTHORIZED);
    // Before the whole file was read again, the certificate was unknown instead.
    eventually("the refusal is counted", || {
        served.metric(REFUSED, &["certificate-revoked"]) >= 2.0
    });
    assert!(served.log().lines().any(|line| {
        line.contains("WARN") && line.contains("certificate-revoked") && line.contains(&id(&own))
    }));
    stays.publish("dt/sensor-2/t", "1");
}

#[test]
fn an_inactive_certificate_is_refused_until_it_is_active_again() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    served
        .site
        .replace_last("registry.toml", "\"ACTIVE\"", "\"INACTIVE\"");
    assert!(device.closes());
    assert_eq!(answers(&served, &own, "sensor-1"), NOT_AUTHORIZED);
    is_named_and_counted(
        &served,
        REFUSED,
        "certificate-not-active",
        2.0,
        &[&id(&own)],
    );
    served
        .site
        .replace_last("registry.toml", "\"INACTIVE\"", "\"ACTIVE\"");
    eventually("it may connect again", || {
        answers(&served, &own, "sensor-1") == [Some(0), Some(0)]
    });
}

#[test]
fn a_session_ends_when_its_certificate_does() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    // Three seconds from now.
    let until = std::process::Command::new("date")
        .args(["-u", "-d", "+3 seconds", "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    let until = String::from_utf8(until.stdout).unwrap();
    served.site.replace_last(
        "registry.toml",
        "status = \"ACTIVE\"",
        &format!("status = \"ACTIVE\"\nuntil = \"{}\"", until.trim()),
    );
    assert!(device.closes());
    eventually("it may not connect any more", || {
        answers(&served, &own, "sensor-1") == NOT_AUTHORIZED
    });
    assert!(served.log().contains(&id(&own)));
}

#[test]
fn a_session_under_an_intermediate_ends_with_a_list_of_the_intermediate() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SerialNumber};
    let named = |name: &str, serial: u64| {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.serial_number = Some(SerialNumber::from(serial));
        parameters
    };
    let ca = |name, serial| {
        let mut parameters = named(name, serial);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signs = [
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        parameters.key_usages = signs.to_vec();
        parameters
    };
    let mut served = Served::new();
    let (root, below) = (ca("root", 1), ca("below", 2));
    let [root_key, below_key] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let root = Issuer::new(root, root_key);
    let below_pem = below.signed_by(&below_key, &root).unwrap().pem();
    let below = Issuer::new(below, below_key);
    let import = |name: &str, text: &str| {
        served.site.write(name, text);
        let file = served.site.path(name);
        served
            .site
            .done(&["cert", "import", file.to_str().unwrap()])
    };
    import("root.pem", &root_pem);
    let [lost, kept] = [("sensor-1", 11), ("sensor-2", 12)].map(|(name, serial)| {
        let ca = served.enrol(name, "cold-chain").ca;
        let key = KeyPair::generate().unwrap();
        let mut parameters = named(name, serial);
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = parameters.signed_by(&key, &below).unwrap().pem();
        import(&format!("{name}.pem"), &format!("{leaf}{below_pem}"));
        served
            .site
            .write(&format!("{name}.key"), &key.serialize_pem());
        Credentials {
            ca,
            certificate: served.site.path(&format!("{name}.pem")),
            key: served.site.path(&format!("{name}.key")),
        }
    });
    let now = time::OffsetDateTime::now_utc();
    let list = rcgen::CertificateRevocationListParams {
        this_update: now - time::Duration::DAY,
        next_update: now + time::Duration::DAY,
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(11_u64),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&below).unwrap().pem().unwrap();
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &lost);
    let mut other = Device::tls(served.mqtt, "sensor-2", &kept);
    device.publish("dt/sensor-1/t", "1");
    served.site.write("list.pem", &format!("{list}{below_pem}"));
    let file = served.site.path("list.pem");
    served
        .site
        .done(&["cert", "import", file.to_str().unwrap()]);
    assert!(device.closes(), "the session outlives its revocation");
    assert_eq!(answers(&served, &lost, "sensor-1"), [None, None]);
    other.publish("dt/sensor-2/t", "1");
    assert_eq!(
        answers(&served, &kept, "sensor-2"),
        [Some(0), Some(0)],
        "only what the list names"
    );
}
