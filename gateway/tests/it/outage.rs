//! The link is down, devices are served and acknowledged; the link returns, everything arrives.

use crate::{
    device::Device,
    emulators::{Emulator, free_port},
    served::{Served, eventually, is_lifecycle},
    stream::{client, create_stream, read_stream},
    support::{CREDENTIALS, in_child, run},
};

/// Publishes while nobody answers at the endpoint. `PORTCULLIS_OUTAGE_SECS` makes it last longer.
const PUBLISHES: u64 = 200;

#[test]
fn devices_are_served_while_kinesis_is_down_and_everything_arrives_when_it_returns() {
    let name =
        "outage::devices_are_served_while_kinesis_is_down_and_everything_arrives_when_it_returns";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let port = free_port();
    let mut served = Served::new();
    served.ship_to(&format!("http://127.0.0.1:{port}"));
    let credentials = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &credentials);
    let lasting = std::env::var("PORTCULLIS_OUTAGE_SECS").map_or(0, |secs| secs.parse().unwrap());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(lasting);
    let mut sent = 0;
    while sent < PUBLISHES || std::time::Instant::now() < end {
        device.publish("dt/sensor-1/temp", &format!("{{\"n\":{sent}}}"));
        sent += 1;
    }
    eventually("the uplink is seen to be down", || {
        served.metric("portcullis_uplink_online", &[]) == 0.0
    });
    assert!(served.metric("portcullis_buffer_depth_records", &[]) >= sent as f64);
    // An outage outlives a power cut.
    served.kill();
    served.start();

    let Some(running) = Emulator::Kinesalite.start_at(port) else {
        return;
    };
    let arrived = run(async {
        let client = client(&running.endpoint).await;
        create_stream(&client, 1).await;
        loop {
            let numbers = numbers(&read_stream(&client).await);
            if numbers.len() as u64 >= sent {
                return numbers;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    });
    let mut numbers = arrived.clone();
    let mut seen = std::collections::BTreeSet::new();
    numbers.retain(|n| seen.insert(*n));
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
    println!(
        "{sent} messages acknowledged while the endpoint was down; {} events in the stream",
        arrived.len()
    );
    served.stop();
}

/// What the events of the device say, in order; a long outage also has it alarm for its many messages.
fn numbers(records: &[(String, Vec<u8>)]) -> Vec<u64> {
    let mut numbers = Vec::new();
    for (key, data) in records {
        assert_eq!(key, "sensor-1");
        let body: serde_json::Value = serde_json::from_slice(data).unwrap();
        if body["schema"] == "portcullis.event/1" && !is_lifecycle(&body) {
            numbers.push(body["payload"]["n"].as_u64().unwrap());
        }
    }
    numbers
}
