//! The JSON that goes upstream (specification B.6).

use serde_json::{Value, json};

use super::profile;
use crate::{
    detect::{Cause, EventType, RuleHit, Severity, Violation, ViolationIds},
    record::Kind,
    timestamp::Timestamp,
};

fn ids() -> ViolationIds {
    ViolationIds {
        event_id: "e-1".into(),
        violation_id: "37e1".into(),
    }
}

fn object(violation: &Violation) -> Value {
    let draft = violation.draft();
    assert_eq!(draft.kind, Kind::Violation);
    assert_eq!(draft.partition_key, violation.device);
    let text = format!("{{{}}}", std::str::from_utf8(&draft.members).unwrap());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_violation_has_the_shape_of_aws() {
    let profile = profile(
        r#""all/things""#,
        r#"{"name":"MessagesPub","metric":"aws:num-messages-sent","criteria":{
           "comparisonOperator":"less-than","value":{"count":10},"durationSeconds":300}}"#,
    );
    let violation = Violation {
        ids: ids(),
        event_type: EventType::InAlarm,
        at: Timestamp::from_millis(1_573_786_800_000),
        device: "dev-1".into(),
        cause: Cause::Behavior {
            profile: profile.name.clone(),
            behavior: profile.behaviors[0].clone(),
            value: 54,
        },
    };
    assert_eq!(
        object(&violation),
        json!({
            "event_id": "e-1",
            "violationEventTime": 1_573_786_800_000_u64, "thingName": "dev-1",
            "securityProfileName": "p",
            "behavior": {"name": "MessagesPub", "metric": "aws:num-messages-sent",
                "criteria": {"comparisonOperator": "less-than", "value": {"count": 10},
                    "durationSeconds": 300, "consecutiveDatapointsToAlarm": 1,
                    "consecutiveDatapointsToClear": 1}},
            "violationEventType": "in-alarm", "metricValue": {"count": 54}, "violationId": "37e1"
        })
    );
}

#[test]
fn a_violation_of_a_plugin_names_plugin_rule_and_message() {
    let hit = RuleHit {
        plugin: "threshold".into(),
        rule: "over-temperature".into(),
        message: "12 °C is above 8 °C".into(),
        severity: Severity::High,
        score: Some(12.0),
    };
    let at = Timestamp::from_millis(5);
    let violation = Violation::from_plugin(ids(), at, "dev-1", hit.clone());
    assert_eq!(
        object(&violation),
        json!({
            "event_id": "e-1", "violationEventTime": 5, "thingName": "dev-1",
            "securityProfileName": "plugin/threshold", "behavior": {"name": "over-temperature"},
            "violationEventType": "in-alarm", "metricValue": {"number": 12.0},
            "violationId": "37e1", "severity": "high", "message": "12 °C is above 8 °C"
        })
    );
    for score in [None, Some(f64::NAN), Some(f64::INFINITY)] {
        let hit = RuleHit {
            score,
            ..hit.clone()
        };
        let violation = Violation::from_plugin(ids(), at, "dev-1", hit);
        assert!(object(&violation).get("metricValue").is_none(), "{score:?}");
    }
}

#[test]
fn what_a_plugin_says_is_cut_to_a_bound_between_characters() {
    let hit = RuleHit {
        plugin: "p".into(),
        rule: "ü".repeat(10_000),
        message: format!("x{}", "ü".repeat(1_000_000)),
        severity: Severity::Info,
        score: None,
    };
    let violation = Violation::from_plugin(ids(), Timestamp::default(), "d", hit);
    assert!(violation.draft().members.len() < 8192);
    let object = object(&violation);
    assert_eq!(object["behavior"]["name"], "ü".repeat(64));
    assert_eq!(object["message"], format!("x{}", "ü".repeat(2047)));
}
