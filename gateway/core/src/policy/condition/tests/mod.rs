//! The vectors of specification A.4.

mod certificate;
mod missing;
mod mistakes;
mod operators;

use std::sync::Arc;

use crate::{
    certificate::Certificate,
    identity::{ClientId, Thing, ThingName, ThingTypeName},
    policy::{Action, ArnIdentity, ConnectRequest, Context, Policy, PolicySet, Rules},
    timestamp::Timestamp,
    topic::TopicName,
};

const NAMES: &[u8] = include_bytes!("../../../../tests/certificates/names.der");

fn policy(effect: &str, condition: &str) -> String {
    let allow = r#"{"Effect":"Allow","Action":"iot:*","Resource":"*"}"#;
    let others = if effect == "Deny" {
        format!("{allow},")
    } else {
        String::new()
    };
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{others}
        {{"Effect":"{effect}","Action":"iot:*","Resource":"*","Condition":{condition}}}]}}"#
    )
}

/// Whether a statement with this condition applies, for a thing with certificate `names.der`.
fn holds_for(
    effect: &str,
    condition: &str,
    rules: Rules,
    change: impl FnOnce(&mut Context<'_>),
) -> bool {
    holds_on_connect(effect, condition, rules, None, change)
}

fn holds_on_connect(
    effect: &str,
    condition: &str,
    rules: Rules,
    connect: Option<ConnectRequest<'_>>,
    change: impl FnOnce(&mut Context<'_>),
) -> bool {
    let client_id = ClientId::parse("c1").unwrap();
    let attributes = [
        ("zone", "Cellar"),
        ("floor", "-2"),
        ("word", "abc"),
        ("serial", "10525622389124227206"),
        ("year", "2027"),
        ("empty", ""),
        ("on", "TRUE"),
        ("since", "2026-01-01"),
        ("ip", "10.9.8.7"),
        ("arn", "arn:aws:s3:::bucket/a"),
        ("star", "*"),
        ("plus", "a+"),
    ];
    let thing = Thing {
        name: ThingName::parse("meter-7").unwrap(),
        thing_type: Some(ThingTypeName::parse("meter").unwrap()),
        attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        groups: Arc::from([]),
    };
    let certificate = Certificate::parse(NAMES).unwrap();
    let mut context = Context {
        thing: Some(&thing),
        certificate: Some(&certificate),
        source: Some([10, 1, 2, 3].into()),
        domain: Some("gateway.site"),
        now: Timestamp::parse_rfc3339("2026-11-22T10:00:00.750Z").unwrap(),
        connect,
        ..Context::of(&client_id)
    };
    change(&mut context);
    let parsed = Policy::parse("p", &policy(effect, condition));
    let parsed = parsed.unwrap_or_else(|mistakes| panic!("{condition}: {mistakes:#?}"));
    let set = PolicySet::with_rules(vec![Arc::new(parsed)], Arc::new(rules));
    set.decide(&context, Action::Connect, "c1").is_ok() == (effect == "Allow")
}

/// With everything known.
fn holds(condition: &str) -> bool {
    let both =
        ["Allow", "Deny"].map(|effect| holds_for(effect, condition, Rules::default(), |_| {}));
    assert_eq!(
        both[0], both[1],
        "what is known does not depend on the effect: {condition}"
    );
    both[0]
}

/// For a client of which only the id is known.
fn holds_for_stranger(condition: &str) -> bool {
    holds_for("Allow", condition, Rules::default(), |context| {
        (context.thing, context.certificate, context.source) = (None, None, None);
        context.domain = None;
    })
}

/// `{"operator": {"key": value}}`
fn test(operator: &str, key: &str, value: &str) -> String {
    format!(r#"{{"{operator}":{{"{key}":{value}}}}}"#)
}

const ATTRIBUTE: &str = "iot:Connection.Thing.Attributes";

/// Specification A.4 and G.1, the table of connect attributes.
#[test]
fn connect_attributes_are_allowed_as_the_table_says() {
    let will = TopicName::parse("my/will").unwrap();
    for (operator, values, allowed) in [
        (
            "ForAllValues:StringEquals",
            r#"["PersistentConnect"]"#,
            [true, true, false, false],
        ),
        (
            "ForAllValues:StringEquals",
            r#"["PersistentConnect","LastWill"]"#,
            [true, true, true, true],
        ),
        (
            "ForAllValues:StringEquals",
            r#"["LastWill"]"#,
            [true, false, true, false],
        ),
        (
            "ForAllValues:StringEquals",
            "[]",
            [true, false, false, false],
        ),
        (
            "ForAnyValue:StringEquals",
            r#"["PersistentConnect"]"#,
            [false, true, false, true],
        ),
        (
            "ForAllValues:StringNotEquals",
            r#"["PersistentConnect"]"#,
            [true, false, true, false],
        ),
    ] {
        let condition = test(operator, "iot:ConnectAttributes", values);
        let requests = [
            (false, None),
            (true, None),
            (false, Some(&will)),
            (true, Some(&will)),
        ];
        for ((persistent, will_topic), allowed) in requests.into_iter().zip(allowed) {
            let connect = Some(ConnectRequest {
                persistent,
                will_topic,
            });
            let got = holds_on_connect("Allow", &condition, Rules::default(), connect, |_| {});
            assert_eq!(
                got, allowed,
                "{condition} persistent {persistent} will {will_topic:?}"
            );
        }
    }
}

/// Specification A.4, "Open point": our rule.
#[test]
fn an_unconditional_allow_covers_every_connect_attribute() {
    let will = TopicName::parse("my/will").unwrap();
    let json = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}}"#;
    let set = PolicySet::new(vec![Arc::new(Policy::parse("p", json).unwrap())]);
    let client_id = ClientId::parse("c1").unwrap();
    let connect = Some(ConnectRequest {
        persistent: true,
        will_topic: Some(&will),
    });
    let context = Context {
        connect,
        ..Context::of(&client_id)
    };
    assert!(set.decide(&context, Action::Connect, "c1").is_ok());
}

/// Specification A.4, `iot:LastWillTopic`; A.2 for strict ARNs.
#[test]
fn a_will_topic_is_an_arn_of_this_gateway() {
    let topic = TopicName::parse("wills/c1").unwrap();
    let with_will = |value: &str, rules: &Rules| {
        let condition = test("ArnEquals", "iot:LastWillTopic", &format!("\"{value}\""));
        let connect = Some(ConnectRequest {
            persistent: false,
            will_topic: Some(&topic),
        });
        holds_on_connect("Allow", &condition, rules.clone(), connect, |_| {})
    };
    let loose = Rules::default();
    let [partition, region, account] = ["aws", "eu-central-1", "123456789012"].map(str::to_owned);
    let arn = ArnIdentity {
        partition,
        region,
        account,
    };
    let strict = Rules {
        arn,
        strict_arn: true,
        ..Rules::default()
    };
    for (value, is_it, is_it_strictly) in [
        (
            "arn:aws:iot:eu-central-1:123456789012:topic/wills/${iot:ClientId}",
            true,
            true,
        ),
        (
            "arn:aws:iot:us-east-1:999999999999:topic/wills/*",
            true,
            false,
        ),
        ("arn:aws:iot:*:*:topic/wills/c2", false, false),
        ("arn:aws:s3:*:*:topic/wills/c1", false, false),
    ] {
        assert_eq!(with_will(value, &loose), is_it, "{value}");
        assert_eq!(with_will(value, &strict), is_it_strictly, "{value}");
    }
    let any = test("ArnLike", "iot:LastWillTopic", r#""arn:*:*:*:*:*""#);
    assert!(!holds(&any), "no will, no value");
}

/// Part by part, as with `ArnLike`: the account of the policy need not be the gateway's.
#[test]
fn a_will_topic_is_compared_by_string_operators_too() {
    let will = TopicName::parse("a/B").unwrap();
    for (operator, value, expected) in [
        ("StringEquals", "arn:aws:iot:eu:1:topic/a/B", true),
        ("StringEquals", "arn:aws:iot:us:2:topic/a/B", true),
        ("StringEquals", "arn:aws:iot:eu:1:topic/a/b", false),
        ("StringEquals", "arn:aws:iot:eu:1:topic/a/*", false),
        ("StringEqualsIgnoreCase", "arn:aws:iot:eu:1:topic/A/b", true),
        ("StringLike", "arn:aws:iot:*:*:topic/a/*", true),
        ("StringLike", "*", true),
        ("StringNotLike", "arn:aws:iot:*:*:topic/a/*", false),
        ("StringNotEquals", "arn:aws:iot:eu:1:topic/b", true),
    ] {
        let condition = test(operator, "iot:LastWillTopic", &format!("\"{value}\""));
        for effect in ["Allow", "Deny"] {
            let connect = Some(ConnectRequest {
                persistent: false,
                will_topic: Some(&will),
            });
            let held = holds_on_connect(effect, &condition, Rules::default(), connect, |_| {});
            assert_eq!(held, expected, "{effect} {condition}");
        }
    }
}
