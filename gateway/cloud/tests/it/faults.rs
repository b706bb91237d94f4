//! What goes wrong when told.

use std::{
    io::ErrorKind,
    net::TcpStream,
    time::{Duration, Instant},
};

use portcullis_cloud::{Cloud, Fault, Outcome, Rates, Refusal, Settings};
use serde_json::json;

use crate::client::{Client, STREAM};

const GENEROUS: Duration = Duration::from_secs(60);

fn cloud() -> Cloud {
    Cloud::with_stream(STREAM, 1).unwrap()
}

fn taken(cloud: &Cloud) -> Vec<String> {
    let text = |(_, data): (String, Vec<u8>)| String::from_utf8(data).unwrap();
    cloud.taken(STREAM).into_iter().map(text).collect()
}

#[test]
fn the_records_of_the_script_fail_and_the_others_are_taken() {
    let cloud = cloud();
    let mut client = Client::new(&cloud);
    cloud.next_requests([
        Fault::FailRecords(vec![1], "InternalFailure"),
        Fault::FailContaining(b"2".to_vec(), "Strange"),
        Fault::FailShare(1.0, "ProvisionedThroughputExceededException"),
    ]);
    let records: [(&str, &[u8]); 3] = [("k", b"1"), ("k", b"2"), ("k", b"3")];
    let first = client.put(&records).unwrap().json();
    assert_eq!(first["FailedRecordCount"], 1);
    assert_eq!(first["Records"][1]["ErrorCode"], "InternalFailure");
    assert!(first["Records"][0]["SequenceNumber"].is_string());
    let second = client.put(&records[1..]).unwrap().json();
    assert_eq!(second["Records"][0]["ErrorCode"], "Strange");
    assert_eq!(client.put(&records).unwrap().json()["FailedRecordCount"], 3);
    assert_eq!(
        client.put(&records).unwrap().json()["FailedRecordCount"],
        0,
        "the script is over"
    );
    assert_eq!(taken(&cloud), ["1", "3", "3", "1", "2", "3"]);
    assert_eq!(cloud.counters().records_failed, 5);
    let requests = cloud.requests();
    assert_eq!(requests[0].records.len(), 3);
    assert_eq!(
        requests[2].outcome,
        Outcome::Done {
            failed: 3,
            answered: true
        }
    );
}

#[test]
fn a_call_is_refused_as_the_script_says() {
    let cloud = cloud();
    let mut client = Client::new(&cloud);
    cloud.next_requests([
        Fault::throttle(),
        Fault::Refuse(Refusal::internal()),
        Fault::Refuse(Refusal::new(403, "AccessDeniedException", "no")),
        Fault::Status(502),
        Fault::RefuseContaining(
            b"bad".to_vec(),
            Refusal::bad("InvalidArgumentException", "poison"),
        ),
    ]);
    let mut put = |data: &[u8]| client.put(&[("k", data)]).unwrap();
    assert_eq!(
        put(b"1").error(),
        (400, "ProvisionedThroughputExceededException".into())
    );
    assert_eq!(put(b"2").error(), (500, "InternalFailureException".into()));
    assert_eq!(put(b"3").error(), (403, "AccessDeniedException".into()));
    let page = put(b"4");
    assert_eq!(
        (page.status, page.header("content-type")),
        (502, Some("text/html"))
    );
    assert_eq!(
        put(b"a bad one").error(),
        (400, "InvalidArgumentException".into())
    );
    assert_eq!(put(b"5").status, 200);
    assert_eq!(taken(&cloud), ["5"]);
    assert_eq!(cloud.counters().refused["502"], 1);
}

#[test]
fn scripts_are_of_puts_or_of_one_operation() {
    let cloud = cloud();
    let mut client = Client::new(&cloud);
    cloud.next_requests([Fault::refuse("First")]);
    cloud.next_of("DescribeStreamSummary", [Fault::refuse("Second")]);
    cloud.meanwhile_of("ListShards", Fault::refuse("Third"));
    cloud.meanwhile(Fault::refuse("Fourth"));
    assert_eq!(cloud.scripted(), 2);
    let named = json!({ "StreamName": STREAM });
    assert_eq!(client.kinesis("DescribeStream", &named).status, 200);
    assert_eq!(
        client.kinesis("DescribeStreamSummary", &named).error().1,
        "Second"
    );
    assert_eq!(client.kinesis("DescribeStreamSummary", &named).status, 200);
    for _ in 0..2 {
        assert_eq!(client.kinesis("ListShards", &named).error().1, "Third");
    }
    for code in ["First", "Fourth", "Fourth"] {
        assert_eq!(client.put(&[("k", b"1")]).unwrap().error().1, code);
    }
    cloud.recover();
    assert_eq!(client.put(&[("k", b"1")]).unwrap().status, 200);
}

#[test]
fn a_connection_is_cut_before_or_after_the_write() {
    for (fault, is_taken, is_reset) in [
        (Fault::CloseBefore, false, false),
        (Fault::ResetBefore, false, true),
        (Fault::DropReply, true, false),
        (Fault::ResetAfter, true, true),
        (Fault::CutAfter(40), true, false),
    ] {
        let cloud = cloud();
        cloud.next_requests([fault.clone()]);
        let error = Client::new(&cloud).put(&[("k", b"1")]).unwrap_err().kind();
        // Closing with the body unread resets as well.
        let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(
            reset.contains(&error) || (!is_reset && error == ErrorKind::UnexpectedEof),
            "{fault:?}: {error:?}"
        );
        let counters = cloud.counters();
        assert_eq!(counters.records, u64::from(is_taken), "{fault:?}");
        assert_eq!(
            (counters.replies_lost, counters.cut_before),
            (u64::from(is_taken), u64::from(!is_taken))
        );
        assert_eq!(Client::new(&cloud).put(&[("k", b"2")]).unwrap().status, 200);
    }
}

#[test]
fn a_stall_lasts_until_the_client_gives_up() {
    let cloud = cloud();
    cloud.next_requests([
        Fault::Stall,
        Fault::StallReply,
        Fault::StallAbove(1000),
        Fault::StallAbove(1000),
    ]);
    let put = |data: &[u8]| {
        let mut client = Client::new(&cloud);
        client.patience(Duration::from_millis(150));
        client.put(&[("k", data)]).map(|answer| answer.status)
    };
    let given_up = |answer: std::io::Result<u16>| {
        let kind = answer.unwrap_err().kind();
        assert!(
            matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{kind:?}"
        );
    };
    given_up(put(b"1"));
    given_up(put(b"2"));
    given_up(put(&[b'3'; 1000]));
    let mut patient = Client::new(&cloud);
    assert_eq!(patient.put(&[("k", b"4")]).unwrap().status, 200);
    assert_eq!(taken(&cloud), ["2", "4"]);
    assert_eq!(cloud.counters().stalled, 3);
}

#[test]
fn a_delay_delays() {
    let cloud = cloud();
    let mut client = Client::new(&cloud);
    let delay = Duration::from_millis(80);
    cloud.next_requests([
        Fault::Delay(delay).and(Fault::throttle()),
        Fault::DelayReply(delay),
    ]);
    let started = Instant::now();
    assert_eq!(client.put(&[("k", b"1")]).unwrap().status, 400);
    assert!(started.elapsed() >= delay);
    assert_eq!(client.put(&[("k", b"1")]).unwrap().status, 200);
    assert!(started.elapsed() >= 2 * delay);
}

#[test]
fn an_absent_service_refuses_connections_and_comes_back_at_the_same_address() {
    let cloud = cloud();
    let mut client = Client::new(&cloud);
    assert_eq!(client.put(&[("k", b"1")]).unwrap().status, 200);
    for _ in 0..3 {
        cloud.go_away();
        cloud.go_away();
        assert!(
            client.put(&[("k", b"2")]).is_err(),
            "what was open is closed"
        );
        let refused = TcpStream::connect(cloud.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        cloud.come_back().unwrap();
        cloud.come_back().unwrap();
        client = Client::new(&cloud);
        assert_eq!(client.put(&[("k", b"3")]).unwrap().status, 200);
    }
    assert_eq!(taken(&cloud), ["1", "3", "3", "3"]);
}

#[test]
fn a_request_that_was_on_its_way_when_the_service_left_has_no_effect() {
    let cloud = cloud();
    cloud.next_requests([Fault::Delay(Duration::from_millis(200))]);
    let mut client = Client::new(&cloud);
    let waiting = std::thread::spawn(move || client.put(&[("k", b"1")]).is_err());
    assert!(cloud.wait(GENEROUS, |counters| counters.requests == 1));
    cloud.go_away();
    assert!(waiting.join().unwrap());
    cloud.come_back().unwrap();
    assert_eq!(Client::new(&cloud).put(&[("k", b"2")]).unwrap().status, 200);
    assert_eq!(taken(&cloud), ["2"]);
}

#[test]
fn rates_strike_about_as_often_as_they_say_and_nothing_is_counted_twice() {
    let rates = Rates {
        fail_records: 0.1,
        throttle: 0.1,
        server_error: 0.05,
        lose_replies: 0.05,
        reset: 0.05,
        ..Rates::default()
    };
    let cloud = Cloud::start(Settings::default().stream(STREAM, 2).rates(rates).seed(42)).unwrap();
    let (mut client, mut answered, mut lost, mut refused) = (Client::new(&cloud), 0, 0, 0);
    let mut taken = 0;
    for _ in 0..600 {
        match client.put(&[("k", b"1".as_slice()); 20]) {
            Ok(answer) if answer.status == 200 => {
                answered += 1;
                taken += 20 - answer.json()["FailedRecordCount"].as_u64().unwrap();
            }
            Ok(_) => refused += 1,
            Err(_) => {
                lost += 1;
                client = Client::new(&cloud);
            }
        }
    }
    assert!((40..140).contains(&refused), "15 % of 95 %: {refused}");
    assert!((25..95).contains(&lost), "5 % and 5 %: {lost}");
    let counters = cloud.counters();
    assert_eq!(counters.replies_lost + counters.cut_before, lost);
    assert_eq!(counters.refused.values().sum::<u64>(), refused);
    let share =
        f64::from(u32::try_from(counters.records_failed).unwrap()) / f64::from(answered * 20);
    assert!((0.05..0.2).contains(&share), "{share}");
    assert!(
        counters.records > taken,
        "those with a lost reply were taken, too"
    );
    assert_eq!(cloud.records(STREAM).len() as u64, counters.records);
}

#[test]
fn people_may_ask_with_curl() {
    let cloud = cloud();
    Client::new(&cloud).put(&[("k", b"1")]).unwrap();
    let mut stream = TcpStream::connect(cloud.address()).unwrap();
    let mut text = String::new();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.contains("\"records\": 1"), "{text}");
}

#[test]
fn a_body_in_chunks_is_read() {
    let cloud = cloud();
    cloud.set(|settings| settings.signatures.required = false);
    let mut stream = TcpStream::connect(cloud.address()).unwrap();
    let mut text = String::new();
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.ListShards\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, head).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"e\r\n{\"StreamName\":\r\n7;x=y\r\n\"site\"}\r\n0\r\n\r\n",
    )
    .unwrap();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200") && text.contains("shardId-000000000000"),
        "{text}"
    );
}
