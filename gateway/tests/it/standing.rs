//! What a connected client may do ends when it should, and is settled quickly for all.

use std::time::{Duration, Instant};

use portcullis::identity::{Credential, Snapshot};
use portcullis_core::{
    identity::ClientId,
    policy::{Action, Context},
};

use crate::{
    device::Device,
    served::{Served, eventually},
    site::Site,
};

#[test]
fn a_session_ends_with_the_time_that_the_registry_gives_its_certificate() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls_with_will(served.mqtt, "sensor-1", &own, "dt/sensor-1/gone");
    device.publish("dt/sensor-1/t", "1");
    let end = std::time::SystemTime::now() + Duration::from_secs(3);
    let end = end.duration_since(std::time::UNIX_EPOCH).unwrap();
    let end = u64::try_from(end.as_millis()).unwrap();
    let until = portcullis_core::timestamp::Timestamp::from_millis(end);
    let registry = served.site.read("registry.toml");
    let status = registry
        .lines()
        .rfind(|line| line.starts_with("status = "))
        .unwrap();
    let with_end = format!("{status}\nuntil = \"{until}\"");
    let at = registry.rfind(status).unwrap();
    let (before, after) = registry.split_at(at);
    served.site.write(
        "registry.toml",
        &format!("{before}{}", after.replacen(status, &with_end, 1)),
    );
    assert!(device.closes(), "the session outlives its time");
    eventually("the reason is counted", || {
        served.metric("portcullis_broker_disconnected_total", &["\"expired\""]) == 1.0
    });
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_millis() >= u128::from(end), "it ended too early");
    eventually("the end is told", || {
        served
            .lifecycle()
            .iter()
            .any(|event| event["payload"]["disconnectReason"] == "AUTH_ERROR")
    });
    assert!(
        served
            .outbox()
            .iter()
            .all(|event| event["topic"] != "dt/sensor-1/gone")
    );
}

#[test]
fn a_change_that_means_nothing_for_a_client_costs_it_nothing() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    let counted = |outcome: &str| {
        let labels = [outcome];
        served.metric("portcullis_broker_reauthorized_total", &labels)
    };
    let text = served.site.read("policies/device.json");
    let device_policy = |text: String| served.site.write("policies/device.json", &text);
    device_policy(format!("{text}\n"));
    eventually("the session decided anew", || counted("renewed") == 1.0);
    served
        .site
        .done(&["thing", "add", "sensor-2", "--group", "cold-chain"]);
    eventually("the session has looked", || counted("unchanged") >= 1.0);
    device_policy(format!("{text}\n\n"));
    eventually("it decided anew again", || counted("renewed") == 2.0);
    device.publish("dt/sensor-1/t", "2");
    assert_eq!(served.metric("portcullis_broker_connected_total", &[]), 1.0);
}

#[test]
fn the_setting_of_a_group_decides_what_a_denied_publish_leads_to() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.replace(
        "registry.toml",
        "policies = [\"device\"]",
        "policies = [\"device\"]\non-publish-denied = \"drop-and-ack\"",
    );
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    assert!(!device.is_refused("cmd/other/x"));
    device.publish("dt/sensor-1/t", "1");
    eventually("what is allowed is in the outbox", || {
        served.outbox().len() == 1
    });
}

/// The work that a change is for 10 000 sessions, one after the other: who am I, may I be here, may I
/// have my subscriptions.
#[test]
fn ten_thousand_sessions_are_settled_in_time() {
    const SESSIONS: usize = 10_000;
    let site = Site::init(&[]);
    let mut registry = site.read("registry.toml");
    for n in 0..SESSIONS {
        registry += &format!("\n[[thing]]\nname = \"t-{n}\"\ngroups = [\"devices\"]\n");
    }
    site.write("registry.toml", &registry);
    let loaded = portcullis::config::load(&site.path("gateway.toml")).unwrap();
    let snapshot: &Snapshot = &loaded.snapshot;
    let plain = Credential::Plain {
        thing: None,
        unknown_policy: None,
    };
    let ids: Vec<_> = (0..SESSIONS)
        .map(|n| ClientId::parse(&format!("t-{n}")).unwrap())
        .collect();
    let source = [127, 0, 0, 1].into();

    let started = Instant::now();
    let principals: Vec<_> = ids
        .iter()
        .map(|id| snapshot.authenticate(&plain, id, source).unwrap())
        .collect();
    let known = started.elapsed();
    for principal in &principals {
        let context: Context<'_> = principal.context(Default::default());
        let id = principal.client_id.as_str();
        let decide = |action, resource: &str| principal.policies.decide(&context, action, resource);
        decide(Action::Connect, id).unwrap();
        for n in 0..4 {
            decide(Action::Subscribe, &format!("cmd/{id}/{n}")).unwrap();
        }
    }
    let settled = started.elapsed();
    println!("{SESSIONS} sessions: known in {known:?}, decided anew in {settled:?}");
    // A debug build on a busy machine; a release build takes a twentieth of it.
    assert!(settled < Duration::from_secs(20), "{settled:?}");
}
