//! The Kinesis sink: the real SDK against scripted faults, and against kinesalite and moto.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use portcullis::{
    buffer::{self, Ack, Buffer, Stamp},
    uplink::{
        Board, Config, KinesisConfig, Metrics, Ordering, RecordSource, RouteConfig, StreamConfig,
        Uplink, Waits,
    },
};
use portcullis_cloud::{Cloud, Fault};
use portcullis_core::backoff::Backoff;
use prometheus::{Registry, TextEncoder};
use tokio_util::sync::CancellationToken;

use crate::{
    emulators::{Emulator, free_port},
    fake_kinesis::{FakeKinesis, Step},
    stream::{REGION, STREAM, client, create_stream, read_stream},
    support::{CREDENTIALS, Feed, FromBuffer, GENEROUS, draft, in_child, one_sink, run, until},
};

const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// The stream of the tests with one request under way, so that what happens is in order.
pub(crate) fn stream(endpoint: &str) -> StreamConfig {
    let soon = Backoff {
        base: Duration::from_millis(50),
        cap: Duration::from_millis(500),
    };
    StreamConfig {
        endpoint: Some(endpoint.into()),
        requests_in_flight: 1,
        waits: Waits {
            throttled: soon,
            unreachable: soon,
            refused: soon,
            missing: soon,
        },
        ..StreamConfig::new(STREAM, REGION)
    }
}

/// An uplink at work.
pub(crate) struct Shipping {
    registry: Registry,
    board: Board,
    stop: CancellationToken,
    task: tokio::task::JoinSet<portcullis::supervisor::TaskResult>,
    dead_letters: tempfile::TempDir,
}

impl Shipping {
    fn start(endpoint: &str, source: impl RecordSource) -> Self {
        Self::start_with(stream(endpoint), source)
    }

    pub(crate) fn start_with(stream: StreamConfig, source: impl RecordSource) -> Self {
        let config = KinesisConfig {
            default: stream,
            routes: Vec::new(),
        };
        Self::start_all(config, vec![source])
    }

    fn start_all<S: RecordSource>(config: KinesisConfig, sources: Vec<S>) -> Self {
        let registry = Registry::new();
        let dead_letters = tempfile::tempdir().unwrap();
        let config = Config::Kinesis(Box::new(config));
        let metrics = Metrics::register(&registry);
        let board = metrics.board();
        let uplink = Uplink::new(config, dead_letters.path().into(), sources, metrics);
        let stop = CancellationToken::new();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(uplink.run(stop.clone()));
        Self {
            registry,
            board,
            stop,
            task,
            dead_letters,
        }
    }

    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(GENEROUS, self.task.join_next()).await;
        ended.unwrap().unwrap().unwrap().unwrap();
    }

    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let value = text
            .lines()
            .find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) fn failed(&self, reason: &str) -> f64 {
        self.metric(&format!(
            "portcullis_uplink_failed_records_total{{reason=\"{reason}\",sink=\"kinesis\"}}"
        ))
    }

    /// Whether the sink is in this state.
    pub(crate) fn is(&self, state: &str) -> bool {
        let line = format!("portcullis_uplink_state{{sink=\"kinesis\",state=\"{state}\"}}");
        self.metric(&line) == 1.0
    }

    /// What the status says of the sinks.
    pub(crate) fn status(&self) -> String {
        self.board.document().to_string()
    }

    pub(crate) fn dead_letters(&self) -> Vec<serde_json::Value> {
        lines(self.dead_letters.path())
    }
}

fn lines(dir: &Path) -> Vec<serde_json::Value> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let texts = paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

/// `n` records over `keys` keys, the bodies telling key and place.
pub(crate) fn records(n: usize, keys: usize) -> Vec<(String, Vec<u8>)> {
    (0..n)
        .map(|i| {
            let key = format!("thing-{}", i % keys);
            let body = format!("{{\"key\":\"{key}\",\"n\":{}}}", i / keys);
            (key, body.into_bytes())
        })
        .collect()
}

pub(crate) type ByKey = BTreeMap<String, Vec<Vec<u8>>>;

pub(crate) fn by_key(records: Vec<(String, Vec<u8>)>) -> ByKey {
    let mut all = ByKey::new();
    for (key, data) in records {
        all.entry(key).or_default().push(data);
    }
    all
}

/// The first arrival of each record: what a consumer keeps.
pub(crate) fn without_duplicates(mut all: ByKey) -> ByKey {
    for data in all.values_mut() {
        let mut seen = std::collections::BTreeSet::new();
        data.retain(|data| seen.insert(data.clone()));
    }
    all
}

/// Ships `sent` through the script and returns the fake and the uplink, all accepted.
async fn ship(sent: &[(String, Vec<u8>)], script: Vec<Step>) -> (FakeKinesis, Shipping) {
    let fake = FakeKinesis::start(script);
    let feed = Feed::new(sent.iter().cloned());
    let mut shipping = Shipping::start(&fake.endpoint, feed.clone());
    let all = u64::try_from(sent.len()).unwrap();
    until("everything is accepted", || feed.accepted() == all).await;
    shipping.stop().await;
    (fake, shipping)
}

#[test]
fn records_arrive_in_full_batches_and_in_order() {
    if !in_child(
        "kinesis::records_arrive_in_full_batches_and_in_order",
        CREDENTIALS,
    ) {
        return;
    }
    let sent = records(1200, 7);
    let (fake, shipping) = run(ship(&sent, vec![]));
    assert_eq!(fake.taken(), sent);
    let sizes: Vec<_> = fake.requests().iter().map(Vec::len).collect();
    assert_eq!(sizes, [500, 500, 200]);
    assert_eq!(
        shipping.metric("portcullis_uplink_sent_records_total{sink=\"kinesis\"}"),
        1200.0
    );
    assert_eq!(
        shipping.metric("portcullis_uplink_online{sink=\"kinesis\"}"),
        1.0
    );
}

#[test]
fn only_the_failed_records_are_sent_again_and_newer_ones_of_their_key_wait() {
    let name = "kinesis::only_the_failed_records_are_sent_again_and_newer_ones_of_their_key_wait";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let sent = records(1100, 10);
    // The last record of thing-3 in the first request fails twice.
    let script = vec![
        Step::FailRecords(vec![493], THROTTLED),
        Step::FailRecords(vec![0], "InternalFailure"),
    ];
    let (fake, shipping) = run(ship(&sent, script));
    let mut arrived = fake.taken();
    assert_eq!(arrived.len(), 1100, "nothing twice");
    assert_eq!(by_key(arrived.clone()), by_key(sent.clone()));
    arrived.sort();
    let mut all = sent;
    all.sort();
    assert_eq!(arrived, all);
    assert_eq!(shipping.failed("throttled"), 1.0);
    assert_eq!(shipping.failed("service"), 1.0);
    let second = &fake.requests()[1];
    let of_key: Vec<_> = second.iter().filter(|(key, _)| key == "thing-3").collect();
    assert_eq!(of_key.len(), 1, "the failed one alone");
}

#[test]
fn whole_requests_that_fail_are_sent_again() {
    if !in_child(
        "kinesis::whole_requests_that_fail_are_sent_again",
        CREDENTIALS,
    ) {
        return;
    }
    let sent = records(50, 5);
    let script = vec![
        Step::Refuse(400, THROTTLED),
        Step::Refuse(500, "InternalFailureException"),
        Step::Refuse(503, ""),
        Step::CutBefore,
        Step::FailRecords((0..50).collect(), THROTTLED),
    ];
    let (fake, shipping) = run(ship(&sent, script));
    assert_eq!(fake.taken(), sent);
    assert_eq!(shipping.failed("throttled"), 100.0);
    assert_eq!(shipping.failed("service"), 100.0);
    assert_eq!(shipping.failed("connectivity"), 50.0);
    assert_eq!(shipping.dead_letters(), Vec::<serde_json::Value>::new());
}

#[test]
fn on_a_slow_link_requests_shrink_until_they_pass_in_time() {
    let name = "kinesis::on_a_slow_link_requests_shrink_until_they_pass_in_time";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let sent: Vec<_> = (0..200)
        .map(|n| (format!("thing-{}", n % 7), vec![b'x'; 10_000 + n]))
        .collect();
    run(async {
        let fake = FakeKinesis::start([]);
        fake.afterwards(Step::StallAbove(600_000));
        let feed = Feed::new(sent.iter().cloned());
        let config = StreamConfig {
            request_timeout: Duration::from_secs(1),
            ..stream(&fake.endpoint)
        };
        let mut shipping = Shipping::start_with(config, feed.clone());
        until("everything is accepted", || feed.accepted() == 200).await;
        shipping.stop().await;
        assert_eq!(fake.taken(), sent);
        assert!(shipping.failed("timed-out") > 0.0);
        let largest = fake.requests().iter().map(Vec::len).max().unwrap();
        assert!(largest > 25, "they grow again: {largest}");
        // 2 MB, 1 MB, and 500 kB that pass; then now and then one that has grown too large.
        assert!(fake.stalled() <= 4, "{}", fake.stalled());
    });
}

#[test]
fn a_lost_answer_costs_duplicates_and_nothing_else() {
    if !in_child(
        "kinesis::a_lost_answer_costs_duplicates_and_nothing_else",
        CREDENTIALS,
    ) {
        return;
    }
    let sent = records(40, 4);
    let cloud = Cloud::with_stream(STREAM, 1).unwrap();
    cloud.next_requests([Fault::DropReply]);
    run(async {
        let feed = Feed::new(sent.iter().cloned());
        let mut shipping = Shipping::start(&cloud.endpoint(), feed.clone());
        until("everything is accepted", || feed.accepted() == 40).await;
        shipping.stop().await;
    });
    assert_eq!(cloud.counters().replies_lost, 1);
    let taken = cloud.taken(STREAM);
    assert_eq!(taken.len(), 80);
    assert_eq!(without_duplicates(by_key(taken)), by_key(sent));
}

#[test]
fn a_record_that_spoils_its_request_is_set_aside_alone() {
    if !in_child(
        "kinesis::a_record_that_spoils_its_request_is_set_aside_alone",
        CREDENTIALS,
    ) {
        return;
    }
    let mut sent = records(300, 3);
    sent[123].1 = b"{\"poison\":1}".to_vec();
    sent[200].1 = format!("{{\"large\":\"{}\"}}", "x".repeat(1 << 20)).into_bytes();
    run(async {
        let fake = FakeKinesis::start([]);
        fake.afterwards(Step::RefuseIfContains("poison"));
        let feed = Feed::new(sent.iter().cloned());
        let mut shipping = Shipping::start(&fake.endpoint, feed.clone());
        until("everything is accepted", || feed.accepted() == 300).await;
        shipping.stop().await;
        let dead = shipping.dead_letters();
        let mut reasons: Vec<_> = dead
            .iter()
            .map(|line| line["reason"].as_str().unwrap())
            .collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["invalid", "oversize"]);
        let poison = dead
            .iter()
            .find(|line| line["reason"] == "invalid")
            .unwrap();
        assert_eq!(poison["record"]["poison"], 1);
        sent.remove(200);
        sent.remove(123);
        assert_eq!(fake.taken(), sent);
    });
}

#[test]
fn a_missing_stream_or_refused_credentials_drop_nothing() {
    if !in_child(
        "kinesis::a_missing_stream_or_refused_credentials_drop_nothing",
        CREDENTIALS,
    ) {
        return;
    }
    run(async {
        for (code, reason) in [
            ("ResourceNotFoundException", "stream-missing"),
            ("ExpiredTokenException", "credentials"),
            ("SomethingNew", "refused"),
        ] {
            let fake = FakeKinesis::start([]);
            fake.afterwards(Step::Refuse(400, code));
            let feed = Feed::new(records(10, 2));
            let mut shipping = Shipping::start(&fake.endpoint, feed.clone());
            until("it failed", || shipping.failed(reason) > 0.0).await;
            shipping.stop().await;
            assert_eq!(feed.accepted(), 0);
            assert_eq!(shipping.dead_letters().len(), 0);
            assert_eq!(
                shipping.metric("portcullis_uplink_online{sink=\"kinesis\"}"),
                0.0
            );
        }
    });
}

#[test]
fn without_credentials_nothing_is_sent_and_the_reason_is_counted() {
    if !in_child(
        "kinesis::without_credentials_nothing_is_sent_and_the_reason_is_counted",
        &[],
    ) {
        return;
    }
    run(async {
        let fake = FakeKinesis::start([]);
        let feed = Feed::new(records(10, 2));
        let mut shipping = Shipping::start(&fake.endpoint, feed.clone());
        until("it failed", || shipping.failed("credentials") > 0.0).await;
        shipping.stop().await;
        assert_eq!(fake.requests().len(), 0);
    });
}

pub(crate) fn open_buffer(dir: &Path) -> (Buffer, std::thread::JoinHandle<()>) {
    let config = buffer::Config {
        linger: std::time::Duration::from_millis(2),
        generation_bytes_max: 1 << 20,
        ..buffer::Config::new(dir.join("buffer")).bounded(1 << 30)
    };
    let stamp = Stamp {
        gateway_id: "gw".into(),
        boot_id: "boot".into(),
    };
    let metrics = buffer::Metrics::register(&Registry::new());
    let (buffer, writer) = Buffer::open(&config, &one_sink(), stamp, metrics).unwrap();
    (
        buffer,
        std::thread::spawn(move || {
            writer
                .run(&tokio_util::sync::CancellationToken::new())
                .unwrap()
        }),
    )
}

#[test]
fn while_the_endpoint_is_down_appends_are_acknowledged_and_all_arrives_when_it_returns() {
    let name = "kinesis::while_the_endpoint_is_down_appends_are_acknowledged_and_all_arrives_when_it_returns";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let (buffer, writer) = open_buffer(dir.path());
    run(async {
        let source = FromBuffer(buffer.reader(0));
        let mut shipping = Shipping::start(&format!("http://127.0.0.1:{port}"), source);
        for n in 0..500 {
            let (ack, acked) = Ack::new();
            let draft = draft(&format!("thing-{}", n % 5), format!("\"n\":{}", n / 5));
            buffer.append(vec![draft], Some(ack)).await.unwrap();
            acked.await.unwrap();
        }
        until("it noticed", || shipping.failed("connectivity") > 0.0).await;
        let fake = FakeKinesis::start_on(port, []);
        until("all arrived", || fake.taken().len() == 500).await;
        drop(buffer);
        shipping.stop().await;
        for (key, bodies) in by_key(fake.taken()) {
            for (n, body) in bodies.iter().enumerate() {
                let body: serde_json::Value = serde_json::from_slice(body).unwrap();
                assert_eq!(body["n"], n, "{key}");
            }
        }
    });
    writer.join().unwrap();
    // Nothing is sent again by the next run: the cursor was written at the end.
    let (buffer, writer) = open_buffer(dir.path());
    assert_eq!(buffer::InOrder::new(buffer.reader(0)).unread(), 0);
    drop(buffer);
    writer.join().unwrap();
}

#[test]
fn at_stop_what_is_buffered_gets_one_last_attempt() {
    if !in_child(
        "kinesis::at_stop_what_is_buffered_gets_one_last_attempt",
        CREDENTIALS,
    ) {
        return;
    }
    run(async {
        let fake = FakeKinesis::start([]);
        let sent = records(3000, 3);
        let feed = Feed::new(sent.iter().cloned());
        let mut shipping = Shipping::start(&fake.endpoint, feed.clone());
        shipping.stop().await;
        assert_eq!(fake.taken(), sent);
        assert_eq!(feed.accepted(), 3000);
        let gone = format!("http://127.0.0.1:{}", free_port());
        let feed = Feed::new(sent);
        let mut shipping = Shipping::start(&gone, feed.clone());
        let started = Instant::now();
        shipping.stop().await;
        assert!(started.elapsed().as_secs() < 15, "one attempt, no more");
        assert_eq!(feed.accepted(), 0);
    });
}

#[test]
fn strict_order_holds_through_partial_failures_lost_answers_and_several_requests_under_way() {
    let name = "kinesis::strict_order_holds_through_partial_failures_lost_answers_and_several_requests_under_way";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let sent = records(6000, 300);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let script = (0..60).map(|_| match random.u32(0..10) {
        0 => Step::Refuse(400, THROTTLED),
        1 => Step::CutAfter,
        2 => Step::CutBefore,
        _ => {
            let failing = (0..40).filter(|_| random.bool()).collect();
            Step::FailRecords(failing, THROTTLED)
        }
    });
    let script: Vec<_> = script.collect();
    run(async {
        let fake = FakeKinesis::start(script);
        let feed = Feed::new(sent.iter().cloned());
        let config = StreamConfig {
            ordering: Ordering::Strict,
            requests_in_flight: 4,
            ..stream(&fake.endpoint)
        };
        let mut shipping = Shipping::start_with(config, feed.clone());
        until("everything is accepted", || feed.accepted() == 6000).await;
        shipping.stop().await;
        for request in fake.requests() {
            let keys: std::collections::BTreeSet<_> = request.iter().map(|(key, _)| key).collect();
            assert_eq!(
                keys.len(),
                request.len(),
                "a thing has one record in a request"
            );
        }
        assert_eq!(without_duplicates(by_key(fake.taken())), by_key(sent));
    });
}

#[test]
fn each_stream_gets_its_own_and_none_waits_for_another() {
    let name = "kinesis::each_stream_gets_its_own_and_none_waits_for_another";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let (broken, whole) = (FakeKinesis::start([]), FakeKinesis::start([]));
        broken.afterwards(Step::Refuse(400, "ResourceNotFoundException"));
        let route = RouteConfig {
            name: "pumps".to_owned(),
            stream: stream(&whole.endpoint),
            kinds: Vec::new(),
            groups: Vec::new(),
            topics: Vec::new(),
            also_default: false,
        };
        let config = KinesisConfig {
            default: stream(&broken.endpoint),
            routes: vec![route],
        };
        let feeds = [Feed::new(records(10, 2)), Feed::new(records(30, 2))];
        let mut shipping = Shipping::start_all(config, feeds.to_vec());
        until("the route is through", || feeds[1].accepted() == 30).await;
        until("the other one failed", || {
            shipping.failed("stream-missing") > 0.0
        })
        .await;
        shipping.stop().await;
        assert_eq!((whole.taken().len(), feeds[0].accepted()), (30, 0));
        let state = |sink, state| {
            shipping.metric(&format!(
                "portcullis_uplink_state{{sink=\"{sink}\",state=\"{state}\"}}"
            ))
        };
        assert_eq!(state("kinesis", "paused"), 1.0);
        assert_eq!(state("kinesis-pumps", "online"), 1.0);
    });
}

#[test]
fn a_clock_that_is_off_is_noticed_in_the_answers() {
    let name = "kinesis::a_clock_that_is_off_is_noticed_in_the_answers";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let fake = FakeKinesis::start([]);
        fake.date("Tue, 01 Jan 2069 00:00:00 GMT");
        fake.afterwards(Step::Refuse(403, "InvalidSignatureException"));
        let mut shipping = Shipping::start(&fake.endpoint, Feed::new(records(10, 2)));
        until("it failed", || shipping.failed("credentials") > 0.0).await;
        shipping.stop().await;
        assert!(shipping.metric("portcullis_uplink_clock_skew_seconds") > 1e6);
    });
}

#[test]
fn records_of_a_shard_are_put_together_once_the_shards_are_known() {
    let name = "kinesis::records_of_a_shard_are_put_together_once_the_shards_are_known";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let fake = FakeKinesis::start([]);
        fake.shards(1);
        let feed = Feed::new(records(499, 5));
        let config = StreamConfig {
            aggregate: true,
            linger: Duration::from_secs(1),
            ..stream(&fake.endpoint)
        };
        let mut shipping = Shipping::start_with(config, feed.clone());
        until("everything is accepted", || feed.accepted() == 499).await;
        shipping.stop().await;
        assert_eq!(feed.dropped(), 0);
        // A request that is not full waits for company, and the shards are known by then.
        let taken = fake.taken();
        assert!(taken.len() < 10, "{}", taken.len());
        assert!(taken[0].1.starts_with(&[0xf3, 0x89, 0x9a, 0xc2]));
    });
}

#[test]
fn kinesalite_keeps_each_things_order_while_a_shard_is_split() {
    let name = "kinesis::kinesalite_keeps_each_things_order_while_a_shard_is_split";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let Some(running) = Emulator::Kinesalite.start() else {
        return;
    };
    run(async {
        let client = client(&running.endpoint).await;
        create_stream(&client, 1).await;
        let sent = records(4000, 20);
        let feed = Feed::new(sent.iter().cloned());
        let config = StreamConfig {
            requests_in_flight: 4,
            ..stream(&running.endpoint)
        };
        // One shard takes a thousand a second: the split falls into the middle.
        let mut shipping = Shipping::start_with(config, feed.clone());
        until("it has begun", || feed.accepted() > 500).await;
        let split = client.split_shard().stream_name(STREAM);
        let split = split
            .shard_to_split("shardId-000000000000")
            .new_starting_hash_key((u128::MAX / 2).to_string());
        split.send().await.unwrap();
        assert!(feed.accepted() < 4000, "it is not over");
        until("everything is accepted", || feed.accepted() == 4000).await;
        shipping.stop().await;
        let arrived = without_duplicates(by_key(read_stream(&client).await));
        assert!(
            arrived == by_key(sent),
            "each thing in order, nothing missing"
        );
    });
}

fn emulator_keeps_order_and_bytes(emulator: Emulator) {
    let Some(running) = emulator.start() else {
        return;
    };
    run(async {
        let client = client(&running.endpoint).await;
        create_stream(&client, 3).await;
        // Sizes from one byte to a quarter of the limit, any byte value.
        let mut random = fastrand::Rng::with_seed(7);
        let sent: Vec<_> = (0..4000)
            .map(|n| {
                let bytes = match random.u32(0..200) {
                    0 => random.usize(1..250_000),
                    _ => random.usize(1..600),
                };
                let data = std::iter::repeat_with(|| random.u8(..))
                    .take(bytes)
                    .collect();
                (format!("thing-{}", n % 20), data)
            })
            .collect();
        let feed = Feed::new(sent.iter().cloned());
        let started = Instant::now();
        let mut shipping = Shipping::start(&running.endpoint, feed.clone());
        until("everything is accepted", || feed.accepted() == 4000).await;
        let seconds = started.elapsed().as_secs_f64();
        shipping.stop().await;
        let arrived = by_key(read_stream(&client).await);
        assert!(arrived == by_key(sent), "byte for byte, each key in order");
        println!("{emulator:?}: 4000 records in {seconds:.2} s, read back identical");
    });
}

#[test]
fn kinesalite_reads_back_byte_identical_records_in_each_things_order() {
    let name = "kinesis::kinesalite_reads_back_byte_identical_records_in_each_things_order";
    if in_child(name, CREDENTIALS) {
        emulator_keeps_order_and_bytes(Emulator::Kinesalite);
    }
}

#[test]
fn moto_reads_back_byte_identical_records_in_each_things_order() {
    let name = "kinesis::moto_reads_back_byte_identical_records_in_each_things_order";
    if in_child(name, CREDENTIALS) {
        emulator_keeps_order_and_bytes(Emulator::Moto);
    }
}
