//! The buffer in a process that is killed with SIGKILL at random moments.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};

use portcullis::buffer::{Ack, Buffer, Config, InOrder, Metrics, Stamp, Writer};
use prometheus::Registry;
use tokio::task::JoinSet;

use crate::support::{SmallDisk, draft, one_sink, run, this_test};

const CHILD: &str = "buffer::appends_until_it_is_killed";
const DIR: &str = "PORTCULLIS_TEST_DIR";
const ROUND: &str = "PORTCULLIS_TEST_ROUND";
const APPENDERS: usize = 8;

fn open(dir: &Path) -> (Buffer, Writer) {
    let config = Config {
        linger: Duration::from_millis(2),
        generation_bytes_max: 2 << 20,
        ..Config::new(dir.to_owned()).bounded(1 << 30)
    };
    let stamp = Stamp {
        gateway_id: "gw".into(),
        boot_id: "boot".into(),
    };
    let metrics = Metrics::register(&Registry::new());
    Buffer::open(&config, &one_sink(), stamp, metrics).unwrap()
}

#[test]
#[ignore = "started, and killed, by the test below"]
fn appends_until_it_is_killed() {
    let (Some(dir), Ok(round)) = (std::env::var_os(DIR), std::env::var(ROUND)) else {
        return;
    };
    let (buffer, writer) = open(Path::new(&dir));
    let writer =
        std::thread::spawn(move || writer.run(&tokio_util::sync::CancellationToken::new()));
    run(async {
        let mut appenders = JoinSet::new();
        for appender in 0..APPENDERS {
            let (buffer, round) = (buffer.clone(), round.clone());
            appenders.spawn(async move {
                for n in 0_u64.. {
                    let (ack, acked) = Ack::new();
                    let padding = "x".repeat(usize::try_from(n % 97).unwrap() * 20);
                    let key = format!("{round}-{appender}");
                    let members = format!("\"n\":{n},\"padding\":\"{padding}\"");
                    buffer
                        .append(vec![draft(&key, members)], Some(ack))
                        .await
                        .unwrap();
                    acked.await.unwrap();
                    // One write: a line is whole or absent.
                    std::io::stdout()
                        .write_all(format!("\nacked {key} {n}\n").as_bytes())
                        .unwrap();
                }
            });
        }
        appenders.join_all().await;
    });
    writer.join().unwrap().unwrap();
}

/// How far each appender got, by its acknowledgements.
type Progress = BTreeMap<String, u64>;

fn run_and_kill(dir: &Path, round: usize, after: Duration, acked: &mut Progress) {
    let mut child = this_test(CHILD)
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut note = |line: String| {
        if let Some((key, n)) = line
            .strip_prefix("acked ")
            .and_then(|rest| rest.split_once(' '))
        {
            let n: u64 = n.parse().unwrap();
            let next = acked.get(key).map_or(0, |last| last + 1);
            assert_eq!(n, next, "acknowledgements of one appender come in order");
            acked.insert(key.to_owned(), n);
        }
    };
    // Not before it works at all.
    for line in lines.by_ref() {
        let line = line.unwrap();
        let works = line.starts_with("acked ");
        note(line);
        if works {
            break;
        }
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    lines.map_while(Result::ok).for_each(note);
    child.wait().unwrap();
}

/// Every acknowledged record is there, numbers have no gap, each appender's records are in order.
fn check(dir: &Path, acked: &Progress) -> u64 {
    let (buffer, writer) = open(dir);
    let mut reader = InOrder::new(buffer.reader(0));
    drop(buffer);
    writer
        .run(&tokio_util::sync::CancellationToken::new())
        .unwrap();
    let mut seen = Progress::new();
    let mut seq = 0;
    run(async {
        while reader.unread() > 0 {
            for record in reader.read(1000, 1 << 20).await.unwrap() {
                seq += 1;
                assert_eq!(record.seq, seq, "no gap");
                let body: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
                assert_eq!(body["seq"], seq);
                let n = body["n"].as_u64().unwrap();
                let next = seen.get(&*record.partition_key).map_or(0, |last| last + 1);
                assert_eq!(n, next, "{} in order", record.partition_key);
                seen.insert(record.partition_key.to_string(), n);
            }
        }
    });
    for (key, n) in acked {
        assert!(seen.get(key) >= Some(n), "{key}: {n} was acknowledged");
    }
    seq
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let kills = std::env::var("PORTCULLIS_TEST_KILLS").map_or(8, |n| n.parse().unwrap());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("buffer");
    let mut acked = Progress::new();
    let mut present = 0;
    for round in 0..kills {
        let after = Duration::from_millis(random.u64(0..400));
        run_and_kill(&dir, round, after, &mut acked);
        present = check(&dir, &acked);
    }
    let acked: u64 = acked.values().map(|n| n + 1).sum();
    println!("{kills} kills, {acked} records acknowledged, {present} present");
    assert!(acked > 0 && present >= acked);
}

#[test]
fn on_a_full_disk_appenders_wait_and_go_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(dir.path(), 8) else {
        return;
    };
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![7; 4 << 20]).unwrap();
    let (buffer, writer) = open(&dir.path().join("buffer"));
    let writer =
        std::thread::spawn(move || writer.run(&tokio_util::sync::CancellationToken::new()));
    // The buffer would compress anything else to nothing.
    let mut random = fastrand::Rng::with_seed(1);
    let body: String = std::iter::repeat_with(|| random.alphanumeric())
        .take(20_000)
        .collect();
    run(async {
        let mut acked = Vec::new();
        let mut append = async |n: u32| {
            let (ack, ended) = Ack::new();
            let draft = draft("thing", format!("\"n\":{n},\"body\":\"{body}\""));
            buffer.append(vec![draft; 10], Some(ack)).await.unwrap();
            acked.push(ended);
            acked.last_mut().unwrap().await
        };
        let mut n = 0;
        loop {
            let patience = Duration::from_secs(2);
            match tokio::time::timeout(patience, append(n)).await {
                Ok(ended) => ended.unwrap(),
                Err(_) => break,
            }
            n += 1;
            assert!(n < 1000, "the disk is never full");
        }
        println!("full after {n} appends");
        std::fs::remove_file(&ballast).unwrap();
        acked.pop().unwrap().await.unwrap();
        let mut reader = InOrder::new(buffer.reader(0));
        let mut seq = 0;
        while reader.unread() > 0 {
            for record in reader.read(100, 1 << 20).await.unwrap() {
                seq += 1;
                assert_eq!(record.seq, seq);
            }
        }
        assert_eq!(seq, u64::from(n + 1) * 10);
    });
    drop(buffer);
    writer.join().unwrap().unwrap();
}
