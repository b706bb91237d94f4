//! The outbox: what is accepted is a line, once and in order, also after a crash.

use std::path::Path;

use portcullis::uplink::{Config, Metrics, OutboxConfig, Uplink};
use prometheus::Registry;
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Feed, GENEROUS, run, until};

fn records(n: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    (1..=n).map(|seq| {
        let body = format!("{{\"seq\":{seq},\"text\":\"{}\"}}", "x".repeat(50));
        ("thing".to_owned(), body.into_bytes())
    })
}

/// Ships records 1 to `n` and stops.
async fn ship(dir: &Path, n: u64) -> Registry {
    ship_these(dir, records(n)).await
}

async fn ship_these(dir: &Path, records: impl Iterator<Item = (String, Vec<u8>)>) -> Registry {
    let records: Vec<_> = records.collect();
    let n = u64::try_from(records.len()).unwrap();
    let registry = Registry::new();
    let config = Config::Outbox(OutboxConfig {
        dir: dir.to_owned(),
        file_bytes_max: 20_000,
        bytes_max: 1 << 20,
    });
    let feed = Feed::new(records);
    let metrics = Metrics::register(&registry);
    let uplink = Uplink::new(config, dir.join("dead"), vec![feed.clone()], metrics);
    let stop = CancellationToken::new();
    let mut task = JoinSet::new();
    task.spawn(uplink.run(stop.clone()));
    until("everything is accepted", || feed.accepted() == n).await;
    stop.cancel();
    let ended = timeout(GENEROUS, task.join_next()).await.unwrap();
    ended.unwrap().unwrap().unwrap();
    registry
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn seqs(dir: &Path) -> Vec<u64> {
    let text: String = files(dir)
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    text.lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["seq"]
                .as_u64()
                .unwrap()
        })
        .collect()
}

#[test]
fn records_become_lines_in_files_that_sort() {
    let dir = tempfile::tempdir().unwrap();
    run(ship(dir.path(), 5000));
    assert_eq!(seqs(dir.path()), (1..=5000).collect::<Vec<_>>());
    assert!(files(dir.path()).len() > 2, "closed at their size");
}

#[test]
fn records_that_are_sent_again_after_a_crash_are_not_written_twice() {
    let dir = tempfile::tempdir().unwrap();
    run(ship(dir.path(), 100));
    // Killed in the middle of a line, before the cursor was written.
    let last = files(dir.path()).pop().unwrap();
    let mut content = std::fs::read(&last).unwrap();
    content.truncate(content.len() - 20);
    std::fs::write(&last, content).unwrap();
    run(ship(dir.path(), 150));
    assert_eq!(seqs(dir.path()), (1..=150).collect::<Vec<_>>());
}

#[test]
fn when_the_buffer_was_removed_and_numbers_start_over_everything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    run(ship(dir.path(), 1500));
    // The same numbers, for other records; the first hundred came back with a restored buffer.
    let second = || {
        records(1200).enumerate().map(|(at, (key, body))| {
            let body = String::from_utf8(body).unwrap();
            let body = if at < 100 {
                body
            } else {
                body.replace("xx", "yy")
            };
            (key, body.into_bytes())
        })
    };
    run(ship_these(dir.path(), second()));
    let expected: Vec<_> = (1..=1500).chain(101..=1200).collect();
    assert_eq!(seqs(dir.path()), expected);
    // Nothing of it twice after a crash, though both runs stand there.
    run(ship_these(dir.path(), second().take(1100)));
    assert_eq!(seqs(dir.path()), expected);
}

#[test]
fn records_that_are_sent_again_in_many_batches_are_not_written_twice() {
    let dir = tempfile::tempdir().unwrap();
    run(ship(dir.path(), 5000));
    run(ship(dir.path(), 6000));
    assert_eq!(seqs(dir.path()), (1..=6000).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_refuses_is_tried_again_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = dir.path().join("outbox");
    // A file where the directory should be.
    std::fs::write(&outbox, "").unwrap();
    run(async {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry);
        let config = Config::Outbox(OutboxConfig {
            dir: outbox.clone(),
            file_bytes_max: 20_000,
            bytes_max: 1 << 20,
        });
        let feed = Feed::new(records(10));
        let uplink = Uplink::new(config, dir.path().into(), vec![feed.clone()], metrics);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(uplink.run(stop.clone()));
        let failed = || {
            registry
                .gather()
                .iter()
                .any(|family| family.name().contains("failed_records"))
        };
        until("it failed", failed).await;
        std::fs::remove_file(&outbox).unwrap();
        until("everything is accepted", || feed.accepted() == 10).await;
        stop.cancel();
        task.join_all().await;
    });
    assert_eq!(seqs(&outbox), (1..=10).collect::<Vec<_>>());
}
