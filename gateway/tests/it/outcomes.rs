//! Each row of what `PutRecords` may answer, and what follows: the Kinesis sink with the real SDK
//! against the cloud of tests.

use std::{collections::BTreeSet, time::Duration};

use portcullis::uplink::StreamConfig;
use portcullis_cloud::{Cloud, Fault, Outcome, Refusal};
use serde_json::Value;

use crate::{
    kinesis::{Shipping, by_key, records, stream, without_duplicates},
    stream::STREAM,
    support::{CREDENTIALS, Feed, in_child, run, until},
};

const THROTTLED: &str = "ProvisionedThroughputExceededException";

fn cloud() -> Cloud {
    Cloud::with_stream(STREAM, 1).unwrap()
}

/// Ships fifty records of five things through one fault; the cloud and the uplink, all accepted.
async fn through(fault: Fault) -> (Cloud, Shipping) {
    through_with(fault, |_| {}).await
}

async fn through_with(fault: Fault, change: fn(&mut StreamConfig)) -> (Cloud, Shipping) {
    let cloud = cloud();
    cloud.next_requests([fault]);
    let feed = Feed::new(records(50, 5));
    let mut config = stream(&cloud.endpoint());
    change(&mut config);
    let mut shipping = Shipping::start_with(config, feed.clone());
    until("everything is accepted", || feed.accepted() == 50).await;
    shipping.stop().await;
    assert_eq!(feed.dropped(), 0);
    assert_eq!(shipping.dead_letters(), Vec::<Value>::new());
    (cloud, shipping)
}

/// What the puts met, in order.
fn puts(cloud: &Cloud) -> Vec<(usize, Outcome)> {
    let requests = cloud.requests().into_iter();
    requests
        .filter(|request| request.operation == "PutRecords")
        .map(|request| (request.records.len(), request.outcome))
        .collect()
}

#[test]
fn a_whole_call_that_is_throttled_goes_again_by_whatever_name() {
    let name = "outcomes::a_whole_call_that_is_throttled_goes_again_by_whatever_name";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        for code in [
            THROTTLED,
            "KMSThrottlingException",
            "ThrottlingException",
            "LimitExceededException",
        ] {
            let (cloud, shipping) = through(Fault::refuse(code)).await;
            assert_eq!(cloud.taken(STREAM), records(50, 5), "{code}");
            assert_eq!(shipping.failed("throttled"), 50.0, "{code}");
            let refused = Outcome::Refused {
                status: 400,
                code: code.to_owned(),
            };
            assert_eq!(puts(&cloud)[0], (50, refused));
        }
    });
}

#[test]
fn a_fault_of_the_service_itself_goes_again() {
    let name = "outcomes::a_fault_of_the_service_itself_goes_again";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        for fault in [
            Fault::Refuse(Refusal::internal()),
            Fault::Refuse(Refusal::unavailable()),
            Fault::Status(502),
            Fault::Status(500),
        ] {
            let (cloud, shipping) = through(fault.clone()).await;
            assert_eq!(cloud.taken(STREAM), records(50, 5), "{fault:?}");
            assert_eq!(shipping.failed("service"), 50.0, "{fault:?}");
            assert!(shipping.is("online") || shipping.is("degraded"));
        }
    });
}

#[test]
fn a_missing_stream_pauses_the_route_and_all_arrives_once_it_is_made() {
    let name = "outcomes::a_missing_stream_pauses_the_route_and_all_arrives_once_it_is_made";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = Cloud::with_stream("another", 1).unwrap();
        let feed = Feed::new(records(50, 5));
        let mut shipping = Shipping::start_with(stream(&cloud.endpoint()), feed.clone());
        until("it was tried twice", || {
            shipping.failed("stream-missing") >= 100.0
        })
        .await;
        assert!(shipping.is("paused"));
        assert!(shipping.status().contains("stream-missing"));
        assert_eq!((feed.accepted(), feed.dropped()), (0, 0));
        cloud.create_stream(STREAM, 1);
        until("everything is accepted", || feed.accepted() == 50).await;
        shipping.stop().await;
        assert_eq!(cloud.taken(STREAM), records(50, 5));
        assert_eq!(shipping.dead_letters(), Vec::<Value>::new());
        assert!(!shipping.is("paused"));
    });
}

#[test]
fn refused_credentials_pause_and_all_arrives_once_they_are_good() {
    let name = "outcomes::refused_credentials_pause_and_all_arrives_once_they_are_good";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        for (status, code) in [
            (400, "AccessDeniedException"),
            (400, "UnrecognizedClientException"),
            (403, "InvalidSignatureException"),
            (400, "ExpiredTokenException"),
            (400, "KMSAccessDeniedException"),
            (400, "KMSDisabledException"),
            (400, "KMSNotFoundException"),
        ] {
            let cloud = cloud();
            cloud.meanwhile(Fault::Refuse(Refusal::new(status, code, "no")));
            let feed = Feed::new(records(50, 5));
            let mut shipping = Shipping::start_with(stream(&cloud.endpoint()), feed.clone());
            until("it was tried twice", || {
                shipping.failed("credentials") >= 100.0
            })
            .await;
            assert!(shipping.is("paused"), "{code}");
            assert!(shipping.status().contains(code), "{}", shipping.status());
            assert_eq!((feed.accepted(), feed.dropped()), (0, 0), "{code}");
            cloud.recover();
            until("everything is accepted", || feed.accepted() == 50).await;
            shipping.stop().await;
            assert_eq!(cloud.taken(STREAM), records(50, 5), "{code}");
            assert_eq!(shipping.dead_letters(), Vec::<Value>::new());
        }
    });
}

#[test]
fn a_signature_refused_for_a_wrong_clock_is_told_as_that_and_passes_by_the_services_clock() {
    let name = "outcomes::a_signature_refused_for_a_wrong_clock_is_told_as_that_and_passes_by_the_services_clock";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        for (ahead_secs, way) in [(3600, "behind"), (-3600, "ahead")] {
            let cloud = cloud();
            cloud.set(|settings| settings.signatures.ahead_secs = ahead_secs);
            // The first answer is that to the records.
            for operation in ["DescribeStreamSummary", "ListShards"] {
                cloud.meanwhile_of(operation, Fault::Stall);
            }
            let feed = Feed::new(records(50, 5));
            let mut shipping = Shipping::start_with(stream(&cloud.endpoint()), feed.clone());
            until("everything is accepted", || feed.accepted() == 50).await;
            let status = shipping.status();
            shipping.stop().await;
            assert_eq!(shipping.failed("credentials"), 50.0);
            assert!(status.contains("this machine's clock is"), "{status}");
            assert!(status.contains(way), "{status}");
            let skew = shipping.metric("portcullis_uplink_clock_skew_seconds");
            assert!((skew - ahead_secs as f64).abs() < 60.0, "{skew}");
            assert_eq!(cloud.taken(STREAM), records(50, 5));
            assert_eq!(feed.dropped(), 0);
        }
    });
}

#[test]
fn an_invalid_request_is_halved_until_the_culprit_alone_is_set_aside() {
    let name = "outcomes::an_invalid_request_is_halved_until_the_culprit_alone_is_set_aside";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        for code in [
            "ValidationException",
            "InvalidArgumentException",
            "SerializationException",
        ] {
            let mut sent = records(400, 5);
            sent[123].1 = b"{\"poison\":1}".to_vec();
            let cloud = cloud();
            cloud.meanwhile(Fault::RefuseContaining(
                b"poison".to_vec(),
                Refusal::bad(code, "as the script says"),
            ));
            let feed = Feed::new(sent.iter().cloned());
            let mut shipping = Shipping::start_with(stream(&cloud.endpoint()), feed.clone());
            until("everything is settled", || feed.accepted() == 400).await;
            shipping.stop().await;
            let dead = shipping.dead_letters();
            assert_eq!(dead.len(), 1, "{code}");
            assert_eq!(dead[0]["reason"], "invalid");
            assert_eq!(dead[0]["record"]["poison"], 1);
            assert_eq!(feed.dropped(), 1);
            sent.remove(123);
            assert_eq!(by_key(cloud.taken(STREAM)), by_key(sent), "{code}");
        }
    });
}

#[test]
fn what_got_no_answer_goes_again_and_may_be_there_twice() {
    let name = "outcomes::what_got_no_answer_goes_again_and_may_be_there_twice";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        for (fault, reason, arrives) in [
            (Fault::CloseBefore, "connectivity", 50),
            (Fault::ResetBefore, "connectivity", 50),
            (Fault::Stall, "timed-out", 50),
            (Fault::DropReply, "connectivity", 100),
            (Fault::ResetAfter, "connectivity", 100),
            (Fault::CutAfter(10), "connectivity", 100),
            (Fault::StallReply, "timed-out", 100),
        ] {
            let soon = |config: &mut StreamConfig| config.request_timeout = Duration::from_secs(2);
            let (cloud, shipping) = through_with(fault.clone(), soon).await;
            let taken = cloud.taken(STREAM);
            assert_eq!(taken.len(), arrives, "{fault:?}");
            assert_eq!(
                without_duplicates(by_key(taken)),
                by_key(records(50, 5)),
                "{fault:?}"
            );
            assert_eq!(shipping.failed(reason), 50.0, "{fault:?}");
        }
    });
}

#[test]
fn requests_shrink_while_most_of_them_is_throttled_and_grow_when_all_is_taken() {
    let name =
        "outcomes::requests_shrink_while_most_of_them_is_throttled_and_grow_when_all_is_taken";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = cloud();
        cloud.next_requests(vec![Fault::FailShare(0.9, THROTTLED); 5]);
        let sent = records(6000, 100);
        let feed = Feed::new(sent.iter().cloned());
        let mut shipping = Shipping::start_with(stream(&cloud.endpoint()), feed.clone());
        until("everything is accepted", || feed.accepted() == 6000).await;
        shipping.stop().await;
        let sizes: Vec<_> = puts(&cloud).into_iter().map(|(size, _)| size).collect();
        let mut allowed = 500;
        for size in &sizes[..6] {
            assert!(*size <= allowed, "{sizes:?}");
            allowed /= 2;
        }
        let smallest = sizes[5];
        assert_eq!(smallest, 15);
        allowed = smallest;
        for size in &sizes[6..] {
            allowed += allowed.div_ceil(10);
            assert!(*size <= allowed, "{sizes:?}");
        }
        let largest = sizes[6..].iter().max().unwrap();
        assert!(*largest > 5 * smallest, "they grow again: {sizes:?}");
        let arrived: BTreeSet<_> = cloud.taken(STREAM).into_iter().collect();
        assert_eq!(arrived, sent.into_iter().collect());
    });
}

#[test]
fn after_five_broken_connections_one_request_at_a_time_probes_until_the_link_is_back() {
    let name = "outcomes::after_five_broken_connections_one_request_at_a_time_probes_until_the_link_is_back";
    if !in_child(name, CREDENTIALS) {
        return;
    }
    run(async {
        let cloud = cloud();
        // Slow enough that there is something left when the link goes.
        cloud.set(|settings| settings.rates.latency = Duration::from_millis(100));
        let sent = records(20_000, 100);
        let feed = Feed::new(sent.iter().cloned());
        let config = StreamConfig {
            requests_in_flight: 4,
            ..stream(&cloud.endpoint())
        };
        let mut shipping = Shipping::start_with(config, feed.clone());
        until("the sink is online", || shipping.is("online")).await;
        cloud.meanwhile(Fault::ResetBefore);
        let broken = || cloud.counters().cut_before;
        until("the sink is offline", || shipping.is("offline")).await;
        assert!(broken() >= 5, "{} is no outage yet", broken());
        assert!(shipping.status().contains("connectivity"));
        let before = broken();
        until("it probes", || broken() >= before + 3).await;
        cloud.recover();
        until("everything is accepted", || feed.accepted() == 20_000).await;
        until("the sink is back", || !shipping.is("offline")).await;
        shipping.stop().await;
        let arrived = cloud.taken(STREAM);
        assert_eq!(arrived.len(), 20_000, "nothing twice");
        assert_eq!(by_key(arrived), by_key(sent));
        assert_eq!(shipping.dead_letters(), Vec::<Value>::new());
    });
}
