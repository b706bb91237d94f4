//! Whose requests pass.

use portcullis_cloud::Cloud;
use serde_json::json;

use crate::client::{Client, STREAM, put_records, signed};

fn put(
    client: &mut Client,
    service: &str,
    key: &str,
    off_secs: i64,
    token: Option<&str>,
) -> (u16, String) {
    let (date, authorization) = signed(service, key, off_secs);
    let mut headers = vec![
        ("X-Amz-Target", "Kinesis_20131202.PutRecords"),
        ("X-Amz-Date", &date),
        ("Authorization", &authorization),
    ];
    if let Some(token) = token {
        headers.push(("X-Amz-Security-Token", token));
    }
    let body = put_records(&[("k", b"1")]).to_string();
    let answer = client.send("/", &headers, body.as_bytes()).unwrap();
    match answer.status {
        200 => (200, String::new()),
        _ => answer.error(),
    }
}

fn bad(code: &str) -> (u16, String) {
    (400, code.to_owned())
}

#[test]
fn a_request_passes_with_a_key_that_is_known_and_a_date_that_is_now() {
    let cloud = Cloud::with_stream(STREAM, 1).unwrap();
    let mut client = Client::new(&cloud);
    let done = (200, String::new());
    assert_eq!(put(&mut client, "kinesis", "AKID", 0, None), done);
    assert_eq!(put(&mut client, "kinesis", "AKID", 200, None), done);
    assert_eq!(
        put(&mut client, "kinesis", "AKID", -400, None),
        bad("InvalidSignatureException")
    );
    assert_eq!(
        put(&mut client, "kinesis", "AKID", 400, None),
        bad("InvalidSignatureException")
    );
    assert_eq!(
        put(&mut client, "monitoring", "AKID", 0, None),
        bad("InvalidSignatureException")
    );
    cloud.set(|settings| settings.signatures.known_keys = Some(vec!["AKID".into()]));
    assert_eq!(put(&mut client, "kinesis", "AKID", 0, None), done);
    assert_eq!(
        put(&mut client, "kinesis", "OTHER", 0, None),
        bad("UnrecognizedClientException")
    );
    cloud.set(|settings| settings.signatures.expired = vec!["TOKEN".into()]);
    assert_eq!(put(&mut client, "kinesis", "AKID", 0, Some("NEW")), done);
    assert_eq!(
        put(&mut client, "kinesis", "AKID", 0, Some("TOKEN")),
        bad("ExpiredTokenException")
    );
    cloud.set(|settings| settings.signatures.region = Some("us-west-2".into()));
    assert_eq!(
        put(&mut client, "kinesis", "AKID", 0, None),
        bad("InvalidSignatureException")
    );
    assert_eq!(cloud.counters().records, 4, "nothing else was taken");
}

#[test]
fn the_clouds_clock_can_be_ahead() {
    let cloud = Cloud::with_stream(STREAM, 1).unwrap();
    let mut client = Client::new(&cloud);
    cloud.set(|settings| settings.signatures.ahead_secs = 3600);
    assert_eq!(
        put(&mut client, "kinesis", "AKID", 0, None),
        bad("InvalidSignatureException")
    );
    assert_eq!(
        put(&mut client, "kinesis", "AKID", 3600, None),
        (200, String::new())
    );
}

#[test]
fn a_request_without_a_signature_is_refused_unless_allowed() {
    let cloud = Cloud::with_stream(STREAM, 1).unwrap();
    let mut client = Client::new(&cloud);
    let headers = [("X-Amz-Target", "Kinesis_20131202.DescribeStreamSummary")];
    let body = json!({ "StreamName": STREAM }).to_string();
    let mut ask = |headers: &[(&str, &str)]| client.send("/", headers, body.as_bytes()).unwrap();
    assert_eq!(
        ask(&headers).error(),
        bad("MissingAuthenticationTokenException")
    );
    let half = [
        headers[0],
        ("Authorization", "AWS4-HMAC-SHA256 Credential=a/b"),
    ];
    assert_eq!(ask(&half).error(), bad("IncompleteSignatureException"));
    cloud.set(|settings| settings.signatures.required = false);
    assert_eq!(ask(&headers).status, 200);
}
