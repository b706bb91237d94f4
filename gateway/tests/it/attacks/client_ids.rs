//! Client ids that mean something else, and client ids of others.

use std::sync::Arc;

use super::{DENIED, REFUSED, is_named_and_counted};
use crate::{
    device::{Device, client_config},
    served::Served,
    wire::{Hello, Wire},
};

#[test]
fn a_client_id_that_looks_like_a_pattern_or_a_variable_is_refused() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    // Whatever the policy says.
    served.site.write(
        "policies/device.json",
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#,
    );
    served.start();
    let config = Arc::new(client_config(&own));
    let ids = [
        "+",
        "#",
        "*",
        "?",
        "${iot:ClientId}",
        "a/b",
        "sensor-1\n",
        "$share",
    ];
    for id in ids {
        let mut wire = Wire::open(served.mqtt, &config, "localhost");
        assert_eq!(wire.connect(&Hello::v4(id)), Some(2), "{id:?}");
        let mut wire = Wire::open(served.mqtt, &config, "localhost");
        assert_eq!(wire.connect(&Hello::v5(id)), Some(0x85), "{id:?}");
        assert!(wire.closes());
    }
    let count = f64::from(u16::try_from(ids.len() * 2).unwrap());
    is_named_and_counted(&served, REFUSED, "client-id", count, &["127.0.0.1"]);
    assert!(served.log().contains("${iot:ClientId}"));
    assert_eq!(served.metric("portcullis_broker_connected_total", &[]), 0.0);
}

#[test]
fn the_client_id_of_another_thing_is_denied_and_the_other_stays() {
    let mut served = Served::new();
    let victim = served.enrol("sensor-1", "cold-chain");
    let thief = served.enrol("sensor-2", "cold-chain");
    served.start();
    let mut stays = Device::tls(served.mqtt, "sensor-1", &victim);
    let config = Arc::new(client_config(&thief));
    for (hello, code) in [(Hello::v4("sensor-1"), 5), (Hello::v5("sensor-1"), 0x87)] {
        let mut wire = Wire::open(served.mqtt, &config, "localhost");
        assert_eq!(wire.connect(&hello), Some(code));
    }
    is_named_and_counted(&served, REFUSED, "policy", 2.0, &["sensor-1", "sensor-2"]);
    assert_eq!(served.metric(DENIED, &["connect", "implicit-deny"]), 2.0);
    stays.publish("dt/sensor-1/t", "1");
    assert_eq!(served.metric("portcullis_broker_connected_total", &[]), 1.0);
}

#[test]
fn a_random_client_id_does_not_escape_what_its_group_is_denied() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.write(
        "policies/device.json",
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#,
    );
    served.site.write(
        "policies/sealed.json",
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/sealed/*"}}"#,
    );
    served.site.append(
        "registry.toml",
        "\n[[group]]\nname = \"sealed\"\npolicies = [\"sealed\"]\n",
    );
    served.site.replace_last(
        "registry.toml",
        "\"cold-chain\"]",
        "\"cold-chain\", \"sealed\"]",
    );
    served.start();
    for id in ["sensor-1", "x7f3a-random"] {
        let mut device = Device::tls(served.mqtt, id, &own);
        device.publish("open/t", "1");
        assert!(device.is_refused("sealed/t"), "{id}");
    }
    is_named_and_counted(
        &served,
        DENIED,
        "explicit-deny",
        2.0,
        &["x7f3a-random", "sensor-1", "sealed"],
    );
}

#[test]
fn a_certificate_of_several_things_is_nobody_under_any_other_name() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served
        .site
        .done(&["thing", "add", "sensor-2", "--group", "cold-chain"]);
    served.site.replace_last(
        "registry.toml",
        "thing = \"sensor-1\"",
        "things = [\"sensor-1\", \"sensor-2\"]",
    );
    served.start();
    for id in ["sensor-1", "sensor-2"] {
        let mut device = Device::tls(served.mqtt, id, &own);
        device.publish(&format!("dt/{id}/t"), "1");
    }
    let config = Arc::new(client_config(&own));
    let mut wire = Wire::open(served.mqtt, &config, "localhost");
    assert_eq!(wire.connect(&Hello::v5("x7f3a-random")), Some(0x87));
    is_named_and_counted(&served, REFUSED, "not-attached", 1.0, &["x7f3a-random"]);
}
