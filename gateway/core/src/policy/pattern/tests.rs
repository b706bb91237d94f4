use proptest::prelude::{prop_assert_eq, proptest};

use super::*;

/// The definition, exponential and obviously right.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
        (Some(('?', rest)), Some((_, text))) => naive(rest, text),
        (Some((c, rest)), Some((d, text))) => c == d && naive(rest, text),
        _ => false,
    }
}

proptest! {
    #[test]
    fn wildcards_match_like_their_definition(pattern in "[abé/*?]{0,8}", text in "[abé/]{0,10}") {
        let p: Vec<char> = pattern.chars().collect();
        let t: Vec<char> = text.chars().collect();
        prop_assert_eq!(wildcard_match(&pattern, &text), naive(&p, &t));
    }

    #[test]
    fn patterns_never_panic(text in "[a-z:/*?${}]{0,40}") {
        let _outcome = Pattern::parse(&format!("arn:aws:iot:r:a:{text}"));
        let _outcome = Pattern::parse(&text);
    }
}

fn takes(pattern: &str, resource_type: &str, name: &str) -> bool {
    Pattern::parse(pattern).unwrap().matches(
        &format!("{resource_type}/{name}"),
        &|_| None,
        Unresolved::Never,
    )
}

#[test]
fn arns_are_matched_by_type_and_name() {
    for (pattern, resource_type, name) in [
        (
            "arn:aws:iot:eu-central-1:123456789012:topic/a/*",
            "topic",
            "a/b/c",
        ),
        ("arn:aws-cn:iot:*:*:topic/a/*", "topic", "a/"),
        ("arn:aws:iot:::client/c1", "client", "c1"),
        ("arn:aws:iot:*:*:*", "client", "c1"),
        ("arn:aws:iot:*:*:topic/a:b/?", "topic", "a:b/c"),
        (
            "arn:aws:iot:*:*:topicfilter/some/*/topic",
            "topicfilter",
            "some/+/topic",
        ),
        (
            "arn:aws:iot:*:*:topicfilter/some/*/topic",
            "topicfilter",
            "some/a/b/topic",
        ),
        (
            "arn:aws:iot:*:*:topicfilter/some/+/topic",
            "topicfilter",
            "some/+/topic",
        ),
        ("arn:aws:iot:*:*:topic/${*}${?}${$}{x}", "topic", "*?${x}"),
        ("*", "topicfilter", "#"),
    ] {
        assert!(takes(pattern, resource_type, name), "{pattern} {name}");
    }
    for (pattern, resource_type, name) in [
        ("arn:aws:iot:*:*:topic/a/*", "topicfilter", "a/b"),
        ("arn:aws:iot:*:*:topic/a/*", "topic", "A/b"),
        (
            "arn:aws:iot:*:*:topicfilter/some/+/topic",
            "topicfilter",
            "some/x/topic",
        ),
        ("arn:aws:iot:*:*:topic/${*}", "topic", "x"),
        ("arn:aws:iot:*:*:topic/a?", "topic", "a"),
        ("arn:aws:iot:*:*:topic/a", "topic", "a/b"),
    ] {
        assert!(!takes(pattern, resource_type, name), "{pattern} {name}");
    }
}

#[test]
fn values_are_literals_and_wildcards_of_filters_are_refused_in_them() {
    let pattern = Pattern::parse("arn:aws:iot:*:*:topicfilter/a/${iot:ClientId}/b").unwrap();
    let with = |value: &'static str, name: &str| {
        pattern.matches(
            &format!("topicfilter/{name}"),
            &move |_| Some(value),
            Unresolved::Never,
        )
    };
    assert!(with("c", "a/c/b"));
    assert!(with("*", "a/*/b") && !with("*", "a/c/b"));
    assert!(!with("${iot:ClientId}", "a/c/b"));
    assert!(!with("+", "a/+/b"), "the attack of specification A.3");
    assert!(!with("#", "a/#/b"));
    assert!(!with("", "a//b"), "an empty value is no value");
}

#[test]
fn what_is_no_resource_is_refused_with_a_remedy() {
    for (text, message, remedy) in [
        ("topic/a", "no ARN", "arn:aws:iot"),
        ("arn:aws:iot:*:*", "no ARN", "arn:aws:iot"),
        ("arn:aws:s3:::bucket", "no ARN", "arn:aws:iot"),
        (
            "arn:aws:iot:*:*:topicfiter/a",
            "unknown resource type",
            "write `topicfilter/…`",
        ),
        ("arn:aws:iot:*:*:topic", "names no resource", "TYPE/NAME"),
        (
            "arn:aws:iot:*:*:topic/${iot:ClientID",
            "not closed",
            "${NAME}",
        ),
        (
            "arn:aws:iot:*:*:topic/${iot:ClientID}",
            "",
            "write `${iot:ClientId}`",
        ),
        (
            "arn:aws:iot:*:*:topic/${aws:SourceIp}",
            "not supported",
            "iot:ClientId",
        ),
    ] {
        let (got, hint) = Pattern::parse(text).unwrap_err();
        assert!(got.contains(message), "{text}: {got}");
        assert!(hint.contains(remedy), "{text}: {hint}");
    }
}
