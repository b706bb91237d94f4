//! Ways around what a topic's policy says.

use std::sync::Arc;

use super::{DENIED, REFUSED, is_named_and_counted};
use crate::{
    device::{Device, client_config},
    served::{Served, eventually},
    wire::{Hello, Wire, framed, text},
};

/// A site whose one policy is this.
fn site(statements: &str) -> Served {
    let served = Served::new();
    served.site.write(
        "policies/device.json",
        &format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#),
    );
    served
}

const ALLOW_ALL: &str = r#"{"Effect":"Allow","Action":"iot:*","Resource":"*"}"#;

#[test]
fn a_wide_subscription_around_a_denied_subtree_receives_nothing_of_it() {
    let mut served = site(&format!(
        r#"{ALLOW_ALL},
        {{"Effect":"Deny","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/a/restricted/*",
          "Condition":{{"StringEquals":{{"iot:ClientId":"listener"}}}}}},
        {{"Effect":"Deny","Action":"iot:Receive","Resource":"arn:aws:iot:*:*:topic/a/restricted/*",
          "Condition":{{"StringEquals":{{"iot:ClientId":"listener"}}}}}}"#
    ));
    let listener = served.enrol("listener", "apps");
    let speaker = served.enrol("speaker", "apps");
    served.start();
    let mut speaker = Device::tls(served.mqtt, "speaker", &speaker);
    speaker.publish_retained("a/restricted/kept", "poison");
    let mut listener = Device::tls(served.mqtt, "listener", &listener);
    listener.subscribe("a/#");
    speaker.publish("a/restricted/now", "poison");
    speaker.publish("a/open", "good");
    let first = listener.next_message();
    assert_eq!(first, ("a/open".to_owned(), "good".to_owned()));
    // The retained one, and the one that was sent live.
    eventually("both are counted", || {
        served.metric(
            "portcullis_broker_delivery_dropped_total",
            &["reason=\"not-authorized\""],
        ) == 2.0
    });
    assert!(!listener.may_subscribe("a/restricted/#"));
    // Two deliveries and the subscription.
    is_named_and_counted(
        &served,
        DENIED,
        "explicit-deny",
        3.0,
        &["listener", "a/restricted/#"],
    );
}

#[test]
fn a_will_on_a_forbidden_topic_is_refused_with_its_connect() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    let victim = served.enrol("sensor-2", "cold-chain");
    served.start();
    let mut victim = Device::tls(served.mqtt, "sensor-2", &victim);
    victim.subscribe("cmd/sensor-2/#");
    let config = Arc::new(client_config(&own));
    for (version, code) in [(4, 5), (5, 0x87)] {
        for retain in [false, true] {
            let mut wire = Wire::open(served.mqtt, &config, "localhost");
            let hello = Hello {
                version,
                will: Some(("cmd/sensor-2/open", retain)),
                ..Hello::v4("sensor-1")
            };
            assert_eq!(wire.connect(&hello), Some(code));
        }
    }
    is_named_and_counted(&served, REFUSED, "will-policy", 4.0, &["cmd/sensor-2/open"]);
    // An allowed will of the same thing goes out, so a forbidden one would have, too.
    let mut dies = Device::tls_with_will(served.mqtt, "sensor-1", &own, "dt/sensor-1/gone");
    dies.publish("dt/sensor-1/t", "1");
    drop(dies);
    eventually("the allowed will is in the outbox", || {
        let outbox = served.outbox();
        assert!(
            outbox
                .iter()
                .all(|event| event["topic"] != "cmd/sensor-2/open")
        );
        outbox
            .iter()
            .any(|event| event["topic"] == "dt/sensor-1/gone")
    });
}

#[test]
fn a_message_is_not_retained_without_leave_to_retain() {
    let mut served = site(&format!(
        r#"{ALLOW_ALL},{{"Effect":"Deny","Action":"iot:RetainPublish","Resource":"arn:aws:iot:*:*:topic/cmd/*"}}"#
    ));
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut poisoner = Device::tls(served.mqtt, "poisoner", &own);
    assert!(poisoner.is_refused_retained("cmd/all/open"));
    is_named_and_counted(
        &served,
        DENIED,
        "explicit-deny",
        1.0,
        &["poisoner", "sensor-1", "cmd/all/open", "retain-publish"],
    );
    let mut late = Device::tls(served.mqtt, "late", &own);
    late.subscribe("cmd/#");
    Device::tls(served.mqtt, "speaker", &own).publish("cmd/all/live", "good");
    assert_eq!(late.next_message().0, "cmd/all/live");
}

#[test]
fn nobody_but_the_gateway_speaks_on_its_topics() {
    let mut served = site(ALLOW_ALL);
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut listener = Device::tls(served.mqtt, "listener", &own);
    listener.subscribe("$aws/events/#");
    for topic in [
        "$aws/events/presence/connected/sensor-9",
        "$aws/certificates/create/json/accepted",
        "$SYS/broker/version",
    ] {
        let mut forger = Device::tls(served.mqtt, "forger", &own);
        assert!(forger.is_refused(topic), "{topic}");
    }
    is_named_and_counted(&served, DENIED, "reserved", 3.0, &["forger", "sensor-1"]);
    let forged = listener.messages_until("$aws/events/presence/disconnected/forger");
    assert!(forged.iter().all(|(topic, _)| !topic.ends_with("sensor-9")));
}

#[test]
fn a_will_never_asks_a_service() {
    let mut served = site(ALLOW_ALL);
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let config = Arc::new(client_config(&own));
    let topics = [
        "$aws/certificates/create/json",
        "$aws/certificates/create-from-csr/json",
        "$aws/provisioning-templates/t/provision/json",
    ];
    for topic in topics {
        for (version, code) in [(4, 5), (5, 0x87)] {
            let mut wire = Wire::open(served.mqtt, &config, "localhost");
            let hello = Hello {
                version,
                will: Some((topic, true)),
                ..Hello::v4("sensor-1")
            };
            assert_eq!(wire.connect(&hello), Some(code), "{topic}");
        }
    }
    is_named_and_counted(&served, REFUSED, "will-reserved", 6.0, &[topics[0]]);
    assert_eq!(served.metric("portcullis_broker_connected_total", &[]), 0.0);
}

#[test]
fn a_topic_that_is_no_topic_ends_the_connection() {
    let mut served = site(ALLOW_ALL);
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let config = Arc::new(client_config(&own));
    for topic in ["a/+/b", "#", "", "a\0b", "x/${iot:ClientId}/#"] {
        let mut wire = Wire::open(served.mqtt, &config, "localhost");
        assert_eq!(wire.connect(&Hello::v4("sensor-1")), Some(0));
        let mut body = text(topic);
        body.extend(b"payload");
        wire.send(&framed(0x30, &body)).unwrap();
        assert!(wire.closes(), "{topic:?}");
    }
    let mut after = Device::tls(served.mqtt, "sensor-1", &own);
    after.publish("dt/sensor-1/t", "1");
    eventually("only the good one is in the outbox", || {
        served
            .outbox()
            .iter()
            .filter(|event| event["topic"] == "dt/sensor-1/t")
            .count()
            == 1
    });
}

#[test]
fn a_client_that_makes_up_topics_costs_nobody_his_subscription() {
    // More than the router of the local bus may keep a trace of.
    const TOPICS: u32 = 70_000;
    let mut served = site(ALLOW_ALL);
    let listener = served.enrol("listener", "apps");
    let inventor = served.enrol("inventor", "apps");
    served.start();
    let mut listener = Device::tls(served.mqtt, "listener", &listener);
    for filter in ["made-up/#", "calm/+"] {
        listener.subscribe_loosely(filter);
    }
    let config = Arc::new(client_config(&inventor));
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(wire.connect(&Hello::v4("inventor")), Some(0));
    let inventing = std::thread::spawn(move || {
        for n in 0..TOPICS {
            wire.send(&framed(0x30, &text(&format!("made-up/{n}"))))
                .unwrap();
        }
        wire.send(&framed(0x30, &text("calm/down"))).unwrap();
        wire
    });
    while listener.receive().topic != "calm/down" {}
    let mut inventor = inventing.join().unwrap();
    // The router, which keeps something of every topic, has not seen them.
    let rebuilds = served.metric("portcullis_bus_rebuilds_total", &[]);
    assert_eq!(rebuilds, 0.0);
    inventor.send(&framed(0x30, &text("calm/again"))).unwrap();
    while listener.receive().topic != "calm/again" {}
    assert!(!served.log().contains("panicked"));
}
