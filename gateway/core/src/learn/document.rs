//! Grants written down as policy documents, in pretty JSON whose order never changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use super::shape::Shape;
use crate::policy::Action;

/// Partition, region and account are anything, as in every policy that is made here.
const ARN: &str = "arn:aws:iot:*:*:";

/// Leave to do some actions on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// In the order of [`Action::ALL`]; all on one type of resource.
    pub actions: Vec<Action>,
    /// On what.
    pub shape: Shape,
    /// Under which condition, as JSON.
    pub condition: Option<Arc<str>>,
}

impl Grant {
    /// As it stands in the document.
    pub fn resource(&self) -> String {
        let kind = self.actions.first().map_or("topic", |a| a.resource_type());
        format!("{ARN}{kind}/{}", self.shape)
    }
}

/// A policy document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedPolicy {
    /// The document.
    pub json: String,
    /// Its size, white space aside.
    pub characters: usize,
    /// Its lines: the `Sid` of the statement, and the grant.
    pub lines: Vec<(String, Grant)>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "Version")]
    version: &'a str,
    #[serde(rename = "Statement")]
    statements: Vec<Statement<'a>>,
}

#[derive(Serialize)]
struct Statement<'a> {
    #[serde(rename = "Sid")]
    sid: &'a str,
    #[serde(rename = "Effect")]
    effect: &'a str,
    #[serde(rename = "Action")]
    actions: Vec<&'a str>,
    #[serde(rename = "Resource")]
    resources: Vec<String>,
    #[serde(rename = "Condition", skip_serializing_if = "Option::is_none")]
    condition: Option<serde_json::Value>,
}

impl ProposedPolicy {
    /// The shorter one of: a statement for each set of actions, a statement for each action.
    pub(super) fn of(grants: &[Grant]) -> Self {
        let by_sets = write(grants.iter().cloned());
        let by_actions = write(grants.iter().flat_map(|grant| {
            let each = grant.actions.iter();
            each.map(|action| Grant {
                actions: vec![*action],
                ..grant.clone()
            })
        }));
        if by_actions.characters < by_sets.characters {
            by_actions
        } else {
            by_sets
        }
    }
}

/// What the grants of a statement have in common: actions, as positions, and condition.
type Key = (Vec<usize>, Option<Arc<str>>);

fn write(grants: impl Iterator<Item = Grant>) -> ProposedPolicy {
    let mut by_key: BTreeMap<Key, BTreeMap<Shape, Grant>> = BTreeMap::new();
    for grant in grants {
        let positions = grant.actions.iter().map(|action| position(*action));
        let key = (positions.collect(), grant.condition.clone());
        let shapes = by_key.entry(key).or_default();
        shapes.insert(grant.shape.clone(), grant);
    }
    let mut lines: Vec<(String, Grant)> = Vec::new();
    let mut sids: BTreeSet<String> = BTreeSet::new();
    let mut spans = Vec::new();
    for grants in by_key.into_values() {
        let Some(first) = grants.values().next() else {
            continue;
        };
        let sid = sid(first, &sids);
        sids.insert(sid.clone());
        let start = lines.len();
        lines.extend(grants.into_values().map(|grant| (sid.clone(), grant)));
        spans.push(start..lines.len());
    }
    let statements = spans.into_iter().map(|span| {
        let lines = &lines[span];
        let (sid, grant) = &lines[0];
        let condition = grant.condition.as_deref();
        Statement {
            sid,
            effect: "Allow",
            actions: grant.actions.iter().map(|action| action.name()).collect(),
            resources: lines.iter().map(|(_, grant)| grant.resource()).collect(),
            condition: condition.and_then(|text| serde_json::from_str(text).ok()),
        }
    });
    let document = Document {
        version: "2012-10-17",
        statements: statements.collect(),
    };
    let json =
        serde_json::to_string_pretty(&document).expect("texts and lists of texts are always JSON");
    let characters = json.chars().filter(|c| !c.is_whitespace()).count();
    ProposedPolicy {
        json: json + "\n",
        characters,
        lines,
    }
}

pub(super) fn position(action: Action) -> usize {
    let found = Action::ALL.iter().position(|other| *other == action);
    found.unwrap_or(Action::ALL.len())
}

/// `PublishAndReceive`, `PublishAndReceiveIf`, `PublishAndReceiveIf2`: no two statements have the
/// same.
fn sid(grant: &Grant, taken: &BTreeSet<String>) -> String {
    let names = grant.actions.iter();
    let names = names.map(|action| action.name().trim_start_matches("iot:"));
    let name = names.collect::<Vec<_>>().join("And");
    if grant.condition.is_none() {
        return name;
    }
    let first = format!("{name}If");
    let mut number = 2;
    let mut sid = first.clone();
    while taken.contains(&sid) {
        sid = format!("{first}{number}");
        number += 1;
    }
    sid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn grant(actions: &[Action], shape: &str) -> Grant {
        Grant {
            actions: actions.to_vec(),
            shape: Shape::parse(shape).unwrap(),
            condition: None,
        }
    }

    #[test]
    fn grants_with_the_same_actions_share_a_statement() {
        let policy = ProposedPolicy::of(&[
            grant(&[Action::Publish, Action::Receive], "b"),
            grant(&[Action::Publish, Action::Receive], "a/${*}"),
            grant(&[Action::Subscribe], "a/+"),
        ]);
        let expected = r#"{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "PublishAndReceive",
      "Effect": "Allow",
      "Action": [
        "iot:Publish",
        "iot:Receive"
      ],
      "Resource": [
        "arn:aws:iot:*:*:topic/a/${*}",
        "arn:aws:iot:*:*:topic/b"
      ]
    },
    {
      "Sid": "Subscribe",
      "Effect": "Allow",
      "Action": [
        "iot:Subscribe"
      ],
      "Resource": [
        "arn:aws:iot:*:*:topicfilter/a/+"
      ]
    }
  ]
}
"#;
        assert_eq!(policy.json, expected);
        assert!(Policy::parse("learned", &policy.json).is_ok());
        let blank = |c: &char| c.is_whitespace();
        assert_eq!(
            policy.characters,
            expected.chars().filter(|c| !blank(c)).count()
        );
    }

    #[test]
    fn statements_by_action_are_taken_where_they_are_shorter() {
        let (publish, receive) = (Action::Publish, Action::Receive);
        let policy = ProposedPolicy::of(&[
            grant(&[publish], "a"),
            grant(&[receive], "b"),
            grant(&[publish, receive], "c"),
        ]);
        let sids: BTreeSet<_> = policy.lines.iter().map(|(sid, _)| sid.as_str()).collect();
        assert_eq!(sids, BTreeSet::from(["Publish", "Receive"]));
    }
}
