//! Devices under a virtual clock (specification B.4).

use std::{net::IpAddr, sync::Arc};

use super::profiles;
use crate::{
    detect::{
        Activity, ActivityKind, Cause, Detector, EventType, Limits, Profiles, Stats, Violation,
    },
    identity::{CertificateId, ClientId, GroupName},
    timestamp::Timestamp,
};

/// A detector, a clock and a source of ids.
struct Site {
    detector: Detector,
    now: Timestamp,
    ids: u32,
    /// What was raised: seconds since the start, device, behaviour, type, value, violation id.
    raised: Vec<Violation>,
    start: Timestamp,
}

impl Site {
    fn new(profiles: Profiles) -> Self {
        Self::with_limits(profiles, Limits::default())
    }

    fn with_limits(profiles: Profiles, limits: Limits) -> Self {
        let start = Timestamp::from_millis(1_800_000_000_000);
        Self {
            detector: Detector::new(profiles, limits),
            now: start,
            ids: 0,
            raised: Vec::new(),
            start,
        }
    }

    /// Lets a second after second pass.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus_millis(1000);
            let ids = &mut self.ids;
            self.raised
                .extend(self.detector.tick(self.now, &mut || next(ids)));
        }
    }

    fn observe(&mut self, activity: &Activity) {
        let ids = &mut self.ids;
        self.raised
            .extend(self.detector.observe(activity, &mut || next(ids)));
    }

    fn act(&mut self, device: &str, kind: ActivityKind) {
        let activity = self.activity(device, kind);
        self.observe(&activity);
    }

    fn publish(&mut self, device: &str, messages: usize) {
        for _ in 0..messages {
            self.act(device, published(10));
        }
    }

    fn activity(&self, device: &str, kind: ActivityKind) -> Activity {
        Activity {
            device: device.into(),
            groups: Arc::new([GroupName::parse("cold-chain").unwrap()]),
            registered: true,
            client_id: ClientId::parse(device).unwrap(),
            certificate_id: Some(CertificateId::of_der(device.as_bytes())),
            source: IpAddr::from([10, 0, 0, 1]),
            at: self.now,
            kind,
            times: 1,
        }
    }

    /// `second device type value`, since the last call.
    fn raised(&mut self) -> Vec<String> {
        let start = self.start;
        let line = |v: Violation| {
            let Cause::Behavior { value, .. } = &v.cause else {
                panic!("no plugin here")
            };
            format!(
                "{} {} {} {value}",
                v.at.millis_since(start) / 1000,
                v.device,
                v.event_type
            )
        };
        self.raised.drain(..).map(line).collect()
    }
}

fn next(ids: &mut u32) -> String {
    *ids += 1;
    ids.to_string()
}

fn published(bytes: usize) -> ActivityKind {
    ActivityKind::Published { bytes }
}

fn behavior(metric: &str, comparison: &str, count: u64, more: &str) -> String {
    format!(
        r#"{{"name":"b","metric":"{metric}","criteria":{{"comparisonOperator":"{comparison}",
           "value":{{"count":{count}}}{more}}}}}"#
    )
}

fn all(metric: &str, comparison: &str, count: u64, more: &str) -> Profiles {
    profiles(
        r#""all/things""#,
        &behavior(metric, comparison, count, more),
    )
}

const IN_300: &str = r#","durationSeconds":300"#;

#[test]
fn fifty_four_messages_where_fewer_than_ten_are_normal_alarm_and_a_quiet_window_clears() {
    // Vector 5 of specification G.
    let mut site = Site::new(all("aws:num-messages-sent", "less-than", 10, IN_300));
    site.publish("dev-1", 54);
    assert_eq!(
        site.raised(),
        ["0 dev-1 in-alarm 10"],
        "the moment the count passes"
    );
    site.pass(299);
    assert_eq!(site.raised(), [""; 0]);
    site.pass(1);
    assert_eq!(site.raised(), ["300 dev-1 alarm-cleared 0"]);
    site.pass(3600);
    assert_eq!(site.raised(), [""; 0]);
}

#[test]
fn a_rate_just_within_the_limit_never_alarms() {
    let mut site = Site::new(all("aws:num-messages-sent", "less-than-equals", 60, IN_300));
    for _ in 0..2000 {
        site.publish("dev-1", 1);
        site.pass(5);
    }
    assert_eq!(site.raised(), [""; 0]);
}

#[test]
fn an_episode_has_one_id_and_each_event_its_own() {
    let mut site = Site::new(all("aws:num-messages-sent", "less-than", 10, IN_300));
    for _ in 0..2 {
        site.publish("dev-1", 54);
        site.pass(600);
    }
    let ids: Vec<_> = site.raised.iter().map(|v| v.ids.clone()).collect();
    let [a, b, c, d] = &ids[..] else {
        panic!("{ids:?}")
    };
    assert_eq!(a.violation_id, b.violation_id);
    assert_eq!(c.violation_id, d.violation_id);
    assert_ne!(a.violation_id, c.violation_id);
    let mut events: Vec<_> = ids.iter().map(|ids| &ids.event_id).collect();
    events.sort();
    events.dedup();
    assert_eq!(events.len(), 4);
}

#[test]
fn a_flood_that_goes_on_stays_one_episode() {
    let mut site = Site::new(all("aws:num-messages-sent", "less-than", 10, IN_300));
    for _ in 0..1000 {
        site.publish("dev-1", 5);
        site.pass(1);
    }
    assert_eq!(site.raised(), ["1 dev-1 in-alarm 10"]);
    site.pass(600);
    assert_eq!(site.raised().len(), 1, "cleared once");
}

#[test]
fn consecutive_datapoints_are_a_duration_apart() {
    let more = r#","durationSeconds":300,"consecutiveDatapointsToAlarm":3,"consecutiveDatapointsToClear":2"#;
    let mut site = Site::new(all("aws:num-messages-sent", "less-than", 10, more));
    site.publish("burst", 10_000);
    for _ in 0..700 {
        site.publish("steady", 1);
        site.pass(1);
    }
    // The tenth message of `steady` passes at second 9; two further datapoints follow.
    assert_eq!(
        site.raised(),
        ["609 steady in-alarm 299"],
        "a burst is one datapoint"
    );
    site.pass(1200);
    assert_eq!(site.raised(), ["1509 steady alarm-cleared 0"]);
}

#[test]
fn too_few_messages_alarm_at_the_end_of_the_window() {
    let mut site = Site::new(all(
        "aws:num-messages-sent",
        "greater-than-equals",
        3,
        IN_300,
    ));
    for _ in 0..6 {
        site.publish("dev-1", 1);
        site.pass(50);
    }
    assert_eq!(
        site.raised(),
        [""; 0],
        "not before the window is over, and then it conforms"
    );
    site.pass(299);
    assert_eq!(site.raised(), [""; 0]);
    site.pass(1);
    assert_eq!(site.raised(), ["600 dev-1 in-alarm 0"]);
    site.publish("dev-1", 3);
    site.pass(300);
    // The messages at second 600 stand in the bucket that has just left the window.
    assert_eq!(site.raised(), [""; 0]);
    site.pass(10);
    site.publish("dev-1", 3);
    site.pass(290);
    assert_eq!(site.raised(), ["1200 dev-1 alarm-cleared 3"]);
}

#[test]
fn each_counter_counts_its_own_activity() {
    for (metric, kind) in [
        ("aws:num-messages-sent", published(1)),
        (
            "aws:num-messages-received",
            ActivityKind::Delivered { bytes: 1 },
        ),
        (
            "aws:num-authorization-failures",
            ActivityKind::Denied { reason: "policy" },
        ),
        ("aws:num-connection-attempts", ActivityKind::ConnectAttempt),
        ("aws:num-disconnects", ActivityKind::Disconnected),
    ] {
        let mut site = Site::new(all(metric, "less-than-equals", 3, IN_300));
        for other in [
            published(1),
            ActivityKind::Delivered { bytes: 1 },
            ActivityKind::Denied { reason: "policy" },
            ActivityKind::ConnectAttempt,
            ActivityKind::Disconnected,
            ActivityKind::Connected,
        ] {
            for _ in 0..10 {
                if other != kind {
                    site.act("dev-1", other.clone());
                }
            }
        }
        assert_eq!(site.raised(), [""; 0], "{metric}");
        for _ in 0..4 {
            site.act("dev-1", kind.clone());
        }
        assert_eq!(site.raised(), ["0 dev-1 in-alarm 4"], "{metric}");
    }
}

#[test]
fn message_sizes_are_judged_one_by_one_and_cleared_by_a_clean_stretch() {
    let mut site = Site::new(all("aws:message-byte-size", "less-than-equals", 1024, ""));
    site.act("dev-1", published(1024));
    assert_eq!(site.raised(), [""; 0]);
    site.act("dev-1", published(1025));
    assert_eq!(site.raised(), ["0 dev-1 in-alarm 1025"]);
    for _ in 0..100 {
        // One that alternates would otherwise alarm a hundred times.
        site.act("dev-1", published(10));
        site.act("dev-1", published(2000));
    }
    assert_eq!(site.raised(), [""; 0]);
    site.pass(600);
    assert_eq!(site.raised(), [""; 0], "silence is no datapoint");
    site.act("dev-1", published(10));
    site.pass(10);
    assert_eq!(site.raised(), ["610 dev-1 alarm-cleared 10"]);
}

#[test]
fn two_large_messages_in_a_row_alarm_where_two_are_asked_for() {
    let more = r#","consecutiveDatapointsToAlarm":2"#;
    let mut site = Site::new(all("aws:message-byte-size", "less-than", 100, more));
    for bytes in [200, 1, 200, 1, 200] {
        site.act("dev-1", published(bytes));
    }
    assert_eq!(site.raised(), [""; 0]);
    site.act("dev-1", published(300));
    assert_eq!(site.raised(), ["0 dev-1 in-alarm 300"]);
}

#[test]
fn a_certificate_used_from_two_addresses_alarms_at_once() {
    let metric = "portcullis:certificate-source-addresses";
    let mut site = Site::new(all(metric, "less-than-equals", 1, IN_300));
    for device in ["dev-1", "dev-2"] {
        site.act(device, ActivityKind::Connected);
        site.publish(device, 3);
    }
    assert_eq!(site.raised(), [""; 0]);
    let mut thief = site.activity("dev-1", ActivityKind::ConnectAttempt);
    thief.source = IpAddr::from([10, 0, 0, 2]);
    site.observe(&thief);
    assert_eq!(site.raised(), ["0 dev-1 in-alarm 2"]);
    site.pass(300);
    assert_eq!(site.raised(), ["300 dev-1 alarm-cleared 0"]);
}

#[test]
fn a_device_that_moves_to_another_address_later_is_normal() {
    let metric = "portcullis:certificate-source-addresses";
    let mut site = Site::new(all(metric, "less-than-equals", 1, IN_300));
    for n in 1..20 {
        let mut moved = site.activity("dev-1", ActivityKind::Connected);
        moved.source = IpAddr::from([10, 0, 0, n]);
        site.observe(&moved);
        site.pass(300);
    }
    assert_eq!(site.raised(), [""; 0]);
}

#[test]
fn profiles_apply_to_their_targets_alone() {
    let registered = |site: &Site| site.activity("thing", published(1));
    let unregistered = |site: &Site| Activity {
        registered: false,
        groups: Arc::new([]),
        ..site.activity("stranger", published(1))
    };
    for (target, thing, stranger) in [
        ("all/things", true, true),
        ("all/registered-things", true, false),
        ("all/unregistered-things", false, true),
        ("thinggroup/cold-chain", true, false),
        (
            "arn:aws:iot:eu-central-1:1:thinggroup/cold-chain",
            true,
            false,
        ),
        ("thinggroup/other", false, false),
    ] {
        let b = behavior("aws:num-messages-sent", "less-than", 1, IN_300);
        let mut site = Site::new(profiles(&format!("\"{target}\""), &b));
        for (activity, expected) in [(registered(&site), thing), (unregistered(&site), stranger)] {
            site.observe(&activity);
            assert_eq!(site.raised().len() == 1, expected, "{target}: {activity:?}");
        }
    }
}

#[test]
fn a_thing_that_leaves_the_group_has_its_alarm_invalidated() {
    let b = behavior("aws:num-messages-sent", "less-than", 2, IN_300);
    let mut site = Site::new(profiles(r#""thinggroup/cold-chain""#, &b));
    site.publish("dev-1", 2);
    let mut moved = site.activity("dev-1", published(1));
    moved.groups = Arc::new([]);
    site.observe(&moved);
    assert_eq!(
        site.raised(),
        ["0 dev-1 in-alarm 2", "0 dev-1 alarm-invalidated 2"]
    );
    site.publish("dev-1", 2);
    assert_eq!(
        site.raised(),
        ["0 dev-1 in-alarm 2"],
        "back again, from zero"
    );
}

#[test]
fn two_days_of_silence_invalidate() {
    let mut site = Site::new(all("aws:message-byte-size", "less-than", 10, ""));
    site.act("dev-1", published(10));
    site.pass(2 * 24 * 3600);
    assert_eq!(site.raised(), ["0 dev-1 in-alarm 10"]);
    site.pass(1);
    assert_eq!(site.raised(), ["172801 dev-1 alarm-invalidated 0"]);
    assert_eq!(site.detector.stats(), Stats::default());
}

#[test]
fn other_profiles_take_over_and_what_stays_goes_on() {
    let mut site = Site::new(all("aws:num-messages-sent", "less-than", 3, IN_300));
    site.publish("dev-1", 2);
    let kept = behavior("aws:num-messages-sent", "less-than", 3, IN_300);
    let added = kept.replace("\"b\"", "\"c\"").replace(":3}", ":2}");
    let both = profiles(r#""all/things""#, &format!("{kept},{added}"));
    let now = site.now;
    assert!(
        site.detector
            .replace_profiles(both, now, &mut String::new)
            .is_empty()
    );
    site.publish("dev-1", 1);
    assert_eq!(
        site.raised(),
        ["0 dev-1 in-alarm 3"],
        "the old window went on, the new began"
    );
    let none = site
        .detector
        .replace_profiles(Profiles::default(), now, &mut String::new);
    assert_eq!(none.len(), 1);
    assert_eq!(none[0].event_type, EventType::AlarmInvalidated);
}

#[test]
fn made_up_client_ids_displace_each_other_and_never_a_thing() {
    let limits = Limits {
        things_max: 8,
        unregistered_max: 8,
    };
    let profiles = all("aws:num-messages-sent", "less-than", 3, IN_300);
    let mut site = Site::with_limits(profiles, limits);
    site.publish("thing", 2);
    for n in 0..1000 {
        let stranger = Activity {
            registered: false,
            ..site.activity(&format!("stranger-{n}"), published(1))
        };
        site.observe(&stranger);
    }
    let stats = site.detector.stats();
    assert_eq!((stats.devices, stats.evicted), (9, 992));
    site.publish("thing", 1);
    assert_eq!(site.raised(), ["0 thing in-alarm 3"], "its window was kept");
}

#[test]
fn whoever_was_quiet_longest_is_forgotten_with_a_word() {
    let limits = Limits {
        things_max: 2,
        unregistered_max: 1,
    };
    let profiles = all("aws:num-messages-sent", "less-than", 1, IN_300);
    let mut site = Site::with_limits(profiles, limits);
    for device in ["a", "b", "a"] {
        site.pass(1);
        site.publish(device, 1);
    }
    site.raised();
    site.publish("c", 1);
    assert_eq!(site.raised(), ["3 b alarm-invalidated 1", "3 c in-alarm 1"]);
    assert_eq!(site.detector.stats().alarms, 2);
}

#[test]
fn a_clock_that_jumps_neither_alarms_nor_gets_stuck() {
    let mut site = Site::new(all("aws:num-messages-sent", "less-than", 10, IN_300));
    site.now = site.now.plus_millis(365 * 24 * 3600 * 1000);
    site.publish("dev-1", 20);
    assert_eq!(site.raised().len(), 1);
    // Back to the right time: the alarm clears as if nothing had been.
    site.now = site.start;
    site.pass(301);
    assert_eq!(site.raised(), ["301 dev-1 alarm-cleared 0"]);
}

#[test]
fn a_clock_that_steps_forward_makes_windows_start_over_and_nothing_else() {
    for (comparison, before) in [
        ("greater-than-equals", [""; 0].as_slice()),
        ("less-than", &["0 dev-1 in-alarm 10"]),
    ] {
        for hours in [1, 3, 24 * 365] {
            let mut site = Site::new(all("aws:num-messages-sent", comparison, 10, IN_300));
            site.pass(1);
            site.start = site.now;
            site.publish("dev-1", 20);
            site.pass(100);
            assert_eq!(site.raised(), before);
            site.now = site.now.plus_millis(hours * 3600 * 1000);
            site.start = site.now;
            site.pass(1);
            assert_eq!(site.raised(), [""; 0], "{comparison}, {hours} h");
            assert_eq!(site.detector.stats().devices, 1);
            // From here on as after a start.
            site.pass(300);
            let after = match comparison {
                "less-than" => "301 dev-1 alarm-cleared 0",
                _ => "301 dev-1 in-alarm 0",
            };
            assert_eq!(site.raised(), [after], "{hours} h");
        }
    }
}

#[test]
fn an_activity_may_be_the_first_to_see_that_the_clock_stepped() {
    let mut site = Site::new(all("aws:num-messages-sent", "greater-than", 0, IN_300));
    site.publish("dev-1", 1);
    site.pass(100);
    site.now = site.now.plus_millis(10 * 24 * 3600 * 1000);
    site.start = site.now;
    site.publish("dev-1", 1);
    site.pass(290);
    assert_eq!(site.raised(), [""; 0]);
    assert_eq!(site.detector.stats().devices, 1);
}

#[test]
fn what_is_told_once_counts_as_often_as_it_happened() {
    for (metric, kind) in [
        ("aws:num-messages-sent", published(1)),
        (
            "aws:num-messages-received",
            ActivityKind::Delivered { bytes: 1 },
        ),
    ] {
        let mut site = Site::new(all(metric, "less-than-equals", 3, IN_300));
        let mut activity = site.activity("dev-1", kind);
        activity.times = 3;
        site.observe(&activity);
        assert_eq!(site.raised(), [""; 0], "{metric}");
        activity.times = 2;
        site.observe(&activity);
        assert_eq!(site.raised(), ["0 dev-1 in-alarm 4"], "{metric}");
    }
}
