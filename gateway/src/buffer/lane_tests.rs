//! Lanes, sinks, bounds and the ledger, with restarts in the middle.

use std::{fs, time::Duration};

use portcullis_core::record::{Kind, Lane, Record, SinkSet};

use super::{
    Account, AtBound, Part, Reader, Tally,
    tests::{Bench, GENEROUS, draft, durable, noise, sink},
};
use crate::buffer::Ack;

const LANES: [Lane; 2] = [Lane::Critical, Lane::Events];

fn bench(generation_bytes_max: u64, change: impl FnOnce(&mut Bench)) -> Bench {
    let mut bench = Bench::new(generation_bytes_max);
    bench.stop();
    change(&mut bench);
    bench.start();
    bench
}

async fn append(bench: &Bench, kind: Kind, sinks: SinkSet, texts: &[&str]) {
    let (ack, acked) = Ack::new();
    let of = |text: &&str| super::Draft {
        kind,
        sinks,
        ..draft(text)
    };
    let drafts = texts.iter().map(of).collect();
    bench.buffer().append(drafts, Some(ack)).await.unwrap();
    durable(acked).await;
}

/// Ten texts that take on disk what they are long.
fn incompressible() -> Vec<String> {
    (0..10).map(|seed| noise(7000, seed)).collect()
}

fn delivered(delivered: u64) -> Tally {
    Tally {
        delivered,
        dropped: Vec::new(),
    }
}

/// Reads up to `max` records and settles them; how many they were.
async fn drain(reader: &mut Reader, lane: Lane, part: Part, max: usize) -> u64 {
    let records = reader.read(lane, part, max, 1 << 20).await.unwrap();
    let count = u64::try_from(records.len()).unwrap();
    if let Some(last) = records.last() {
        reader
            .settle(lane, part, last.place, delivered(count))
            .await;
    }
    count
}

/// Everything of a lane: a read ends with a generation.
async fn read_all(reader: &mut Reader, lane: Lane) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let read = reader.read(lane, Part::Backlog, 100, 1 << 20).await;
        match read.unwrap() {
            read if read.is_empty() => return records,
            read => records.extend(read),
        }
    }
}

fn account(bench: &Bench, sink: usize) -> Account {
    let account = bench.buffer().ledger().swap_remove(sink);
    let dropped: u64 = account.dropped.values().sum();
    let sum = account.delivered + account.filtered + account.kept + dropped;
    assert_eq!(account.received, sum, "{account:?}");
    account
}

#[tokio::test]
async fn every_lane_has_its_places_and_all_share_the_numbers() {
    let mut bench = Bench::new(1 << 20);
    for round in 0..3 {
        append(&bench, Kind::Event, SinkSet::ALL, &["a", "b"]).await;
        append(&bench, Kind::Violation, SinkSet::ALL, &["c"]).await;
        let mut reader = bench.buffer().reader(0);
        let mut seqs = Vec::new();
        for (lane, each) in [(Lane::Events, 2), (Lane::Critical, 1)] {
            let records = read_all(&mut reader, lane).await;
            let places: Vec<_> = records.iter().map(|record| record.place).collect();
            let expected: Vec<_> = (1..=(round + 1) * each).collect();
            assert_eq!(places, expected);
            seqs.extend(records.iter().map(|record| record.seq));
        }
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=(round + 1) * 3).collect::<Vec<_>>());
        drop(reader);
        bench.stop();
        bench.start();
    }
}

#[tokio::test]
async fn a_record_leaves_when_every_sink_it_is_for_has_it() {
    let bench = bench(1, |bench| {
        bench.sinks = vec![sink("one", &LANES), sink("two", &LANES)];
    });
    append(&bench, Kind::Event, SinkSet::ALL, &["both"]).await;
    append(&bench, Kind::Event, SinkSet::single(1), &["second"]).await;
    let mut one = bench.buffer().reader(0);
    let mut two = bench.buffer().reader(1);
    assert_eq!(drain(&mut one, Lane::Events, Part::Backlog, 10).await, 1);
    assert_eq!(drain(&mut one, Lane::Events, Part::Backlog, 10).await, 0);
    assert_eq!(one.unread(Lane::Events, Part::Backlog), 0);
    assert_eq!(bench.generations().len(), 2, "the other sink wants both");
    assert_eq!(drain(&mut two, Lane::Events, Part::Backlog, 1).await, 1);
    assert_eq!(bench.generations().len(), 1);
    assert_eq!(drain(&mut two, Lane::Events, Part::Backlog, 10).await, 1);
    assert_eq!(bench.generations().len(), 0);
    assert_eq!(account(&bench, 0).delivered, 1);
    assert_eq!(account(&bench, 1).delivered, 2);
}

#[tokio::test]
async fn a_new_sink_gets_what_is_kept_and_one_that_is_gone_holds_nothing() {
    let mut bench = bench(1 << 20, |bench| bench.sinks = vec![sink("one", &LANES)]);
    append(&bench, Kind::Event, SinkSet::ALL, &["a", "b", "c"]).await;
    let mut one = bench.buffer().reader(0);
    assert_eq!(drain(&mut one, Lane::Events, Part::Backlog, 1).await, 1);
    drop(one);
    bench.stop();
    bench.sinks = vec![sink("two", &LANES), sink("one", &LANES)];
    bench.start();
    assert_eq!(account(&bench, 0).kept, 2, "from the oldest that is wanted");
    assert_eq!(account(&bench, 1).kept, 2);
    append(&bench, Kind::Event, SinkSet::single(0), &["for two"]).await;
    assert_eq!([account(&bench, 0).kept, account(&bench, 1).kept], [3, 2]);
    bench.stop();
    bench.sinks = vec![sink("two", &LANES)];
    bench.start();
    let mut two = bench.buffer().reader(0);
    assert_eq!(drain(&mut two, Lane::Events, Part::Backlog, 10).await, 2);
    assert_eq!(drain(&mut two, Lane::Events, Part::Backlog, 10).await, 1);
    assert!(!bench.dir().join("cursor-one").exists());
    drop(two);
    bench.stop();
    bench.start();
    assert_eq!(bench.generations().len(), 0);
}

#[tokio::test]
async fn an_older_release_leaves_the_events_lane() {
    let mut bench = bench(1 << 20, |bench| bench.sinks = vec![sink("one", &LANES)]);
    append(&bench, Kind::Event, SinkSet::ALL, &["a", "b", "c"]).await;
    bench.stop();
    let (dir, old) = (bench.dir(), bench.config.dir.clone());
    for name in ["cursor-one", "counts"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    for name in ["sinks", "numbers", "numbers-end"] {
        fs::remove_file(old.join(name)).unwrap();
    }
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().starts_with("gen-") {
            fs::remove_file(entry.path().join("base")).unwrap();
        }
        fs::rename(entry.path(), old.join(entry.file_name())).unwrap();
    }
    let (mut cursor, _) = super::mark::Mark::open(&old.join("cursor")).unwrap();
    cursor.raise(1).unwrap();
    bench.start();
    assert_eq!(account(&bench, 0).kept, 2);
    append(&bench, Kind::Event, SinkSet::ALL, &["d"]).await;
    let mut reader = bench.buffer().reader(0);
    let records = reader
        .read(Lane::Events, Part::Backlog, 10, 1 << 20)
        .await
        .unwrap();
    let seqs: Vec<_> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, [2, 3]);
    let tally = delivered(2);
    reader.settle(Lane::Events, Part::Backlog, 3, tally).await;
    assert_eq!(drain(&mut reader, Lane::Events, Part::Backlog, 10).await, 1);
    assert_eq!(account(&bench, 0).delivered, 3);
    assert!(!old.join("cursor").exists());
}

#[tokio::test]
async fn at_its_bound_a_lane_drops_its_oldest_and_counts_them() {
    let bench = bench(64 * 1024, |bench| {
        bench.config.lanes[Lane::Critical as usize].bytes_max = 2 << 20;
    });
    let bodies = incompressible();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    for _ in 0..60 {
        append(&bench, Kind::Violation, SinkSet::ALL, &bodies).await;
    }
    let kept = account(&bench, 0);
    assert_eq!(kept.received, 600);
    assert!(kept.dropped["oldest"] > 0, "{kept:?}");
    let mut reader = bench.buffer().reader(0);
    let mut read = 0;
    loop {
        match drain(&mut reader, Lane::Critical, Part::Backlog, 50).await {
            0 => break,
            count => read += count,
        }
    }
    assert_eq!(read, kept.kept);
    assert_eq!(account(&bench, 0).delivered, kept.kept);
}

#[tokio::test]
async fn at_its_bound_a_lane_may_take_no_more_and_the_count_survives() {
    let mut bench = bench(64 * 1024, |bench| {
        let events = &mut bench.config.lanes[Lane::Events as usize];
        (events.bytes_max, events.at_bound) = (2 << 20, AtBound::DropNewest);
    });
    let bodies = incompressible();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    for _ in 0..60 {
        append(&bench, Kind::Event, SinkSet::ALL, &bodies).await;
    }
    let before = account(&bench, 0);
    assert_eq!(before.received, 600);
    assert!(before.dropped["newest"] > 0, "{before:?}");
    bench.stop();
    bench.start();
    assert_eq!(account(&bench, 0), before);
}

#[tokio::test]
async fn the_bulk_lane_gives_way_and_the_critical_one_is_taken_at_the_bound() {
    let bench = bench(64 * 1024, |bench| {
        bench.config = bench.config.clone().bounded(6 << 20);
        bench.config.lanes[Lane::Bulk as usize].bytes_max = 4 << 20;
    });
    let bodies = incompressible();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    for _ in 0..40 {
        append(&bench, Kind::Metric, SinkSet::ALL, &bodies).await;
    }
    let store = bench.store();
    while !store.shared.is_over_own(Lane::Events)
        && !account(&bench, 0).dropped.contains_key("gave-way")
    {
        append(&bench, Kind::Event, SinkSet::ALL, &bodies).await;
    }
    assert!(account(&bench, 0).dropped["gave-way"] > 0);
    // Events fill what is left, then wait.
    let mut waiting = Vec::new();
    while bench.buffer().has_room() {
        waiting.push(bench.append(&bodies).await);
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(
        GENEROUS,
        append(&bench, Kind::Violation, SinkSet::ALL, &["critical"]),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_too_old_is_dropped_as_expired() {
    let mut bench = Bench::new(1);
    append(&bench, Kind::Event, SinkSet::ALL, &["a", "b"]).await;
    append(&bench, Kind::Event, SinkSet::ALL, &["c"]).await;
    bench.stop();
    bench.config.lanes[Lane::Events as usize].max_age = Some(Duration::ZERO);
    bench.start();
    let mut reader = bench.buffer().reader(0);
    while account(&bench, 0).kept > 0 {
        assert_eq!(drain(&mut reader, Lane::Events, Part::Backlog, 9).await, 0);
        tokio::task::yield_now().await;
    }
    assert_eq!(account(&bench, 0).dropped["expired"], 3);
}

#[tokio::test]
async fn a_split_reads_what_is_new_first_and_closes_itself() {
    let mut bench = Bench::new(1 << 20);
    append(&bench, Kind::Event, SinkSet::ALL, &["a", "b", "c"]).await;
    let mut reader = bench.buffer().reader(0);
    reader.split(Lane::Events).await;
    append(&bench, Kind::Event, SinkSet::ALL, &["d", "e"]).await;
    assert_eq!(drain(&mut reader, Lane::Events, Part::Live, 1).await, 1);
    assert_eq!(reader.unread(Lane::Events, Part::Live), 1);
    assert_eq!(reader.unread(Lane::Events, Part::Backlog), 3);
    drop(reader);
    bench.stop();
    bench.start();
    assert_eq!(account(&bench, 0).kept, 4);
    let mut reader = bench.buffer().reader(0);
    assert_eq!(reader.unread(Lane::Events, Part::Live), 1);
    let live = reader.read(Lane::Events, Part::Live, 9, 1 << 20);
    assert_eq!(live.await.unwrap()[0].place, 5);
    assert_eq!(drain(&mut reader, Lane::Events, Part::Backlog, 9).await, 3);
    // It has closed; what was read live is settled all the same.
    let tally = delivered(1);
    reader.settle(Lane::Events, Part::Live, 5, tally).await;
    assert_eq!(account(&bench, 0).delivered, 5);
    append(&bench, Kind::Event, SinkSet::ALL, &["f"]).await;
    assert_eq!(drain(&mut reader, Lane::Events, Part::Backlog, 9).await, 1);
}

/// Ends at random moments, with files as a kill or a power cut leaves them: cursors and counts behind.
#[tokio::test]
async fn the_ledger_balances_whenever_the_process_ends() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bench = bench(40 * 1024, |bench| {
        bench.sinks = vec![sink("one", &LANES), sink("two", &LANES)];
    });
    let (mut received, mut filtered) = ([0_u64; 2], [0_u64; 2]);
    let mut readers = [bench.buffer().reader(0), bench.buffer().reader(1)];
    for _ in 0..300 {
        match random.u32(0..12) {
            0..5 => {
                let sinks =
                    [SinkSet::ALL, SinkSet::single(0), SinkSet::single(1)][random.usize(0..3)];
                let kind = [Kind::Event, Kind::Violation][random.usize(0..2)];
                let texts = vec!["some text that takes a little room"; random.usize(1..60)];
                append(&bench, kind, sinks, &texts).await;
                for (sink, received) in received.iter_mut().enumerate() {
                    *received += u64::from(sinks.contains(sink)) * texts.len() as u64;
                }
            }
            5..9 => {
                let reader = &mut readers[random.usize(0..2)];
                let lane = LANES[random.usize(0..2)];
                drain(reader, lane, Part::Backlog, random.usize(1..90)).await;
            }
            9 => {
                bench.buffer().filtered(SinkSet::single(0), 3);
                filtered[0] += 3;
            }
            _ => {
                let files: Vec<_> = LANES
                    .iter()
                    .flat_map(|lane| {
                        ["cursor-one", "cursor-two", "counts"]
                            .map(|name| bench.config.dir.join(lane.name()).join(name))
                    })
                    .collect();
                let before: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
                drop(readers);
                bench.stop();
                for (path, before) in files.iter().zip(before) {
                    if random.bool() {
                        fs::write(path, before).unwrap();
                    }
                }
                bench.start();
                readers = [bench.buffer().reader(0), bench.buffer().reader(1)];
            }
        }
        for sink in 0..2 {
            let account = account(&bench, sink);
            assert_eq!(account.received, received[sink] + filtered[sink]);
            assert_eq!(account.filtered, filtered[sink]);
            assert!(account.dropped.is_empty(), "{account:?}");
        }
    }
    for (sink, reader) in readers.iter_mut().enumerate() {
        for lane in LANES {
            let mut kept = reader.unread(lane, Part::Backlog);
            while kept > 0 {
                kept -= drain(reader, lane, Part::Backlog, 500).await;
            }
        }
        let account = account(&bench, sink);
        assert_eq!((account.kept, account.delivered), (0, received[sink]));
    }
}
