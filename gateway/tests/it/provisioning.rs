//! Devices that register themselves, seen from outside: what they and others are told.

use std::fs;

use portcullis_core::identity::CertificateId;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{
    device::Device,
    served::{Credentials, Served, eventually},
};

/// A certificate for `name` that the site's CA signed and nobody registered; and its id.
fn unknown_certificate(served: &Served, name: &str) -> (Credentials, String) {
    let ca_pem = served.site.read("pki/ca.pem");
    let ca_key = rcgen::KeyPair::from_pem(&served.site.read("pki/ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca_pem, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    let id = CertificateId::of_der(certificate.der()).to_string();
    let own = written(served, name, &certificate.pem(), &key.serialize_pem());
    (own, id)
}

fn written(served: &Served, name: &str, certificate: &str, key: &str) -> Credentials {
    let dir = served.site.path(&format!("made-{name}"));
    fs::create_dir_all(&dir).unwrap();
    let own = Credentials {
        ca: served.site.path("pki/ca.pem"),
        certificate: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    };
    fs::write(&own.certificate, certificate).unwrap();
    fs::write(&own.key, key).unwrap();
    own
}

fn refused(served: &Served, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    served.metric("portcullis_broker_refused_total", &[&label])
}

#[test]
fn a_certificate_that_nobody_knows_is_refused_and_named() {
    let mut served = Served::new();
    let (own, id) = unknown_certificate(&served, "stranger");
    served.start();
    assert!(Device::is_refused_at_connect(served.mqtt, "sensor-1", &own));
    assert_eq!(refused(&served, "certificate-unknown"), 1.0);
    let parts = ["WARN", "certificate-unknown", &id, "subject=\"stranger\""];
    eventually("the log names the certificate", || {
        let log = served.log();
        log.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    });
}

#[test]
fn a_certificate_of_a_registering_ca_waits_for_approval_and_is_announced() {
    let mut served = Served::new();
    served
        .site
        .done(&["thing", "add", "sensor-9", "--group", "cold-chain"]);
    served.site.append(
        "registry.toml",
        "\n[[ca]]\ncertificate = \"pki/ca.pem\"\nauto-registration = \"ENABLE\"\n",
    );
    let (own, id) = unknown_certificate(&served, "sensor-9");
    served.start();
    assert!(Device::is_refused_at_connect(served.mqtt, "sensor-9", &own));
    assert_eq!(refused(&served, "certificate-pending"), 1.0);
    let announced = |event: &Value| {
        let topic = event["topic"].as_str().unwrap_or_default();
        topic.starts_with("$aws/events/certificates/registered/")
            && event["payload"]["certificateId"] == id.as_str()
    };
    eventually("the registration is announced in the stream", || {
        served.lifecycle().iter().any(announced)
    });
    served.site.done(&["cert", "approve", &id]);
    eventually("the approval is in force", || {
        !Device::is_refused_at_connect(served.mqtt, "sensor-9", &own)
    });
    let mut device = Device::tls(served.mqtt, "sensor-9", &own);
    device.publish("dt/sensor-9/t", "1");
}

const CLAIM_POLICY: &str = r#"{"Version":"2012-10-17","Statement":[
  {"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
  {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":[
    "arn:aws:iot:*:*:topic/$aws/certificates/*","arn:aws:iot:*:*:topic/$aws/provisioning-templates/*"]},
  {"Effect":"Allow","Action":"iot:Subscribe","Resource":[
    "arn:aws:iot:*:*:topicfilter/$aws/certificates/*","arn:aws:iot:*:*:topicfilter/$aws/provisioning-templates/*"]}]}"#;

const TEMPLATE: &str = r#"{
  "Parameters": {"Serial": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {
      "ThingName": {"Fn::Join": ["", ["meter-", {"Ref": "Serial"}]]}, "ThingGroups": ["devices"]}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
      "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}}}}"#;

#[test]
fn a_claim_gets_a_certificate_of_its_own_and_nobody_else_sees_the_answer() {
    let mut served = Served::new();
    let (imported, _) = unknown_certificate(&served, "claim");
    served.site.write("policies/claim.json", CLAIM_POLICY);
    fs::create_dir_all(served.site.path("templates")).unwrap();
    served.site.write("templates/fleet.json", TEMPLATE);
    let as_claim = ["--claim", "fleet", "--policy", "claim"];
    let run = |arguments: &[&str]| served.site.done(&[arguments, &as_claim].concat());
    run(&["cert", "import", imported.certificate.to_str().unwrap()]);
    let out = served.site.path("claim-issued");
    run(&["cert", "issue", "--out", out.to_str().unwrap()]);
    let claim = Credentials {
        ca: out.join("ca.pem"),
        certificate: out.join("cert.pem"),
        key: out.join("key.pem"),
    };
    served.start();
    let mut other = Device::tls(served.mqtt, "other", &imported);
    other.subscribe("$aws/certificates/#");
    let mut device = Device::tls(served.mqtt, "new-device", &claim);
    device.subscribe("$aws/certificates/create/json/+");
    device.subscribe("$aws/provisioning-templates/fleet/provision/json/+");

    device.send("$aws/certificates/create/json", "");
    let answer = device.receive();
    assert_eq!(answer.topic, "$aws/certificates/create/json/accepted");
    let made: Value = serde_json::from_slice(&answer.payload).unwrap();
    let pem = made["certificatePem"].as_str().unwrap();
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let expected = CertificateId::of_der(&leaf).to_string();
    assert_eq!(made["certificateId"], expected.as_str());
    let key = made["privateKey"].as_str().unwrap();
    let own = written(&served, "meter", pem, key);

    let request = json!({
        "certificateOwnershipToken": made["certificateOwnershipToken"],
        "parameters": {"Serial": "7"},
    });
    let topic = "$aws/provisioning-templates/fleet/provision/json";
    device.send(topic, &request.to_string());
    let answer = device.receive();
    let text = String::from_utf8_lossy(&answer.payload);
    assert_eq!(answer.topic, format!("{topic}/accepted"), "{text}");
    assert!(text.contains("meter-7"), "{text}");

    let mut meter = Device::tls(served.mqtt, "meter-7", &own);
    meter.publish("dt/meter-7/t", "1");
    // The other device with the same claim has seen nothing of it.
    other.send("$aws/certificates/create-from-csr/json", "{}");
    let first = other.receive();
    assert_eq!(
        first.topic,
        "$aws/certificates/create-from-csr/json/rejected"
    );
    assert!(
        served
            .stream()
            .iter()
            .all(|event| !event.to_string().contains("PRIVATE KEY"))
    );
}
