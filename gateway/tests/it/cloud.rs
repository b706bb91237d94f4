//! The cloud of tests kept honest by the real SDK; and `portcullis dev cloud`, as a new user meets it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use aws_sdk_kinesis::{
    Client,
    config::retry::RetryConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::put_records::{PutRecordsError, PutRecordsOutput},
    primitives::Blob,
    types::PutRecordsRequestEntry,
};
use portcullis_cloud::{Cloud, Fault, Rates, Refusal, Settings};
use serde_json::Value;

use crate::{
    device::Device,
    served::{Served, eventually, is_lifecycle},
    stream::{STREAM, client, create_stream, read_stream},
    support::{CREDENTIALS, GENEROUS, in_child, run},
};

/// The SDK without retries of its own.
async fn once(cloud: &Cloud) -> Client {
    let client = client(&cloud.endpoint()).await;
    let config = client.config().to_builder();
    Client::from_conf(config.retry_config(RetryConfig::disabled()).build())
}

type Put = Result<PutRecordsOutput, SdkError<PutRecordsError>>;

async fn put(client: &Client, records: &[(String, Vec<u8>)]) -> Put {
    let entries = records.iter().map(|(key, data)| {
        PutRecordsRequestEntry::builder()
            .partition_key(key)
            .data(Blob::new(data.clone()))
            .build()
            .unwrap()
    });
    let put = client.put_records().stream_name(STREAM);
    put.set_records(Some(entries.collect())).send().await
}

fn records(n: u32) -> Vec<(String, Vec<u8>)> {
    (0..n)
        .map(|n| (format!("thing-{}", n % 17), n.to_be_bytes().repeat(9)))
        .collect()
}

#[test]
fn the_sdk_makes_a_stream_fills_it_and_reads_it_back() {
    let name = "cloud::the_sdk_makes_a_stream_fills_it_and_reads_it_back";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = Cloud::start(Settings::default()).unwrap();
        let client = once(&cloud).await;
        create_stream(&client, 1).await;
        let sent = records(900);
        for batch in sent.chunks(300) {
            assert_eq!(
                put(&client, batch).await.unwrap().failed_record_count(),
                Some(0)
            );
        }
        assert_eq!(cloud.taken(STREAM), sent);
        assert_eq!(read_stream(&client).await, sent);
        let dry = client.put_records().stream_name(STREAM).dry_run(true);
        let entry = PutRecordsRequestEntry::builder()
            .partition_key("k")
            .data(Blob::new("x"));
        let dry = dry.records(entry.build().unwrap()).send().await;
        assert_eq!(dry.unwrap_err().code(), Some("DryRunOperationException"));
        assert_eq!(cloud.counters().records, 900);
    });
}

#[test]
fn the_sdk_follows_a_resharding() {
    if !in_child("cloud::the_sdk_follows_a_resharding", CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = Cloud::with_stream(STREAM, 1).unwrap();
        let client = once(&cloud).await;
        put(&client, &records(100)).await.unwrap();
        let split = client.split_shard().stream_name(STREAM);
        let split = split.shard_to_split("shardId-000000000000");
        let split = split.new_starting_hash_key((1_u128 << 127).to_string());
        split.send().await.unwrap();
        put(&client, &records(100)).await.unwrap();
        let merge = client.merge_shards().stream_name(STREAM);
        let merge = merge.shard_to_merge("shardId-000000000001");
        let merge = merge.adjacent_shard_to_merge("shardId-000000000002");
        merge.send().await.unwrap();
        put(&client, &records(100)).await.unwrap();
        let shards = client.list_shards().stream_name(STREAM).send();
        let shards = shards.await.unwrap();
        let parents: Vec<_> = shards
            .shards()
            .iter()
            .map(|shard| shard.parent_shard_id())
            .collect();
        let first = Some("shardId-000000000000");
        assert_eq!(parents, [None, first, first, Some("shardId-000000000001")]);
        let open = client.describe_stream_summary().stream_name(STREAM).send();
        let open = open.await.unwrap().stream_description_summary.unwrap();
        assert_eq!(open.open_shard_count(), 1);
        assert_eq!(read_stream(&client).await.len(), 300);
    });
}

#[test]
fn the_sdk_sees_each_fault_as_what_it_is() {
    if !in_child("cloud::the_sdk_sees_each_fault_as_what_it_is", CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = Cloud::with_stream(STREAM, 1).unwrap();
        let client = once(&cloud).await;
        cloud.next_requests([Fault::FailRecords(vec![1], "InternalFailure")]);
        let partly = put(&client, &records(3)).await.unwrap();
        let codes: Vec<_> = partly
            .records()
            .iter()
            .map(|record| record.error_code())
            .collect();
        assert_eq!(codes, [None, Some("InternalFailure"), None]);

        for (fault, code) in [
            (Fault::throttle(), "ProvisionedThroughputExceededException"),
            (Fault::Refuse(Refusal::throttling()), "ThrottlingException"),
            (
                Fault::Refuse(Refusal::internal()),
                "InternalFailureException",
            ),
            (
                Fault::Refuse(Refusal::expired_token()),
                "ExpiredTokenException",
            ),
            (
                Fault::Refuse(Refusal::access_denied()),
                "AccessDeniedException",
            ),
        ] {
            cloud.next_requests([fault]);
            let error = put(&client, &records(1)).await.unwrap_err();
            assert_eq!(error.code(), Some(code), "{error:?}");
        }
        cloud.set(|settings| settings.signatures.ahead_secs = 3600);
        let error = put(&client, &records(1)).await.unwrap_err();
        assert_eq!(error.code(), Some("InvalidSignatureException"));
        // The SDK sets its clock by the answer's date; another client has not seen it.
        put(&client, &records(1)).await.unwrap();
        cloud.set(|settings| settings.signatures.ahead_secs = 0);
        let client = once(&cloud).await;
        cloud.delete_stream(STREAM);
        let error = put(&client, &records(1))
            .await
            .unwrap_err()
            .into_service_error();
        assert!(error.is_resource_not_found_exception());
        cloud.create_stream(STREAM, 1);

        for (fault, records_taken) in [
            (Fault::ResetBefore, 0),
            (Fault::DropReply, 1),
            (Fault::ResetAfter, 1),
            (Fault::CutAfter(30), 1),
        ] {
            let before = cloud.counters().records;
            cloud.next_requests([fault.clone()]);
            let error = put(&client, &records(1)).await.unwrap_err();
            let is_cut = matches!(
                error,
                SdkError::DispatchFailure(_)
                    | SdkError::ResponseError(_)
                    | SdkError::TimeoutError(_)
            );
            assert!(is_cut, "{fault:?}: {error:?}");
            assert_eq!(
                cloud.counters().records - before,
                records_taken,
                "{fault:?}"
            );
        }
        cloud.go_away();
        let error = put(&client, &records(1)).await.unwrap_err();
        assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
        cloud.come_back().unwrap();
        put(&client, &records(1)).await.unwrap();
    });
}

#[test]
fn the_sdks_own_retries_get_through_a_bad_time() {
    let name = "cloud::the_sdks_own_retries_get_through_a_bad_time";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = Cloud::with_stream(STREAM, 2).unwrap();
        let client = client(&cloud.endpoint()).await;
        cloud.next_requests([Fault::Refuse(Refusal::unavailable()), Fault::DropReply]);
        put(&client, &records(5)).await.unwrap();
        assert_eq!(
            cloud.counters().records,
            10,
            "the lost reply's and the last"
        );
        assert_eq!(cloud.counters().requests, 3);
        cloud.set(|settings| {
            settings.rates = Rates {
                latency: Duration::from_millis(1),
                ..Rates::default()
            }
        });
        put(&client, &records(5)).await.unwrap();
    });
}

/// `portcullis dev cloud --show`, killed when dropped.
struct DevCloud {
    child: Child,
    endpoint: String,
    shown: std::sync::mpsc::Receiver<Value>,
}

impl DevCloud {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["dev", "cloud", "--listen", "127.0.0.1:0", "--show"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut said = said.lines().map(Result::unwrap);
        let named = said.find_map(|line| Some(line.strip_prefix("endpoint = ")?.to_owned()));
        let endpoint = named.unwrap().trim_matches('"').to_owned();
        let (lines, shown) = std::sync::mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let document = serde_json::from_str(&line).unwrap();
                if lines.send(document).is_err() {
                    return;
                }
            }
        });
        // Its last words have a reader until it ends.
        std::thread::spawn(move || said.for_each(drop));
        Self {
            child,
            endpoint,
            shown,
        }
    }
}

impl Drop for DevCloud {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_new_user_sees_a_publish_arrive_in_the_cloud_of_dev_despite_faults() {
    let stream = format!("{STREAM}:2");
    let cloud = DevCloud::start(&["--stream", &stream, "--throttle", "20", "--seed", "3"]);
    let mut served = Served::new();
    served.ship_to(&cloud.endpoint);
    let credentials = served.enrol("sensor-1", "cold-chain");
    served.start_with(CREDENTIALS);
    let mut device = Device::tls(served.mqtt, "sensor-1", &credentials);
    device.publish("dt/sensor-1/temp", "{\"t\":4.25}");
    let arrived = loop {
        let shown = cloud.shown.recv_timeout(GENEROUS).unwrap();
        if !is_lifecycle(&shown["data"]) && shown["data"]["schema"] == "portcullis.event/1" {
            break shown;
        }
    };
    assert_eq!(arrived["data"]["payload"]["t"], 4.25);
    assert_eq!(arrived["partitionKey"], "sensor-1");
    assert_eq!(arrived["stream"], STREAM);
    served.stop();
}

#[test]
fn dev_cloud_ends_with_what_it_counted() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["dev", "cloud", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let hint = said.find(|line| line.as_ref().unwrap().contains("curl http://"));
    let endpoint = hint
        .unwrap()
        .unwrap()
        .split("http://")
        .nth(1)
        .unwrap()
        .to_owned();
    eventually("it answers", || {
        std::net::TcpStream::connect(&endpoint).is_ok()
    });
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::INT,
    )
    .unwrap();
    let last = said.last().unwrap().unwrap();
    let counted: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(counted["records"], 0);
    assert!(child.wait().unwrap().success());
}
