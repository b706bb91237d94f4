//! The demo as a customer runs it, with the binary as it is built for tests.

use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> (Output, Value) {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("demo")
        .args(args)
        // The demo keeps its directory; the test does not.
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, document)
}

#[test]
fn every_attack_raises_its_alert_and_no_normal_thing_does() {
    let (output, document) = demo(&["--for", "8", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}\n{document:#}");
    assert_eq!(document["passed"], true, "{document:#}");
    assert_eq!(document["false_alerts"], serde_json::json!([]));
    let attacks = document["attacks"].as_array().unwrap();
    let names: Vec<_> = attacks
        .iter()
        .map(|a| a["attack"].as_str().unwrap())
        .collect();
    let expected = [
        "flood",
        "foreign-topic",
        "out-of-range",
        "stolen-certificate",
    ];
    assert_eq!(names, expected);
    for attack in attacks {
        assert_eq!(attack["detected"], true, "{document:#}");
        println!("{}: {} ms", attack["attack"], attack["detect_ms"]);
    }
}

#[test]
fn a_port_that_is_taken_ends_the_demo_with_the_gateways_words() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let (output, _) = demo(&["--for", "8", "--listen", &listen]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&listen), "{said}");
}
