//! The task from outside: activities in, drafts and metrics out.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use portcullis_core::{
    detect::{Profiles, parse},
    identity::ClientId,
    limits::ACTIVITY_QUEUE_MAX,
    record::{Draft, Kind},
    timestamp::Timestamp,
};
use prometheus::Registry;
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Activity, ActivityKind, Defend, Listener, Observer, load};

const PROFILE: &str = r#"{"securityProfileName":"p","targets":["all/things"],"behaviors":[
    {"name":"flood","metric":"aws:num-messages-sent","criteria":{"comparisonOperator":"less-than",
     "value":{"count":100},"durationSeconds":300}}]}"#;

fn profiles() -> Profiles {
    Profiles::new(vec![parse(Path::new("p.json"), PROFILE).unwrap()])
}

fn activity(device: &str) -> Activity {
    Activity {
        device: device.into(),
        groups: Arc::new([]),
        registered: true,
        client_id: ClientId::parse(device).unwrap(),
        certificate_id: None,
        source: IpAddr::from([127, 0, 0, 1]),
        at: crate::clock::now(),
        kind: ActivityKind::Published { bytes: 1 },
        times: 1,
    }
}

fn publish(observer: &Observer, device: &str, messages: usize) {
    for _ in 0..messages {
        observer.observe(activity(device));
    }
}

/// The value of a series on the metrics page.
fn metric(registry: &Registry, series: &str) -> f64 {
    let page = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    page.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {series} in\n{page}"))
        .parse()
        .unwrap()
}

async fn next(drafts: &mut mpsc::Receiver<Draft>) -> Value {
    let draft = timeout(Duration::from_secs(30), drafts.recv()).await;
    let draft = draft.expect("in time").expect("the task lives");
    assert_eq!(draft.kind, Kind::Violation);
    serde_json::from_str(&format!("{{{}}}", str::from_utf8(&draft.members).unwrap())).unwrap()
}

#[tokio::test]
async fn a_flood_becomes_a_draft_and_a_metric() {
    let registry = Registry::new();
    let (sender, mut drafts) = mpsc::channel(8);
    let (defend, observer) = Defend::new(profiles(), sender, &registry);
    let stop = CancellationToken::new();
    let sensors = async {
        publish(&observer, "calm", 99);
        publish(&observer, "hostile", 100);
        let violation = next(&mut drafts).await;
        assert_eq!(violation["thingName"], "hostile");
        assert_eq!(violation["behavior"]["name"], "flood");
        assert_eq!(violation["metricValue"]["count"], 100);
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(defend.run(stop.clone()), sensors);
    ended.unwrap();
    assert!(drafts.recv().await.is_none(), "one alarm and no more");
    let series = r#"portcullis_violations_total{behavior="flood",profile="p",type="in-alarm"}"#;
    assert_eq!(metric(&registry, series), 1.0);
    assert_eq!(
        metric(&registry, "portcullis_defend_activities_total"),
        199.0
    );
}

#[tokio::test]
async fn what_is_queued_at_the_stop_is_judged() {
    let registry = Registry::new();
    let (sender, mut drafts) = mpsc::channel(8);
    let (defend, observer) = Defend::new(profiles(), sender, &registry);
    publish(&observer, "hostile", 100);
    let stop = CancellationToken::new();
    stop.cancel();
    defend.run(stop).await.unwrap();
    assert_eq!(next(&mut drafts).await["thingName"], "hostile");
}

#[tokio::test]
async fn the_task_ends_when_every_observer_is_gone() {
    let (sender, _drafts) = mpsc::channel(8);
    let (defend, observer) = Defend::new(profiles(), sender, &Registry::new());
    drop(observer);
    let ended = timeout(
        Duration::from_secs(30),
        defend.run(CancellationToken::new()),
    )
    .await;
    ended.expect("in time").unwrap();
}

#[tokio::test]
async fn a_closed_buffer_is_a_fault() {
    let (sender, drafts) = mpsc::channel(8);
    drop(drafts);
    let (defend, observer) = Defend::new(profiles(), sender, &Registry::new());
    publish(&observer, "hostile", 100);
    let ended = timeout(
        Duration::from_secs(30),
        defend.run(CancellationToken::new()),
    )
    .await;
    ended.expect("in time").unwrap_err();
}

#[test]
fn a_full_queue_drops_and_counts_and_does_not_wait() {
    let registry = Registry::new();
    let (sender, _drafts) = mpsc::channel(8);
    let (_defend, observer) = Defend::new(profiles(), sender, &registry);
    publish(&observer, "hostile", ACTIVITY_QUEUE_MAX + 5);
    let dropped = metric(&registry, "portcullis_defend_activities_dropped_total");
    assert_eq!(dropped, 5.0);
}

#[tokio::test(start_paused = true)]
async fn the_tick_takes_datapoints_and_shows_how_many_alarms_are_open() {
    let registry = Registry::new();
    let (sender, mut drafts) = mpsc::channel(8);
    let (defend, observer) = Defend::new(profiles(), sender, &registry);
    let told: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let listener = Arc::clone(&told);
    let defend = defend.telling(Listener::new(move |device, profile, behavior, active| {
        let alarm = format!("{device} {profile} {behavior}");
        listener.lock().unwrap().push((alarm, active));
    }));
    let stop = CancellationToken::new();
    let sensors = async {
        // A flood of an hour ago: the alarm opens, and the first tick clears it.
        for _ in 0..100 {
            observer.observe(Activity {
                at: Timestamp::from_millis(crate::clock::now().as_millis() - 3_600_000),
                ..activity("hostile")
            });
        }
        assert_eq!(next(&mut drafts).await["violationEventType"], "in-alarm");
        assert_eq!(
            next(&mut drafts).await["violationEventType"],
            "alarm-cleared"
        );
        publish(&observer, "hostile", 100);
        assert_eq!(next(&mut drafts).await["violationEventType"], "in-alarm");
        tokio::time::sleep(2 * super::task::TICK).await;
        assert_eq!(metric(&registry, "portcullis_defend_alarms_open"), 1.0);
        assert_eq!(metric(&registry, "portcullis_defend_devices"), 1.0);
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(defend.run(stop.clone()), sensors);
    ended.unwrap();
    let alarm = "hostile p flood".to_owned();
    let changes = [true, false, true].map(|active| (alarm.clone(), active));
    assert_eq!(*told.lock().unwrap(), changes);
}

#[test]
fn profiles_are_loaded_from_every_json_file_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        load(dir.path(), None).unwrap().is_empty(),
        "an empty directory is none"
    );
    fs::write(dir.path().join("a.json"), PROFILE).unwrap();
    fs::write(dir.path().join("README.md"), "no profile").unwrap();
    // What an editor leaves behind while it has the file open.
    fs::write(dir.path().join(".#a.json"), "{").unwrap();
    assert_eq!(load(dir.path(), None).unwrap().len(), 1);
    fs::write(dir.path().join("b.json"), PROFILE).unwrap();
    fs::write(dir.path().join("c.json"), "{").unwrap();
    fs::write(dir.path().join("d.json"), [0xff]).unwrap();
    fs::create_dir(dir.path().join("e.json")).unwrap();
    let problems = load(dir.path(), None).unwrap_err();
    let files: Vec<_> = problems
        .iter()
        .map(|p| p.file.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        files,
        ["c.json", "d.json", "e.json", "b.json"],
        "{problems:#?}"
    );
    let missing = load(&dir.path().join("missing"), None).unwrap_err();
    assert!(missing[0].message.contains("No such file"), "{missing:?}");
}

#[test]
fn a_profile_of_a_group_that_does_not_exist_is_a_mistake_with_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let text = PROFILE.replace(
        "\"all/things\"",
        "\n\"arn:aws:iot:eu-central-1:1:thinggroup/cold-chian\"",
    );
    assert_ne!(text, PROFILE);
    fs::write(dir.path().join("a.json"), &text).unwrap();
    assert_eq!(load(dir.path(), None).unwrap().len(), 1);
    assert!(load(dir.path(), Some(&["x", "cold-chian"])).is_ok());
    let said = |groups: &[&str]| {
        let problems = load(dir.path(), Some(groups)).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(
            problems[0].place.unwrap().line,
            1 + text
                .lines()
                .position(|line| line.contains("thinggroup"))
                .unwrap()
        );
        format!("{}; {}", problems[0].message, problems[0].remedy)
    };
    assert_eq!(
        said(&["pumps", "cold-chain"]),
        "the target group `cold-chian` does not exist; write `thinggroup/cold-chain`"
    );
    assert!(said(&[]).contains("add `[[group]]`"));
}
