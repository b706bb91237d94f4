//! `$SYS/broker/…`: who may have it has the present figures at once, and the next ones as they come.

use std::collections::BTreeMap;

use crate::{
    device::Device,
    served::{Credentials, Served},
};

const EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#;

/// A started site with `sensor-1`, which may do everything; the figures are told so often.
fn served(interval_ms: u32) -> (Served, Credentials) {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.write("policies/device.json", EVERYTHING);
    served.site.replace(
        "gateway.toml",
        "sys-interval-ms = 10000",
        &format!("sys-interval-ms = {interval_ms}"),
    );
    served.start();
    (served, own)
}

#[test]
fn a_new_subscriber_has_the_present_figures_at_once() {
    let (mut served, own) = served(86_400_000);
    for _ in 0..2 {
        let mut device = Device::tls(served.mqtt, "sensor-1", &own);
        device.subscribe("$SYS/#");
        let mut figures = BTreeMap::new();
        while figures.len() < 19 {
            let got = device.receive();
            assert!(got.retain, "{}", got.topic);
            let text = String::from_utf8(got.payload.to_vec()).unwrap();
            figures.insert(got.topic, text);
        }
        assert!(figures["$SYS/broker/version"].starts_with("portcullis version "));
        assert_eq!(figures["$SYS/broker/clients/connected"], "0");
        assert_eq!(figures["$SYS/broker/retained messages/count"], "0");
        // One figure alone.
        device.unsubscribe("$SYS/#");
        device.subscribe("$SYS/broker/+");
        let topics = [device.next_message().0, device.next_message().0];
        assert_eq!(topics, ["$SYS/broker/uptime", "$SYS/broker/version"]);
        device.disconnect();
    }
    // They are no retained messages, and `#` does not take them.
    assert_eq!(served.metric("portcullis_broker_retained", &[]), 0.0);
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.subscribe("#");
    device.send("dt/sensor-1/t", "1");
    assert!(device.next_message().0.starts_with("dt/"));
    served.stop();
}

#[test]
fn the_figures_are_told_again_and_count_what_happens() {
    let (mut served, own) = served(200);
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.subscribe("$SYS/broker/#");
    let mut wait_for = |topic: &str, wanted: &dyn Fn(u64) -> bool| {
        let topic = format!("$SYS/broker/{topic}");
        loop {
            let (got, figure) = device.next_message();
            if got == topic && figure.parse().is_ok_and(wanted) {
                return figure.parse::<u64>().unwrap();
            }
        }
    };
    wait_for("clients/connected", &|count| count == 1);
    wait_for("subscriptions/count", &|count| count == 1);
    // CONNECT and SUBSCRIBE, and more than their bytes.
    wait_for("messages/received", &|count| count >= 2);
    let received = wait_for("bytes/received", &|bytes| bytes > 20);
    wait_for("messages/sent", &|count| count > 10);
    wait_for("bytes/sent", &|bytes| bytes > 500);
    let mut other = Device::tls(served.mqtt, "sensor-1:2", &own);
    other.publish_retained("dt/sensor-1/t", &"x".repeat(1000));
    wait_for("retained messages/count", &|count| count == 1);
    wait_for("publish/bytes/received", &|bytes| bytes == 1000);
    wait_for("publish/messages/received", &|count| count == 1);
    wait_for("bytes/received", &|bytes| bytes > received + 1000);
    wait_for("clients/maximum", &|count| count == 2);
    served.stop();
}

#[test]
fn who_has_no_policy_for_it_has_none_of_it() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    assert!(!device.may_subscribe("$SYS/#"));
    assert!(!device.may_subscribe("$SYS/broker/uptime"));
    served.stop();
}
