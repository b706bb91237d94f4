//! What a condition may not be.

use super::policy;
use crate::policy::Policy;

fn mistakes(condition: &str) -> Vec<String> {
    let error = Policy::parse("p", &policy("Allow", condition))
        .map(|_| ())
        .unwrap_err();
    let told = |mistake: crate::problem::Mistake| {
        assert!(mistake.place.is_some_and(|place| place.line == 2) && !mistake.remedy.is_empty());
        format!("{}; {}", mistake.message, mistake.remedy)
    };
    error.into_iter().map(told).collect()
}

/// Specification A.1: unknown operators, keys and values are refused when the document is read.
#[test]
fn what_means_nothing_is_refused_with_a_remedy() {
    for (condition, expected) in REFUSED {
        let found = mistakes(condition);
        assert_eq!(found.len(), 1, "{condition}: {found:?}");
        assert!(found[0].contains(expected), "{condition}: {}", found[0]);
    }
    let many = r#"{"StringEqual":{"iot:ClientId":"a"},"Bool":{"x":true,"iot:ClientId":[1,"no"]}}"#;
    assert_eq!(mistakes(many).len(), 4);
}

/// Conditions with a part of what is said of them.
const REFUSED: &[(&str, &str)] = &[
    ("[]", "`Condition` is a JSON object"),
    (r#"{"StringEqual":{}}"#, "unknown condition operator"),
    (r#"{"StringEquals":"a"}"#, "`StringEquals` is a JSON object"),
    (
        r#"{"StringEqual":{"iot:ClientId":"a"}}"#,
        "unknown condition operator `StringEqual`; write `StringEquals`",
    ),
    (
        r#"{"ForAnyValue:StringEqualIfExists":{"iot:ClientId":"a"}}"#,
        "unknown condition operator `ForAnyValue:StringEqualIfExists`; write `ForAnyValue:StringEqualsIfExists`",
    ),
    (
        r#"{"ForAll:StringEquals":{"iot:ClientId":"a"}}"#,
        "begin it with `ForAllValues:`",
    ),
    (
        r#"{"BinaryEquals":{"iot:ClientId":"a"}}"#,
        "unknown condition operator `BinaryEquals`; use one of StringEquals",
    ),
    (
        r#"{"NullIfExists":{"iot:ClientId":"true"}}"#,
        "would ask twice",
    ),
    (
        r#"{"ForAllValues:Null":{"iot:ClientId":"true"}}"#,
        "would ask twice",
    ),
    (
        r#"{"StringEquals":{"iot:ClientI":"a"}}"#,
        "unknown condition key `iot:ClientI`; write `iot:ClientId`",
    ),
    (
        r#"{"StringEquals":{"aws:username":"a"}}"#,
        "unknown condition key `aws:username`",
    ),
    (
        r#"{"StringEquals":{"iot:ClientId":"a","iot:ClientId":"b"}}"#,
        "stands here a second time",
    ),
    (
        r#"{"StringEquals":{"iot:ClientId":"a","iot:clientID":"b"}}"#,
        "`iot:ClientId` stands here a second time; keep one of them",
    ),
    (
        r#"{"StringEquals":{"iot:ClientId":{"a":1}}}"#,
        "`StringEquals` compares no object; write a string",
    ),
    (
        r#"{"StringEquals":{"iot:ClientId":[["a"]]}}"#,
        "`StringEquals` compares no list of lists",
    ),
    (
        r#"{"StringEquals":{"iot:ClientId":null}}"#,
        "`StringEquals` compares no null",
    ),
    (
        r#"{"StringEquals":{"iot:ClientId":[]}}"#,
        "`StringEquals` has no value; name at least one",
    ),
    (
        r#"{"NumericEquals":{"aws:EpochTime":"five"}}"#,
        "cannot compare with `five`; write a number",
    ),
    (
        r#"{"NumericEquals":{"aws:EpochTime":true}}"#,
        "`NumericEquals` compares no boolean",
    ),
    (
        r#"{"NumericEquals":{"aws:EpochTime":"${iot:ClientId}"}}"#,
        "a variable cannot stand in `NumericEquals`",
    ),
    (
        r#"{"DateEquals":{"aws:CurrentTime":"tomorrow"}}"#,
        "cannot compare with `tomorrow`; write `2026-",
    ),
    (
        r#"{"DateLessThan":{"aws:CurrentTime":"2027"}}"#,
        "cannot compare with `2027`; write `2026-",
    ),
    (
        r#"{"DateLessThan":{"aws:CurrentTime":20270101}}"#,
        "cannot compare with `20270101`; write `2026-",
    ),
    (
        r#"{"DateLessThan":{"aws:EpochTime":1795341600000}}"#,
        "or seconds since 1970 (9 digits or more",
    ),
    (
        r#"{"NotIpAddress":{"aws:SourceIp":"::ffff:10.0.0.0/8"}}"#,
        "less than 96 bits; write the IPv4 form `10.0.0.0/8`",
    ),
    (
        r#"{"Bool":{"iot:Connection.Thing.IsAttached":"yes"}}"#,
        "cannot compare with `yes`; write `true`",
    ),
    (
        r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/33"}}"#,
        "cannot compare with `10.0.0.0/33`; write an address",
    ),
    (
        r#"{"ArnLike":{"iot:LastWillTopic":"topic/a"}}"#,
        "cannot compare with `topic/a`; write `arn:aws:iot",
    ),
    (
        r#"{"ArnLike":{"iot:LastWillTopic":"arn:aws:iot:*:*:${iot:ClientI}"}}"#,
        "unknown policy variable",
    ),
    (
        r#"{"StringEquals":{"iot:ClientId":"${iot:ClientId, 'a'}"}}"#,
        "has a default value; remove",
    ),
    (
        r#"{"StringEquals":{"iot:ConnectAttributes":"LastWill"}}"#,
        "write `ForAllValues:StringEquals` or `ForAnyValue:",
    ),
    (
        r#"{"StringEquals":{"iot:LastWillTopic":"a"}}"#,
        "`StringEquals` cannot compare with `a`; write `arn:aws:iot",
    ),
    (
        r#"{"StringLike":{"iot:LastWillTopic":"*:topic/a"}}"#,
        "six parts with colons",
    ),
    (
        r#"{"NumericEquals":{"iot:LastWillTopic":"5"}}"#,
        "cannot compare `iot:LastWillTopic`; use `ArnEquals` or `ArnLike`",
    ),
    (
        r#"{"NumericEquals":{"aws:SourceIp":1}}"#,
        "cannot compare `aws:SourceIp`; use `IpAddress`",
    ),
    (
        r#"{"Bool":{"aws:CurrentTime":true}}"#,
        "cannot compare `aws:CurrentTime`; use a Date operator",
    ),
    (
        r#"{"IpAddress":{"iot:Connection.Thing.IsAttached":"10.0.0.1"}}"#,
        "use `Bool`",
    ),
];
