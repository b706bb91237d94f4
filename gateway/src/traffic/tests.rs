use std::{fs, net::Ipv4Addr, path::Path, sync::Arc};

use portcullis_core::{
    identity::{ClientId, GroupName, Principal, Thing, ThingName},
    limits::{TRAFFIC_BYTES_MAX, TRAFFIC_RECENT_MAX},
    policy::{Action, Permit, Policy, PolicySet},
    timestamp::Timestamp,
};

use super::*;

/// 2026-11-22T10:00:00Z.
const TEN: Timestamp = Timestamp::from_millis(1_795_341_600_000);
const HOUR: u64 = 60 * 60 * 1000;

fn principal(name: &str) -> Principal {
    let thing = Thing {
        name: ThingName::parse(name).unwrap(),
        thing_type: None,
        attributes: [].into(),
        groups: Arc::from([GroupName::parse("devices").unwrap()]),
    };
    Principal {
        thing: Some(Arc::new(thing)),
        client_id: ClientId::parse("client").unwrap(),
        certificate: None,
        source: Ipv4Addr::LOCALHOST.into(),
        domain: None,
        policies: policies(),
        valid_until: None,
        claim: None,
        on_publish_denied: None,
    }
}

/// Whatever it is, and from one network whatever begins with `site/`.
fn policies() -> PolicySet {
    let json = r#"{"Version": "2012-10-17", "Statement": [
        {"Sid": "Site", "Effect": "Allow", "Action": "*", "Resource": "arn:aws:iot:*:*:topic/site/*",
         "Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}},
        {"Effect": "Allow", "Action": "*", "Resource": "*"}]}"#;
    PolicySet::new(vec![Arc::new(Policy::parse("all", json).unwrap())])
}

fn permit(principal: &Principal, action: Action, resource: &str) -> Permit {
    let context = principal.context(TEN);
    principal
        .policies
        .decide(&context, action, resource)
        .unwrap()
}

/// Tells that it was allowed.
fn allowed(recorder: &Recorder, principal: &Principal, action: Action, resource: &str) {
    recorder.allowed(principal, &permit(principal, action, resource), resource);
}

fn traffic(dir: &Path) -> (Traffic, Recorder) {
    let (mut traffic, recorder) = Traffic::new(
        dir.to_owned(),
        Metrics::register(&prometheus::Registry::new()),
    );
    traffic.begin(TEN);
    (traffic, recorder)
}

/// Each fact as `ACTION RESOURCE TIMES`.
fn facts(recorded: &Recorded) -> Vec<String> {
    let facts = recorded.observations.facts();
    facts
        .map(|fact| {
            let shape = fact.shape.to_string().replace("iot:Connection.Thing.", "");
            format!("{} {shape} {}", fact.action, fact.times)
        })
        .collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_allowed_is_kept_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (mut traffic, recorder) = traffic(dir.path());
        allowed(&recorder, &principal("s-1"), Action::Publish, "dt/s-1/t");
        allowed(&recorder, &principal("s-1"), Action::Publish, "dt/s-1/t");
        allowed(&recorder, &principal("s-2"), Action::Publish, "dt/s-2/t");
        allowed(
            &recorder,
            &principal("s-2"),
            Action::Subscribe,
            "cmd/${x}/*/+",
        );
        traffic.end();
    }
    assert_eq!(names(dir.path()), ["2026-11-22T10.json"]);
    let recorded = read_since(dir.path(), TEN).unwrap();
    assert_eq!(
        facts(&recorded),
        [
            "iot:Publish dt/${ThingName}/t 6",
            "iot:Subscribe cmd/${$}{x}/${*}/+ 2"
        ]
    );
    let fact = recorded.observations.facts().next().unwrap();
    let doers = fact
        .doers
        .iter()
        .map(|(doer, times)| (doer.thing.as_str(), &*doer.client_id, *times));
    assert_eq!(
        doers.collect::<Vec<_>>(),
        [("s-1", "client", 4), ("s-2", "client", 2)]
    );
}

#[test]
fn a_new_fact_is_written_at_once_and_counts_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (mut traffic, recorder) = traffic(dir.path());
    allowed(&recorder, &principal("s-1"), Action::Publish, "a");
    traffic.keep(TEN);
    allowed(&recorder, &principal("s-1"), Action::Publish, "a");
    traffic.keep(TEN);
    let recorded = read_since(dir.path(), TEN).unwrap();
    assert_eq!(facts(&recorded), ["iot:Publish a 1"]);
    traffic.end();
    let recorded = read_since(dir.path(), TEN).unwrap();
    assert_eq!(facts(&recorded), ["iot:Publish a 2"]);
}

#[test]
fn every_hour_has_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut traffic, recorder) = traffic(dir.path());
    for hour in 0..3 {
        allowed(
            &recorder,
            &principal("s-1"),
            Action::Publish,
            &format!("t/{hour}"),
        );
        traffic.keep(TEN.plus_millis(hour * HOUR));
        allowed(
            &recorder,
            &principal("s-1"),
            Action::Publish,
            &format!("u/{hour}"),
        );
    }
    traffic.end();
    assert_eq!(
        names(dir.path()),
        [
            "2026-11-22T10.json",
            "2026-11-22T11.json",
            "2026-11-22T12.json"
        ]
    );
    let since = |hours| {
        let recorded = read_since(dir.path(), TEN.plus_millis(hours * HOUR)).unwrap();
        (recorded.hours, recorded.observations.len())
    };
    assert_eq!(since(0), (3, 6));
    assert_eq!(
        since(2),
        (1, 1),
        "what is counted when the hour ends is of that hour"
    );
}

#[test]
fn old_files_go_and_what_is_not_ours_stays() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "2026-11-15T09.json",
        "2026-11-15T10.json",
        "2026-11-15T09.txt",
        "x.json",
    ] {
        fs::write(dir.path().join(name), "{}").unwrap();
    }
    traffic(dir.path());
    assert_eq!(
        names(dir.path()),
        ["2026-11-15T09.txt", "2026-11-15T10.json", "x.json"]
    );
}

#[test]
fn the_oldest_go_when_all_together_are_too_large() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "2026-11-22T07.json",
        "2026-11-22T08.json",
        "2026-11-22T09.json",
    ] {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        file.set_len(TRAFFIC_BYTES_MAX / 2).unwrap();
    }
    traffic(dir.path());
    assert_eq!(
        names(dir.path()),
        ["2026-11-22T08.json", "2026-11-22T09.json"]
    );
}

#[test]
fn a_damaged_file_is_told_and_the_others_count() {
    let dir = tempfile::tempdir().unwrap();
    let (mut traffic, recorder) = traffic(dir.path());
    allowed(&recorder, &principal("s-1"), Action::Publish, "a");
    traffic.end();
    let whole = fs::read_to_string(dir.path().join("2026-11-22T10.json")).unwrap();
    let wrong = whole.replace("iot:Publish", "iot:Fly");
    fs::write(dir.path().join("2026-11-22T11.json"), wrong).unwrap();
    fs::write(dir.path().join("2026-11-22T12.json"), "").unwrap();
    let recorded = read_since(dir.path(), TEN).unwrap();
    assert_eq!((recorded.hours, recorded.unread.len()), (1, 2));
    assert_eq!(facts(&recorded), ["iot:Publish a 1"]);
}

#[test]
fn a_flood_of_topics_is_bounded_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (traffic, recorder) = traffic(dir.path());
    let noisy = principal("noisy");
    for i in 0..TRAFFIC_RECENT_MAX {
        allowed(&recorder, &noisy, Action::Publish, &format!("t/{i}"));
    }
    let kept = recorder.take().len();
    assert!(kept < TRAFFIC_RECENT_MAX / 8, "{kept}");
    drop(traffic);
}

#[test]
fn who_is_no_thing_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (mut traffic, recorder) = traffic(dir.path());
    let nobody = Principal {
        thing: None,
        ..principal("s-1")
    };
    allowed(&recorder, &nobody, Action::Publish, "a");
    traffic.end();
    assert!(names(dir.path()).is_empty());
}

#[test]
fn what_stands_is_a_fact_that_did_not_happen() {
    let dir = tempfile::tempdir().unwrap();
    let (mut traffic, recorder) = traffic(dir.path());
    let principal = principal("s-1");
    let permit = permit(&principal, Action::Subscribe, "cmd/s-1/#");
    recorder.stands(&principal, &permit, "cmd/s-1/#");
    traffic.end();
    let recorded = read_since(dir.path(), TEN).unwrap();
    assert_eq!(facts(&recorded), ["iot:Subscribe cmd/${ThingName}/# 0"]);
}

#[test]
fn the_statement_that_allowed_is_kept_with_its_condition_and_older_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut traffic, recorder) = traffic(dir.path());
    allowed(&recorder, &principal("s-1"), Action::Publish, "site/a");
    allowed(&recorder, &principal("s-1"), Action::Publish, "b");
    traffic.end();
    let grounds = |recorded: &Recorded| {
        let facts = recorded.observations.facts();
        let grounds = facts.map(|fact| {
            let known = fact.grounds.known.iter();
            let known = known.map(|g| {
                (
                    g.statement().number(),
                    g.sid.is_some(),
                    g.condition.is_some(),
                )
            });
            (known.collect::<Vec<_>>(), fact.grounds.more)
        });
        grounds.collect::<Vec<_>>()
    };
    let recorded = read_since(dir.path(), TEN).unwrap();
    assert_eq!(
        grounds(&recorded),
        [
            (vec![(2, false, false)], false),
            (vec![(1, true, true)], false)
        ]
    );
    assert!(recorded.written.is_some());
    // As they were written before.
    let file = dir.path().join("2026-11-22T10.json");
    let mut old: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    old.as_object_mut().unwrap().remove("statements");
    for fact in old["tables"][0]["facts"].as_array_mut().unwrap() {
        fact.as_object_mut().unwrap().remove("by").unwrap();
    }
    fs::write(&file, old.to_string()).unwrap();
    let recorded = read_since(dir.path(), TEN).unwrap();
    assert_eq!(recorded.hours, 1);
    assert_eq!(grounds(&recorded), [(vec![], true), (vec![], true)]);
}

/// Each file is written at most twice a second, and looked at as often.
#[test]
fn a_new_fact_is_on_disk_within_a_second() {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let metrics = Metrics::register(&prometheus::Registry::new());
            let (traffic, recorder) = Traffic::new(dir.path().to_owned(), metrics);
            let stop = tokio_util::sync::CancellationToken::new();
            let watch = async {
                let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
                for topic in ["a", "b", "c"] {
                    allowed(&recorder, &principal("s-1"), Action::Publish, topic);
                    let told = std::time::Instant::now();
                    let is_there = || {
                        let recorded = read_since(dir.path(), Timestamp::from_millis(0)).unwrap();
                        facts(&recorded)
                            .iter()
                            .any(|fact| fact.contains(&format!(" {topic} ")))
                    };
                    while !is_there() {
                        ticks.tick().await;
                        // Several times what is promised: the machine may be busy.
                        assert!(
                            told.elapsed() < std::time::Duration::from_secs(4),
                            "{topic}"
                        );
                    }
                }
                stop.cancel();
            };
            let (outcome, ()) = tokio::join!(traffic.run(stop.clone()), watch);
            outcome.unwrap();
        });
}
