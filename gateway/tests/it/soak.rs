//! Devices publish for a while, and the cloud fails: a tenth of the records, a tenth of the calls, lost
//! answers, resets, stalls; in the middle the shards are split and merged. All arrives, in each thing's
//! order where that is asked for, and twice only what an answer was lost of.
//!
//! `PORTCULLIS_SOAK_SECS` says how long, `PORTCULLIS_SOAK_SEED` repeats a run; `gateway/tests/soak.sh`
//! runs ten minutes of each ordering.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use portcullis_cloud::{Cloud, Outcome, Rates, Settings};

use crate::{
    device::Device,
    kill::arrived,
    served::{Credentials, Served, eventually, is_lifecycle},
    stream::{REGION, STREAM},
    support::{CREDENTIALS, in_child},
};

const DEVICES: usize = 12;
/// Between two messages of a device: less than its profile alarms for.
const PACE: Duration = Duration::from_millis(100);

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap())
}

fn rates() -> Rates {
    Rates {
        fail_records: 0.1,
        throttle: 0.1,
        lose_replies: 0.05,
        reset: 0.02,
        stall: 0.01,
        stall_for: Duration::from_secs(2),
        ..Rates::default()
    }
}

/// Publishes and waits for each acknowledgement until it is over; how many were acknowledged.
fn publish(served: &Served, thing: &str, credentials: &Credentials, is_over: &AtomicBool) -> u64 {
    let mut device = Device::tls(served.mqtt, thing, credentials);
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        device.publish(&format!("dt/{thing}/soak"), &format!("{{\"n\":{sent}}}"));
        sent += 1;
        sleep(PACE);
    }
    sent
}

/// Splits the first shard at a third of the time and merges what came of it at two thirds.
fn reshard(cloud: &Cloud, lasting: Duration) {
    sleep(lasting / 3);
    let open = |cloud: &Cloud| -> Vec<_> {
        let shards = cloud.shards(STREAM).into_iter();
        shards.filter(|shard| shard.open).map(|s| s.id).collect()
    };
    let first = open(cloud)[0].clone();
    cloud.split_shard(STREAM, &first).unwrap();
    let children: Vec<_> = cloud
        .shards(STREAM)
        .into_iter()
        .filter(|shard| shard.parent.as_deref() == Some(&*first))
        .map(|shard| shard.id)
        .collect();
    sleep(lasting / 3);
    cloud
        .merge_shards(STREAM, &children[0], &children[1])
        .unwrap();
    sleep(lasting / 3);
}

/// Records that the stream took with a request whose answer was lost: what may be there twice.
fn unanswered(cloud: &Cloud) -> usize {
    let requests = cloud.requests().into_iter();
    let lost = requests.map(|request| match request.outcome {
        Outcome::Done {
            failed,
            answered: false,
        } => request.records.len() - failed,
        _ => 0,
    });
    lost.sum()
}

fn soak(ordering: &str) {
    let lasting = Duration::from_secs(variable("PORTCULLIS_SOAK_SECS").unwrap_or(10));
    let seed = variable("PORTCULLIS_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let cloud = Cloud::start(
        Settings::default()
            .stream(STREAM, 2)
            .rates(rates())
            .seed(seed),
    )
    .unwrap();
    let mut served = Served::new();
    served.site.append(
        "gateway.toml",
        &format!(
            "\n[uplink.kinesis]\nstream = \"{STREAM}\"\nregion = \"{REGION}\"\nendpoint = \"{}\"\nordering = \"{ordering}\"\nretry-max-secs = 5\n",
            cloud.endpoint()
        ),
    );
    let things: Vec<_> = (0..DEVICES)
        .map(|n| format!("sensor-{n}"))
        .map(|thing| (served.enrol(&thing, "soaked"), thing))
        .collect();
    served.start();
    let started = Instant::now();
    let is_over = AtomicBool::new(false);
    let sent: Vec<u64> = scope(|scope| {
        let devices: Vec<_> = things
            .iter()
            .map(|(credentials, thing)| {
                let (served, is_over) = (&served, &is_over);
                scope.spawn(move || publish(served, thing, credentials, is_over))
            })
            .collect();
        reshard(&cloud, lasting);
        is_over.store(true, Ordering::Relaxed);
        devices.into_iter().map(|d| d.join().unwrap()).collect()
    });
    let messages: u64 = sent.iter().sum();
    let of_devices = || {
        let mut records = cloud.taken(STREAM);
        records.retain(|(_, data)| !is_lifecycle(&serde_json::from_slice(data).unwrap()));
        arrived(&records)
    };
    eventually("everything has arrived", || {
        let present: usize = of_devices().values().map(Vec::len).sum();
        u64::try_from(present).unwrap() >= messages
    });
    let seconds = started.elapsed().as_secs_f64();
    served.stop();
    let by_thing = of_devices();
    for ((_, thing), sent) in things.iter().zip(sent) {
        let mut order = by_thing[thing].clone();
        if ordering == "relaxed" {
            order.sort_unstable();
        }
        assert_eq!(order, (0..sent).collect::<Vec<_>>(), "{thing}");
    }
    let counters = cloud.counters();
    let taken = cloud.taken(STREAM);
    let distinct: std::collections::BTreeSet<_> = taken.iter().collect();
    let duplicates = taken.len() - distinct.len();
    let unanswered = unanswered(&cloud);
    println!(
        "{ordering}: {messages} messages in {seconds:.1} s, {} records taken, {} failed, {} answers lost \
         with {unanswered} records, {duplicates} duplicates, refused {:?}, {} cut, {} shards; all there",
        counters.records,
        counters.records_failed,
        counters.replies_lost,
        counters.refused,
        counters.cut_before,
        cloud.shards(STREAM).len(),
    );
    assert!(
        duplicates <= unanswered,
        "{duplicates} duplicates, and {unanswered} records without an answer"
    );
    assert!(counters.records_failed > 0 && !counters.refused.is_empty());
}

#[test]
fn with_strict_ordering_all_arrives_in_order_through_a_failing_cloud() {
    let name = "soak::with_strict_ordering_all_arrives_in_order_through_a_failing_cloud";
    if in_child(name, CREDENTIALS) {
        soak("strict");
    }
}

#[test]
fn with_relaxed_ordering_all_arrives_through_a_failing_cloud() {
    let name = "soak::with_relaxed_ordering_all_arrives_through_a_failing_cloud";
    if in_child(name, CREDENTIALS) {
        soak("relaxed");
    }
}
