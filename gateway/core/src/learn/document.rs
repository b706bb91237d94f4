//! Grants written down as policy documents, in pretty JSON whose order never changes.

use std::collections::{BTreeMap, BTreeSet};

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
}

impl ProposedPolicy {
    /// The shorter one of: a statement for each set of actions, a statement for each action.
    pub(super) fn of(grants: &[Grant]) -> Self {
        let by_sets = write(grants.iter().map(|g| (g.actions.clone(), g.shape.clone())));
        let by_actions = write(grants.iter().flat_map(|grant| {
            let each = grant.actions.iter();
            each.map(|action| (vec![*action], grant.shape.clone()))
        }));
        if by_actions.characters < by_sets.characters {
            by_actions
        } else {
            by_sets
        }
    }
}

fn write(grants: impl Iterator<Item = (Vec<Action>, Shape)>) -> ProposedPolicy {
    let mut statements: BTreeMap<Vec<usize>, (Vec<Action>, BTreeSet<Shape>)> = BTreeMap::new();
    for (actions, shape) in grants {
        let positions = actions.iter().map(|action| position(*action)).collect();
        let statement = statements.entry(positions);
        let statement = statement.or_insert_with(|| (actions, BTreeSet::new()));
        statement.1.insert(shape);
    }
    let mut lines = Vec::new();
    let mut written = Vec::new();
    for (actions, shapes) in statements.values() {
        let sid = sid(actions);
        let grants = shapes.iter().map(|shape| Grant {
            actions: actions.clone(),
            shape: shape.clone(),
        });
        let grants: Vec<Grant> = grants.collect();
        written.push((sid.clone(), grants.iter().map(Grant::resource).collect()));
        lines.extend(grants.into_iter().map(|grant| (sid.clone(), grant)));
    }
    let document = Document {
        version: "2012-10-17",
        statements: written
            .iter()
            .zip(statements.values())
            .map(
                |((sid, resources), (actions, _)): (&(String, Vec<String>), _)| Statement {
                    sid,
                    effect: "Allow",
                    actions: actions.iter().map(|action| action.name()).collect(),
                    resources: resources.clone(),
                },
            )
            .collect(),
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

/// `PublishAndReceive`: no two statements have the same actions.
fn sid(actions: &[Action]) -> String {
    let names = actions
        .iter()
        .map(|action| action.name().trim_start_matches("iot:"));
    names.collect::<Vec<_>>().join("And")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn grant(actions: &[Action], shape: &str) -> Grant {
        Grant {
            actions: actions.to_vec(),
            shape: Shape::parse(shape).unwrap(),
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
