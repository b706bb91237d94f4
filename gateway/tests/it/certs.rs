//! `portcullis cert` from outside, and what `check` says of templates.

use std::process::Command;

use serde_json::Value;

use crate::site::Site;

const TEMPLATE: &str = r#"{
  "Parameters": {"Serial": {"Type": "String"}},
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Serial"}}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {}},
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}}
  }
}"#;

fn site() -> Site {
    let site = Site::init(&[]);
    site.done(&["thing", "add", "sensor-1", "--group", "cold"]);
    site
}

fn json(site: &Site, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    serde_json::from_str(&site.done(&all)).unwrap()
}

#[test]
fn a_certificate_lives_from_issue_to_revocation() {
    let site = site();
    let out = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let issued = json(
        &site,
        &[
            "cert",
            "issue",
            "sensor-1",
            "--out",
            &out("a"),
            "--org",
            "Acme",
        ],
    );
    let first = issued["certificateId"].as_str().unwrap();
    let renewed = json(
        &site,
        &[
            "cert",
            "renew",
            "sensor-1",
            "--out",
            &out("b"),
            "--overlap",
            "3",
        ],
    );
    let second = renewed["certificateId"].as_str().unwrap();
    assert_eq!(renewed["ending"][0]["certificateId"], first);
    let shown = json(&site, &["cert", "show", first]);
    assert_eq!(shown["until"], renewed["ending"][0]["until"]);
    assert_eq!(shown["certificate"]["commonNames"][0], "sensor-1");
    assert_eq!(shown["origin"], "registry.toml");
    assert!(site.done(&["cert", "show", first]).contains("sensor-1"));
    assert_eq!(site.done(&["check"]), "ok\n");

    let status = |id: &str| json(&site, &["cert", "show", id])["status"].clone();
    site.done(&["cert", "deactivate", second, "--reason", "service"]);
    assert_eq!(status(second), "INACTIVE");
    site.done(&["cert", "activate", second]);
    assert_eq!(status(second), "ACTIVE");
    let revoked = json(&site, &["cert", "revoke", "sensor-1", "--reason", "stolen"]);
    assert_eq!(revoked["revoked"].as_array().unwrap().len(), 2);
    assert_eq!(status(second), "REVOKED");
    for (arguments, message) in [
        (["cert", "activate", second], "revoked for good"),
        (["cert", "approve", second], "does not wait for approval"),
        (["cert", "import", "/nowhere"], "there is no file"),
        (["cert", "approve", "12"], "is no certificate id"),
        (
            ["cert", "show", &"0".repeat(64)],
            "neither registry nor journal",
        ),
        (
            ["cert", "import", "/dev/null"],
            "neither a certificate nor a revocation list",
        ),
        (["cert", "revoke", "nobody"], "has no certificate `nobody`"),
    ] {
        let answer = site.run(&arguments);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains(message), "{answer:?}");
    }
    let out = site.path("none").to_str().unwrap().to_owned();
    let answer = site.run(&[
        "cert", "issue", "sensor-1", "--csr", "/nowhere", "--out", &out,
    ]);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.stderr.contains("there is no file"), "{answer:?}");
    let listed = json(&site, &["cert", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    // A key with which the CA could not sign.
    let key = site.read("pki/ca.key");
    site.write("pki/ca.key", "nothing");
    let answer = site.run(&["check"]);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.stderr.contains("the CA cannot sign"), "{answer:?}");
    site.write("pki/ca.key", &key);
    assert_eq!(site.done(&["check"]), "ok\n");
}

/// A CA, a certificate and a list that this project's libraries had no hand in.
#[test]
fn what_openssl_made_is_imported() {
    let site = site();
    let dir = site.path("openssl");
    std::fs::create_dir(&dir).unwrap();
    let script = r#"set -e
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj "/O=Acme, Inc./CN=Factory" -days 30 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout d.key -out d.csr -subj "/CN=sensor-1" 2>/dev/null
printf 'keyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n' > ext
openssl x509 -req -in d.csr -CA ca.pem -CAkey ca.key -set_serial 0x1234 -days 9 -extfile ext -out d.pem 2>/dev/null
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=9\n' > ca.cnf
: > index; echo 01 > number
openssl ca -config ca.cnf -cert ca.pem -keyfile ca.key -revoke d.pem 2>/dev/null
openssl ca -config ca.cnf -cert ca.pem -keyfile ca.key -gencrl -out list.pem 2>/dev/null"#;
    let Ok(made) = Command::new("sh")
        .args(["-c", script])
        .current_dir(&dir)
        .status()
    else {
        return;
    };
    if !made.success() && Command::new("openssl").arg("version").output().is_err() {
        // The same with certificates of rcgen is tested in the library.
        println!("no openssl on this machine");
        return;
    }
    assert!(made.success());
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let early = site.run(&["cert", "import", &file("d.pem")]);
    assert_eq!(early.code, 2, "{early:?}");
    assert_eq!(
        json(&site, &["cert", "import", &file("ca.pem")])["kind"],
        "ca"
    );
    let imported = json(&site, &["cert", "import", &file("d.pem")]);
    assert_eq!(imported["thingName"], "sensor-1");
    let list = json(&site, &["cert", "import", &file("list.pem")]);
    assert_eq!(
        (&list["kind"], &list["entries"]),
        (&"crl".into(), &1.into())
    );
    assert_eq!(site.done(&["check"]), "ok\n");
    // A list of which one bit is another.
    let text = std::fs::read_to_string(dir.join("list.pem")).unwrap();
    let at = text.len() / 2;
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    std::fs::write(
        dir.join("list.pem"),
        format!("{}{other}{}", &text[..at], &text[at + 1..]),
    )
    .unwrap();
    let answer = site.run(&["cert", "import", &file("list.pem")]);
    assert_eq!(answer.code, 2, "{answer:?}");
}

#[test]
fn check_finds_the_mistakes_of_templates_and_of_who_uses_them() {
    let site = site();
    std::fs::create_dir_all(site.path("templates")).unwrap();
    site.write("templates/fleet.json", TEMPLATE);
    let claim = format!(
        "\n[[certificate]]\nid = \"{}\"\nclaim = \"fleet\"\n",
        "0".repeat(64)
    );
    site.append("registry.toml", &claim);
    assert_eq!(site.done(&["check"]), "ok\n");
    for (from, to, message) in [
        (
            "\"device\"",
            "\"devise\"",
            "templates/fleet.json:6:73: the policy `devise` does not exist; write `device`",
        ),
        (
            "{\"Ref\": \"Serial\"}",
            "{\"Ref\": \"Serail\"}",
            "the parameter `Serail` is not declared; write `Serial`",
        ),
        (
            "\"Serial\": {",
            "\"AWS::IoT::Certificate::Country\": {\"Type\": \"String\"}, \"Serial\": {",
            "a certificate that is made for a claim has no value for",
        ),
    ] {
        assert!(TEMPLATE.contains(from));
        site.write("templates/fleet.json", &TEMPLATE.replace(from, to));
        let answer = site.run(&["check"]);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains(message), "{answer:?}");
    }
    std::fs::remove_file(site.path("templates/fleet.json")).unwrap();
    let answer = site.run(&["check"]);
    assert!(
        answer
            .stderr
            .contains("the provisioning template `fleet` does not exist; create"),
        "{answer:?}"
    );
}
