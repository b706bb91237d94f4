//! The buffer against a plain list, with restarts in the middle, damage, and full disks.

use std::{fs, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use bytes::Bytes;
use portcullis_core::record::{Draft, Kind, Lane, Record, SinkSet};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    Ack, Acked, Buffer, Config, InOrder, Metrics, OpenError, ReadError, Sink, Stamp, WriteError,
    store::Store,
};

pub(super) const GENEROUS: Duration = Duration::from_secs(60);

/// A buffer that can be stopped and started again in the same directory.
pub(super) struct Bench {
    pub(super) config: Config,
    pub(super) sinks: Vec<Sink>,
    open: Option<(Buffer, JoinHandle<Result<(), WriteError>>)>,
    metrics: Metrics,
    _dir: TempDir,
}

impl Bench {
    pub(super) fn new(generation_bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Self {
            config: Config {
                linger: Duration::ZERO,
                generation_bytes_max,
                ..Config::new(dir.path().join("buffer")).bounded(1 << 30)
            },
            sinks: vec![sink("sink", &Lane::ALL)],
            open: None,
            metrics: Metrics::register(&prometheus::Registry::new()),
            _dir: dir,
        };
        bench.start();
        bench
    }

    pub(super) fn start(&mut self) {
        let stamp = Stamp {
            gateway_id: "gw".into(),
            boot_id: "boot".into(),
        };
        self.metrics = Metrics::register(&prometheus::Registry::new());
        let (buffer, writer) =
            Buffer::open(&self.config, &self.sinks, stamp, self.metrics.clone()).unwrap();
        let writer =
            std::thread::spawn(move || writer.run(&tokio_util::sync::CancellationToken::new()));
        self.open = Some((buffer, writer));
    }

    pub(super) fn stop(&mut self) {
        let (buffer, writer) = self.open.take().unwrap();
        drop(buffer);
        writer.join().unwrap().unwrap();
    }

    pub(super) fn buffer(&self) -> &Buffer {
        &self.open.as_ref().unwrap().0
    }

    fn reader(&self) -> InOrder {
        InOrder::new(self.buffer().reader(0))
    }

    /// The lane of the events.
    pub(super) fn store(&self) -> Arc<Store> {
        self.buffer().lanes.store(Lane::Events).clone()
    }

    /// Where the lane of the events keeps its files.
    pub(super) fn dir(&self) -> PathBuf {
        self.config.dir.join("events")
    }

    pub(super) async fn append(&self, bodies: &[&str]) -> Acked {
        let (ack, acked) = Ack::new();
        let drafts = bodies.iter().map(|body| draft(body)).collect();
        self.buffer().append(drafts, Some(ack)).await.unwrap();
        acked
    }

    async fn keep(&self, bodies: &[&str]) {
        durable(self.append(bodies).await).await;
    }

    /// The generations, oldest first, with those set aside.
    pub(super) fn generations(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        paths.sort();
        paths
    }
}

pub(super) fn sink(name: &str, lanes: &[Lane]) -> Sink {
    Sink {
        name: name.to_owned(),
        lanes: lanes.to_vec(),
    }
}

pub(super) fn draft(text: &str) -> Draft {
    Draft {
        kind: Kind::Event,
        partition_key: "thing".into(),
        members: Bytes::from(format!("\"text\":\"{text}\"")),
        sinks: SinkSet::ALL,
    }
}

pub(super) async fn durable(acked: Acked) {
    timeout(GENEROUS, acked).await.unwrap().unwrap();
}

async fn read(reader: &mut InOrder, records_max: usize) -> Vec<Record> {
    timeout(GENEROUS, reader.read(records_max, 1 << 20))
        .await
        .unwrap()
        .unwrap()
}

fn text(record: &Record) -> String {
    let body: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
    assert_eq!(body["seq"], record.seq);
    body["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_was_acknowledged_is_read_in_order_with_numbers_from_1() {
    let bench = Bench::new(1 << 20);
    bench.keep(&["a", "b"]).await;
    bench.keep(&["c"]).await;
    let mut reader = bench.reader();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(read(&mut reader, 2).await);
    }
    let seen: Vec<_> = seen.iter().map(|r| (r.seq, text(r))).collect();
    assert_eq!(seen, [(1, "a".into()), (2, "b".into()), (3, "c".into())]);
}

#[tokio::test]
async fn numbers_go_on_after_a_restart_also_when_everything_was_drained() {
    let mut bench = Bench::new(1 << 20);
    for round in 0..4 {
        bench.keep(&["x", "y"]).await;
        let mut reader = bench.reader();
        let seqs: Vec<_> = read(&mut reader, 10).await.iter().map(|r| r.seq).collect();
        assert_eq!(seqs, [2 * round + 1, 2 * round + 2]);
        reader.accept(seqs[1]).await;
        drop(reader);
        bench.stop();
        bench.start();
    }
}

#[tokio::test]
async fn numbers_go_on_after_the_last_generation_was_dropped() {
    let mut bench = Bench::new(1);
    let mut reader = bench.reader();
    bench.keep(&["x", "y"]).await;
    read(&mut reader, 10).await;
    reader.accept(2).await;
    assert_eq!(
        bench.generations(),
        Vec::<PathBuf>::new(),
        "drained, dropped"
    );
    drop(reader);
    bench.stop();
    bench.start();
    bench.keep(&["z"]).await;
    assert_eq!(read(&mut bench.reader(), 10).await[0].seq, 3);
}

#[tokio::test]
async fn what_was_not_accepted_is_read_again_after_a_restart() {
    let mut bench = Bench::new(1 << 20);
    bench.keep(&["a", "b", "c"]).await;
    let mut reader = bench.reader();
    assert_eq!(read(&mut reader, 10).await.len(), 3);
    reader.accept(1).await;
    drop(reader);
    bench.stop();
    bench.start();
    let again = read(&mut bench.reader(), 10).await;
    assert_eq!(again.iter().map(text).collect::<Vec<_>>(), ["b", "c"]);
}

#[tokio::test]
async fn an_ack_without_drafts_waits_for_what_was_queued_before() {
    let bench = Bench::new(1 << 20);
    let mut first = bench.append(&["a"]).await;
    durable(bench.append(&[]).await).await;
    assert_eq!(first.try_recv(), Ok(()));
    durable(bench.append(&[]).await).await;
    assert_eq!(
        bench.metrics.commits.get(),
        1,
        "nothing to write, no commit"
    );
}

#[tokio::test]
async fn who_is_alone_is_committed_long_before_the_linger_ends() {
    let mut bench = Bench::new(1 << 20);
    bench.stop();
    bench.config.linger = 10 * GENEROUS;
    bench.start();
    bench.keep(&["alone"]).await;
    // Nobody waits for this one until somebody does.
    let unhurried = vec![draft("unhurried")];
    bench.buffer().append(unhurried, None).await.unwrap();
    bench.keep(&["hurried"]).await;
    let seen = read(&mut bench.reader(), 10).await;
    let texts: Vec<_> = seen.iter().map(text).collect();
    assert_eq!(texts, ["alone", "unhurried", "hurried"]);
    // Nor does a stop wait for company.
    let last = vec![draft("last")];
    bench.buffer().append(last, None).await.unwrap();
    bench.stop();
    bench.start();
    let seen = read(&mut bench.reader(), 10).await;
    assert_eq!(seen.last().map(text).as_deref(), Some("last"));
}

#[tokio::test]
async fn large_records_come_back_as_they_were() {
    let mut bench = Bench::new(1 << 20);
    let large = "x".repeat(300_000);
    bench.keep(&["a", &large, "b"]).await;
    bench.stop();
    bench.start();
    let mut reader = bench.reader();
    let mut texts = Vec::new();
    while texts.len() < 3 {
        texts.extend(read(&mut reader, 10).await.iter().map(text));
    }
    assert_eq!(texts, ["a", &large, "b"]);
}

#[tokio::test]
async fn a_read_gives_at_most_what_was_asked_for_but_at_least_one() {
    let bench = Bench::new(1 << 20);
    bench.keep(&["a", "b", "c", "d"]).await;
    let mut reader = bench.reader();
    let one = reader.read(10, 0).await.unwrap();
    assert_eq!(one.len(), 1);
    let bytes = one[0].wire_bytes();
    assert_eq!(reader.read(10, 2 * bytes).await.unwrap().len(), 2);
    assert_eq!(reader.read(1, 1 << 20).await.unwrap()[0].seq, 4);
}

#[tokio::test]
async fn a_reader_waits_for_records_and_ends_after_the_last() {
    let mut bench = Bench::new(1 << 20);
    let mut reader = bench.reader();
    let (records, ()) = tokio::join!(read(&mut reader, 10), bench.keep(&["a"]));
    assert_eq!(records.len(), 1);
    bench.keep(&["b"]).await;
    bench.stop();
    assert_eq!(read(&mut reader, 10).await.len(), 1);
    assert!(matches!(
        timeout(GENEROUS, reader.read(1, 1)).await.unwrap(),
        Err(ReadError::Closed)
    ));
}

#[tokio::test]
async fn disk_and_handles_come_back_when_generations_are_drained() {
    let bench = Bench::new(256 * 1024);
    let mut reader = bench.reader();
    let bodies: Vec<_> = (0..50).map(|n| noise(2000, n)).collect();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    for _ in 0..40 {
        bench.keep(&bodies).await;
    }
    assert!(bench.generations().len() > 3, "{:?}", bench.generations());
    let mut last = 0;
    while last < 2000 {
        last = read(&mut reader, 500).await.last().unwrap().seq;
    }
    reader.accept(last).await;
    assert_eq!(bench.generations(), Vec::<PathBuf>::new());
    assert_eq!(bench.metrics.disk_bytes.get(), 0);
    assert_eq!(bench.metrics.depth_records.get(), 0);
    let held = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter(|path| path.starts_with(&bench.config.dir))
        .filter(|path| path.to_string_lossy().contains("gen-"))
        .collect::<Vec<_>>();
    assert_eq!(held, Vec::<PathBuf>::new(), "an open file keeps its disk");
}

#[tokio::test]
async fn at_the_bound_appenders_wait_until_the_sink_takes_records() {
    let mut bench = Bench::new(64 * 1024);
    bench.stop();
    bench.config = bench.config.clone().bounded(2 << 20);
    bench.start();
    let bodies: Vec<_> = (0..50).map(|n| noise(7000, n)).collect();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    let mut waiting = Vec::new();
    // More than the disk bound and the queue take together.
    let flood = async {
        for _ in 0..400 {
            waiting.push(bench.append(&bodies[..10]).await);
        }
    };
    let mut reader = bench.reader();
    let drain = async {
        while bench.metrics.backpressure_waits.get() == 0 || bench.buffer().has_room() {
            tokio::task::yield_now().await;
        }
        let mut seen = 0;
        while seen < 4000 {
            let records = read(&mut reader, 500).await;
            assert_eq!(records[0].seq, seen + 1);
            seen = records.last().unwrap().seq;
            reader.accept(seen).await;
            let disk = bench.metrics.disk_bytes.get();
            assert!(disk < 12 << 20, "the bound and one commit: {disk}");
        }
    };
    timeout(GENEROUS, async { tokio::join!(flood, drain) })
        .await
        .unwrap();
    timeout(GENEROUS, bench.buffer().room()).await.unwrap();
    assert!(bench.buffer().has_room());
    for acked in waiting {
        durable(acked).await;
    }
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let bench = Bench::new(1 << 20);
    let stamp = Stamp {
        gateway_id: "gw".into(),
        boot_id: "boot".into(),
    };
    let metrics = Metrics::register(&prometheus::Registry::new());
    assert!(matches!(
        Buffer::open(&bench.config, &bench.sinks, stamp, metrics),
        Err(OpenError::InUse(_))
    ));
}

/// Overwrites half of the generation's log, and removes its snapshots.
fn damage(generation: &std::path::Path) {
    for entry in fs::read_dir(generation).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("snap")
        {
            fs::remove_file(path).unwrap();
        }
    }
    let log = generation.join("db");
    let mut content = fs::read(&log).unwrap();
    let eighth = content.len() / 8;
    content[eighth..5 * eighth].fill(0x5a);
    fs::write(log, content).unwrap();
}

const BODY_BYTES: usize = 1500;

/// The body of record `seq`; what is alike, or repeated, would be compressed to nothing.
fn body(seq: u64) -> String {
    noise(BODY_BYTES, seq)
}

pub(super) fn noise(bytes: usize, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.alphanumeric())
        .take(bytes)
        .collect()
}

/// 2000 records.
async fn several_generations() -> Bench {
    let mut bench = Bench::new(400 * 1024);
    let bodies: Vec<_> = (1..=2000).map(body).collect();
    for bodies in bodies.chunks(100) {
        let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
        bench.keep(&bodies).await;
    }
    bench.stop();
    assert!(bench.generations().len() > 3, "{:?}", bench.generations());
    bench
}

fn first_seq(generation: &std::path::Path) -> u64 {
    let name = generation.file_name().unwrap().to_str().unwrap();
    name.strip_prefix("gen-").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_damaged_generation_costs_only_what_it_held_and_the_loss_is_counted() {
    let mut bench = several_generations().await;
    let generations = bench.generations();
    damage(&generations[1]);
    let lost_at_most = first_seq(&generations[1])..first_seq(&generations[2]);
    bench.start();
    let mut reader = bench.reader();
    let mut seen = Vec::new();
    while seen.last() != Some(&2000_u64) {
        seen.extend(read(&mut reader, 500).await.iter().map(|r| r.seq));
    }
    let lost: Vec<u64> = (1..=2000).filter(|seq| !seen.contains(seq)).collect();
    assert!(!lost.is_empty());
    assert!(lost.iter().all(|seq| lost_at_most.contains(seq)));
    assert!(seen.is_sorted());
    let lost_count = u64::try_from(lost.len()).unwrap();
    assert_eq!(bench.metrics.lost_records.get(), lost_count);
    assert_eq!(bench.metrics.damaged_generations.get(), 1);
    reader.accept(2000).await;
    let aside = |path: &PathBuf| path.extension().is_some_and(|e| e == "damaged");
    assert_eq!(bench.generations().iter().filter(|p| aside(p)).count(), 1);
}

#[tokio::test]
async fn with_the_newest_generation_damaged_numbers_leap_ahead_and_never_repeat() {
    let mut bench = several_generations().await;
    let generations = bench.generations();
    let newest = generations.last().unwrap();
    fs::write(newest.join("db"), vec![0x5a; 700_000]).unwrap();
    bench.start();
    bench.keep(&["after"]).await;
    let mut reader = bench.reader();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, body)| body != "after") {
        seen.extend(
            read(&mut reader, 500)
                .await
                .iter()
                .map(|r| (r.seq, text(r))),
        );
    }
    let (after, _) = seen.pop().unwrap();
    assert!(after > 2000, "{after} was given before");
    assert_eq!(seen.last().unwrap().0, first_seq(newest) - 1);
    assert_eq!(
        bench.metrics.lost_records.get(),
        after - first_seq(newest),
        "every number that has no record is said to be lost"
    );
}

#[tokio::test]
async fn whatever_bytes_are_flipped_nothing_wrong_is_served() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..8 {
        let mut bench = several_generations().await;
        let generations = bench.generations();
        let started = std::time::Instant::now();
        let victim = random.usize(0..generations.len());
        let log = generations[victim].join("db");
        let mut content = fs::read(&log).unwrap();
        for _ in 0..random.usize(1..20) {
            let at = random.usize(0..content.len());
            content[at] ^= 1 << random.u32(0..8);
        }
        fs::write(&log, content).unwrap();
        bench.start();
        bench.keep(&["after"]).await;
        let mut reader = bench.reader();
        let (mut last, mut expected) = (0, 1);
        let mut lost = 0;
        loop {
            let records = read(&mut reader, 500).await;
            let after = records.iter().any(|record| text(record) == "after");
            for record in &records {
                assert!(
                    record.seq > last && record.place >= expected,
                    "numbers grow"
                );
                // Numbers may leap ahead after damage; places do not.
                lost += record.place - expected;
                (last, expected) = (record.seq, record.place + 1);
                assert!(text(record) == "after" || text(record) == body(record.seq));
            }
            if after {
                break;
            }
        }
        assert_eq!(bench.metrics.lost_records.get(), lost, "no silent gap");
        let per_generation = 1000;
        assert!(lost < per_generation || victim == generations.len() - 1);
        reader.accept(last).await;
        println!(
            "{victim} of {}: lost {lost} {:?}",
            generations.len(),
            started.elapsed()
        );
    }
}

/// Random calls against a plain list; every acknowledged text must come back in its place.
#[tokio::test]
async fn the_buffer_behaves_like_a_list_whatever_the_order_of_calls() {
    let seed = std::env::var("PORTCULLIS_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("PORTCULLIS_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bench = Bench::new(600 * 1024);
    let mut model: Vec<String> = Vec::new();
    let mut accepted = 0;
    let mut reader = bench.reader();
    let mut read_upto = 0;
    for _ in 0..400 {
        match random.u32(0..20) {
            0..10 => {
                let mut texts = Vec::new();
                for _ in 0..random.usize(0..40) {
                    let bytes_max = if random.u8(..) < 10 { 30_000 } else { 600 };
                    texts.push("t".repeat(random.usize(0..bytes_max)));
                }
                bench
                    .keep(&texts.iter().map(String::as_str).collect::<Vec<_>>())
                    .await;
                model.extend(texts);
            }
            10..15 if read_upto < model.len() => {
                let records = read(&mut reader, random.usize(1..200)).await;
                for record in records {
                    assert_eq!(record.seq, u64::try_from(read_upto + 1).unwrap());
                    assert_eq!(text(&record), model[read_upto]);
                    read_upto += 1;
                }
            }
            15..18 if accepted < read_upto => {
                accepted = random.usize(accepted + 1..=read_upto);
                reader.accept(u64::try_from(accepted).unwrap()).await;
            }
            18 => {
                // An orderly end, or one that leaves the cursor behind.
                let orderly = random.bool();
                let cursor = fs::read(bench.dir().join("cursor-sink")).unwrap();
                drop(reader);
                bench.stop();
                if !orderly {
                    fs::write(bench.dir().join("cursor-sink"), &cursor).unwrap();
                }
                bench.start();
                reader = bench.reader();
                let from = usize::try_from(bench.store().settled()).unwrap();
                assert!(from <= accepted && (!orderly || from == accepted));
                (accepted, read_upto) = (from, from);
            }
            _ => {}
        }
    }
    while read_upto < model.len() {
        for record in read(&mut reader, 500).await {
            assert_eq!(text(&record), model[read_upto]);
            read_upto += 1;
        }
    }
    assert_eq!(reader.unread(), 0);
    assert_eq!(bench.metrics.lost_records.get(), 0);
}

#[tokio::test]
async fn a_generation_that_somebody_else_has_locked_is_not_damaged() {
    let mut bench = several_generations().await;
    let before = bench.generations();
    let newest = fs::File::open(before.last().unwrap().join("db")).unwrap();
    newest.lock().unwrap();
    let stamp = Stamp {
        gateway_id: "gw".into(),
        boot_id: "boot".into(),
    };
    let metrics = Metrics::register(&prometheus::Registry::new());
    let opened = Buffer::open(&bench.config, &bench.sinks, stamp, metrics);
    assert!(
        matches!(opened, Err(OpenError::Unavailable(_))),
        "{opened:?}"
    );
    assert_eq!(bench.generations(), before);
    drop(newest);
    bench.start();
    let mut reader = bench.reader();
    let mut seen = 0;
    while seen < 2000 {
        seen = read(&mut reader, 500).await.last().unwrap().seq;
    }
    assert_eq!(bench.metrics.lost_records.get(), 0);
}

/// The number that the next record gets.
async fn next_seq(bench: &Bench) -> u64 {
    let mut reader = bench.reader();
    bench.keep(&["after"]).await;
    loop {
        let records = read(&mut reader, 500).await;
        if let Some(after) = records.iter().find(|record| text(record) == "after") {
            return after.seq;
        }
    }
}

#[tokio::test]
async fn numbers_never_repeat_when_nothing_was_appended_between_damage_and_the_next_start() {
    let mut bench = Bench::new(1 << 20);
    let numbers_end = |bench: &Bench| bench.config.dir.join("numbers-end");
    let stale = fs::read(bench.dir().join("end")).unwrap();
    let stale_numbers = fs::read(numbers_end(&bench)).unwrap();
    bench.stop();
    drop(bench);
    let mut bench = several_generations().await;
    let newest = bench.generations().pop().unwrap();
    fs::write(newest.join("db"), vec![0x5a; 700_000]).unwrap();
    // It is not synced: a power cut may leave an old one.
    fs::write(bench.dir().join("end"), stale).unwrap();
    fs::write(numbers_end(&bench), stale_numbers).unwrap();
    bench.start();
    let leapt = bench.store().end();
    assert!(leapt > 2000);
    bench.stop();
    bench.start();
    assert_eq!(bench.store().end(), leapt);
    assert_eq!(bench.metrics.damaged_generations.get(), 0, "said before");
    assert!(next_seq(&bench).await > 2000);
}

#[tokio::test]
async fn numbers_never_repeat_when_the_newest_generation_was_set_aside_while_reading() {
    let mut bench = Bench::new(64 << 20);
    let end_mark = bench.dir().join("end");
    let stale = fs::read(&end_mark).unwrap();
    let body = body(1);
    bench.keep(&[&*body; 500]).await;
    let store = bench.store();
    let newest = store.lock_state().generations[&1].clone();
    store.set_aside(&newest, 501);
    drop((newest, store));
    bench.stop();
    fs::write(end_mark, stale).unwrap();
    bench.start();
    assert_eq!(next_seq(&bench).await, 501);
}

#[tokio::test]
async fn a_kill_while_a_drained_generation_was_removed_is_no_damage() {
    let mut bench = Bench::new(64 << 20);
    bench.keep(&["x", "y"]).await;
    let mut reader = bench.reader();
    read(&mut reader, 10).await;
    reader.accept(2).await;
    drop(reader);
    bench.stop();
    // Its files are gone, its directory is not.
    let generation = bench.generations().pop().unwrap();
    for entry in fs::read_dir(&generation).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    bench.start();
    assert_eq!(bench.metrics.damaged_generations.get(), 0);
    assert_eq!(next_seq(&bench).await, 3);
    assert_eq!(bench.metrics.lost_records.get(), 0);
}

#[tokio::test]
async fn a_writer_at_the_bound_gets_its_disk_although_the_last_accept_could_not_be_written() {
    let mut bench = Bench::new(64 * 1024);
    bench.stop();
    bench.config = bench.config.clone().bounded(2 << 20);
    bench.start();
    let bodies: Vec<_> = (0..50).map(|n| noise(7000, n)).collect();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    let store = bench.store();
    while !store.shared.is_over(Lane::Events) {
        bench.keep(&bodies[..10]).await;
    }
    let mut reader = bench.reader();
    let mut last = 0;
    while reader.unread() > 0 {
        last = read(&mut reader, 500).await.last().unwrap().seq;
    }
    let cursor = store.lock_state().holds[&0].file.clone();
    let exchange = |file| cursor.lock().unwrap().slots.exchange_file(file);
    let good = exchange(fs::File::open(bench.dir().join("cursor-sink")).unwrap());
    reader.accept(last).await;
    assert!(store.shared.is_over(Lane::Events), "nothing may go yet");
    let waiting = bench.append(&["after"]).await;
    exchange(good);
    durable(waiting).await;
}

#[tokio::test]
async fn a_gap_is_not_blamed_on_the_healthy_generation_before_it() {
    let mut bench = several_generations().await;
    let healthy = bench.generations().len() - 1;
    let newest = bench.generations().pop().unwrap();
    fs::write(newest.join("db"), vec![0x5a; 700_000]).unwrap();
    for damaged in [1, 0] {
        bench.start();
        next_seq(&bench).await;
        assert_eq!(
            bench.metrics.damaged_generations.get(),
            damaged,
            "once, by the start that found it"
        );
        assert!(bench.metrics.lost_records.get() > 0);
        if damaged == 0 {
            let mut reader = bench.reader();
            reader.accept(bench.store().end() - 1).await;
            assert!(healthy > 1);
            let aside = |path: &PathBuf| path.extension().is_some_and(|e| e == "damaged");
            assert_eq!(bench.generations().iter().filter(|p| aside(p)).count(), 1);
        }
        bench.stop();
    }
}
