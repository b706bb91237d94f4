//! What becomes of connections is told to those who may know, and to the stream.

use serde_json::Value;

use crate::{
    device::Device,
    served::{Served, eventually},
};

/// For those who watch: presence, not subscriptions.
const WATCHING: &str = r#"{"Version":"2012-10-17","Statement":[
  {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/$aws/events/*"},
  {"Effect":"Allow","Action":"iot:Receive","Resource":"arn:aws:iot:*:*:topic/$aws/events/presence/*"}]}"#;

fn told(watcher: &mut Device) -> (String, Value) {
    let message = watcher.receive();
    let payload = serde_json::from_slice(&message.payload).unwrap();
    (message.topic, payload)
}

#[test]
fn a_watcher_is_told_who_comes_and_goes_and_why() {
    let mut served = Served::new();
    served.site.write("policies/watching.json", WATCHING);
    let devices = "policies = [\"device\"]";
    let with_watching = "policies = [\"device\", \"watching\"]";
    served.site.replace("registry.toml", devices, with_watching);
    let watching = served.enrol("watcher", "watchers");
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut watcher = Device::tls(served.mqtt, "watcher", &watching);
    watcher.subscribe("$aws/events/#");

    let device = Device::tls(served.mqtt, "sensor-1", &own);
    let (topic, connected) = told(&mut watcher);
    assert_eq!(topic, "$aws/events/presence/connected/sensor-1");
    assert_eq!(connected["eventType"], "connected");
    assert_eq!(connected["clientId"], "sensor-1");
    assert_eq!(connected["thingName"], "sensor-1");
    assert_eq!(connected["ipAddress"], "127.0.0.1");
    assert_eq!(connected["principalIdentifier"].as_str().unwrap().len(), 64);
    let session = connected["sessionIdentifier"].clone();
    device.disconnect();
    let (topic, gone) = told(&mut watcher);
    assert_eq!(topic, "$aws/events/presence/disconnected/sensor-1");
    assert_eq!(gone["disconnectReason"], "CLIENT_INITIATED_DISCONNECT");
    assert_eq!(gone["clientInitiatedDisconnect"], true);
    assert_eq!(gone["sessionIdentifier"], session);
    assert_eq!(gone["versionNumber"], connected["versionNumber"]);

    let mut former = Device::tls(served.mqtt, "sensor-1", &own);
    let (_, again) = told(&mut watcher);
    assert!(again["versionNumber"].as_u64() > connected["versionNumber"].as_u64());
    let mut newcomer = Device::tls(served.mqtt, "sensor-1", &own);
    assert!(former.closes());
    let (_, pushed_out) = told(&mut watcher);
    assert_eq!(pushed_out["disconnectReason"], "DUPLICATE_CLIENTID");
    assert_eq!(pushed_out["versionNumber"], again["versionNumber"]);
    let (topic, _) = told(&mut watcher);
    assert_eq!(topic, "$aws/events/presence/connected/sensor-1");
    assert!(newcomer.is_refused("cmd/other/x"));
    assert_eq!(told(&mut watcher).1["disconnectReason"], "AUTH_ERROR");

    assert!(Device::is_refused_with_will(
        served.mqtt,
        "sensor-1",
        &own,
        "cmd/other/x"
    ));
    let (topic, failed) = told(&mut watcher);
    assert_eq!(topic, "$aws/events/presence/connect_failed/sensor-1");
    assert_eq!(failed["connectFailureReason"], "AUTHORIZATION_FAILED");

    let mut shut_out = Device::tls(served.mqtt, "sensor-1", &own);
    drop(told(&mut watcher));
    served.site.done(&["cert", "revoke", "sensor-1"]);
    assert!(shut_out.closes());
    assert_eq!(told(&mut watcher).1["disconnectReason"], "FORBIDDEN_ACCESS");
}

#[test]
fn the_stream_has_every_lifecycle_event_with_thing_and_groups() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.subscribe("cmd/sensor-1/#");
    device.unsubscribe("cmd/sensor-1/#");
    device.publish("dt/sensor-1/t", "1");
    device.disconnect();
    eventually("four events are in the outbox", || {
        served.lifecycle().len() == 4
    });
    let events = served.lifecycle();
    let kinds: Vec<_> = events
        .iter()
        .map(|e| e["payload"]["eventType"].clone())
        .collect();
    assert_eq!(
        kinds,
        ["connected", "subscribed", "unsubscribed", "disconnected"]
    );
    for event in &events {
        assert_eq!(event["thing"], "sensor-1");
        assert!(event["groups"].to_string().contains("cold-chain"));
    }
    assert_eq!(
        events[1]["topic"],
        "$aws/events/subscriptions/subscribed/sensor-1"
    );
    assert_eq!(events[1]["payload"]["topics"][0], "cmd/sensor-1/#");
    // Between them, in its place, what the device sent.
    let order: Vec<_> = served.stream().iter().map(|e| e["topic"].clone()).collect();
    assert_eq!(order[3], "dt/sensor-1/t");
}

#[test]
fn lifecycle_events_can_be_kept_from_the_stream() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.replace(
        "gateway.toml",
        "lifecycle-events = \"all\"",
        "lifecycle-events = \"local\"",
    );
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    device.disconnect();
    served.stop();
    assert_eq!(served.outbox().len(), 1);
    assert!(served.lifecycle().is_empty());
}

#[test]
fn a_denied_subscription_is_not_told_as_one() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.subscribe("cmd/other/#");
    device.publish("dt/sensor-1/t", "1");
    eventually("the publish is in the outbox", || {
        served.outbox().len() == 1
    });
    let subscribed = |event: &Value| event["payload"]["eventType"] == "subscribed";
    assert!(!served.lifecycle().iter().any(subscribed));
    let denied = served.metric("portcullis_broker_denied_total", &["action=\"subscribe\""]);
    assert_eq!(denied, 1.0);
}

/// Everything, and these further statements.
fn policy(served: &Served, further: &str) {
    let allow = r#"{"Effect":"Allow","Action":"iot:*","Resource":"*"}"#;
    served.site.write(
        "policies/device.json",
        &format!(r#"{{"Version":"2012-10-17","Statement":[{allow}{further}]}}"#),
    );
}

#[test]
fn a_subscription_that_a_change_takes_away_is_told() {
    let mut served = Served::new();
    policy(&served, "");
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.subscribe("cmd/a/#");
    device.subscribe("cmd/b/#");
    policy(
        &served,
        r#",{"Effect":"Deny","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/cmd/a/*"}"#,
    );
    let unsubscribed = || {
        let mut events = served.lifecycle();
        events.retain(|event| event["payload"]["eventType"] == "unsubscribed");
        events
    };
    eventually("it is told", || !unsubscribed().is_empty());
    let told = unsubscribed();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["payload"]["topics"], serde_json::json!(["cmd/a/#"]));
    assert_eq!(told[0]["thing"], "sensor-1");
    // The session and the other subscription stay.
    device.send("cmd/b/x", "1");
    assert_eq!(device.next_message().0, "cmd/b/x");
}

#[test]
fn a_device_that_is_another_thing_now_leaves_as_the_former_and_comes_as_the_other() {
    let mut served = Served::new();
    policy(&served, "");
    let own = served.enrol("sensor-1", "cold-chain");
    served.enrol("sensor-2", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "d", &own);
    device.publish("dt/x", "1");
    let thing = "thing = \"sensor-1\"";
    served
        .site
        .replace_last("registry.toml", thing, "thing = \"sensor-2\"");
    assert!(device.closes(), "whose session is it?");
    let mut again = Device::tls(served.mqtt, "d", &own);
    again.publish("dt/x", "2");
    eventually("everything is told", || served.lifecycle().len() == 3);
    let told: Vec<_> = served
        .lifecycle()
        .iter()
        .map(|event| {
            (
                event["payload"]["eventType"].clone(),
                event["thing"].clone(),
            )
        })
        .collect();
    let expected = [
        ("connected", "sensor-1"),
        ("disconnected", "sensor-1"),
        ("connected", "sensor-2"),
    ];
    assert_eq!(
        told,
        expected.map(|(kind, thing)| (kind.into(), thing.into()))
    );
    let gone = &served.lifecycle()[1]["payload"]["disconnectReason"];
    assert_eq!(*gone, "FORBIDDEN_ACCESS");
}
