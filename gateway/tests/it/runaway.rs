//! A rule that loops forever costs its own group its deadline, and nobody else anything.

use std::time::Duration;

use crate::{
    device::Device,
    served::{Served, eventually},
};

/// Publishes of the well-behaved group while the bad rule burns its deadlines.
const PUBLISHES: usize = 200;

#[test]
fn a_rule_that_loops_is_stopped_and_other_groups_are_served() {
    let mut served = Served::new();
    served
        .site
        .done(&["thing", "add", "good-1", "--group", "good"]);
    served
        .site
        .done(&["thing", "add", "bad-1", "--group", "bad"]);
    let (_, component) = portcullis_test_guests::GUESTS
        .iter()
        .find(|guest| guest.0 == "hostile")
        .unwrap();
    std::fs::write(served.site.path("plugins/hostile.wasm"), component).unwrap();
    served.site.append(
        "gateway.toml",
        r#"
[[plugin]]
name = "hostile"
file = "plugins/hostile.wasm"
deadline-ms = 50

[[chain]]
group = "bad"
[[chain.step]]
plugin = "hostile"
on-failure = "pass"
settings = { mode = "loop" }
"#,
    );
    served.start();

    let quiet = latencies(&mut Device::plain(served.plain, "good-1"));
    let address = served.plain;
    let bad = std::thread::spawn(move || {
        let mut device = Device::plain(address, "bad-1");
        for n in 0..20 {
            device.publish("dt/bad-1/x", &format!("{{\"n\":{n}}}"));
        }
    });
    let beside = latencies(&mut Device::plain(served.plain, "good-1"));
    bad.join().unwrap();
    eprintln!(
        "p99 of the good group: {:?} alone, {:?} beside a rule that loops",
        quiet, beside
    );

    let stopped = served.metric("portcullis_plugin_calls_total", &["hostile", "deadline"]);
    assert!(stopped >= 1.0, "no call was stopped at its deadline");
    assert!(served.log().contains("A plugin's call failed."));
    // `on-failure = "pass"`: acknowledged, and in the stream all the same.
    eventually("everything is in the outbox", || {
        served.outbox().len() == 2 * PUBLISHES + 20
    });
    let of_bad: Vec<_> = served
        .outbox()
        .into_iter()
        .filter(|event| event["thing"] == "bad-1")
        .collect();
    let order: Vec<_> = of_bad
        .iter()
        .map(|event| event["payload"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}

/// The 99th percentile of the time to the PUBACK.
fn latencies(device: &mut Device) -> Duration {
    let mut taken: Vec<_> = (0..PUBLISHES)
        .map(|_| device.publish("dt/good-1/x", "{\"t\":1}"))
        .collect();
    taken.sort();
    taken[PUBLISHES * 99 / 100]
}
