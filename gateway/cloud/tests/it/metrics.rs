//! `PutMetricData` as the SDK speaks it, byte for byte, and in JSON.

use std::io::Write;

use ciborium::Value as Cbor;
use flate2::{Compression, write::GzEncoder};
use portcullis_cloud::{Cloud, Fault, Measured, Settings};
use serde_json::{Value, json};

use crate::client::{Answer, Client, now_secs, signed};

const TARGET: &str = "GraniteServiceVersion20100801.PutMetricData";
const PATH: &str = "/service/GraniteServiceVersion20100801/operation/";

fn cloud() -> (Cloud, Client) {
    let cloud = Cloud::start(Settings::default()).unwrap();
    let client = Client::new(&cloud);
    (cloud, client)
}

fn in_cbor(client: &mut Client, operation: &str, body: &[u8], encoding: Option<&str>) -> Answer {
    let (date, authorization) = signed("monitoring", "AKID", 0);
    let mut headers = vec![
        ("smithy-protocol", "rpc-v2-cbor"),
        ("content-type", "application/cbor"),
        ("accept", "application/cbor"),
        ("x-amz-date", &date),
        ("authorization", &authorization),
    ];
    headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
    client
        .send(&format!("{PATH}{operation}"), &headers, body)
        .unwrap()
}

fn put(client: &mut Client, input: &Value) -> Answer {
    client.call(TARGET, input).unwrap()
}

fn datum(member: &str, value: Value) -> Value {
    let mut datum = json!({ "MetricName": "messages", "Value": 1.0 });
    datum[member] = value;
    json!({ "Namespace": "Site", "MetricData": [datum] })
}

/// The map {"Namespace": "Site", "MetricData": [{…}]} as smithy-rs writes it: indefinite maps, a
/// definite array, doubles of 64 bits, timestamps with tag 1.
fn by_hand(at_secs: f64) -> Vec<u8> {
    let mut body = b"\xbf\x69Namespace\x64Site\x6aMetricData\x81\xbf".to_vec();
    body.extend(b"\x6aMetricName\x68messages");
    body.extend(b"\x6aDimensions\x81\xbf\x64Name\x67gateway\x65Value\x64gw-1\xff");
    body.extend(b"\x69Timestamp\xc1\xfb");
    body.extend(at_secs.to_be_bytes());
    body.extend(b"\x66Values\x82\xfb");
    body.extend(2.5_f64.to_be_bytes());
    body.extend(b"\xfb");
    body.extend(4.0_f64.to_be_bytes());
    body.extend(b"\x66Counts\x82\xfb");
    body.extend(2.0_f64.to_be_bytes());
    body.extend(b"\xfb");
    body.extend(1.0_f64.to_be_bytes());
    body.extend(b"\x64Unit\x65Count\x71StorageResolution\x18\x3c\xff\xff");
    body
}

#[test]
fn a_put_in_cbor_is_taken_and_answered_without_a_body() {
    let (cloud, mut client) = cloud();
    let at_secs = now_secs() - now_secs() % 60;
    let body = by_hand(f64::from(u32::try_from(at_secs).unwrap()));
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&body).unwrap();
    for (body, encoding) in [(body, None), (packed.finish().unwrap(), Some("gzip"))] {
        let answer = in_cbor(&mut client, "PutMetricData", &body, encoding);
        assert_eq!((answer.status, &*answer.body), (200, &b""[..]));
        assert_eq!(answer.header("smithy-protocol"), Some("rpc-v2-cbor"));
        assert_eq!(answer.header("content-type"), None);
    }
    let datums = cloud.datums();
    assert_eq!(
        (datums.len(), datums[0].request, datums[1].request),
        (2, 1, 2)
    );
    assert_eq!(
        datums[0].measured,
        Measured::Values(vec![(2.5, 2.0), (4.0, 1.0)])
    );
    assert_eq!(
        datums[0].dimensions,
        [("gateway".to_owned(), "gw-1".to_owned())]
    );
    assert_eq!(
        (&*datums[0].namespace, &*datums[0].name, &*datums[0].unit),
        ("Site", "messages", "Count")
    );
    assert_eq!(datums[0].at_millis, u64::try_from(at_secs).unwrap() * 1000);

    // A datum that comes twice counts twice.
    let text = |text: &str| Cbor::from(text);
    let time = |secs: i64| Cbor::Tag(1, Box::new(Cbor::from(secs)));
    let map = |members: Vec<(&str, Cbor)>| {
        Cbor::Map(
            members
                .into_iter()
                .map(|(name, value)| (text(name), value))
                .collect(),
        )
    };
    let dimension = map(vec![("Name", text("gateway")), ("Value", text("gw-1"))]);
    let asked = map(vec![
        ("Namespace", text("Site")),
        ("MetricName", text("messages")),
        ("Period", Cbor::from(60)),
        ("Dimensions", Cbor::Array(vec![dimension])),
        ("StartTime", time(at_secs - 60)),
        ("EndTime", time(at_secs + 60)),
        ("Statistics", Cbor::Array(vec![text("Sum")])),
    ]);
    let mut body = Vec::new();
    ciborium::into_writer(&asked, &mut body).unwrap();
    let answer = in_cbor(&mut client, "GetMetricStatistics", &body, None);
    let answer: Cbor = ciborium::from_reader(&*answer.body).unwrap();
    let text = format!("{answer:?}");
    for part in [
        "(Text(\"Sum\"), Float(18.0))",
        "(Text(\"SampleCount\"), Float(6.0))",
        "(Text(\"Minimum\"), Float(2.5))",
        "(Text(\"Maximum\"), Float(4.0))",
        "Tag(1, Float(",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let listed = in_cbor(&mut client, "ListMetrics", b"\xa0", None);
    assert!(String::from_utf8_lossy(&listed.body).contains("messages"));
}

#[test]
fn an_error_in_cbor_names_its_shape() {
    let (cloud, mut client) = cloud();
    let old = in_cbor(&mut client, "PutMetricData", &by_hand(1.0), None);
    assert_eq!(old.status, 400);
    assert_eq!(
        old.header("x-amzn-query-error"),
        Some("InvalidParameterValue;Sender")
    );
    assert_eq!(old.header("content-type"), Some("application/cbor"));
    let error: Cbor = ciborium::from_reader(&*old.body).unwrap();
    let of = |error: &Cbor, name: &str| {
        let members = error.as_map().unwrap().iter();
        let member = members.clone().find(|(own, _)| own.as_text() == Some(name));
        member.unwrap().1.as_text().unwrap().to_owned()
    };
    assert_eq!(
        of(&error, "__type"),
        "com.amazonaws.cloudwatch#InvalidParameterValueException"
    );
    assert!(of(&error, "message").contains("two weeks"));
    cloud.next_requests([Fault::refuse("ThrottlingException")]);
    let throttled = in_cbor(&mut client, "PutMetricData", b"\xa0", None);
    let error: Cbor = ciborium::from_reader(&*throttled.body).unwrap();
    assert!(of(&error, "__type").ends_with("#ThrottlingException"));
    let cut = in_cbor(&mut client, "PutMetricData", b"\xbf\x69Name", None);
    assert_eq!(cut.status, 400);
    assert!(cloud.datums().is_empty());
}

fn many(count: usize) -> Value {
    let one = json!({ "MetricName": "m", "Value": 1 });
    json!({ "Namespace": "Site", "MetricData": vec![one; count] })
}

fn space(namespace: &str) -> Value {
    json!({ "Namespace": namespace, "MetricData": [{ "MetricName": "m", "Value": 1 }] })
}

fn dimensions(count: usize) -> Value {
    let all: Vec<_> = (0..count)
        .map(|n| json!({ "Name": format!("d{n}"), "Value": "v" }))
        .collect();
    datum("Dimensions", all.into())
}

fn dimension(name: &str, value: &str) -> Value {
    datum("Dimensions", json!([{ "Name": name, "Value": value }]))
}

fn values(values: Value, counts: Value) -> Value {
    json!({ "Namespace": "Site", "MetricData": [{ "MetricName": "m", "Values": values, "Counts": counts }] })
}

#[test]
fn every_limit_of_a_datum_refuses_the_whole_call() {
    let (cloud, mut client) = cloud();
    let invalid = "com.amazonaws.cloudwatch#InvalidParameterValueException";
    let missing = "com.amazonaws.cloudwatch#MissingRequiredParameterException";
    let combined = "com.amazonaws.cloudwatch#InvalidParameterCombinationException";
    let now = now_secs();
    let large = 2_f64.powi(360);
    let wrong = [
        ("1001 datums", many(1001), invalid),
        ("none", many(0), missing),
        (
            "no namespace",
            json!({ "MetricData": [{ "MetricName": "m", "Value": 1 }] }),
            missing,
        ),
        ("AWS/", space("AWS/EC2"), invalid),
        (":", space(":x"), invalid),
        ("256", space(&"n".repeat(256)), invalid),
        ("31 dimensions", dimensions(31), invalid),
        (
            "a dimension twice",
            datum(
                "Dimensions",
                json!([{ "Name": "a", "Value": "1" }, { "Name": "a", "Value": "2" }]),
            ),
            invalid,
        ),
        ("colon", dimension(":a", "v"), invalid),
        ("blank", dimension("a", "  "), invalid),
        ("not ASCII", dimension("a", "ü"), invalid),
        ("control", dimension("a", "x\u{7}"), invalid),
        ("1025", dimension("a", &"v".repeat(1025)), invalid),
        ("256 of a name", dimension(&"a".repeat(256), "v"), invalid),
        ("name", datum("MetricName", json!("")), invalid),
        ("no name", datum("MetricName", Value::Null), missing),
        ("NaN", datum("Value", json!("NaN")), invalid),
        ("infinite", datum("Value", json!("-Infinity")), invalid),
        ("large", datum("Value", json!(large * 1.001)), invalid),
        ("no value", datum("Value", Value::Null), missing),
        ("two ways", datum("Values", json!([1])), combined),
        (
            "151 values",
            values(vec![1; 151].into(), Value::Null),
            invalid,
        ),
        ("lengths", values(json!([1, 2]), json!([1])), invalid),
        ("count", values(json!([1]), json!([0])), invalid),
        ("unit", datum("Unit", json!("Furlongs")), invalid),
        ("resolution", datum("StorageResolution", json!(30)), invalid),
        (
            "old",
            datum("Timestamp", json!(now - 14 * 86_400 - 60)),
            invalid,
        ),
        ("new", datum("Timestamp", json!(now + 7200 + 60)), invalid),
        (
            "statistics",
            json!({ "Namespace": "S", "MetricData": [{ "MetricName": "m", "StatisticValues": { "SampleCount": 0, "Sum": 1, "Minimum": 1, "Maximum": 1 } }] }),
            invalid,
        ),
    ];
    for (what, input, code) in &wrong {
        let answer = put(&mut client, input);
        assert_eq!(
            answer.error(),
            (400, (*code).to_owned()),
            "{what}: {}",
            answer.json()
        );
    }
    let large_body = json!({ "Namespace": "Site", "MetricData": [], "x": "x".repeat(1 << 20) });
    assert_eq!(put(&mut client, &large_body).status, 413);
    assert_eq!(cloud.counters().datums, 0);
}

#[test]
fn what_is_just_within_the_limits_of_a_datum_is_taken() {
    let (cloud, mut client) = cloud();
    let (now, large) = (now_secs(), 2_f64.powi(360));
    for (what, input) in [
        ("1000 datums", many(1000)),
        ("30 dimensions", dimensions(30)),
        (
            "255 and 1024",
            dimension(&"a".repeat(255), &"v".repeat(1024)),
        ),
        ("150 values", values(vec![1; 150].into(), Value::Null)),
        ("largest", datum("Value", json!(-large))),
        ("old", datum("Timestamp", json!(now - 14 * 86_400 + 60))),
        ("new", datum("Timestamp", json!(now + 7200 - 60))),
        ("resolution", datum("StorageResolution", json!(1))),
        (
            "statistics",
            json!({ "Namespace": "S", "MetricData": [{ "MetricName": "m", "StatisticValues": { "SampleCount": 2, "Sum": 3, "Minimum": 1, "Maximum": 2 } }] }),
        ),
    ] {
        let answer = put(&mut client, &input);
        assert_eq!(answer.status, 200, "{what}: {}", answer.json());
    }
    assert_eq!(cloud.counters().datums, 1008);
}
