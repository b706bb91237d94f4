//! Clients never speak on the gateway's own topics, whatever their policy says.

use serde_json::Value;

use crate::{
    device::Device,
    served::{Served, eventually},
};

const EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#;

#[test]
fn nobody_can_forge_what_the_gateway_says() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.write("policies/device.json", EVERYTHING);
    served.start();
    let forged = [
        "$aws/events/presence/connected/sensor-2",
        "$SYS/broker/version",
        "$aws/provisioning-templates/t/provision/json/accepted",
        "$aws/things/sensor-1/shadow/update/rejected",
    ];
    for topic in forged {
        let mut device = Device::tls(served.mqtt, "sensor-1", &own);
        assert!(device.is_refused(topic), "{topic}");
    }
    let labels = ["action=\"publish\"", "reserved"];
    let denied = served.metric("portcullis_broker_denied_total", &labels);
    assert_eq!(denied, forged.len() as f64);
    let line = |parts: &[&str]| {
        let log = served.log();
        log.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(line(&[
        "reason=\"reserved\"",
        "resource=\"$SYS/broker/version\""
    ]));

    // Nor by a will.
    assert!(Device::is_refused_with_will(
        served.mqtt,
        "sensor-1",
        &own,
        forged[0]
    ));
    eventually("the refusal is counted", || {
        served.metric("portcullis_broker_refused_total", &["will-reserved"]) == 1.0
    });
    assert!(line(&["CONNECT refused.", "will-reserved", forged[0]]));
    let told: Vec<Value> = served.lifecycle();
    assert!(
        told.iter()
            .all(|event| event["topic"] != "$aws/events/presence/connected/sensor-2")
    );
}
