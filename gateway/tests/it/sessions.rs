//! Sessions that outlive their connections, and what is retained: through disconnections, and through
//! a gateway that is killed.

use rumqttc::QoS;

use crate::{device::Device, served::Served};

const ANYTHING: &str = r#"{"Version":"2012-10-17","Statement":[
  {"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;

/// A gateway at which every thing may do anything.
fn served(things: &[&str]) -> Served {
    let mut served = Served::new();
    served.site.write("policies/device.json", ANYTHING);
    for thing in things {
        served.enrol(thing, "cold-chain");
    }
    served.start();
    served
}

#[test]
fn a_client_that_was_away_gets_what_it_missed_also_from_a_gateway_that_was_killed() {
    let mut served = served(&["reader", "writer"]);
    let (mut reader, had_one) = Device::persistent(served.plain, "reader");
    assert!(!had_one);
    reader.subscribe_at("t/1", QoS::AtLeastOnce);
    reader.subscribe_at("t/2", QoS::ExactlyOnce);
    reader.disconnect();
    let mut writer = Device::plain(served.plain, "writer");
    writer.publish("t/1", "first");
    writer.publish_exactly_once("t/2", "second");
    served.kill();
    served.start();
    let mut writer = Device::plain(served.plain, "writer");
    writer.publish("t/1", "third");
    let (mut reader, had_one) = Device::persistent(served.plain, "reader");
    assert!(had_one);
    for (topic, payload) in [("t/1", "first"), ("t/2", "second"), ("t/1", "third")] {
        assert_eq!(
            reader.next_message(),
            (topic.to_owned(), payload.to_owned())
        );
    }
    // The subscriptions are there as well, and nothing comes twice.
    writer.publish_exactly_once("t/2", "fourth");
    assert_eq!(reader.next_message().1, "fourth");
}

#[test]
fn what_is_retained_survives_a_kill_and_is_forgotten_on_request() {
    let mut served = served(&["reader", "writer"]);
    let mut writer = Device::plain(served.plain, "writer");
    writer.publish_retained("r/a", "old");
    writer.publish_retained("r/a", "kept");
    writer.publish_retained("r/b", "to go");
    writer.publish_retained("r/b", "");
    served.kill();
    served.start();
    let mut reader = Device::plain(served.plain, "reader");
    reader.subscribe_at("r/#", QoS::AtLeastOnce);
    let got = reader.receive();
    assert!(got.retain);
    assert_eq!((&*got.topic, &*got.payload), ("r/a", &b"kept"[..]));
    let mut writer = Device::plain(served.plain, "writer");
    writer.publish("r/end", "");
    assert_eq!(reader.receive().topic, "r/end");
}

#[test]
fn a_clean_session_and_another_thing_find_nothing() {
    let mut served = served(&["reader", "writer"]);
    let (mut reader, _) = Device::persistent(served.plain, "reader");
    reader.subscribe_at("t", QoS::AtLeastOnce);
    reader.disconnect();
    Device::plain(served.plain, "writer").publish("t", "missed");
    // A clean session ends the one that was kept.
    Device::plain(served.plain, "reader").disconnect();
    let (_, had_one) = Device::persistent(served.plain, "reader");
    assert!(!had_one);
    served.stop();
}

#[test]
fn a_subscription_that_was_taken_away_meanwhile_is_not_taken_up() {
    let mut served = served(&["reader", "writer"]);
    let (mut reader, _) = Device::persistent(served.plain, "reader");
    reader.subscribe_at("t/open", QoS::AtLeastOnce);
    reader.subscribe_at("t/secret", QoS::AtLeastOnce);
    reader.disconnect();
    let mut writer = Device::plain(served.plain, "writer");
    writer.publish("t/secret", "before");
    served.kill();
    let without = ANYTHING.replace(
        "{\"Effect\":\"Allow\"",
        "{\"Effect\":\"Deny\",\"Action\":[\"iot:Subscribe\",\"iot:Receive\"],\"Resource\":[\"arn:aws:iot:*:*:topicfilter/t/secret\",\"arn:aws:iot:*:*:topic/t/secret\"]},{\"Effect\":\"Allow\"",
    );
    served.site.write("policies/device.json", &without);
    served.start();
    let (mut reader, had_one) = Device::persistent(served.plain, "reader");
    assert!(had_one);
    let mut writer = Device::plain(served.plain, "writer");
    writer.publish("t/secret", "after");
    writer.publish("t/open", "after");
    assert_eq!(
        reader.next_message(),
        ("t/open".to_owned(), "after".to_owned())
    );
}

#[test]
fn of_those_who_share_a_subscription_one_gets_each_message() {
    let served = served(&["a", "b", "writer"]);
    let mut workers = ["a", "b"].map(|name| Device::plain(served.plain, name));
    for worker in &mut workers {
        worker.subscribe_at("$share/work/jobs/+", QoS::AtLeastOnce);
    }
    let mut writer = Device::plain(served.plain, "writer");
    for n in 0..10 {
        writer.publish("jobs/x", &n.to_string());
    }
    let mut got: Vec<u32> = Vec::new();
    for worker in &mut workers {
        for _ in 0..5 {
            got.push(worker.next_message().1.parse().unwrap());
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..10).collect::<Vec<_>>());
}
