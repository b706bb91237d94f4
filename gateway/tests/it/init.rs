//! From nothing to a device that may connect: `init`, `thing`, `cert`, `policy test`.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use portcullis::{
    config,
    identity::{Credential, Refusal},
};
use portcullis_core::certificate::Certificate;
use portcullis_core::identity::{CertificateId, ClientId};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::site::Site;

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn roots(ca: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca)).unwrap();
    Arc::new(roots)
}

fn client_verifier(ca: &Path) -> Arc<dyn ClientCertVerifier> {
    WebPkiClientVerifier::builder_with_provider(roots(ca), default_provider().into())
        .build()
        .unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A site with the thing `sensor-1` in the new group `cold`, and its certificate in `device/`.
fn enrolled() -> Site {
    let site = Site::init(&["--san", "gw.example", "--mqtt", "127.0.0.1:18883"]);
    let said = site.done(&[
        "thing", "add", "sensor-1", "--group", "cold", "--attr", "zone=b",
    ]);
    assert!(
        said.contains("Made the group `cold`.") && said.contains("It is in `devices`"),
        "{said}"
    );
    let out = site.path("device");
    let said = site.done(&["cert", "issue", "sensor-1", "--out", out.to_str().unwrap()]);
    let line = format!(
        "mosquitto_pub -h gw.example -p 18883 --cafile {0}/ca.pem --cert {0}/cert.pem \
         --key {0}/key.pem -i sensor-1 -q 1 -t dt/sensor-1/temp",
        out.display()
    );
    assert!(said.contains(&line), "{said}\n{line}");
    site
}

#[test]
fn an_issued_certificate_is_trusted_registered_and_fits_its_key() {
    let site = enrolled();
    assert_eq!(site.done(&["check"]), "ok\n");
    let der = certificate(&site.path("device/cert.pem"));
    client_verifier(&site.path("device/ca.pem"))
        .verify_client_cert(&der, &[], UnixTime::now())
        .unwrap();
    let other = Site::init(&[]);
    assert!(
        client_verifier(&other.path("pki/ca.pem"))
            .verify_client_cert(&der, &[], UnixTime::now())
            .is_err(),
        "another authority"
    );
    let key = PrivateKeyDer::from_pem_file(site.path("device/key.pem")).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    CertifiedKey::new(vec![der.clone()], key)
        .keys_match()
        .unwrap();

    let snapshot = config::load(&site.path("gateway.toml")).unwrap().snapshot;
    let id = CertificateId::of_der(&der);
    let client_id = ClientId::parse("sensor-1").unwrap();
    let source = Ipv4Addr::LOCALHOST.into();
    let authenticate = |id| {
        let certificate = Arc::new(Certificate::unseen(id));
        snapshot.authenticate(&Credential::certificate(&certificate), &client_id, source)
    };
    let principal = authenticate(id).unwrap();
    assert_eq!(principal.device(), "sensor-1");
    assert_eq!(principal.groups().len(), 2);
    let unlisted = authenticate(CertificateId::of_der(b"")).unwrap_err();
    assert_eq!(unlisted, Refusal::CertificateUnknown);

    let revoked = site.done(&["cert", "revoke", "sensor-1", "--reason", "lost"]);
    assert_eq!(revoked, format!("Revoked {id}.\n"));
    let snapshot = config::load(&site.path("gateway.toml")).unwrap().snapshot;
    let refusal = {
        let certificate = Arc::new(Certificate::unseen(id));
        snapshot.authenticate(&Credential::certificate(&certificate), &client_id, source)
    };
    assert_eq!(refusal.unwrap_err(), Refusal::CertificateRevoked);
    let listed = site.done(&["cert", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["status"], "REVOKED");
    assert_eq!(listed[0]["reason"], "lost");
}

#[test]
fn the_server_certificate_is_good_for_its_names_and_for_nothing_else() {
    let site = Site::init(&["--san", "gw.example", "--san", "192.0.2.7"]);
    let verifier = WebPkiServerVerifier::builder_with_provider(
        roots(&site.path("pki/ca.pem")),
        default_provider().into(),
    )
    .build()
    .unwrap();
    let der = certificate(&site.path("pki/server.pem"));
    let verify = |name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        verifier
            .verify_server_cert(&der, &[], &name, &[], UnixTime::now())
            .is_ok()
    };
    for name in ["gw.example", "192.0.2.7", "localhost", "127.0.0.1"] {
        assert!(verify(name), "{name}");
    }
    assert!(!verify("other.example"));
    let as_client = client_verifier(&site.path("pki/ca.pem"));
    assert!(
        as_client
            .verify_client_cert(&der, &[], UnixTime::now())
            .is_err(),
        "a server certificate is no client's"
    );
}

#[test]
fn private_keys_are_readable_by_their_owner_alone() {
    let site = enrolled();
    for key in ["pki/ca.key", "pki/server.key", "device/key.pem"] {
        assert_eq!(mode(&site.path(key)), 0o600, "{key}");
    }
    for public in [
        "pki/ca.pem",
        "device/cert.pem",
        "gateway.toml",
        "registry.toml",
    ] {
        assert_eq!(mode(&site.path(public)), 0o644, "{public}");
    }
    assert_eq!(mode(&site.path("pki")), 0o700);
}

#[test]
fn a_device_may_keep_its_key() {
    let site = enrolled();
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(vec!["evil.example".to_owned()])
        .unwrap()
        .serialize_request(&key)
        .unwrap();
    site.write("device.csr", &request.pem().unwrap());
    let (out, csr) = (site.path("own"), site.path("device.csr"));
    let arguments = ["cert", "issue", "sensor-1", "--out", out.to_str().unwrap()];
    site.done(&[&arguments[..], &["--csr", csr.to_str().unwrap()]].concat());
    assert!(!out.join("key.pem").exists());
    let der = certificate(&out.join("cert.pem"));
    client_verifier(&site.path("pki/ca.pem"))
        .verify_client_cert(&der, &[], UnixTime::now())
        .unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(parsed.subject().to_string(), "CN=sensor-1");
    assert!(parsed.subject_alternative_name().unwrap().is_none());
    let listed: serde_json::Value =
        serde_json::from_str(&site.done(&["cert", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

#[test]
fn init_never_overwrites() {
    let site = Site::init(&[]);
    let before = site.read("pki/ca.key");
    let dir = site.path("");
    let answer = crate::site::portcullis(&["init", dir.to_str().unwrap()]);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.stderr.contains("exists already"), "{answer:?}");
    assert_eq!(site.read("pki/ca.key"), before);
}

#[test]
fn the_policy_of_init_lets_a_device_do_its_own_and_nothing_else() {
    let site = enrolled();
    let test = |action: &str, topic: &str, client_id: &str| {
        let mut arguments = vec!["policy", "test", "--thing", "sensor-1", "--action", action];
        if !topic.is_empty() {
            arguments.extend(["--topic", topic]);
        }
        if !client_id.is_empty() {
            arguments.extend(["--client-id", client_id]);
        }
        site.run(&arguments)
    };
    for (action, topic, client_id, sid) in [
        ("connect", "", "", "ConnectAsItself"),
        ("connect", "", "sensor-1:backup", "ConnectAsItself"),
        ("publish", "dt/sensor-1/temp", "", "PublishItsOwnData"),
        (
            "retain-publish",
            "dt/sensor-1/temp",
            "",
            "PublishItsOwnData",
        ),
        (
            "publish",
            "$aws/things/sensor-1/defender/metrics/json",
            "",
            "PublishItsOwnData",
        ),
        ("subscribe", "cmd/sensor-1/#", "", "SubscribeToItsCommands"),
        ("receive", "cmd/sensor-1/reboot", "", "ReceiveItsCommands"),
    ] {
        let answer = test(action, topic, client_id);
        assert_eq!(answer.code, 0, "{action} {topic}: {answer:?}");
        assert!(answer.stdout.starts_with("ALLOWED: "), "{answer:?}");
        assert!(answer.stdout.contains(sid), "{answer:?}");
        assert!(answer.stdout.contains("policies/device.json"), "{answer:?}");
    }
    for (action, topic, client_id) in [
        ("connect", "", "sensor-2"),
        ("publish", "dt/sensor-2/temp", ""),
        ("publish", "cmd/sensor-1/x", ""),
        ("subscribe", "#", ""),
        ("subscribe", "cmd/+/x", ""),
        ("receive", "cmd/sensor-2/x", ""),
    ] {
        let answer = test(action, topic, client_id);
        assert_eq!(answer.code, 3, "{action} {topic}: {answer:?}");
        assert!(answer.stdout.starts_with("IMPLICIT_DENY: "), "{answer:?}");
    }
    assert_eq!(test("publish", "", "").code, 2, "no topic");
    assert_eq!(test("connect", "", "a+b").code, 2, "no client id");
}

#[test]
fn things_are_listed_shown_and_removed() {
    let site = enrolled();
    assert_eq!(site.done(&["thing", "list"]), "sensor-1  devices, cold\n");
    let shown = site.done(&["thing", "show", "sensor-1"]);
    assert!(
        shown.contains("zone = b")
            && shown.contains("devices  (registry.toml)")
            && shown.contains("cold  (registry.toml)"),
        "{shown}"
    );
    assert_eq!(site.run(&["thing", "show", "nobody"]).code, 2);
    assert_eq!(
        site.run(&["thing", "add", "sensor-1", "--group", "cold"])
            .code,
        2
    );
    assert_eq!(
        site.run(&["thing", "add", "a b", "--group", "cold"]).code,
        2
    );
    let removed = site.done(&["thing", "remove", "sensor-1", "--json"]);
    let removed: serde_json::Value = serde_json::from_str(&removed).unwrap();
    assert_eq!(removed["certificates"].as_array().unwrap().len(), 1);
    assert_eq!(site.done(&["thing", "list"]), "");
    assert_eq!(site.done(&["check"]), "ok\n");
}

#[test]
fn a_thing_says_where_its_groups_come_from_and_quarantine_is_one_of_them() {
    let site = enrolled();
    let dynamic = "\n[[dynamic-group]]\nname = \"zone-b\"\nquery = 'attributes.zone:b'\n\
                   [[dynamic-group]]\nname = \"zone-c\"\nquery = 'attributes.zone:c'\n\
                   [[dynamic-group]]\nname = \"online\"\nquery = 'connectivity.connected:true'\n";
    site.append("registry.toml", dynamic);
    let publish = [
        "policy",
        "test",
        "--thing",
        "sensor-1",
        "--action",
        "publish",
        "--topic",
        "dt/sensor-1/t",
    ];
    assert_eq!(site.run(&publish).code, 0);
    let said = site.done(&["thing", "quarantine", "sensor-1", "--reason", "stolen"]);
    assert_eq!(said, "Put the thing `sensor-1` into quarantine.\n");
    assert_eq!(site.run(&publish).code, 3);
    let connect = [
        "policy", "test", "--thing", "sensor-1", "--action", "connect",
    ];
    assert_eq!(site.run(&connect).code, 0);

    let shown = site.done(&["thing", "show", "sensor-1", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let groups = |member: &str| -> Vec<String> {
        let groups = shown[member].as_array().unwrap().iter();
        let text = |group: &serde_json::Value, key: &str| group[key].as_str().unwrap().to_owned();
        groups
            .map(|group| format!("{}: {}", text(group, "group"), text(group, "from")))
            .collect()
    };
    assert_eq!(
        groups("memberships"),
        [
            "devices: registry.toml",
            "quarantine: run time: stolen",
            "cold: registry.toml"
        ]
    );
    assert_eq!(
        groups("dynamicGroups"),
        [
            "zone-b: dynamic: attributes.zone:b",
            "online: dynamic: connectivity.connected:true"
        ]
    );
    assert_eq!(shown["certificates"][0]["statusFrom"], "registry.toml");
    let shown = site.done(&["thing", "show", "sensor-1"]);
    assert!(shown.contains("quarantine  (run time: stolen)"), "{shown}");
    assert!(
        shown.contains("connectivity.connected:true; undecided while the gateway is stopped"),
        "{shown}"
    );
    let line = shown.lines().find(|line| line.starts_with("quarantine "));
    assert!(
        line.is_some_and(|line| line.ends_with("Z: stolen")),
        "{shown}"
    );
    // Without a group that says what it may still do, it is in quarantine all the same.
    let registry = site.read("registry.toml");
    let group = "[[group]]\nname = \"quarantine\"\npolicies = [\"quarantine\"]\n";
    assert!(registry.contains(group), "{registry}");
    site.write("registry.toml", &registry.replace(group, ""));
    let shown = site.done(&["thing", "show", "sensor-1"]);
    assert!(
        shown.contains("Z: stolen; there is no group `quarantine`, so it may not even connect"),
        "{shown}"
    );
    site.write("registry.toml", &registry);

    site.done(&["thing", "quarantine", "sensor-1", "--release"]);
    assert_eq!(site.run(&publish).code, 0);
    assert_eq!(
        site.run(&["thing", "quarantine", "sensor-1", "--release"])
            .code,
        2
    );
    assert_eq!(site.run(&["thing", "quarantine", "nobody"]).code, 2);
    assert_eq!(site.done(&["check"]), "ok\n");
}

#[test]
fn a_removed_thing_that_is_added_again_does_not_get_its_certificate_back() {
    let site = enrolled();
    site.done(&["thing", "remove", "sensor-1"]);
    site.done(&["thing", "add", "sensor-1", "--group", "cold"]);
    let listed = site.done(&["cert", "list"]);
    assert!(
        listed.contains("REVOKED") && !listed.contains("ACTIVE"),
        "{listed}"
    );
    assert_eq!(site.done(&["check"]), "ok\n");
    let two = site.run(&[
        "thing", "add", "sensor-2", "--group", "cold", "--group", "cold",
    ]);
    assert_eq!(two.code, 0, "{two:?}");
    site.append(
        "registry.toml",
        "\n[[group]]\nname = \"below\"\nparent = \"cold\"\n",
    );
    let both = site.run(&[
        "thing", "add", "sensor-3", "--group", "cold", "--group", "below",
    ]);
    assert_eq!(both.code, 2);
    assert!(
        both.stderr.contains("both of the hierarchy of `cold`"),
        "{both:?}"
    );
}

#[test]
fn an_edit_says_which_mistakes_keep_a_running_gateway_from_taking_it() {
    let site = enrolled();
    site.replace("policies/device.json", "\"Sid\"", "\"Sidd\"");
    for arguments in [
        &["cert", "revoke", "sensor-1", "--json"][..],
        &["thing", "add", "sensor-2", "--group", "cold", "--json"],
        &["thing", "remove", "sensor-1", "--json"],
    ] {
        let answer = site.run(arguments);
        assert_eq!(answer.code, 0, "{answer:?}");
        let mut lines = answer.stderr.lines();
        let mistake = lines.next().unwrap();
        assert!(
            mistake.contains("device.json:") && mistake.contains("`Sidd`"),
            "{answer:?}"
        );
        assert_eq!(
            lines.next(),
            Some(
                "portcullis: recorded; a running gateway takes nothing new until these are corrected"
            )
        );
        serde_json::from_str::<serde_json::Value>(&answer.stdout).unwrap();
    }
    site.replace("policies/device.json", "\"Sidd\"", "\"Sid\"");
    let answer = site.run(&["thing", "remove", "sensor-2"]);
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
}

#[test]
fn a_certificate_never_overwrites_another_and_is_registered_once_it_is_written() {
    let site = enrolled();
    let count = || {
        let listed = site.done(&["cert", "list"]);
        listed.lines().count()
    };
    let issue = |thing: &str, dir: &str, more: &[&str]| {
        let out = site.path(dir);
        let arguments = ["cert", "issue", thing, "--out", out.to_str().unwrap()];
        site.run(&[&arguments[..], more].concat())
    };
    let key = site.read("device/key.pem");
    let refused = issue("sensor-1", "device", &[]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("cert.pem` exists already; name another directory"),
        "{refused:?}"
    );
    fs::remove_file(site.path("device/cert.pem")).unwrap();
    let refused = issue("sensor-1", "device", &[]);
    assert!(
        refused.code == 2 && refused.stderr.contains("key.pem` exists"),
        "{refused:?}"
    );
    assert_eq!((site.read("device/key.pem"), count()), (key, 1));

    // Where nothing can be written, nothing is registered.
    site.write("file", "");
    assert_eq!(issue("sensor-1", "file/device", &[]).code, 1);
    assert_eq!(issue("nobody", "nobody", &[]).code, 2);
    assert!(!site.path("nobody").exists());
    assert_eq!(count(), 1);

    // A device that keeps its key may keep it there.
    let own = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&own)
        .unwrap();
    site.write("own.csr", &request.pem().unwrap());
    let csr = site.path("own.csr");
    let answer = issue("sensor-1", "device", &["--csr", csr.to_str().unwrap()]);
    assert_eq!((answer.code, count()), (0, 2), "{answer:?}");
}

#[test]
fn a_policy_test_knows_topics_and_revoked_certificates() {
    let site = enrolled();
    let test = |action: &str, topic: &str, more: &[&str]| {
        let arguments = ["policy", "test", "--thing", "sensor-1", "--action", action];
        site.run(&[&arguments[..], &["--topic", topic], more].concat())
    };
    for (action, topic, kind) in [
        ("publish", "dt/sensor-1/#", "no topic:"),
        ("receive", "cmd/sensor-1/+", "no topic:"),
        ("retain-publish", "", "no topic:"),
        ("subscribe", "cmd/sensor-1/#/x", "no topic filter:"),
    ] {
        let answer = test(action, topic, &[]);
        assert_eq!(answer.code, 2, "{action} {topic}: {answer:?}");
        assert!(
            answer.stderr.contains(kind) && answer.stderr.contains("correct `--topic`"),
            "{answer:?}"
        );
    }
    assert_eq!(test("publish", "dt/sensor-1/x", &[]).code, 0);
    site.done(&["cert", "revoke", "sensor-1"]);
    let answer = test("publish", "dt/sensor-1/x", &[]);
    assert_eq!(answer.code, 3, "{answer:?}");
    assert!(
        answer
            .stdout
            .contains("no certificate of `sensor-1` is active"),
        "{answer:?}"
    );
    let answer = test("publish", "dt/sensor-1/x", &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(
        (answer.code, json["authDecision"].as_str()),
        (3, Some("IMPLICIT_DENY"))
    );
}
