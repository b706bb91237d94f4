//! What is taken, and what is refused with which place and remedy.

use std::path::{Path, PathBuf};

use super::profile;
use crate::{
    detect::{Comparison, Metric, Target, parse, together},
    identity::GroupName,
};

/// AWS's sample of `CreateSecurityProfile`, with `targets`.
const SAMPLE: &str = r#"{
  "securityProfileName": "p",
  "securityProfileDescription": "what sensors do",
  "behaviors": [
    {
      "name": "MessagesPub",
      "metric": "aws:num-messages-sent",
      "criteria": {
        "comparisonOperator": "less-than",
        "value": { "count": 10 },
        "durationSeconds": 300,
        "consecutiveDatapointsToAlarm": 1,
        "consecutiveDatapointsToClear": 1
      },
      "suppressAlerts": true,
      "exportMetric": false
    },
    {
      "name": "size",
      "metric": "aws:message-byte-size",
      "criteria": { "comparisonOperator": "less-than-equals", "value": { "count": 1024 } }
    }
  ],
  "alertTargets": {},
  "tags": [],
  "targets": ["arn:aws:iot:eu-central-1:123456789012:thinggroup/cold-chain", "all/unregistered-things"]
}"#;

fn problems(text: &str) -> Vec<String> {
    match parse(Path::new("p.json"), text) {
        Ok(profile) => panic!("taken: {profile:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// The only problem of the sample with `from` replaced.
fn problem_with(from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "{from}");
    let problems = problems(&SAMPLE.replacen(from, to, 1));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn a_profile_of_aws_is_taken_as_it_is() {
    let profile = parse(Path::new("p.json"), SAMPLE).unwrap();
    assert_eq!(&*profile.name, "p");
    assert_eq!(profile.description.as_deref(), Some("what sensors do"));
    assert_eq!(
        profile.targets,
        [
            Target::Group(GroupName::parse("cold-chain").unwrap()),
            Target::UnregisteredThings
        ]
    );
    let [pub_, size] = &profile.behaviors[..] else {
        panic!("{profile:?}")
    };
    assert_eq!(pub_.metric, Metric::NumMessagesSent);
    assert_eq!(pub_.criteria.comparison, Comparison::LessThan);
    assert_eq!(pub_.criteria.count, 10);
    assert_eq!(pub_.criteria.duration_secs, Some(300));
    assert!(pub_.suppress_alerts);
    assert_eq!(size.criteria.duration_secs, None);
    assert_eq!(size.criteria.datapoints_to_alarm, 1, "the default");
    assert!(!size.suppress_alerts);
}

#[test]
fn every_metric_operator_and_duration_of_the_table_is_taken() {
    for metric in Metric::ALL {
        for comparison in Comparison::ALL {
            for duration in [300, 600, 900, 1800, 3600] {
                let duration = if metric.is_judged_per_message() {
                    String::new()
                } else {
                    format!(r#","durationSeconds":{duration}"#)
                };
                profile(
                    r#""all/things""#,
                    &format!(
                        r#"{{"name":"b","metric":"{}","criteria":{{"comparisonOperator":"{}",
                           "value":{{"count":1}}{duration}}}}}"#,
                        metric.name(),
                        comparison.name()
                    ),
                );
            }
        }
    }
}

#[test]
fn what_is_not_evaluated_yet_is_refused_by_name() {
    for (from, to, named) in [
        (
            "aws:num-messages-sent",
            "aws:all-bytes-out",
            "`aws:all-bytes-out`",
        ),
        (
            "aws:num-messages-sent",
            "aws:source-ip-address",
            "`aws:source-ip-address`",
        ),
        (
            "aws:num-messages-sent",
            "batteryPercentage",
            "custom metric `batteryPercentage`",
        ),
        ("\"less-than\"", "\"in-cidr-set\"", "`in-cidr-set`"),
        (
            r#""value": { "count": 10 }"#,
            r#""statisticalThreshold": { "statistic": "p99" }"#,
            "`statisticalThreshold`",
        ),
        (
            r#""value": { "count": 10 }"#,
            r#""mlDetectionConfig": { "confidenceLevel": "HIGH" }"#,
            "`mlDetectionConfig`",
        ),
        (
            "\"exportMetric\": false",
            "\"exportMetric\": true",
            "`exportMetric`",
        ),
        (
            "\"exportMetric\": false",
            r#""metricDimension": { "dimensionName": "d" }"#,
            "`metricDimension`",
        ),
        (
            "\"alertTargets\": {}",
            r#""alertTargets": { "SNS": { "alertTargetArn": "a", "roleArn": "r" } }"#,
            "`alertTargets`",
        ),
        (
            "\"tags\": []",
            r#""additionalMetricsToRetainV2": [ { "metric": "aws:num-disconnects" } ]"#,
            "`additionalMetricsToRetainV2`",
        ),
    ] {
        let problem = problem_with(from, to);
        assert!(
            problem.contains(named) && problem.contains("is not evaluated yet"),
            "{problem}"
        );
    }
}

#[test]
fn mistakes_are_named_with_place_and_remedy() {
    for (from, to, expected) in [
        (
            "aws:num-messages-sent",
            "aws:num-mesages-sent",
            "p.json:7:17: unknown metric \"aws:num-mesages-sent\"; use one of `aws:message-byte-size`",
        ),
        (
            "\"durationSeconds\": 300",
            "\"durationSeconds\": 60",
            "p.json:11:28: `durationSeconds` of 60; use one of 300, 600, 900, 1800, 3600",
        ),
        (
            "\"durationSeconds\": 300,",
            "",
            "p.json:8:19: `durationSeconds` is missing; add it: one of 300",
        ),
        (
            "{ \"count\": 1024 }",
            "{ \"count\": 1024 }, \"durationSeconds\": 300",
            "p.json:21:110: `durationSeconds` for a metric that is judged message by message; remove it",
        ),
        (
            "{ \"count\": 10 }",
            "{ \"count\": -1 }",
            "p.json:10:18: the value of this metric is a count; write",
        ),
        (
            "{ \"count\": 10 }",
            "{ \"ports\": [1] }",
            "p.json:10:18: the value of this metric is a count; write",
        ),
        (
            "\"less-than\"",
            "\"below\"",
            "p.json:9:31: unknown operator \"below\"; use one of `less-than`",
        ),
        (
            "\"consecutiveDatapointsToAlarm\": 1",
            "\"consecutiveDatapointsToAlarm\": 11",
            "p.json:12:41: `consecutiveDatapointsToAlarm` of 11; write a number from 1 to 10",
        ),
        (
            "\"name\": \"size\"",
            "\"name\": \"a b\"",
            "p.json:19:15: `name` \"a b\" is no name; use 1 to 128",
        ),
        (
            "\"name\": \"size\"",
            "\"name\": \"MessagesPub\"",
            "p.json:18:5: a second behaviour `MessagesPub`; give",
        ),
        (
            "\"tags\": []",
            "\"tag\": []",
            "p.json:25:10: unknown member `tag` of a security profile; remove it",
        ),
        (
            "\"tags\": []",
            "\"version\": 1, \"version\": 2",
            "p.json:25:28: a second `version` in a security profile",
        ),
        (
            "all/unregistered-things",
            "all/strangers",
            "p.json:26:78: unknown target \"all/strangers\"; use `all/things`",
        ),
        (
            "arn:aws:iot:",
            "arn:aws:s3:",
            "p.json:26:15: unknown target",
        ),
        (
            "\"suppressAlerts\": true",
            "\"suppressAlerts\": 1",
            "p.json:15:25: `suppressAlerts` is no bool; write",
        ),
    ] {
        let problem = problem_with(from, to);
        assert!(
            problem.starts_with(expected),
            "{problem}\nexpected {expected}"
        );
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let found = problems(
        &SAMPLE
            .replace("less-than\"", "below\"")
            .replace("300", "5")
            .replace("all/unregistered-things", "x"),
    );
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn a_profile_without_targets_is_refused() {
    let found = problems(&SAMPLE.replace("\"targets\"", "\"tags\""));
    assert!(
        found
            .iter()
            .any(|p| p.starts_with("p.json:1:1: `targets` is missing; add it, for instance")),
        "{found:#?}"
    );
}

#[test]
fn text_that_is_no_json_is_refused_with_the_place() {
    assert_eq!(
        problems("{\n  \"a\": ]\n}"),
        [
            "p.json:2:8: not JSON: expected value; write a security profile as `CreateSecurityProfile` takes it"
        ]
    );
    assert_eq!(
        problems("[]"),
        ["p.json:1:1: a security profile is no object; write `{ … }`"]
    );
    assert!(!problems("").is_empty());
}

#[test]
fn names_differ_and_no_target_has_more_than_five_profiles() {
    let sample = |file: &str, name: &str| {
        let text = SAMPLE.replacen("\"p\"", &format!("\"{name}\""), 1);
        let file = PathBuf::from(file);
        let profile = parse(&file, &text).unwrap();
        (file, profile)
    };
    let found = together(vec![sample("a.json", "x"), sample("b.json", "x")]).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "b.json: the name `x` is that of the profile in `a.json` too; give one of them another `securityProfileName`"
    );
    let names = ["a", "b", "c", "d", "e", "f"];
    let five: Vec<_> = names[..5].iter().map(|name| sample(name, name)).collect();
    assert_eq!(together(five.clone()).unwrap().len(), 5);
    let six = [five, vec![sample("f", "f")]].concat();
    let found = together(six).unwrap_err();
    assert_eq!(found.len(), 2, "both targets: {found:#?}");
    assert!(
        found[0].message.contains("thinggroup/cold-chain"),
        "{found:#?}"
    );
}

#[test]
fn a_member_whose_name_is_no_text_is_named() {
    // Half a surrogate pair: JSON by its grammar, text by nobody's.
    let problems = problems("{\"\\ud800\": 1}");
    assert!(
        problems[0].contains(":1:2: a member of a security profile has a name that is no text"),
        "{problems:?}"
    );
}
