//! What goes upstream is what `deploy/schemas` says: records made by the code, judged by a reader of
//! the part of JSON Schema that the schemas use. A keyword that it does not know is an error.

#![expect(clippy::unwrap_used, reason = "helpers of tests; schemas are ours")]

use std::{collections::BTreeMap, fs, path::Path};

use portcullis_core::{
    cloudwatch::{
        logs::Line,
        metrics::{Datum, Point, Reading, Unit},
    },
    detect::{self, Cause, EventType, Metric, RuleHit, Severity, Violation, ViolationIds},
    event::{Event, Qos},
    identity::{ClientId, GroupName, ThingName},
    record::{Clock, Draft, Kind, Record, Shaped, SinkSet, event_draft},
    timestamp::Timestamp,
    topic::TopicName,
};
use serde_json::{Value, json};

#[test]
fn every_form_of_an_event_follows_its_schema() {
    let schema = schema("event-1.json");
    for payload in [
        &b"{\"t\": 4.2}"[..],
        b"null",
        b"plain text",
        b"\xff\xfe",
        b"",
    ] {
        for registered in [true, false] {
            let body = body(&event(payload, registered));
            check(&schema, &body).unwrap_or_else(|fault| panic!("{fault}\n{body:#}"));
        }
    }
}

#[test]
fn every_form_of_a_violation_follows_its_schema() {
    let schema = schema("violation-1.json");
    for violation in violations() {
        let body = body(&violation.draft());
        check(&schema, &body).unwrap_or_else(|fault| panic!("{fault}\n{body:#}"));
    }
}

#[test]
fn every_form_of_a_metric_follows_its_schema() {
    let schema = schema("metric-1.json");
    let statistics = Reading::Statistics {
        count: 2.0,
        sum: 3.0,
        min: 1.0,
        max: 2.0,
    };
    let values = Reading::Values(vec![(1.5, 2.0), (2.0, 1.0)]);
    for reading in [Reading::one(1.0), values, statistics] {
        for dimensions in [vec![], vec![("Reason".to_owned(), "r".to_owned())]] {
            let datum = Datum {
                name: "Publishes".to_owned(),
                dimensions,
                unit: Unit::COUNT,
                reading: reading.clone(),
            };
            let point = Point {
                namespace: "Portcullis".to_owned(),
                at: Timestamp::from_millis(1_795_341_600_000),
                data: vec![datum],
            };
            let common = BTreeMap::from([("GatewayId".to_owned(), "gw-1".to_owned())]);
            let body = body(&own_draft(Kind::Metric, point.members(&common)));
            check(&schema, &body).unwrap_or_else(|fault| panic!("{fault}\n{body:#}"));
        }
    }
}

#[test]
fn every_form_of_a_log_event_follows_its_schema() {
    let schema = schema("log-1.json");
    for fields in [json!({}), json!({ "client": "a", "n": 1, "late": true })] {
        let line = Line {
            at: Timestamp::from_millis(1_795_341_600_000),
            level: "warn",
            target: "portcullis::broker".to_owned(),
            message: "Handshake timed out.".to_owned(),
            fields: fields.as_object().unwrap().clone(),
        };
        let body = body(&own_draft(Kind::Log, line.members()));
        check(&schema, &body).unwrap_or_else(|fault| panic!("{fault}\n{body:#}"));
    }
}

fn own_draft(kind: Kind, members: bytes::Bytes) -> Draft {
    Draft {
        kind,
        partition_key: "gw-1".into(),
        members,
        sinks: SinkSet::single(0),
    }
}

#[test]
fn what_does_not_follow_a_schema_is_noticed() {
    let event_schema = schema("event-1.json");
    let good = body(&event(b"1", true));
    for (member, value) in [
        ("seq", json!(0)),
        ("seq", json!("1")),
        ("schema", json!("portcullis.event/2")),
        ("thing", json!("a b")),
        ("payload_text", json!("a second payload")),
        ("received_at", json!("yesterday")),
        ("groups", json!("cold-chain")),
        ("user_properties", json!([["a", "b", "c"]])),
        ("unknown", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        assert!(check(&event_schema, &bad).is_err(), "{bad:#}");
    }
    for member in ["event_id", "payload", "tags"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(member);
        assert!(check(&event_schema, &bad).is_err(), "{bad:#}");
    }
    let violation_schema = schema("violation-1.json");
    let mut bad = body(&violations()[0].draft());
    bad["behavior"]["criteria"]["durationSeconds"] = json!(60);
    assert!(check(&violation_schema, &bad).is_err(), "{bad:#}");
}

fn event(payload: &[u8], registered: bool) -> Draft {
    let event = Event {
        thing: registered.then(|| ThingName::parse("sensor-7").unwrap()),
        groups: [GroupName::parse("cold-chain").unwrap()].into(),
        client_id: ClientId::parse("sensor 7").unwrap(),
        received_at: Timestamp::from_millis(1_795_341_600_123),
        topic: TopicName::parse("dt/sensor-7/temp").unwrap(),
        payload: payload.to_vec().into(),
        qos: Qos::AtLeastOnce,
        retain: !registered,
        user_properties: match registered {
            true => vec![("a".into(), "b".into()), ("a".into(), "c".into())],
            false => Vec::new(),
        },
    };
    let tags = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
    let shaped = Shaped {
        topic: &event.topic,
        payload,
        tags: &tags,
    };
    event_draft(&event, &shaped, "e-1", Clock::Unsynced)
}

fn violations() -> Vec<Violation> {
    let at = Timestamp::from_millis(1_573_786_800_000);
    let ids = || ViolationIds {
        event_id: "e-1".into(),
        violation_id: "v-1".into(),
    };
    let mut violations = Vec::new();
    for metric in Metric::ALL {
        let duration = match metric.is_judged_per_message() {
            true => "",
            false => r#","durationSeconds":300"#,
        };
        let text = format!(
            r#"{{"securityProfileName":"p","targets":["all/things"],"behaviors":[{{"name":"b",
            "metric":"{}","suppressAlerts":true,"criteria":{{"comparisonOperator":"less-than",
            "value":{{"count":10}}{duration}}}}}]}}"#,
            metric.name()
        );
        let profile = detect::parse(Path::new("p.json"), &text).unwrap();
        for event_type in [
            EventType::InAlarm,
            EventType::AlarmCleared,
            EventType::AlarmInvalidated,
        ] {
            violations.push(Violation {
                ids: ids(),
                event_type,
                at,
                device: "dev-1".into(),
                cause: Cause::Behavior {
                    profile: profile.name.clone(),
                    behavior: profile.behaviors[0].clone(),
                    value: 54,
                },
            });
        }
    }
    for (severity, score) in [
        (Severity::Info, None),
        (Severity::Low, Some(-1.5)),
        (Severity::Medium, Some(f64::NAN)),
        (Severity::High, Some(0.0)),
        (Severity::Critical, Some(1e300)),
    ] {
        let hit = RuleHit {
            plugin: "threshold".into(),
            rule: "over-temperature".into(),
            message: "too warm".repeat(10_000),
            severity,
            score,
        };
        violations.push(Violation::from_plugin(ids(), at, "dev-1", hit));
    }
    violations
}

/// As it goes upstream.
fn body(draft: &Draft) -> Value {
    serde_json::from_slice(&Record::new(draft, 4711, "gw-1", "boot-1").body).unwrap()
}

fn schema(name: &str) -> Value {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/schemas");
    serde_json::from_str(&fs::read_to_string(dir.join(name)).unwrap()).unwrap()
}

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    follows(schema, schema, value)
}

fn follows(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    for (keyword, wanted) in schema.as_object().unwrap() {
        if !keyword_holds(root, schema, keyword, wanted, value)? {
            return Err(format!("{keyword} {wanted} does not hold for {value}"));
        }
    }
    Ok(())
}

fn keyword_holds(
    root: &Value,
    schema: &Value,
    keyword: &str,
    wanted: &Value,
    value: &Value,
) -> Result<bool, String> {
    let number = || wanted.as_u64().unwrap();
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    let length = value.as_str().map(|text| text.chars().count() as u64);
    Ok(match keyword {
        "$schema" | "$id" | "$defs" | "title" | "description" | "format" | "contentEncoding" => {
            true
        }
        "type" => match wanted.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            other => panic!("unknown type {other}"),
        },
        "const" => value == wanted,
        "enum" => wanted.as_array().unwrap().contains(value),
        "minimum" => value.as_f64() >= wanted.as_f64(),
        "maximum" => value.as_f64() <= wanted.as_f64(),
        "minLength" => length.is_none_or(|length| length >= number()),
        "maxLength" => length.is_none_or(|length| length <= number()),
        "minItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 >= number()),
        "pattern" => matches_pattern(wanted.as_str().unwrap(), value.as_str().unwrap()),
        "required" => {
            let names = wanted.as_array().unwrap().iter();
            names
                .into_iter()
                .all(|name| value.get(name.as_str().unwrap()).is_some())
        }
        "properties" => {
            for (name, property) in wanted.as_object().unwrap() {
                if let Some(member) = value.get(name) {
                    follows(root, property, member).map_err(|fault| format!("{name}: {fault}"))?;
                }
            }
            true
        }
        "additionalProperties" => {
            let known = schema.get("properties").and_then(Value::as_object);
            let others = value.as_object().into_iter().flatten();
            let mut others =
                others.filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
            match wanted {
                Value::Bool(false) => others.next().is_none(),
                schema => others.all(|(_, member)| follows(root, schema, member).is_ok()),
            }
        }
        "uniqueItems" => (0..items.len()).all(|at| !items[..at].contains(&items[at])),
        "prefixItems" => {
            let schemas = wanted.as_array().unwrap().iter();
            let mut pairs = schemas.zip(items);
            pairs.all(|(schema, item)| follows(root, schema, item).is_ok())
        }
        "items" => {
            let prefix = schema
                .get("prefixItems")
                .map_or(0, |p| p.as_array().unwrap().len());
            let mut rest = items.iter().skip(prefix);
            match wanted {
                Value::Bool(false) => rest.next().is_none(),
                schema => rest.all(|item| follows(root, schema, item).is_ok()),
            }
        }
        "oneOf" => {
            let schemas = wanted.as_array().unwrap().iter();
            schemas
                .filter(|schema| follows(root, schema, value).is_ok())
                .count()
                == 1
        }
        "$ref" => {
            let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
            return follows(root, root.pointer(pointer).unwrap(), value).map(|()| true);
        }
        unknown => panic!("the reader does not know the keyword {unknown}"),
    })
}

/// The patterns that the schemas use.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    match pattern {
        "^[a-zA-Z0-9:_-]{1,128}$" => ThingName::parse(text).is_ok(),
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$" => {
            let shape: String = text.replace(|c: char| c.is_ascii_digit(), "0");
            shape == "0000-00-00T00:00:00.000Z"
        }
        unknown => panic!("the reader does not know the pattern {unknown}"),
    }
}
