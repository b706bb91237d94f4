//! The vectors of specification A.2 and A.3 that are about one resource.

use super::*;
use crate::{identity::ClientId, policy::Context};
use proptest::prelude::proptest;

proptest! {
    #[test]
    fn resources_never_panic(text in "[a-z:/*?${}.,'\\[\\]]{0,40}") {
        let _outcome = Resource::parse(&format!("arn:aws:iot:r:a:{text}"));
        let _outcome = Resource::parse(&text);
    }
}

fn type_named(name: &str) -> ResourceType {
    let mut types = ResourceType::ALL.into_iter();
    types.find(|t| t.name() == name).unwrap()
}

fn takes_with(rules: &Rules, pattern: &str, resource_type: &str, name: &str) -> bool {
    let client_id = ClientId::parse("c1").unwrap();
    let context = Context::of(&client_id);
    Resource::parse(pattern).unwrap().matches(
        type_named(resource_type),
        name,
        &Values::of(&context, None),
        Unresolved::Never,
        rules,
    )
}

fn takes(pattern: &str, resource_type: &str, name: &str) -> bool {
    takes_with(&Rules::default(), pattern, resource_type, name)
}

/// Specification A.2.
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
        ("arn:aws:iot:*:*:top*", "topicfilter", "a"),
        ("arn:aws:iot:*:*:topic?ilter/a", "topicfilter", "a"),
        ("arn:aws:iot:*:*:*/a", "topic", "b/a"),
        ("arn:aws:iot:*:*:topic??", "topic", "a"),
        ("arn:aws:iot:*:*:topic?*", "topic", "a"),
        ("arn:aws:iot:*:*:t?p*x/${iot:ClientId}", "topic", "x/c1"),
        ("*", "topicfilter", "#"),
    ] {
        assert!(takes(pattern, resource_type, name), "{pattern} {name}");
    }
    for (pattern, resource_type, name) in [
        ("arn:aws:iot:*:*:topic/a/*", "topicfilter", "a/b"),
        ("arn:aws:iot:*:*:topic/a/*", "topic", "A/b"),
        ("arn:aws:iot:*:*:topic/a?", "topic", "a"),
        ("arn:aws:iot:*:*:topic/a", "topic", "a/b"),
        ("arn:aws:iot:*:*:thing/a", "client", "a"),
        ("arn:aws:greengrass:*:*:*", "client", "a"),
        ("arn:aws:iot:*:*:/thing/MyThing1", "topic", "MyThing1"),
    ] {
        assert!(!takes(pattern, resource_type, name), "{pattern} {name}");
    }
}

/// Specification A.2, "Matching rules".
#[test]
fn plus_and_hash_are_ordinary_characters_and_star_crosses_slashes() {
    let literal = "arn:aws:iot:*:*:topicfilter/some/+/topic";
    assert!(takes(literal, "topicfilter", "some/+/topic"));
    assert!(!takes(literal, "topicfilter", "some/x/topic"));
    let star = "arn:aws:iot:*:*:topicfilter/some/*/topic";
    for filter in ["some/+/topic", "some/x/topic", "some/a/b/topic"] {
        assert!(takes(star, "topicfilter", filter), "{filter}");
    }
    assert!(!takes(star, "topicfilter", "some/topic"));
    let hash = "arn:aws:iot:*:*:topicfilter/a/#";
    assert!(takes(hash, "topicfilter", "a/#"));
    assert!(!takes(hash, "topicfilter", "a/b"));
}

/// Specification A.2: `?` is one character, and may be a slash.
#[test]
fn a_question_mark_is_one_character_whichever() {
    let pattern = "arn:aws:iot:*:*:topic/a?b";
    for name in ["a/b", "axb", "aéb", "a+b"] {
        assert!(takes(pattern, "topic", name), "{name}");
    }
    assert!(!takes(pattern, "topic", "ab"));
    assert!(!takes(pattern, "topic", "axxb"));
}

/// Specification A.2, "Escapes".
#[test]
fn escapes_are_the_characters_themselves() {
    let all = "arn:aws:iot:*:*:topic/${*}${?}${$}{x}";
    assert!(takes(all, "topic", "*?${x}"));
    assert!(!takes("arn:aws:iot:*:*:topic/${*}", "topic", "x"));
    assert!(!takes("arn:aws:iot:*:*:topic/${?}", "topic", "x"));
    assert!(takes("arn:aws:iot:*:*:topic/$a/{b}", "topic", "$a/{b}"));
}

/// Specification A.2: partition, region and account.
#[test]
fn strict_arns_are_compared_segment_by_segment() {
    let rules = Rules {
        arn: ArnIdentity {
            partition: "aws".to_owned(),
            region: "eu-central-1".to_owned(),
            account: "123456789012".to_owned(),
        },
        strict_arn: true,
        ..Rules::default()
    };
    for (arn, is_ours) in [
        ("arn:aws:iot:eu-central-1:123456789012:topic/a", true),
        ("arn:*:iot:eu-*-?:1*2:topic/a", true),
        ("arn:aws:iot:*:*:topic/a", true),
        ("arn:aws:*:*:*:*", true),
        ("*", true),
        ("arn:aws-cn:iot:*:*:topic/a", false),
        ("arn:aws:iot:us-east-1:123456789012:topic/a", false),
        ("arn:aws:iot:eu-central-1:999999999999:topic/a", false),
        ("arn:aws:iot:eu-central-1::topic/a", false),
        // A wildcard does not reach into the next segment.
        ("arn:aws:iot:eu*012:*:topic/a", false),
    ] {
        assert_eq!(takes_with(&rules, arn, "topic", "a"), is_ours, "{arn}");
        let anyway = takes(arn, "topic", "a");
        assert!(anyway, "without strictness {arn}");
    }
}

#[test]
fn what_is_no_resource_is_refused_with_a_remedy() {
    for (text, message, remedy) in [
        ("topic/a", "no ARN", "arn:aws:iot"),
        ("arn:aws:iot:*:*", "no ARN", "arn:aws:iot"),
        ("arn:aws:s3:::bucket", "no ARN", "arn:aws:iot"),
        ("arn:amazon:iot:*:*:topic/a", "no ARN", "arn:aws:iot"),
        (
            "arn:aws:iot:*:*:topicfiter/a",
            "unknown resource type",
            "write `topicfilter/…`",
        ),
        ("arn:aws:iot:*:*:topic", "names no resource", "TYPE/NAME"),
        ("arn:aws:iot:*:*:", "names no resource", "TYPE/NAME"),
        ("arn:aws:iot:*:*:topic/", "names no resource", "TYPE/NAME"),
        ("arn:aws:iot:*:*:topic?", "names no resource", "TYPE/NAME"),
        (
            "arn:aws:iot:*:${iot:ClientId}:topic/a",
            "before its fifth colon",
            "TYPE/NAME alone",
        ),
        (
            "arn:aws:iot:*:*:topic/${iot:ClientId",
            "not closed",
            "${NAME}",
        ),
        (
            "arn:aws:iot:*:*:topic/${iot:ClientI}",
            "unknown policy variable",
            "write `${iot:ClientId}`",
        ),
        (
            "arn:aws:iot:*:*:topic/${iot:ClientId, 'nobody'}",
            "has a default value",
            "remove the default",
        ),
        (
            "arn:aws:iot:*:*:topic/${iot:Certificate.Subject.Country.List}",
            "no policy variable",
            "condition",
        ),
    ] {
        let (got, hint) = Resource::parse(text).unwrap_err();
        assert!(got.contains(message), "{text}: {got}");
        assert!(hint.contains(remedy), "{text}: {hint}");
    }
}

/// It would match nothing, and a Deny would deny nothing.
#[test]
fn a_misspelt_type_is_refused_though_a_wildcard_follows() {
    for (name, kind, remedy) in [
        ("topics*", "topics", "write `topic/…`"),
        ("Topic*", "Topic", "write `topic/…`"),
        ("toppic?/x", "toppic?", "write `topic/…`"),
        ("?topic/a", "?topic", "write `topic/…`"),
        ("topic${*}/a", "topic*", "write `topic/…`"),
        ("x*", "x", "use one of client, topic"),
        ("/topic/a", "", "use one of client, topic"),
    ] {
        let text = format!("arn:aws:iot:*:*:{name}");
        let (message, hint) = Resource::parse(&text).unwrap_err();
        assert_eq!(message, format!("unknown resource type `{kind}`"));
        assert!(hint.contains(remedy), "{name}: {hint}");
    }
}

#[test]
fn a_variable_cannot_be_part_of_the_type() {
    for name in [
        "topic${iot:ClientId}",
        "${iot:ClientId}/x",
        "to*${iot:ClientId}/x",
    ] {
        let text = format!("arn:aws:iot:*:*:{name}");
        let (message, hint) = Resource::parse(&text).unwrap_err();
        assert!(message.contains("before its first `/`"), "{message}");
        assert!(hint.contains("write the type out"), "{hint}");
    }
}

#[test]
fn a_resource_reads_with_the_values_that_there_are() {
    let client_id = ClientId::parse("c1").unwrap();
    let context = Context::of(&client_id);
    let text = "arn:aws:iot:*:*:topic/${iot:ClientId}/${*}/${iot:Connection.Thing.ThingName}/*";
    let reading = Resource::parse(text)
        .unwrap()
        .read(&Values::of(&context, None));
    assert_eq!(
        reading.text,
        "arn:aws:iot:*:*:topic/c1/${*}/${iot:Connection.Thing.ThingName}/*"
    );
    assert_eq!(reading.unresolved, ["iot:Connection.Thing.ThingName"]);
}
