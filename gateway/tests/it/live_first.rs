//! `order = "live-first"` with the real buffer: after an outage what comes from then on goes first.

use std::{collections::BTreeMap, path::Path, time::Duration};

use portcullis::{
    buffer::{Ack, Buffer},
    uplink::{Order, StreamConfig},
};
use portcullis_cloud::Cloud;
use serde_json::Value;

use crate::{
    kinesis::{Shipping, open_buffer, stream},
    stream::STREAM,
    support::{CREDENTIALS, FromBuffer, draft, in_child, run, until},
};

const THINGS: u64 = 20;
/// More than a window, and a backlog behind it that is worth a split.
const BACKLOG: u64 = 12_000;
const LIVE: u64 = 400;

/// Appends the messages of these numbers and waits until they are on disk.
async fn append(buffer: &Buffer, part: &str, numbers: std::ops::Range<u64>) {
    let numbers: Vec<_> = numbers.collect();
    for chunk in numbers.chunks(500) {
        let drafts = chunk.iter().map(|n| {
            let members = format!("\"part\":\"{part}\",\"n\":{n}");
            draft(&format!("thing-{}", n % THINGS), members)
        });
        let (ack, acked) = Ack::new();
        buffer.append(drafts.collect(), Some(ack)).await.unwrap();
        acked.await.unwrap();
    }
}

/// Part and number of what has arrived, without duplicates, with its key.
fn arrived(cloud: &Cloud) -> Vec<(String, String, u64)> {
    let mut seen = std::collections::BTreeSet::new();
    let records = cloud.taken(STREAM).into_iter().map(|(key, data)| {
        let body: Value = serde_json::from_slice(&data).unwrap();
        let part = body["part"].as_str().unwrap().to_owned();
        (key, part, body["n"].as_u64().unwrap())
    });
    records
        .filter(|record| seen.insert(record.clone()))
        .collect()
}

fn assert_order_within_parts(arrived: &[(String, String, u64)]) {
    let mut latest: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (key, part, n) in arrived {
        let before = latest.insert((key, part), *n);
        assert!(before < Some(*n), "{key}, {part}: {n} after {before:?}");
    }
}

/// How much of the backlog came after the last live record.
fn backlog_after_live(arrived: &[(String, String, u64)]) -> usize {
    let after = arrived.iter().rev();
    after.take_while(|(_, part, _)| part == "backlog").count()
}

fn shipping(buffer: &Buffer, cloud: &Cloud) -> Shipping {
    let config = StreamConfig {
        order: Order::LiveFirst,
        ..stream(&cloud.endpoint())
    };
    Shipping::start_with(config, FromBuffer(buffer.reader(0)))
}

async fn all_arrives(cloud: &Cloud, shipping: &mut Shipping, expected: u64) {
    let expected = usize::try_from(expected).unwrap();
    until("everything has arrived", || {
        cloud.counters().records >= u64::try_from(expected).unwrap()
            && arrived(cloud).len() == expected
    })
    .await;
    shipping.stop().await;
    let arrived = arrived(cloud);
    assert_order_within_parts(&arrived);
    let after = backlog_after_live(&arrived);
    println!("{after} records of the backlog came after the last live one");
    assert!(after > 2000, "only {after} of the backlog came later");
}

fn nothing_is_left(dir: &Path) {
    let (buffer, writer) = open_buffer(dir);
    let reader = buffer.reader(0);
    let lanes = reader.lanes();
    let unread = lanes.iter().map(|lane| {
        let of = |part| reader.unread(*lane, part);
        of(portcullis::buffer::Part::Backlog) + of(portcullis::buffer::Part::Live)
    });
    assert_eq!(unread.sum::<u64>(), 0);
    drop((reader, buffer));
    writer.join().unwrap();
}

#[test]
fn after_an_outage_live_records_come_before_the_backlog_and_all_arrives() {
    let name = "live_first::after_an_outage_live_records_come_before_the_backlog_and_all_arrives";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (buffer, writer) = open_buffer(dir.path());
    run(async {
        let cloud = Cloud::with_stream(STREAM, 1).unwrap();
        let mut shipping = shipping(&buffer, &cloud);
        append(&buffer, "before", 0..100).await;
        until("it is online", || cloud.counters().records == 100).await;
        cloud.go_away();
        append(&buffer, "backlog", 0..BACKLOG).await;
        until("the link is seen to be down", || {
            shipping.failed("connectivity") > 0.0
        })
        .await;
        until("the sink is offline", || shipping.is("offline")).await;
        // Slow enough that the backlog is not through before anything live comes.
        cloud.set(|settings| settings.rates.latency = Duration::from_millis(100));
        cloud.come_back().unwrap();
        until("the link is back", || cloud.counters().records > 100).await;
        until("the sink knows", || !shipping.is("offline")).await;
        append(&buffer, "live", 0..LIVE).await;
        all_arrives(&cloud, &mut shipping, 100 + BACKLOG + LIVE).await;
        drop(buffer);
    });
    writer.join().unwrap();
    nothing_is_left(dir.path());
}

#[test]
fn with_a_backlog_from_before_the_start_live_records_come_first_and_all_arrives() {
    let name =
        "live_first::with_a_backlog_from_before_the_start_live_records_come_first_and_all_arrives";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (buffer, writer) = open_buffer(dir.path());
    run(async {
        let cloud = Cloud::with_stream(STREAM, 1).unwrap();
        cloud.set(|settings| settings.rates.latency = Duration::from_millis(100));
        append(&buffer, "backlog", 0..BACKLOG).await;
        let mut shipping = shipping(&buffer, &cloud);
        until("it has begun", || cloud.counters().records > 0).await;
        append(&buffer, "live", 0..LIVE).await;
        all_arrives(&cloud, &mut shipping, BACKLOG + LIVE).await;
        drop(buffer);
    });
    writer.join().unwrap();
    nothing_is_left(dir.path());
}
