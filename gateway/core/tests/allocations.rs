//! What must not allocate: decisions, remembered or fresh. A file of its own, because counting needs
//! an allocator of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests; values are ours")]

use std::{collections::BTreeMap, sync::Arc};

use allocation_counter::measure;
use portcullis_core::{
    certificate::Certificate,
    identity::{ClientId, Thing, ThingName, ThingTypeName},
    policy::{Action, Context, DecisionCache, Policy, PolicySet},
    timestamp::Timestamp,
};

const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[
    {"Effect":"Allow","Action":"iot:*","Resource":["arn:aws:iot:*:*:*/a/${iot:Connection.Thing.ThingName}/*",
        "arn:aws:iot:*:*:topic/${iot:CertificateId}/${aws:SourceIp}"]},
    {"Effect":"Deny","Action":"iot:Publish","Resource":"*","Condition":{
        "IpAddress":{"aws:SourceIp":"192.168.0.0/16"}, "Bool":{"iot:Connection.Thing.IsAttached":true},
        "StringLike":{"iot:Connection.Thing.Attributes[zone]":"${iot:Connection.Thing.ThingTypeName}*"},
        "ForAnyValue:StringEquals":{"iot:Certificate.Subject.OrganizationalUnit.List":["Lab"]},
        "NumericLessThan":{"iot:Connection.Thing.Attributes[floor]":3}}}]}"#;

/// Asks with everything known that a policy may ask for.
fn with_context(body: impl FnOnce(&PolicySet, &Context<'_>)) {
    let client_id = ClientId::parse("c1").unwrap();
    let der = include_bytes!("certificates/names.der");
    let certificate = Certificate::parse(der).unwrap();
    let thing = Thing {
        name: ThingName::parse("c1").unwrap(),
        thing_type: Some(ThingTypeName::parse("meter").unwrap()),
        attributes: BTreeMap::from(
            [("zone", "meters"), ("floor", "2")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        ),
        groups: Arc::from([]),
    };
    let context = Context {
        thing: Some(&thing),
        certificate: Some(&certificate),
        source: Some([10, 1, 2, 3].into()),
        domain: Some("gateway.site"),
        now: Timestamp::from_millis(1_795_341_600_000),
        ..Context::of(&client_id)
    };
    let policy = Arc::new(Policy::parse("p", POLICY).unwrap());
    body(&PolicySet::new(vec![policy]), &context);
}

const TOPICS: [(&str, bool); 3] = [("a/c1/x", true), ("b/a/c1/x", true), ("a/c2/x", false)];

#[test]
fn a_remembered_decision_allocates_nothing() {
    with_context(|set, context| {
        let mut cache = DecisionCache::new(16);
        let mut decide = |topic| {
            cache
                .decide(set, 1, context, Action::Publish, topic)
                .is_ok()
        };
        for (topic, allowed) in TOPICS {
            assert_eq!(decide(topic), allowed, "{topic}");
        }
        let again = measure(|| {
            for (topic, allowed) in TOPICS {
                assert!(decide(topic) == allowed);
            }
        });
        assert_eq!(again.count_total, 0);
    });
}

#[test]
fn a_fresh_decision_allocates_nothing() {
    with_context(|set, context| {
        let fresh = measure(|| {
            for (topic, allowed) in TOPICS {
                assert!(set.decide(context, Action::Publish, topic).is_ok() == allowed);
            }
        });
        assert_eq!(fresh.count_total, 0);
    });
}
