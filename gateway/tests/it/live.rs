//! Changes reach live connections at once.

use rumqttc::Packet;

use crate::{
    device::Device,
    served::{Served, eventually},
};

#[test]
fn a_revoked_certificate_is_shut_out_at_once_and_leaves_no_will() {
    let mut served = Served::new();
    let revoked = served.enrol("sensor-1", "cold-chain");
    let other = served.enrol("sensor-2", "cold-chain");
    served.start();
    let mut shut_out = Device::tls_with_will(served.mqtt, "sensor-1", &revoked, "dt/sensor-1/gone");
    let mut stays = Device::tls(served.mqtt, "sensor-2", &other);
    shut_out.publish("dt/sensor-1/t", "1");

    served.site.done(&["cert", "revoke", "sensor-1"]);
    assert!(shut_out.closes(), "the revoked device keeps its connection");
    eventually("the reason is counted", || {
        served.metric("portcullis_broker_disconnected_total", &["shut-out"]) == 1.0
    });
    // The same connection as before: nothing was reconnected.
    stays.publish("dt/sensor-2/t", "2");
    assert_eq!(served.metric("portcullis_broker_connected_total", &[]), 2.0);
    eventually("what was sent is in the outbox", || {
        served.outbox().len() == 2
    });
    assert!(
        served
            .outbox()
            .iter()
            .all(|event| event["topic"] != "dt/sensor-1/gone")
    );
    served.stop();
}

#[test]
fn a_policy_that_takes_a_right_away_holds_for_the_next_packet() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    let generation = || served.metric("portcullis_identity_generation", &[]);
    let before = generation();
    served
        .site
        .replace("policies/device.json", "topic/dt/", "topic/elsewhere/");
    eventually("the policy is in force", || generation() > before);
    assert!(
        device.is_refused("dt/sensor-1/t"),
        "a publish that is not allowed any more went through"
    );
    assert_eq!(served.outbox().len(), 1);
}

#[test]
fn the_newcomer_with_a_client_id_wins_and_the_will_of_the_former_comes_first() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut former = Device::tls_with_will(served.mqtt, "sensor-1", &own, "dt/sensor-1/gone");
    let mut newcomer = Device::tls(served.mqtt, "sensor-1", &own);
    newcomer.publish("dt/sensor-1/here", "1");
    assert!(former.closes());
    eventually("both are in the outbox", || served.outbox().len() == 2);
    let topics: Vec<_> = served
        .outbox()
        .iter()
        .map(|event| event["topic"].clone())
        .collect();
    assert_eq!(topics, ["dt/sensor-1/gone", "dt/sensor-1/here"]);
}

#[test]
fn a_topic_that_the_router_cannot_slice_harms_nobody() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.replace(
        "policies/device.json",
        "topic/dt/${iot:Connection.Thing.ThingName}/*",
        "topic/*",
    );
    served.start();
    let mut listener = Device::tls(served.mqtt, "sensor-1:listener", &own);
    listener.subscribe("dt/sensor-1/#");
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("é/x", "1");
    device.publish("dt/sensor-1/t", "2");
    listener.wait(|packet| matches!(packet, Packet::Publish(got) if got.topic == "dt/sensor-1/t"));
    // The bus lives, so the stop is an ordered one.
    served.stop();
}
