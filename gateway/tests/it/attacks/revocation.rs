//! What a revoked client does to stay a little longer.

use std::sync::Arc;

use crate::{
    device::{Device, client_config},
    served::{Served, eventually},
    wire::{Hello, Wire, framed, text},
};

const EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#;
const DELIVERIES: &str = "portcullis_broker_deliveries_total";
const DISCONNECTED: &str = "portcullis_broker_disconnected_total";

#[test]
fn a_revoked_client_that_does_not_read_gets_nothing_more_and_leaves_no_will() {
    const RETAINED: usize = 100;
    let mut served = Served::new();
    served.site.write("policies/device.json", EVERYTHING);
    let own = served.enrol("sensor-1", "cold-chain");
    let speaking = served.enrol("speaker", "cold-chain");
    served.start();
    let mut speaker = Device::tls(served.mqtt, "speaker", &speaking);
    let payload = "x".repeat(120_000);
    for n in 0..RETAINED {
        speaker.publish_retained(&format!("ret/{n}"), &payload);
    }
    let config = Arc::new(client_config(&own));
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    let hello = Hello {
        will: Some(("dt/sensor-1/gone", false)),
        ..Hello::v4("sensor-1")
    };
    assert_eq!(wire.connect(&hello), Some(0));
    let mut subscribe = vec![0, 1];
    subscribe.extend(text("ret/#"));
    subscribe.push(0);
    wire.send(&framed(0x82, &subscribe)).unwrap();
    let delivered = || served.metric(DELIVERIES, &[]);
    let mut last = (0.0, std::time::Instant::now());
    eventually("the socket is full", || {
        let now = delivered();
        if now > last.0 {
            last = (now, std::time::Instant::now());
        }
        last.0 > 0.0 && last.1.elapsed().as_millis() > 500
    });
    assert!(last.0 < RETAINED as f64, "everything fits into the socket");

    served.site.done(&["cert", "revoke", "sensor-1"]);
    // Not because it does not read, which would take its time.
    eventually("it is shut out", || {
        served.metric(DISCONNECTED, &["\"shut-out\""]) == 1.0
    });
    assert_eq!(served.metric(DISCONNECTED, &["\"not-reading\""]), 0.0);
    assert_eq!(delivered(), last.0, "it is sent more");
    eventually("the end is told", || {
        served.lifecycle().iter().any(|event| {
            event["thing"] == "sensor-1"
                && event["payload"]["disconnectReason"] == "FORBIDDEN_ACCESS"
        })
    });
    speaker.publish("dt/speaker/after", "1");
    eventually("what came later is in the outbox", || {
        let outbox = served.outbox();
        outbox
            .iter()
            .any(|event| event["topic"] == "dt/speaker/after")
    });
    let outbox = served.outbox();
    assert!(
        outbox
            .iter()
            .all(|event| event["topic"] != "dt/sensor-1/gone")
    );
}
