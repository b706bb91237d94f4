//! Streams, records, limits, shards.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use portcullis_cloud::{Clock, Cloud, Fault, Keep, Settings, VirtualClock, seq_of};
use serde_json::{Value, json};

use crate::client::{Client, STREAM, put_records};

fn cloud(shards: u32) -> (Cloud, Client) {
    let cloud = Cloud::with_stream(STREAM, shards).unwrap();
    let client = Client::new(&cloud);
    (cloud, client)
}

fn bad(code: &str) -> (u16, String) {
    (400, code.to_owned())
}

#[test]
fn records_arrive_in_order_with_growing_numbers_and_are_read_back() {
    let (cloud, mut client) = cloud(1);
    let sent: Vec<(String, Vec<u8>)> = (0..700_u32)
        .map(|n| (format!("key-\"{}é", n % 7), n.to_be_bytes().repeat(5)))
        .collect();
    for batch in sent.chunks(350) {
        let batch: Vec<_> = batch
            .iter()
            .map(|(key, data)| (key.as_str(), data.as_slice()))
            .collect();
        let answer = client.put(&batch).unwrap();
        assert_eq!(
            (answer.status, &answer.json()["FailedRecordCount"]),
            (200, &json!(0))
        );
        assert_eq!(answer.json()["Records"].as_array().unwrap().len(), 350);
    }
    assert_eq!(cloud.taken(STREAM), sent);
    let records = cloud.records(STREAM);
    assert!(
        records
            .windows(2)
            .all(|pair| pair[0].sequence_number < pair[1].sequence_number)
    );
    assert!(
        records
            .iter()
            .all(|record| record.sequence_number.len() == 56)
    );
    assert_eq!((records[0].request, records[699].request), (1, 2));

    let iterator = client.kinesis(
        "GetShardIterator",
        &json!({ "StreamName": STREAM, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON" }),
    );
    let mut iterator = iterator.json()["ShardIterator"].clone();
    let mut read = Vec::new();
    while read.len() < 700 {
        let page = client
            .kinesis(
                "GetRecords",
                &json!({ "ShardIterator": iterator, "Limit": 300 }),
            )
            .json();
        for record in page["Records"].as_array().unwrap() {
            let data = BASE64_STANDARD
                .decode(record["Data"].as_str().unwrap())
                .unwrap();
            read.push((record["PartitionKey"].as_str().unwrap().to_owned(), data));
        }
        iterator = page["NextShardIterator"].clone();
    }
    assert_eq!(read, sent);
    let after = client.kinesis(
        "GetShardIterator",
        &json!({ "StreamName": STREAM, "ShardId": "shardId-000000000000", "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": records[697].sequence_number }),
    );
    let page = client
        .kinesis(
            "GetRecords",
            &json!({ "ShardIterator": after.json()["ShardIterator"] }),
        )
        .json();
    assert_eq!(page["Records"].as_array().unwrap().len(), 2);
    assert_eq!(page["MillisBehindLatest"], 0);
}

#[test]
fn a_partition_key_chooses_the_shard_by_its_md5() {
    let (cloud, mut client) = cloud(4);
    // MD5("") is not asked for; MD5("a") = 0cc1…, "b" = 92eb…, "c" = 4a8a…, "e" = e167….
    let answer = client
        .put(&[("a", b"1"), ("b", b"2"), ("c", b"3"), ("e", b"4")])
        .unwrap();
    let shards: Vec<_> = answer.json()["Records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["ShardId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        shards,
        [
            "shardId-000000000000",
            "shardId-000000000002",
            "shardId-000000000001",
            "shardId-000000000003"
        ]
    );
    let explicit = json!({ "StreamName": STREAM, "PartitionKey": "a", "Data": "MQ==", "ExplicitHashKey": u128::MAX.to_string() });
    let answer = client.kinesis("PutRecord", &explicit).json();
    assert_eq!(answer["ShardId"], "shardId-000000000003");
    let last = cloud.records(STREAM).pop().unwrap();
    assert_eq!(
        (last.explicit_hash_key, &*last.data),
        (Some(u128::MAX), &b"1"[..])
    );
}

#[test]
fn every_limit_of_a_put_is_kept_with_awss_error() {
    let (cloud, mut client) = cloud(1);
    let mib = 1 << 20;
    let one = |key: &str, bytes: usize| put_records(&[(key, &vec![7; bytes])]);
    let many = |count: usize, bytes: usize| put_records(&vec![("k", &*vec![7; bytes]); count]);
    let with = |member: &str, value: Value| {
        let mut request = one("k", 1);
        request["Records"][0][member] = value;
        request
    };
    let validation = "ValidationException";
    let argument = "InvalidArgumentException";
    let wrong: Vec<(&str, Value, &str)> = vec![
        ("501 records", many(501, 1), validation),
        ("none", many(0, 1), validation),
        ("no key", with("PartitionKey", Value::Null), validation),
        ("no data", with("Data", Value::Null), validation),
        ("empty key", one("", 1), validation),
        ("257 characters", one(&"é".repeat(257), 1), validation),
        ("a MiB and its key", one("k", mib), argument),
        ("over 10 MiB in all", many(11, mib - 1), argument),
        (
            "not base64",
            with("Data", json!("%%")),
            "SerializationException",
        ),
        (
            "not text",
            with("PartitionKey", json!(7)),
            "SerializationException",
        ),
        (
            "leading zero",
            with("ExplicitHashKey", json!("01")),
            validation,
        ),
        ("negative", with("ExplicitHashKey", json!("-1")), validation),
        (
            "40 digits",
            with("ExplicitHashKey", json!("1".repeat(40))),
            validation,
        ),
        (
            "2^128",
            with(
                "ExplicitHashKey",
                json!("340282366920938463463374607431768211456"),
            ),
            argument,
        ),
        (
            "no such stream",
            json!({ "StreamName": "x", "Records": [{ "PartitionKey": "k", "Data": "" }] }),
            "ResourceNotFoundException",
        ),
    ];
    for (what, request, code) in &wrong {
        let answer = client.kinesis("PutRecords", request);
        assert_eq!(answer.error(), bad(code), "{what}: {}", answer.json());
    }
    assert_eq!(cloud.counters().records, 0);
    for (what, request) in [
        ("500 records", many(500, 1)),
        ("256 characters", one(&"é".repeat(256), 1)),
        ("a MiB with its key", one("k", mib - 1)),
        ("10 MiB in all", many(10, mib - 1)),
        ("null for nothing", with("ExplicitHashKey", Value::Null)),
        ("0", with("ExplicitHashKey", json!("0"))),
        (
            "by ARN",
            json!({ "StreamARN": "arn:aws:kinesis:x:0:stream/site", "Records": [{ "PartitionKey": "k", "Data": "" }] }),
        ),
    ] {
        let answer = client.kinesis("PutRecords", &request);
        assert_eq!(
            (answer.status, &answer.json()["FailedRecordCount"]),
            (200, &json!(0)),
            "{what}"
        );
    }
    assert_eq!(cloud.counters().records, 500 + 1 + 1 + 10 + 1 + 1 + 1);
}

#[test]
fn larger_records_pass_where_the_stream_allows_them() {
    let (cloud, mut client) = cloud(1);
    let create = json!({ "StreamName": "large", "ShardCount": 1, "MaxRecordSizeInKiB": 2048 });
    assert_eq!(client.kinesis("CreateStream", &create).status, 200);
    let mut request = put_records(&[("k", &vec![1; (2 << 20) - 1])]);
    request["StreamName"] = "large".into();
    assert_eq!(client.kinesis("PutRecords", &request).status, 200);
    assert_eq!(cloud.records("large")[0].data.len(), (2 << 20) - 1);
    let summary = client
        .kinesis("DescribeStreamSummary", &json!({ "StreamName": "large" }))
        .json();
    assert_eq!(
        summary["StreamDescriptionSummary"]["MaxRecordSizeInKiB"],
        2048
    );
}

#[test]
fn a_dry_run_says_that_it_would_have_worked_and_takes_nothing() {
    let (cloud, mut client) = cloud(1);
    let mut request = put_records(&[("k", b"1")]);
    request["DryRun"] = true.into();
    assert_eq!(
        client.kinesis("PutRecords", &request).error(),
        bad("DryRunOperationException")
    );
    request["StreamName"] = "none".into();
    assert_eq!(
        client.kinesis("PutRecords", &request).error(),
        bad("ResourceNotFoundException")
    );
    assert_eq!(cloud.counters().records, 0);
}

#[test]
fn streams_come_and_go() {
    let clock = VirtualClock::now();
    let settings = Settings {
        creation_takes: Duration::from_secs(10),
        ..Settings::default().clock(Clock::Virtual(clock.clone()))
    };
    let cloud = Cloud::start(settings).unwrap();
    let mut client = Client::new(&cloud);
    let named = json!({ "StreamName": STREAM });
    let create = json!({ "StreamName": STREAM, "ShardCount": 3 });
    assert_eq!(
        client.kinesis("DescribeStreamSummary", &named).error(),
        bad("ResourceNotFoundException")
    );
    assert_eq!(client.kinesis("CreateStream", &create).status, 200);
    assert_eq!(
        client.kinesis("CreateStream", &create).error(),
        bad("ResourceInUseException")
    );
    let status = |client: &mut Client| {
        client.kinesis("DescribeStreamSummary", &named).json()["StreamDescriptionSummary"]["StreamStatus"].clone()
    };
    assert_eq!(status(&mut client), "CREATING");
    assert_eq!(
        client.put(&[("k", b"1")]).unwrap().error(),
        bad("ResourceNotFoundException")
    );
    clock.advance(Duration::from_secs(10));
    assert_eq!(status(&mut client), "ACTIVE");
    assert_eq!(client.put(&[("k", b"1")]).unwrap().status, 200);
    assert_eq!(client.kinesis("DeleteStream", &named).status, 200);
    assert_eq!(
        client.put(&[("k", b"1")]).unwrap().error(),
        bad("ResourceNotFoundException")
    );
    assert_eq!(
        client.kinesis("Nonsense", &named).error(),
        bad("UnknownOperationException")
    );
}

#[test]
fn after_a_split_children_take_the_records_and_the_parent_is_read_to_its_end() {
    let (cloud, mut client) = cloud(1);
    client.put(&[("a", b"1"), ("b", b"2")]).unwrap();
    let split = json!({ "StreamName": STREAM, "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": (1_u128 << 127).to_string() });
    assert_eq!(client.kinesis("SplitShard", &split).status, 200);
    assert_eq!(
        client.kinesis("SplitShard", &split).error(),
        bad("InvalidArgumentException"),
        "closed"
    );
    client.put(&[("a", b"3"), ("b", b"4")]).unwrap();
    let shards: Vec<_> = cloud
        .records(STREAM)
        .iter()
        .map(|record| record.shard.to_string())
        .collect();
    assert_eq!(
        shards,
        [
            "shardId-000000000000",
            "shardId-000000000000",
            "shardId-000000000001",
            "shardId-000000000002"
        ]
    );

    let listed = client
        .kinesis(
            "ListShards",
            &json!({ "StreamName": STREAM, "MaxResults": 2 }),
        )
        .json();
    let first = &listed["Shards"][0];
    assert!(first["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
    assert_eq!(listed["Shards"][1]["ParentShardId"], "shardId-000000000000");
    let rest = client
        .kinesis("ListShards", &json!({ "NextToken": listed["NextToken"] }))
        .json();
    assert_eq!(rest["Shards"][0]["ShardId"], "shardId-000000000002");
    let open = json!({ "StreamName": STREAM, "ShardFilter": { "Type": "AT_LATEST" } });
    let open = client.kinesis("ListShards", &open).json();
    assert_eq!(open["Shards"].as_array().unwrap().len(), 2);

    let iterator = json!({ "StreamName": STREAM, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON" });
    let iterator = client.kinesis("GetShardIterator", &iterator).json();
    let page = client.kinesis("GetRecords", &iterator).json();
    assert_eq!(page["Records"].as_array().unwrap().len(), 2);
    assert!(page["NextShardIterator"].is_null());
    assert_eq!(page["ChildShards"].as_array().unwrap().len(), 2);

    cloud
        .merge_shards(STREAM, "shardId-000000000002", "shardId-000000000001")
        .unwrap();
    assert_eq!(
        cloud
            .shards(STREAM)
            .iter()
            .filter(|shard| shard.open)
            .count(),
        1
    );
    cloud.split_shard(STREAM, "shardId-000000000003").unwrap();
    assert_eq!(cloud.shards(STREAM).len(), 6);
    assert!(cloud.split_shard(STREAM, "shardId-000000000099").is_err());
}

#[test]
fn an_iterator_lives_five_minutes() {
    let clock = VirtualClock::now();
    let settings = Settings::default()
        .stream(STREAM, 1)
        .clock(Clock::Virtual(clock.clone()));
    let cloud = Cloud::start(settings).unwrap();
    cloud.set(|settings| settings.signatures.skew_max = None);
    let mut client = Client::new(&cloud);
    let iterator = json!({ "StreamName": STREAM, "ShardId": "shardId-000000000000", "ShardIteratorType": "LATEST" });
    let iterator = client.kinesis("GetShardIterator", &iterator).json();
    assert_eq!(client.kinesis("GetRecords", &iterator).status, 200);
    clock.advance(Duration::from_secs(301));
    assert_eq!(
        client.kinesis("GetRecords", &iterator).error(),
        bad("ExpiredIteratorException")
    );
}

#[test]
fn a_shard_over_its_limits_fails_single_records() {
    let clock = VirtualClock::now();
    let settings = Settings::default()
        .stream(STREAM, 2)
        .with_shard_limits()
        .clock(Clock::Virtual(clock.clone()));
    let cloud = Cloud::start(settings).unwrap();
    let mut client = Client::new(&cloud);
    let put = |client: &mut Client, key: &str, count: usize, bytes: usize| {
        let answer = client
            .put(&vec![(key, &*vec![0; bytes]); count])
            .unwrap()
            .json();
        let failed = answer["FailedRecordCount"].as_u64().unwrap();
        let codes = answer["Records"].as_array().unwrap().iter();
        let codes: Vec<_> = codes
            .filter_map(|record| record["ErrorCode"].as_str())
            .collect();
        assert_eq!(u64::try_from(codes.len()).unwrap(), failed);
        assert!(
            codes
                .iter()
                .all(|code| *code == "ProvisionedThroughputExceededException")
        );
        failed
    };
    // "a" and "b" are in different shards.
    assert_eq!(put(&mut client, "a", 500, 10), 0);
    assert_eq!(put(&mut client, "a", 500, 10), 0);
    assert_eq!(put(&mut client, "a", 500, 10), 500);
    assert_eq!(put(&mut client, "b", 500, 10), 0);
    clock.advance(Duration::from_millis(100));
    assert_eq!(put(&mut client, "a", 500, 10), 400);
    clock.advance(Duration::from_secs(5));
    assert_eq!(put(&mut client, "a", 20, 100 << 10), 10, "a MiB a second");
    assert_eq!(cloud.counters().records_over_limit, 500 + 400 + 10);
    let single = json!({ "StreamName": STREAM, "PartitionKey": "a", "Data": BASE64_STANDARD.encode(vec![0; 100 << 10]) });
    assert_eq!(
        client.kinesis("PutRecord", &single).error(),
        bad("ProvisionedThroughputExceededException")
    );
    cloud.set(|settings| settings.shard_limits = None);
    assert_eq!(put(&mut client, "a", 500, 10), 0);
}

#[test]
fn numbers_are_checked_without_keeping_anything() {
    let settings = Settings::default()
        .stream(STREAM, 1)
        .keep(Keep::None)
        .numbered(seq_of);
    let cloud = Cloud::start(settings).unwrap();
    let mut client = Client::new(&cloud);
    cloud.next_requests([Fault::None, Fault::FailRecords(vec![0], "InternalFailure")]);
    let data = |n: u64| format!("{{\"seq\":{n}}}").into_bytes();
    let put = |client: &mut Client, numbers: &[u64]| {
        let data: Vec<_> = numbers.iter().map(|n| data(*n)).collect();
        let records: Vec<_> = data.iter().map(|data| ("k", data.as_slice())).collect();
        client.put(&records).unwrap();
    };
    put(&mut client, &[1, 2]);
    put(&mut client, &[3, 4]);
    put(&mut client, &[3, 5, 5]);
    let order = cloud.order(STREAM);
    assert_eq!(
        (order.records, order.duplicates, order.out_of_order),
        (6, 1, 1)
    );
    assert_eq!(order.missing(1..=6), [6]);
    assert!(cloud.records(STREAM).is_empty() && cloud.requests().is_empty());
    assert_eq!(cloud.counters().records, 6);
}

#[test]
fn what_is_kept_is_bounded_when_asked() {
    let settings = Settings::default()
        .stream(STREAM, 1)
        .keep(Keep::UpTo { bytes: 1000 });
    let cloud = Cloud::start(settings).unwrap();
    let mut client = Client::new(&cloud);
    for n in 0..50_u8 {
        client.put(&[("k", &[n; 99])]).unwrap();
    }
    let left: Vec<_> = cloud
        .records(STREAM)
        .iter()
        .map(|record| record.data[0])
        .collect();
    assert_eq!(left, (40..50).collect::<Vec<_>>());
    assert_eq!(cloud.counters().records, 50);
    let iterator = json!({ "StreamName": STREAM, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON" });
    let iterator = client.kinesis("GetShardIterator", &iterator).json();
    let page = client.kinesis("GetRecords", &iterator).json();
    assert_eq!(page["Records"].as_array().unwrap().len(), 10);
}
