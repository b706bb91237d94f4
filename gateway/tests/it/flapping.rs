//! SIGKILL at random moments while the uplink flaps as well: requests are refused, fail in part, are cut
//! before they are read or after they were taken. Every message that was acknowledged is in the stream,
//! and each thing's are in order once duplicates are removed.
//!
//! `PORTCULLIS_FLAP_KILLS` sets the number of kills; `gateway/tests/kill.sh` runs it in full.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rumqttc::Transport;
use tokio::task::JoinSet;

use crate::{
    device::client_config,
    fake_kinesis::{FakeKinesis, Step},
    kill::{Device, arrived, size},
    served::{Served, is_lifecycle},
    support::{CREDENTIALS, GENEROUS, run, until},
};

/// Messages that are acknowledged between two kills, on the average.
const MESSAGES_PER_KILL: usize = 150;
const DEVICES: usize = 5;

/// Lets the stream change its mind now and then, until the end.
fn flap(stream: FakeKinesis, seed: u64, is_over: Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut changes = 0;
        while !is_over.load(Ordering::Acquire) {
            stream.afterwards(match random.u8(0..8) {
                0 => Step::Refuse(503, "ServiceUnavailable"),
                1 => Step::FailRecords(vec![0, 3, 4], "ProvisionedThroughputExceededException"),
                2 => Step::CutBefore,
                3 => Step::CutAfter,
                _ => Step::Take,
            });
            changes += 1;
            thread::sleep(Duration::from_millis(random.u64(10..300)));
        }
        stream.afterwards(Step::Take);
        changes
    })
}

/// How far back the stream went at most, in numbers.
fn furthest_back(records: &[(String, Vec<u8>)]) -> u64 {
    let (mut highest, mut furthest) = (0, 0);
    for (_, data) in records {
        let body: serde_json::Value = serde_json::from_slice(data).unwrap();
        let seq = body["seq"].as_u64().unwrap();
        furthest = furthest.max(u64::saturating_sub(highest, seq));
        highest = highest.max(seq);
    }
    furthest
}

#[test]
fn a_flapping_stream_has_every_acknowledged_message_in_order_after_kills() {
    let kills = size("PORTCULLIS_FLAP_KILLS", 4);
    let seed = fastrand::u64(..1 << 32);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stream = FakeKinesis::start([]);
    let mut gateway = Served::new();
    gateway.ship_in_order_to(&stream.endpoint);
    let each = ((kills + 1) * MESSAGES_PER_KILL).div_ceil(DEVICES);
    let messages = DEVICES * each;
    let things: Vec<_> = (0..DEVICES)
        .map(|n| format!("sensor-{n}"))
        .map(|thing| (gateway.enrol(&thing, "killed"), thing))
        .collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let flapping = flap(stream.clone(), seed, is_over.clone());
    run(async {
        gateway.start_with(CREDENTIALS);
        let all_acked = Arc::new(AtomicUsize::new(0));
        let mut work = JoinSet::new();
        for (number, (credentials, thing)) in things.iter().enumerate() {
            let device = Device {
                number,
                thing: thing.clone(),
                address: gateway.mqtt,
                transport: Transport::tls_with_config(client_config(credentials).into()),
                messages: each,
                acked: 0,
                all_acked: all_acked.clone(),
            };
            work.spawn(device.run());
        }
        let mut points: Vec<_> = (0..kills).map(|_| random.usize(1..messages)).collect();
        points.sort_unstable();
        for point in &points {
            until("the next kill is due", || {
                all_acked.load(Ordering::Relaxed) >= *point
            })
            .await;
            gateway.kill();
            gateway.accounts();
            gateway.start_with(CREDENTIALS);
        }
        work.join_all().await;
    });
    is_over.store(true, Ordering::Release);
    let changes = flapping.join().unwrap();
    let started = Instant::now();
    let records = loop {
        let mut records = stream.taken();
        records.retain(|(_, data)| !is_lifecycle(&serde_json::from_slice(data).unwrap()));
        let present: usize = arrived(&records).values().map(Vec::len).sum();
        if present >= messages {
            break records;
        }
        assert!(
            started.elapsed() < GENEROUS,
            "{present} of {messages} acknowledged messages are in the stream"
        );
        thread::sleep(Duration::from_millis(100));
    };
    gateway.stop();
    for account in gateway.accounts() {
        let received = account["received"].as_u64().unwrap();
        assert!(received >= messages as u64, "{account}");
        assert_eq!(account["dropped"], serde_json::json!({}), "{account}");
    }
    let in_order: Vec<u64> = (0..u64::try_from(each).unwrap()).collect();
    for (thing, order) in arrived(&records) {
        assert_eq!(order, in_order, "{thing}: all there, in order");
    }
    println!(
        "killed {kills} times while the uplink changed its mind {changes} times; {messages} messages \
         acknowledged, {} records in the stream, {} of them duplicates, {} numbers back at most; none \
         lost, each thing's in order",
        records.len(),
        records.len() - messages,
        furthest_back(&records),
    );
}
