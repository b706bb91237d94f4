//! The CloudWatch sinks: the real SDK and our own signed calls against scripted faults, and moto.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use portcullis::{
    clock::now,
    supervisor::{Outcome, Stage, Supervisor, TaskResult},
    telemetry,
    uplink::cloudwatch::{
        Config, LogFeed, LogSink, LogsConfig, MetricSink, Metrics, MetricsConfig, start,
    },
};
use portcullis_cloud::{Cloud, Fault, Measured, Refusal, Settings};
use portcullis_core::{
    cloudwatch::{
        logs::Line,
        metrics::{Datum, Point, Reading, Unit},
    },
    record::{Draft, Kind, SinkSet},
    timestamp::Timestamp,
};
use prometheus::{Registry, TextEncoder};
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Level, warn};

use crate::{
    bulk::Bulk,
    emulators::{Emulator, free_port},
    fake_cloudwatch::{FakeCloudWatch, Step},
    support::{CREDENTIALS, GENEROUS, in_child, run, until},
};

const REGION: &str = "eu-central-1";
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A sink at work.
struct Shipping {
    registry: Registry,
    stop: CancellationToken,
    task: JoinSet<TaskResult>,
}

impl Shipping {
    fn metrics(endpoint: &str, bulk: &Bulk) -> Self {
        Self::metrics_within(endpoint, bulk, GENEROUS)
    }

    fn metrics_within(endpoint: &str, bulk: &Bulk, timeout: Duration) -> Self {
        let registry = Registry::new();
        let config = metrics_config(endpoint);
        let sink = MetricSink::new(config, bulk.clone(), Metrics::register(&registry));
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(sink.with_timeout(timeout).run(stop.clone()));
        Self {
            registry,
            stop,
            task,
        }
    }

    fn logs(endpoint: &str, bulk: &Bulk) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry);
        let sink = LogSink::new(logs_config(endpoint), "gw-1", bulk.clone(), metrics);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(sink.with_timeout(GENEROUS).run(stop.clone()));
        Self {
            registry,
            stop,
            task,
        }
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(GENEROUS, self.task.join_next()).await;
        ended.unwrap().unwrap().unwrap().unwrap();
    }

    fn calls(&self, sink: &str, outcome: &str) -> f64 {
        let families = self.registry.gather();
        let text = TextEncoder::new().encode_to_string(&families).unwrap();
        let line =
            format!("portcullis_cloudwatch_calls_total{{outcome=\"{outcome}\",sink=\"{sink}\"}} ");
        let value = text.lines().find_map(|l| l.strip_prefix(&line));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

fn metrics_config(endpoint: &str) -> MetricsConfig {
    MetricsConfig {
        namespace: "Portcullis".into(),
        region: REGION.into(),
        endpoint: Some(endpoint.into()),
        dimensions: BTreeMap::new(),
    }
}

fn logs_config(endpoint: &str) -> LogsConfig {
    LogsConfig {
        group: "/edge/portcullis".into(),
        stream: None,
        region: REGION.into(),
        endpoint: Some(endpoint.into()),
        level: Level::WARN,
    }
}

/// Waits until everything is settled, and stops.
async fn settle(mut shipping: Shipping, bulk: &Bulk) -> Shipping {
    until("everything is settled", || bulk.is_settled()).await;
    shipping.stop().await;
    shipping
}

fn datum(name: &str, value: f64) -> Datum {
    Datum {
        name: name.to_owned(),
        dimensions: vec![("Reason".to_owned(), "r".to_owned())],
        unit: Unit::COUNT,
        reading: Reading::one(value),
    }
}

/// The draft of a minute with these data, so many milliseconds ago.
fn minute(ago: u64, data: Vec<Datum>) -> Draft {
    let at = Timestamp::from_millis(now().as_millis() / MINUTE * MINUTE - ago);
    let common = BTreeMap::from([("GatewayId".to_owned(), "gw-1".to_owned())]);
    let point = Point {
        namespace: "Portcullis".to_owned(),
        at,
        data,
    };
    Draft {
        kind: Kind::Metric,
        partition_key: "gw-1".into(),
        members: point.members(&common),
        sinks: SinkSet::single(0),
    }
}

fn minutes(values: impl IntoIterator<Item = u32>) -> Vec<Draft> {
    let minute = |value| minute(2 * HOUR, vec![datum("Publishes", f64::from(value))]);
    values.into_iter().map(minute).collect()
}

/// Names and values of everything that was taken, in order.
fn taken(fake: &FakeCloudWatch) -> Vec<(String, f64)> {
    let calls = fake.metrics();
    let data = calls
        .iter()
        .flat_map(|call| call["MetricData"].as_array().unwrap());
    data.map(|datum| {
        let name = datum["MetricName"].as_str().unwrap().to_owned();
        (name, datum["Value"].as_f64().unwrap())
    })
    .collect()
}

fn values(fake: &FakeCloudWatch) -> Vec<f64> {
    taken(fake).into_iter().map(|(_, value)| value).collect()
}

#[test]
fn minutes_arrive_in_full_calls_and_in_order() {
    let name = "cloudwatch::minutes_arrive_in_full_calls_and_in_order";
    // As a gateway has it: compressed.
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = Cloud::start(Settings::default()).unwrap();
        let bulk = Bulk::default();
        let of_minute = |n: u32| (0..60).map(move |m| datum(&format!("m{m}"), f64::from(n)));
        bulk.append((0..40).map(|n| minute(HOUR, of_minute(n).collect())));
        // Refused for certain goes again; the data are compressed and in CBOR, and it reads both.
        cloud.next_of("PutMetricData", [Fault::Refuse(Refusal::throttling())]);
        let shipping = settle(Shipping::metrics(&cloud.endpoint(), &bulk), &bulk).await;
        let taken: Vec<_> = cloud
            .datums()
            .into_iter()
            .map(|datum| (datum.namespace, datum.name, datum.measured))
            .collect();
        let expected: Vec<_> = (0..40)
            .flat_map(of_minute)
            .zip((0..40).flat_map(|n| [f64::from(n); 60]))
            .map(|(datum, value)| {
                let measured = Measured::Values(vec![(value, 1.0)]);
                ("Portcullis".to_owned(), datum.name, measured)
            })
            .collect();
        assert_eq!(taken, expected);
        let first = cloud.datums().remove(0);
        let dimension = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let dimensions = [dimension("GatewayId", "gw-1"), dimension("Reason", "r")];
        assert_eq!(first.dimensions, dimensions);
        assert_eq!(first.unit, "Count");
        let requests = cloud.requests();
        let plain = 960 * r#"{"MetricName":"m00","Value":0.0}"#.len();
        assert!(requests[0].body_bytes < plain, "it is compressed");
        assert_eq!(cloud.counters().operations["PutMetricData"], 4);
        assert_eq!(bulk.delivered(), 40);
        assert_eq!(shipping.calls("cloudwatch-metrics", "taken"), 3.0);
    });
}

#[test]
fn a_datum_arrives_with_all_that_it_says() {
    let name = "cloudwatch::a_datum_arrives_with_all_that_it_says";
    if !in_child(name, METRIC_VARIABLES) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        let mut values = datum("Connections", 0.0);
        values.reading = Reading::Values(vec![(3.0, 5.0), (4.5, 1.0)]);
        let mut statistics = datum("Level", 0.0);
        statistics.reading = Reading::Statistics {
            count: 200.0,
            sum: 300.0,
            min: 0.5,
            max: 7.0,
        };
        let draft = minute(HOUR, vec![values, statistics, datum("Publishes", 7.0)]);
        let at = now().as_millis() / MINUTE * MINUTE - HOUR;
        bulk.append([draft]);
        let fake = FakeCloudWatch::start([]);
        settle(Shipping::metrics(&fake.endpoint, &bulk), &bulk).await;
        let dimensions = json!([
            { "Name": "GatewayId", "Value": "gw-1" },
            { "Name": "Reason", "Value": "r" },
        ]);
        let mut calls = fake.metrics();
        assert_eq!(calls.len(), 1);
        let mut call = calls.remove(0);
        for datum in call["MetricData"].as_array_mut().unwrap() {
            let seconds = datum.as_object_mut().unwrap().remove("Timestamp").unwrap();
            // A minute may have ended between the two looks at the clock.
            let late = seconds.as_f64().unwrap() * 1000.0 - at as f64;
            assert!((-60_000.0..=60_000.0).contains(&late), "{seconds}");
        }
        let wire = |name: &str, reading: Value| {
            let mut wire = json!({ "MetricName": name, "Dimensions": dimensions, "Unit": "Count" });
            let wire_members = wire.as_object_mut().unwrap();
            wire_members.extend(reading.as_object().unwrap().clone());
            wire
        };
        let statistics =
            json!({ "SampleCount": 200.0, "Sum": 300.0, "Minimum": 0.5, "Maximum": 7.0 });
        assert_eq!(
            call,
            json!({
                "Namespace": "Portcullis",
                "MetricData": [
                    wire("Connections", json!({ "Values": [3.0, 4.5], "Counts": [5.0, 1.0] })),
                    wire("Level", json!({ "StatisticValues": statistics })),
                    wire("Publishes", json!({ "Value": 7.0 })),
                ],
            })
        );
    });
}

#[test]
fn a_call_without_an_answer_is_not_sent_again() {
    let name = "cloudwatch::a_call_without_an_answer_is_not_sent_again";
    if !in_child(name, METRIC_VARIABLES) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        bulk.append(minutes(0..3));
        let fake = FakeCloudWatch::start([Step::CutAfter, Step::Stall]);
        let limit = Duration::from_secs(2);
        let mut shipping = Shipping::metrics_within(&fake.endpoint, &bulk, limit);
        until("the first are given up", || bulk.is_settled()).await;
        assert_eq!(bulk.dropped(), BTreeMap::from([("ambiguous", 3)]));
        bulk.append(minutes(3..10));
        until("everything is settled", || bulk.is_settled()).await;
        shipping.stop().await;
        let each_once: Vec<_> = (0..10).map(f64::from).collect();
        assert_eq!(
            values(&fake),
            each_once,
            "the fake took them all, each once"
        );
        let sizes = fake.metrics();
        let sizes: Vec<_> = sizes
            .iter()
            .map(|call| call["MetricData"].as_array().unwrap().len())
            .collect();
        // One minute at a time until one is taken; then more again.
        assert_eq!(sizes, [3, 1, 1, 2, 3]);
        assert_eq!(bulk.dropped(), BTreeMap::from([("ambiguous", 4)]));
        assert_eq!(bulk.delivered(), 6);
        assert_eq!(shipping.calls("cloudwatch-metrics", "unanswered"), 2.0);
    });
}

#[test]
fn a_call_that_is_clearly_refused_is_sent_again() {
    let name = "cloudwatch::a_call_that_is_clearly_refused_is_sent_again";
    if !in_child(name, METRIC_VARIABLES) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        bulk.append(minutes(0..5));
        // At first nobody listens there.
        let port = free_port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut shipping = Shipping::metrics(&endpoint, &bulk);
        until("there is no connection", || {
            shipping.calls("cloudwatch-metrics", "connectivity") > 0.0
        })
        .await;
        let fake = FakeCloudWatch::start_on(
            port,
            [
                Step::Refuse(400, "Throttling"),
                Step::Refuse(500, "InternalServiceFault"),
                Step::Refuse(503, "ServiceUnavailable"),
            ],
        );
        until("everything is settled", || bulk.is_settled()).await;
        shipping.stop().await;
        assert_eq!(values(&fake), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(bulk.delivered(), 5);
        assert_eq!(bulk.dropped(), BTreeMap::new());
        assert_eq!(shipping.calls("cloudwatch-metrics", "throttled"), 1.0);
        assert_eq!(shipping.calls("cloudwatch-metrics", "service"), 2.0);
    });
}

#[test]
fn minutes_that_cloudwatch_does_not_take_are_dropped_and_counted() {
    let name = "cloudwatch::minutes_that_cloudwatch_does_not_take_are_dropped_and_counted";
    if !in_child(name, METRIC_VARIABLES) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        let one = |value: f64| vec![datum("Publishes", value)];
        bulk.append([
            minute(14 * DAY - HOUR + 2 * MINUTE, one(1.0)),
            minute(14 * DAY - HOUR - 2 * MINUTE, one(2.0)),
            minute(HOUR, vec![datum("poison", 3.0)]),
            minute(HOUR, one(4.0)),
            Draft {
                members: (&b"\"n\":1"[..]).into(),
                ..minute(0, one(5.0))
            },
            minute(0, vec![]),
            minute(0, one(6.0)),
        ]);
        let fake = FakeCloudWatch::start([]);
        fake.afterwards(Step::RefuseIfContains("poison"));
        settle(Shipping::metrics(&fake.endpoint, &bulk), &bulk).await;
        assert_eq!(values(&fake), [2.0, 4.0, 6.0]);
        assert_eq!(bulk.delivered(), 3);
        let expected = [("expired", 1), ("invalid", 2), ("unreadable", 1)];
        assert_eq!(bulk.dropped(), BTreeMap::from(expected));
    });
}

#[test]
fn the_largest_data_fit_their_calls() {
    let name = "cloudwatch::the_largest_data_fit_their_calls";
    if !in_child(name, METRIC_VARIABLES) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        let largest = |n: usize| Datum {
            name: format!("{n:0>255}"),
            dimensions: (0..29)
                .map(|d| (format!("{d:d>255}"), "v".repeat(1024)))
                .collect(),
            unit: Unit::parse("Megabytes/Second").unwrap(),
            reading: Reading::Values((0..150).map(|v| (f64::from(v), 1e100)).collect()),
        };
        bulk.append((0..3).map(|_| minute(HOUR, (0..40).map(largest).collect())));
        let fake = FakeCloudWatch::start([]);
        settle(Shipping::metrics(&fake.endpoint, &bulk), &bulk).await;
        let calls = fake.metrics();
        let names = calls
            .iter()
            .flat_map(|call| call["MetricData"].as_array().unwrap())
            .map(|datum| {
                datum["MetricName"]
                    .as_str()
                    .unwrap()
                    .parse::<usize>()
                    .unwrap()
            });
        let expected: Vec<_> = (0..3).flat_map(|_| 0..40).collect();
        assert_eq!(names.collect::<Vec<_>>(), expected);
        assert!(calls.len() > 3, "a minute is more than a call");
        assert_eq!(bulk.delivered(), 3);
    });
}

fn line(ago: u64, n: u32) -> Draft {
    let line = Line {
        at: Timestamp::from_millis(now().as_millis() - ago),
        level: "warn",
        target: "portcullis::broker".to_owned(),
        message: "Handshake timed out.".to_owned(),
        fields: Map::from_iter([("n".to_owned(), n.into())]),
    };
    Draft {
        kind: Kind::Log,
        partition_key: "gw-1".into(),
        members: line.members(),
        sinks: SinkSet::single(1),
    }
}

/// The numbers in messages.
fn numbers<'a>(messages: impl IntoIterator<Item = &'a String>) -> Vec<u64> {
    let number = |message: &String| {
        let message: Value = serde_json::from_str(message).unwrap();
        assert_eq!(message["schema"], "portcullis.log/1");
        assert_eq!(message["gateway_id"], "gw-1");
        message["fields"]["n"].as_u64().unwrap()
    };
    messages.into_iter().map(number).collect()
}

fn logged(fake: &FakeCloudWatch) -> Vec<Vec<u64>> {
    let calls = fake.events();
    let call = calls
        .iter()
        .map(|call| numbers(call.iter().map(|(_, message)| message)));
    call.collect()
}

#[test]
fn group_and_stream_are_made_when_they_are_missing() {
    let name = "cloudwatch::group_and_stream_are_made_when_they_are_missing";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        bulk.append((0..5).map(|n| line(HOUR - u64::from(n), n)));
        let fake = FakeCloudWatch::start([]);
        settle(Shipping::logs(&fake.endpoint, &bulk), &bulk).await;
        let calls = [
            "PutLogEvents",
            "CreateLogStream",
            "CreateLogGroup",
            "CreateLogStream",
            "PutLogEvents",
        ];
        assert_eq!(fake.calls(), calls);
        assert_eq!(logged(&fake), [[0, 1, 2, 3, 4]]);
        assert_eq!(bulk.delivered(), 5);
    });
}

#[test]
fn log_events_arrive_in_order_whatever_happens_to_calls() {
    let name = "cloudwatch::log_events_arrive_in_order_whatever_happens_to_calls";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        bulk.append((0..20).map(|n| line(HOUR - u64::from(n), n)));
        let fake = FakeCloudWatch::start([
            Step::Refuse(400, "ThrottlingException"),
            Step::Refuse(503, "ServiceUnavailableException"),
            Step::CutAfter,
        ]);
        fake.make("/edge/portcullis", "gw-1");
        let shipping = settle(Shipping::logs(&fake.endpoint, &bulk), &bulk).await;
        let all: Vec<_> = (0..20).collect();
        // What had no answer is there twice: a line twice is better than none.
        assert_eq!(logged(&fake), [all.clone(), all]);
        assert_eq!(bulk.delivered(), 20);
        assert_eq!(shipping.calls("cloudwatch-logs", "unanswered"), 1.0);
    });
}

#[test]
fn calls_are_sorted_and_within_a_day_and_what_is_too_old_is_counted() {
    let name = "cloudwatch::calls_are_sorted_and_within_a_day_and_what_is_too_old_is_counted";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        bulk.append([
            line(20 * DAY, 0),
            line(3 * DAY, 1),
            line(3 * DAY - HOUR, 2),
            // The clock was set back.
            line(3 * DAY - MINUTE, 3),
            line(DAY, 4),
            line(5, 5),
        ]);
        let fake = FakeCloudWatch::start([]);
        fake.make("/edge/portcullis", "gw-1");
        settle(Shipping::logs(&fake.endpoint, &bulk), &bulk).await;
        let calls = logged(&fake);
        assert_eq!(calls[0], [1, 3, 2], "sorted by time");
        let rest: Vec<_> = calls[1..].concat();
        assert_eq!(rest, [4, 5]);
        assert_eq!(bulk.dropped(), BTreeMap::from([("expired", 1)]));
    });
}

#[test]
fn what_the_service_takes_a_call_without_is_counted() {
    let name = "cloudwatch::what_the_service_takes_a_call_without_is_counted";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let bulk = Bulk::default();
        bulk.append((0..10).map(|n| line(HOUR - u64::from(n), n)));
        let info = json!({
            "tooNewLogEventStartIndex": 9,
            "tooOldLogEventEndIndex": 2,
            "expiredLogEventEndIndex": 3,
        });
        let fake = FakeCloudWatch::start([Step::Reject(info)]);
        fake.make("/edge/portcullis", "gw-1");
        settle(Shipping::logs(&fake.endpoint, &bulk), &bulk).await;
        assert_eq!(bulk.delivered(), 6);
        let expected = [("expired", 3), ("too-new", 1)];
        assert_eq!(bulk.dropped(), BTreeMap::from(expected));
    });
}

#[test]
fn moto_has_the_log_events_as_they_were_logged() {
    let name = "cloudwatch::moto_has_the_log_events_as_they_were_logged";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    let Some(moto) = Emulator::Moto.start() else {
        return;
    };
    run(async {
        let bulk = Bulk::default();
        bulk.append((0..50).map(|n| line(HOUR - u64::from(n), n)));
        settle(Shipping::logs(&moto.endpoint, &bulk), &bulk).await;
        assert_eq!(bulk.delivered(), 50);
        assert_eq!(bulk.dropped(), BTreeMap::new());
    });
    let answer = ask_moto(
        &moto.endpoint,
        "GetLogEvents",
        &json!({ "logGroupName": "/edge/portcullis", "logStreamName": "gw-1", "startFromHead": true }),
    );
    let events = answer["events"].as_array().unwrap();
    let messages: Vec<_> = events
        .iter()
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(numbers(&messages), (0..50).collect::<Vec<_>>());
}

/// moto looks at no signature, but finds service and region in it.
fn ask_moto(endpoint: &str, operation: &str, call: &Value) -> Value {
    let address = endpoint.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let body = call.to_string();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: Logs_20140328.{operation}\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=test/20261122/{REGION}/logs/aws4_request, SignedHeaders=host, Signature=0\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn the_gateways_log_reaches_cloudwatch_and_the_sink_does_not_feed_itself() {
    let name = "cloudwatch::the_gateways_log_reaches_cloudwatch_and_the_sink_does_not_feed_itself";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    // Lines on standard error are for errors alone; the tap has a level of its own.
    telemetry::init_logging(&telemetry::Config {
        level: Level::ERROR,
        format: telemetry::Format::Text,
    });
    run(async {
        let fake = FakeCloudWatch::start([]);
        fake.make("/edge/portcullis", "gw-1");
        // Each refusal is one that the sink warns of.
        fake.afterwards(Step::Refuse(400, "SomethingNew"));
        let bulk = Bulk::default();
        let mut shipping = Shipping::logs(&fake.endpoint, &bulk);
        let (sender, mut drafts) = mpsc::channel(8);
        let metrics = Metrics::register(&Registry::new());
        let config = logs_config(&fake.endpoint);
        let feed = LogFeed::new(&config, "gw-1", sender, SinkSet::single(1), &metrics);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(feed.run(stop.clone()));
        let to_buffer = bulk.clone();
        tasks.spawn(async move {
            while let Some(draft) = drafts.recv().await {
                assert_eq!(draft.sinks, SinkSet::single(1));
                to_buffer.append([draft]);
            }
            Ok(())
        });
        warn!(target: "portcullis::broker", n = 7, "Handshake timed out.");
        until("it is refused", || {
            shipping.calls("cloudwatch-logs", "refused") > 0.0
        })
        .await;
        fake.afterwards(Step::Take);
        until("everything is settled", || bulk.is_settled()).await;
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        shipping.stop().await;
        assert_eq!(
            logged(&fake),
            [[7]],
            "one event, and none of the sink's own"
        );
        assert!(bulk.is_settled());
    });
}

#[test]
fn what_is_configured_runs_and_tells_its_last_minute_at_the_stop() {
    let name = "cloudwatch::what_is_configured_runs_and_tells_its_last_minute_at_the_stop";
    if !in_child(name, METRIC_VARIABLES) {
        return;
    }
    telemetry::init_logging(&telemetry::Config {
        level: Level::ERROR,
        format: telemetry::Format::Text,
    });
    run(async {
        let fake = FakeCloudWatch::start([]);
        let config = Config {
            metrics: Some(metrics_config(&fake.endpoint)),
            logs: Some(logs_config(&fake.endpoint)),
        };
        assert_eq!(config.sinks(), ["cloudwatch-metrics", "cloudwatch-logs"]);
        let registry = Registry::new();
        let connections =
            telemetry::Registrar(&registry).gauge("portcullis_broker_connections", "h");
        connections.set(12);
        let (drafts, mut appended) = mpsc::channel::<Draft>(4);
        let sources = [Bulk::default(), Bulk::default()];
        let mut supervisor = Supervisor::default();
        let source = |sink: usize| sources[sink - 1].clone();
        start(
            &config,
            "gw-1",
            1,
            &registry,
            &drafts,
            source,
            &mut supervisor,
        );
        drop(drafts);
        let buffers = sources.clone();
        supervisor.spawn(Stage::Pipeline, "append", |_| async move {
            while let Some(draft) = appended.recv().await {
                let sink = (1..=2).find(|sink| draft.sinks == SinkSet::single(*sink));
                buffers[sink.unwrap() - 1].append([draft]);
            }
            Ok(())
        });
        warn!(target: "portcullis::broker", n = 7, "Handshake timed out.");
        let logged_one = async {
            until("the event is there", || !fake.events().is_empty()).await;
        };
        let outcome = supervisor.run(logged_one, GENEROUS).await;
        assert_eq!(outcome, Outcome::Drained);
        assert!(sources.iter().all(Bulk::is_settled));
        assert_eq!(logged(&fake).concat(), [7]);
        let told = fake.metrics();
        let data = told[0]["MetricData"].as_array().unwrap();
        let of = |name: &str| {
            data.iter()
                .find(|datum| datum["MetricName"] == name)
                .unwrap()
        };
        assert_eq!(of("Heartbeat")["Value"], 1.0);
        let connections = of("Connections");
        let dimensions = json!([{ "Name": "GatewayId", "Value": "gw-1" }]);
        assert_eq!(connections["Dimensions"], dimensions);
        let value = &connections["Value"];
        assert!(
            *value == 12.0 || connections["Values"] == json!([12.0]),
            "{connections}"
        );
    });
}

#[test]
fn nothing_runs_that_is_not_configured() {
    let (drafts, _appended) = mpsc::channel(1);
    let registry = Registry::new();
    let mut supervisor = Supervisor::default();
    let source = |_: usize| -> Bulk { panic!("no sink reads") };
    let none = Config::default();
    start(
        &none,
        "gw-1",
        1,
        &registry,
        &drafts,
        source,
        &mut supervisor,
    );
    assert!(registry.gather().is_empty());
    assert_eq!(none.sinks(), Vec::<&str>::new());
}

/// The fake reads no compressed calls.
const METRIC_VARIABLES: &[(&str, &str)] = &[
    CREDENTIALS[0],
    CREDENTIALS[1],
    ("AWS_DISABLE_REQUEST_COMPRESSION", "true"),
];

#[test]
fn the_cloud_of_tests_takes_log_events_once_group_and_stream_are_made() {
    let name = "cloudwatch::the_cloud_of_tests_takes_log_events_once_group_and_stream_are_made";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = Cloud::start(Settings::default()).unwrap();
        let bulk = Bulk::default();
        bulk.append((0..20).map(|n| line(HOUR - u64::from(n), n)));
        // Too old for CloudWatch: the call is taken without it.
        bulk.append([line(20 * DAY, 20)]);
        let shipping = settle(Shipping::logs(&cloud.endpoint(), &bulk), &bulk).await;
        let events = cloud.log_events("/edge/portcullis", "gw-1");
        let messages: Vec<_> = events.into_iter().map(|event| event.message).collect();
        assert_eq!(numbers(&messages), (0..20).collect::<Vec<_>>());
        let operations = cloud.counters().operations;
        assert_eq!(operations["CreateLogGroup"], 1);
        assert!(operations["CreateLogStream"] >= 1);
        assert_eq!(bulk.delivered(), 20);
        assert_eq!(bulk.dropped(), BTreeMap::from([("expired", 1)]));
        drop(shipping);
    });
}
