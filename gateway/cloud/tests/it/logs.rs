//! Groups, streams, events, and what of a batch is rejected.

use std::time::Duration;

use portcullis_cloud::{Clock, Cloud, Settings, VirtualClock};
use serde_json::{Value, json};

use crate::client::{Answer, Client};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn cloud() -> (Cloud, Client, i64) {
    let clock = VirtualClock::now();
    let now = i64::try_from(clock.millis()).unwrap();
    let cloud = Cloud::start(Settings::default().clock(Clock::Virtual(clock))).unwrap();
    let mut client = Client::new(&cloud);
    assert_eq!(
        client
            .logs("CreateLogGroup", &json!({ "logGroupName": "/site/gw" }))
            .status,
        200
    );
    assert_eq!(client.logs("CreateLogStream", &stream("gw-1")).status, 200);
    (cloud, client, now)
}

fn stream(name: &str) -> Value {
    json!({ "logGroupName": "/site/gw", "logStreamName": name })
}

fn put(client: &mut Client, events: &[(i64, &str)]) -> Answer {
    let mut input = stream("gw-1");
    let event = |(at, message): &(i64, &str)| json!({ "timestamp": at, "message": message });
    input["logEvents"] = events.iter().map(event).collect();
    client.logs("PutLogEvents", &input)
}

fn bad(code: &str) -> (u16, String) {
    (400, code.to_owned())
}

#[test]
fn events_arrive_and_are_read_back() {
    let (cloud, mut client, now) = cloud();
    let answer = put(
        &mut client,
        &[(now - 1, "one"), (now, "two"), (now, "three é")],
    );
    assert_eq!(answer.status, 200);
    assert!(answer.json()["rejectedLogEventsInfo"].is_null());
    let events = cloud.log_events("/site/gw", "gw-1");
    let messages: Vec<_> = events.iter().map(|event| &*event.message).collect();
    assert_eq!(messages, ["one", "two", "three é"]);
    let mut input = stream("gw-1");
    input["startFromHead"] = true.into();
    let read = client.logs("GetLogEvents", &input).json();
    assert_eq!(read["events"][2]["message"], "three é");
    input["nextToken"] = read["nextForwardToken"].clone();
    assert_eq!(
        client.logs("GetLogEvents", &input).json()["events"],
        json!([])
    );
    let streams = client
        .logs("DescribeLogStreams", &json!({ "logGroupName": "/site/gw" }))
        .json();
    assert_eq!(streams["logStreams"][0]["lastEventTimestamp"], now);
}

#[test]
fn groups_and_streams_are_made_once_and_missed_by_name() {
    let (_cloud, mut client, now) = cloud();
    let group = json!({ "logGroupName": "/site/gw" });
    assert_eq!(
        client.logs("CreateLogGroup", &group).error(),
        bad("ResourceAlreadyExistsException")
    );
    assert_eq!(
        client.logs("CreateLogStream", &stream("gw-1")).error(),
        bad("ResourceAlreadyExistsException")
    );
    let mut elsewhere = stream("other");
    elsewhere["logEvents"] = json!([{ "timestamp": now, "message": "x" }]);
    let answer = client.logs("PutLogEvents", &elsewhere);
    assert_eq!(answer.error(), bad("ResourceNotFoundException"));
    assert_eq!(
        answer.json()["message"],
        "The specified log stream does not exist."
    );
    elsewhere["logGroupName"] = "none".into();
    let answer = client.logs("PutLogEvents", &elsewhere);
    assert_eq!(
        answer.json()["message"],
        "The specified log group does not exist."
    );
    for wrong in ["a:b", "a*", "", &"s".repeat(513)] {
        assert_eq!(
            client.logs("CreateLogStream", &stream(wrong)).error(),
            bad("InvalidParameterException"),
            "{wrong}"
        );
    }
    assert_eq!(
        client
            .logs("CreateLogGroup", &json!({ "logGroupName": "a b" }))
            .error(),
        bad("InvalidParameterException")
    );
}

#[test]
fn every_limit_of_a_batch_is_kept() {
    let (cloud, mut client, now) = cloud();
    let invalid = bad("InvalidParameterException");
    let bytes = |count: usize| "x".repeat(count);
    let limit = 1_048_576;
    let half = bytes(limit / 2 - 26);
    assert_eq!(put(&mut client, &[]).error(), invalid);
    assert_eq!(put(&mut client, &[(now, "")]).error(), invalid);
    assert_eq!(
        put(&mut client, &[(now, "b"), (now - 1, "a")]).error(),
        invalid,
        "unsorted"
    );
    assert_eq!(put(&mut client, &vec![(now, "x"); 10_001]).error(), invalid);
    assert_eq!(
        put(&mut client, &[(now, &bytes(limit - 25))]).error(),
        invalid
    );
    assert_eq!(
        put(&mut client, &[(now, &half), (now, &half), (now, "x")]).error(),
        invalid
    );
    assert_eq!(
        put(&mut client, &[(now - DAY - 1, "a"), (now, "b")]).error(),
        invalid,
        "24 hours"
    );
    assert_eq!(cloud.counters().log_events, 0);
    assert_eq!(put(&mut client, &vec![(now, "x"); 10_000]).status, 200);
    assert_eq!(put(&mut client, &[(now, &half), (now, &half)]).status, 200);
    assert_eq!(put(&mut client, &[(now, &bytes(limit - 26))]).status, 200);
    assert_eq!(
        put(&mut client, &[(now - DAY, "a"), (now, "b")]).status,
        200
    );
}

#[test]
fn events_out_of_time_are_rejected_alone() {
    let (cloud, mut client, now) = cloud();
    let events = [
        (now - 14 * DAY - 1, "too old"),
        (now - 1, "taken"),
        (now + 2 * HOUR, "taken"),
        (now + 2 * HOUR + 1, "too new"),
    ];
    let answer = put(&mut client, &events).json();
    let rejected = json!({ "tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 3 });
    assert_eq!(answer["rejectedLogEventsInfo"], rejected);
    assert_eq!(cloud.log_events("/site/gw", "gw-1").len(), 2);
    cloud.set(|settings| settings.log_retention = Some(Duration::from_secs(3600)));
    let answer = put(&mut client, &[(now - 2 * HOUR, "expired"), (now, "taken")]).json();
    assert_eq!(
        answer["rejectedLogEventsInfo"],
        json!({ "expiredLogEventEndIndex": 1 })
    );
    let counters = cloud.counters();
    assert_eq!((counters.log_events, counters.log_events_rejected), (3, 3));
}
