use super::*;
use crate::{
    identity::ClientId,
    policy::{ConnectRequest, Policy},
    timestamp::Timestamp,
};

fn set(statements: &str) -> PolicySet {
    let json = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
    PolicySet::new(vec![Arc::new(Policy::parse("p", &json).unwrap())])
}

fn all() -> PolicySet {
    set(r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#)
}

struct Asked {
    cache: DecisionCache,
    client_id: ClientId,
}

impl Asked {
    fn of(entries_max: usize) -> Self {
        Self {
            cache: DecisionCache::new(entries_max),
            client_id: ClientId::parse("c1").unwrap(),
        }
    }

    fn publish(&mut self, set: &PolicySet, generation: u64, topic: &str) -> bool {
        let context = Context::of(&self.client_id);
        self.cache
            .decide(set, generation, &context, Action::Publish, topic)
            .is_ok()
    }

    fn remembers(&self, topic: &str) -> bool {
        self.cache.positions[Action::Publish.index()].contains_key(topic)
    }
}

#[test]
fn a_new_generation_or_another_set_forgets_everything() {
    let (all, none) = (all(), PolicySet::default());
    let mut asked = Asked::of(8);
    assert!(asked.publish(&all, 1, "a") && asked.remembers("a"));
    assert!(asked.publish(&all, 2, "b") && !asked.remembers("a"));
    assert!(
        !asked.publish(&none, 2, "b"),
        "another set, whatever the generation"
    );
    asked.cache.clear();
    assert!(!asked.remembers("b"));
}

/// `DECISIONS_PER_CONNECTION_MAX`, or what else the cache was made for.
#[test]
fn the_bound_holds_and_what_is_asked_for_again_stays() {
    let all = all();
    let mut asked = Asked::of(4);
    for topic in ["a", "b", "c", "d", "a", "e", "f", "g"] {
        assert!(asked.publish(&all, 1, topic));
        assert!(asked.cache.entries.len() <= 4);
        let known: usize = asked.cache.positions.iter().map(HashMap::len).sum();
        assert_eq!(known, asked.cache.entries.len());
    }
    assert!(asked.remembers("a"), "it was asked for twice");
    assert!(!asked.remembers("b") && asked.remembers("g"));
    let mut forgetful = Asked::of(0);
    assert!(forgetful.publish(&all, 1, "a") && !forgetful.remembers("a"));
}

#[test]
fn what_depends_on_the_time_is_not_kept() {
    let until = set(
        r#"{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:*:*:topic/a","Condition":{
            "DateLessThan":{"aws:CurrentTime":"2026-01-01"},"StringEquals":{"iot:ClientId":"c1"}}},
        {"Effect":"Deny","Action":"*","Resource":"arn:aws:iot:*:*:topic/b/${aws:EpochTime}"}"#,
    );
    let mut asked = Asked::of(8);
    assert!(asked.publish(&until, 1, "a") && !asked.remembers("a"));
    assert!(!asked.publish(&until, 1, "b/5") && !asked.remembers("b/5"));
    assert!(
        !asked.publish(&until, 1, "c") && asked.remembers("c"),
        "no time in it"
    );
    let client_id = asked.client_id.clone();
    let late = Context {
        now: Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap(),
        ..Context::of(&client_id)
    };
    assert!(
        asked
            .cache
            .decide(&until, 1, &late, Action::Publish, "a")
            .is_err()
    );
}

#[test]
fn what_another_test_already_fails_does_not_depend_on_the_time() {
    let other = set(
        r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{
            "DateLessThan":{"aws:CurrentTime":"2026-01-01"},"StringEquals":{"iot:ClientId":"c2"}}}"#,
    );
    let mut asked = Asked::of(8);
    assert!(!asked.publish(&other, 1, "a") && asked.remembers("a"));
}

#[test]
fn what_depends_on_the_connect_is_not_kept() {
    let clean = set(
        r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{
            "ForAllValues:StringEquals":{"iot:ConnectAttributes":[]}}}"#,
    );
    let mut asked = Asked::of(8);
    let client_id = asked.client_id.clone();
    for (persistent, allowed) in [(false, true), (true, false), (false, true)] {
        let connect = Some(ConnectRequest {
            persistent,
            will_topic: None,
        });
        let context = Context {
            connect,
            ..Context::of(&client_id)
        };
        let decision = asked
            .cache
            .decide(&clean, 1, &context, Action::Connect, "c1");
        assert_eq!(decision.is_ok(), allowed);
        // Other actions do not see the CONNECT, so their decisions stay.
        let decision = asked
            .cache
            .decide(&clean, 1, &context, Action::Publish, "a");
        assert!(decision.is_ok() && asked.remembers("a"));
    }
}
