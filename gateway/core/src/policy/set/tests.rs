//! The vectors of specification A.2, A.3 and A.5, and what a document may not be.

use super::*;
use crate::{
    certificate::Certificate,
    identity::{CertificateId, ClientId, Thing, ThingName, ThingTypeName},
    problem::Place,
    timestamp::Timestamp,
};

fn statement(effect: &str, action: &str, resource: &str) -> String {
    format!(
        r#"{{"Effect":"{effect}","Action":"iot:{action}","Resource":"arn:aws:iot:*:*:{resource}"}}"#
    )
}

fn policies(statements: &[String]) -> PolicySet {
    let json = format!(
        r#"{{"Version":"2012-10-17","Statement":[{}]}}"#,
        statements.join(",")
    );
    PolicySet::new(vec![Arc::new(Policy::parse("p", &json).unwrap())])
}

fn thing() -> Thing {
    Thing {
        name: ThingName::parse("sensor-7").unwrap(),
        thing_type: Some(ThingTypeName::parse("sensor").unwrap()),
        attributes: [("zone", "b"), ("bad", "#"), ("empty", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        groups: Arc::from([]),
    }
}

/// Decides for client `c1` with certificate, with the thing above or without.
fn decide(set: &PolicySet, with: Option<&Thing>, action: Action, resource: &str) -> &'static str {
    let client_id = ClientId::parse("c1").unwrap();
    let certificate = Certificate::unseen(CertificateId::of_der(b""));
    let context = Context {
        client_id: &client_id,
        thing: with,
        certificate: Some(&certificate),
        source: "::ffff:10.1.2.3".parse().ok(),
        domain: Some("gateway.site"),
        now: Timestamp::parse_rfc3339("2026-11-22T10:00:00.999Z").unwrap(),
        ..Context::of(&client_id)
    };
    match set.decide(&context, action, resource) {
        Ok(permit) => {
            assert_eq!(permit.action(), action);
            "allowed"
        }
        Err(Denial::Implicit) => "implicit deny",
        Err(Denial::Explicit(_)) => "explicit deny",
    }
}

/// Specification A.5.
#[test]
fn nothing_is_allowed_without_an_allow_and_a_deny_anywhere_wins() {
    let allow = statement("Allow", "*", "*");
    let deny = statement("Deny", "Publish", "topic/secret");
    for statements in [[allow.clone(), deny.clone()], [deny.clone(), allow.clone()]] {
        let set = policies(&statements);
        assert_eq!(decide(&set, None, Action::Publish, "a"), "allowed");
        assert_eq!(
            decide(&set, None, Action::Publish, "secret"),
            "explicit deny"
        );
        assert_eq!(decide(&set, None, Action::Receive, "secret"), "allowed");
    }
    let none = PolicySet::default();
    assert_eq!(decide(&none, None, Action::Publish, "a"), "implicit deny");
    let both = PolicySet::new(
        [allow, deny]
            .map(|s| policies(&[s]).policies()[0].clone())
            .into(),
    );
    assert_eq!(
        decide(&both, None, Action::Publish, "secret"),
        "explicit deny"
    );
}

/// Specification A.2 and G.1, the trap of `a/#`.
#[test]
fn a_wildcard_subscription_passes_a_denied_filter_but_receive_stops_the_messages() {
    let set = policies(&[
        statement("Allow", "Subscribe", "topicfilter/a/*"),
        statement("Deny", "Subscribe", "topicfilter/a/restricted/*"),
        statement("Allow", "Receive", "topic/a/*"),
        statement("Deny", "Receive", "topic/a/restricted/*"),
    ]);
    assert_eq!(decide(&set, None, Action::Subscribe, "a/#"), "allowed");
    assert_eq!(
        decide(&set, None, Action::Subscribe, "a/restricted/#"),
        "explicit deny"
    );
    assert_eq!(
        decide(&set, None, Action::Receive, "a/restricted/x"),
        "explicit deny"
    );
    assert_eq!(decide(&set, None, Action::Receive, "a/open"), "allowed");
}

/// Specification A.3, the variables of connection and thing.
#[test]
fn variables_take_the_value_of_the_connection() {
    let thing = thing();
    for (pattern, topic) in [
        ("topic/${iot:ClientId}", "c1"),
        ("topic/${iot:Connection.Thing.ThingName}/x", "sensor-7/x"),
        ("topic/${iot:Connection.Thing.ThingTypeName}/*", "sensor/x"),
        ("topic/${iot:Connection.Thing.Attributes[zone]}", "b"),
        ("topic/${iot:Connection.Thing.IsAttached}", "true"),
        (
            "topic/${iot:DomainName}/${aws:SourceIp}",
            "gateway.site/10.1.2.3",
        ),
        ("topic/${aws:EpochTime}", "1795341600"),
        ("topic/${aws:CurrentTime}", "2026-11-22T10:00:00Z"),
        (
            "topic/${iot:CertificateId}",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
    ] {
        let set = policies(&[statement("Allow", "Publish", pattern)]);
        let got = decide(&set, Some(&thing), Action::Publish, topic);
        assert_eq!(got, "allowed", "{pattern}");
        let got = decide(&set, Some(&thing), Action::Publish, "other");
        assert_eq!(got, "implicit deny", "{pattern}");
    }
    let set = policies(&[statement(
        "Allow",
        "Publish",
        "topic/${iot:Connection.Thing.IsAttached}",
    )]);
    assert_eq!(decide(&set, None, Action::Publish, "false"), "allowed");
}

/// Specification A.3, "Unresolvable variable".
#[test]
fn a_variable_without_a_value_makes_allow_narrower_and_deny_wider() {
    let variable = "topic/${iot:Connection.Thing.ThingName}/x";
    let all = statement("Allow", "*", "*");
    let allow = policies(&[statement("Allow", "Publish", variable)]);
    assert_eq!(
        decide(&allow, None, Action::Publish, "a/x"),
        "implicit deny"
    );
    assert_eq!(
        decide(
            &allow,
            None,
            Action::Publish,
            "${iot:Connection.Thing.ThingName}/x"
        ),
        "implicit deny"
    );
    let deny = policies(&[all.clone(), statement("Deny", "Publish", variable)]);
    assert_eq!(decide(&deny, None, Action::Publish, "a/x"), "explicit deny");
    assert_eq!(decide(&deny, None, Action::Publish, "a/y"), "allowed");
    assert_eq!(
        decide(&deny, Some(&thing()), Action::Publish, "a/x"),
        "allowed"
    );

    // The other way round.
    let not = |effect: &str| {
        format!(
            r#"{{"Effect":"{effect}","Action":"iot:*","NotResource":"arn:aws:iot:*:*:{variable}"}}"#
        )
    };
    let allow = policies(&[not("Allow")]);
    assert_eq!(
        decide(&allow, None, Action::Publish, "a/x"),
        "implicit deny"
    );
    assert_eq!(decide(&allow, None, Action::Publish, "a/y"), "allowed");
    let deny = policies(&[all, not("Deny")]);
    assert_eq!(decide(&deny, None, Action::Publish, "a/x"), "explicit deny");
}

/// Specification A.3, the injection rule.
#[test]
fn values_with_filter_wildcards_and_empty_values_count_as_no_value() {
    let thing = thing();
    for attribute in ["bad", "empty", "absent"] {
        let pattern = format!("topicfilter/a/${{iot:Connection.Thing.Attributes[{attribute}]}}");
        let set = policies(&[statement("Allow", "Subscribe", &pattern)]);
        for filter in ["a/#", "a/", "a/x"] {
            let got = decide(&set, Some(&thing), Action::Subscribe, filter);
            assert_eq!(got, "implicit deny", "{attribute} {filter}");
        }
        let set = policies(&[
            statement("Allow", "*", "*"),
            statement("Deny", "Subscribe", &pattern),
        ]);
        let got = decide(&set, Some(&thing), Action::Subscribe, "a/x");
        assert_eq!(got, "explicit deny", "{attribute}");
    }
}

/// Specification A.2, "Shared subscriptions".
#[test]
fn a_shared_subscription_needs_one_allow_and_no_deny_of_either_form() {
    let shared = "$share/g/a/b";
    let by_filter = policies(&[statement("Allow", "Subscribe", "topicfilter/a/*")]);
    let by_whole = policies(&[statement("Allow", "Subscribe", "topicfilter/$share/g/a/b")]);
    assert_eq!(
        decide(&by_filter, None, Action::Subscribe, shared),
        "allowed"
    );
    assert_eq!(
        decide(&by_whole, None, Action::Subscribe, shared),
        "allowed"
    );
    assert_eq!(
        decide(&by_whole, None, Action::Subscribe, "a/b"),
        "implicit deny"
    );
    for denied in ["topicfilter/a/b", "topicfilter/$share/*"] {
        let set = policies(&[
            statement("Allow", "*", "*"),
            statement("Deny", "Subscribe", denied),
        ]);
        let got = decide(&set, None, Action::Subscribe, shared);
        assert_eq!(got, "explicit deny", "{denied}");
    }
    // Only SUBSCRIBE knows shared subscriptions.
    let publish = policies(&[statement("Allow", "Publish", "topic/a/*")]);
    assert_eq!(
        decide(&publish, None, Action::Publish, shared),
        "implicit deny"
    );
}

/// Specification A.2, "Shared subscriptions".
#[test]
fn what_an_allow_leaves_out_is_left_out_of_shared_subscriptions_too() {
    let set = policies(&[r#"{"Effect":"Allow","Action":"iot:Subscribe",
        "NotResource":["arn:aws:iot:*:*:topicfilter/secret/*","arn:aws:iot:*:*:topicfilter/$share/x/*"]}"#
        .to_owned()]);
    for (filter, decision) in [
        ("secret/#", "implicit deny"),
        ("$share/g/secret/#", "implicit deny"),
        ("$share/x/open", "implicit deny"),
        ("$share/g/open", "allowed"),
        ("open", "allowed"),
    ] {
        let got = decide(&set, None, Action::Subscribe, filter);
        assert_eq!(got, decision, "{filter}");
    }
}

/// Specification A.1: one for a list, `NotAction`, actions in any case.
#[test]
fn not_action_and_single_values_are_understood() {
    let json = r#"{"Version":"2012-10-17","Id":"x","Statement":
        {"Sid":"s1","Effect":"Allow","NotAction":["iot:publish","iot:Connect"],"Resource":"*"}}"#;
    let set = PolicySet::new(vec![Arc::new(Policy::parse("p", json).unwrap())]);
    assert_eq!(decide(&set, None, Action::Publish, "a"), "implicit deny");
    assert_eq!(decide(&set, None, Action::RetainPublish, "a"), "allowed");
    let client_id = ClientId::parse("c1").unwrap();
    let context = Context::of(&client_id);
    let permit = set.decide(&context, Action::Receive, "a").unwrap();
    let statement = permit.statement();
    assert_eq!((&*statement.policy, statement.index), ("p", 0));
    assert_eq!(statement.sid.as_deref(), Some("s1"));
}

fn mistakes(json: &str) -> Vec<String> {
    Policy::parse("p", json)
        .unwrap_err()
        .into_iter()
        .map(|mistake| {
            let place = mistake.place.unwrap();
            assert!(!mistake.remedy.is_empty());
            format!(
                "{}:{} {}; {}",
                place.line, place.column, mistake.message, mistake.remedy
            )
        })
        .collect()
}

/// Specification A.1: what is not understood is refused.
#[test]
fn all_mistakes_of_a_document_are_told_with_their_places() {
    let json = r#"{
  "Version": "2008-10-17",
  "Statment": [],
  "Statement": [
    {"Effect": "allow", "Action": "iot:Pubish", "Resource": "*"},
    {"Effect": "Allow", "Effect": "Deny", "Action": [], "Resource": ["topic/a", 7]},
    {"Effect": "Deny", "Action": "iot:*", "NotAction": "iot:*", "Condition": []},
    7
  ]
}"#;
    let got = mistakes(json);
    let expected = [
        "2:14 the version",
        "3:3 unknown element `Statment`; write `Statement`",
        "5:16 `Effect` is missing or neither",
        "5:35 unknown action `iot:Pubish`; write `iot:Publish`",
        "6:25 `Effect` stands here a second time",
        "6:53 `Action` is empty",
        "6:81 `Resource` is no text",
        "7:5 the statement has no `Resource`",
        "7:56 the statement has both `Action` and `NotAction`",
        "7:78 `Condition` is a JSON object",
        "8:5 a statement is a JSON object",
    ];
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "{got}\n{expected}");
    }
}

#[test]
fn an_oversized_document_is_told_its_size_alone() {
    let statements = r#"{"Effect":"allow","Action":"iot:Pubish"},"#.repeat(100);
    let json = format!(r#"{{"Statement":[{statements}7]}}"#);
    let found = mistakes(&json);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("characters, white space aside"),
        "{found:?}"
    );
}

#[test]
fn control_characters_in_what_is_shown_are_refused() {
    let statement = r#"{"Sid":"a\u001b[2J","Effect":"Deny","Action":"iot:*","Resource":"*"}"#;
    let json = format!(r#"{{"Version":"2012-10-17","Id":"a\nb","Statement":[{statement}]}}"#);
    let found = mistakes(&json);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("`Id` has a control character"),
        "{found:?}"
    );
    assert!(
        found[1].contains("`Sid` has a control character"),
        "{found:?}"
    );
}

#[test]
fn no_statement_is_left_out_without_a_word() {
    // Half of a surrogate pair is JSON, yet no text.
    for key in [r"\ud800", r"Sid\udfff"] {
        let json = format!(
            r#"{{"Version":"2012-10-17","Statement":[
            {{"Effect":"Allow","Action":"iot:*","Resource":"*"}},
            {{"{key}":"x","Effect":"Deny","Action":"iot:Publish","Resource":"*"}}]}}"#
        );
        let found = mistakes(&json);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("is no text"), "{found:?}");
    }
}

#[test]
fn what_is_no_policy_at_all_is_refused() {
    assert_eq!(
        mistakes("[]"),
        ["1:1 a policy is a JSON object; write `{…}`"]
    );
    assert_eq!(mistakes("{}").len(), 2, "no version, no statement");
    let error = Policy::parse("p", "{\n\"Version\" }").unwrap_err();
    assert_eq!(
        error[0].place,
        Some(Place {
            line: 2,
            column: 11
        })
    );
    let json =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    assert!(Policy::parse("a/b", json).is_err(), "the name");
}

/// Specification A.1 and G.2: 2048 characters, not counting white space.
#[test]
fn size_counts_all_characters_but_white_space() {
    let json = |padding: usize, spaces: usize| {
        format!(
            r#"{{"Version":"2012-10-17","Id":"{}",{}"Statement":[{{"Effect":"Allow","Action":"*","Resource":"*"}}]}}"#,
            "é".repeat(padding),
            " ".repeat(spaces)
        )
    };
    let room = crate::limits::POLICY_CHARACTERS_MAX - json(0, 0).chars().count();
    assert!(Policy::parse("p", &json(room, 5000)).is_ok());
    let error = Policy::parse("p", &json(room + 1, 0)).unwrap_err();
    assert!(error[0].message.contains("2049"), "{error:?}");
}

/// Specification A.2, the table of actions and resource types.
#[test]
fn every_action_acts_on_its_type_of_resource() {
    for (action, resource_type) in [
        (Action::Connect, "client"),
        (Action::Publish, "topic"),
        (Action::RetainPublish, "topic"),
        (Action::Receive, "topic"),
        (Action::Subscribe, "topicfilter"),
    ] {
        for tried in ["client", "topic", "topicfilter", "thing", "rolealias"] {
            let set = policies(&[statement("Allow", "*", &format!("{tried}/x"))]);
            let allowed = decide(&set, None, action, "x") == "allowed";
            assert_eq!(allowed, tried == resource_type, "{action} {tried}");
        }
    }
}

/// Specification A.3, "Limits": `*`, `$`, `+`, `?`, `#` and more than 1024 characters, in topics as well
/// as in filters.
#[test]
fn values_that_might_be_patterns_and_long_ones_are_not_substituted() {
    let mut thing = thing();
    let (fits, too_long) = ("é".repeat(1024), "é".repeat(1025));
    let pattern = "topic/a/${iot:Connection.Thing.Attributes[x]}";
    let allow = policies(&[statement("Allow", "Publish", pattern)]);
    let deny = policies(&[
        statement("Allow", "*", "*"),
        statement("Deny", "Publish", pattern),
    ]);
    for value in [
        "*",
        "a*",
        "$",
        "${iot:ClientId}",
        "+",
        "a+b",
        "?",
        "#",
        "",
        &too_long,
    ] {
        thing.attributes.insert("x".to_owned(), value.to_owned());
        for topic in [
            &format!("a/{value}"),
            "a/c1",
            "a/${iot:Connection.Thing.Attributes[x]}",
        ] {
            let got = decide(&allow, Some(&thing), Action::Publish, topic);
            assert_eq!(got, "implicit deny", "{value} {topic}");
            let got = decide(&deny, Some(&thing), Action::Publish, topic);
            assert_eq!(got, "explicit deny", "{value} {topic}");
        }
    }
    for value in ["a/b", "a:b", "{x}", "ä b", &fits] {
        thing.attributes.insert("x".to_owned(), value.to_owned());
        let topic = format!("a/{value}");
        assert_eq!(
            decide(&allow, Some(&thing), Action::Publish, &topic),
            "allowed"
        );
        assert_eq!(
            decide(&deny, Some(&thing), Action::Publish, "a/x"),
            "allowed"
        );
    }
}

/// Specification A.3: `deny_on_unresolved` is a switch; an Allow does not apply either way.
#[test]
fn a_deny_without_its_value_can_be_switched_to_what_aws_does() {
    let variable = "topic/${iot:Connection.Thing.ThingName}/x";
    let set = policies(&[
        statement("Allow", "*", "*"),
        statement("Deny", "Publish", variable),
    ]);
    let rules = Rules {
        deny_on_unresolved: false,
        ..Rules::default()
    };
    let lenient = PolicySet::with_rules(set.policies().to_vec(), Arc::new(rules.clone()));
    assert_eq!(decide(&set, None, Action::Publish, "a/x"), "explicit deny");
    assert_eq!(decide(&lenient, None, Action::Publish, "a/x"), "allowed");
    let got = decide(&lenient, Some(&thing()), Action::Publish, "sensor-7/x");
    assert_eq!(got, "explicit deny");
    let allow = policies(&[statement("Allow", "*", variable)]);
    let lenient = PolicySet::with_rules(allow.policies().to_vec(), Arc::new(rules));
    assert_eq!(
        decide(&lenient, None, Action::Publish, "a/x"),
        "implicit deny"
    );
}

/// Specification A.1: versions other than 2012-10-17 do not have variables, so they are refused.
#[test]
fn element_names_effects_and_versions_are_taken_as_they_are_written() {
    let statement = r#""Statement":{"Effect":"Allow","Action":"*","Resource":"*"}"#;
    for version in [r#""Version":"2008-10-17","#, r#""Version":20121017,"#, ""] {
        let found = mistakes(&format!("{{{version}{statement}}}"));
        assert!(
            found[0].contains("write `\"Version\": \"2012-10-17\"`"),
            "{found:?}"
        );
    }
    for (statement, remedy) in [
        (
            r#"{"effect":"Allow","Effect":"Allow","Action":"*","Resource":"*"}"#,
            "write `Effect`",
        ),
        (
            r#"{"Effect":"ALLOW","Action":"*","Resource":"*"}"#,
            "write `\"Effect\": \"Allow\"`",
        ),
        (
            r#"{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}"#,
            "remove it",
        ),
        (r#"{"Effect":"Allow","Action":"*"}"#, "add `Resource`"),
        (r#"{"Effect":"Allow","Resource":"*"}"#, "add `Action`"),
        (
            r#"{"Effect":"Allow","Action":"*","Resource":"*","NotResource":"*"}"#,
            "keep one",
        ),
    ] {
        let found = mistakes(&format!(
            r#"{{"Version":"2012-10-17","Statement":{statement}}}"#
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(remedy), "{found:?}");
    }
}

/// Specification A.1: the guide's own example of `NotResource`.
#[test]
fn not_resource_is_everything_else() {
    let set = policies(&[r#"{"Effect":"Allow","Action":"iot:Receive",
        "NotResource":["arn:aws:iot:*:*:topic/restricted/*"]}"#
        .to_owned()]);
    assert_eq!(decide(&set, None, Action::Receive, "open"), "allowed");
    assert_eq!(
        decide(&set, None, Action::Receive, "restricted/x"),
        "implicit deny"
    );
    assert_eq!(decide(&set, None, Action::Publish, "open"), "implicit deny");
}
