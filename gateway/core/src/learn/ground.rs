//! By which statement something was allowed, and under which condition.

use std::{collections::BTreeSet, sync::Arc};

use crate::policy::{PolicySet, StatementRef, StatementView};

/// The statement that allowed what was seen, as it was then: its policy may have changed since.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ground {
    /// Name of the policy.
    pub policy: Arc<str>,
    /// Position in the document, from 0.
    pub index: usize,
    /// Its `Sid`, if it had one.
    pub sid: Option<Arc<str>>,
    /// Its condition as JSON in one line, if it had one.
    pub condition: Option<Arc<str>>,
}

impl Ground {
    /// `statement` of one of `policies`, which decided.
    pub fn of(statement: &StatementRef, policies: &PolicySet) -> Self {
        let mut policies = policies.policies().iter();
        let policy = policies.find(|policy| policy.name() == &*statement.policy);
        let view = policy.and_then(|policy| policy.statements().nth(statement.index));
        Self {
            policy: statement.policy.clone(),
            index: statement.index,
            sid: statement.sid.clone(),
            condition: view.and_then(StatementView::condition).map(Into::into),
        }
    }

    /// How decisions refer to it.
    pub fn statement(&self) -> StatementRef {
        StatementRef {
            policy: self.policy.clone(),
            index: self.index,
            sid: self.sid.clone(),
        }
    }

    /// Whether `statement` of the policy `policy` is still this one.
    pub(super) fn is(&self, policy: &str, statement: StatementView<'_>) -> bool {
        *self.policy == *policy
            && self.index == statement.index()
            && self.sid.as_deref() == statement.sid()
            && self.condition.as_deref() == statement.condition()
    }
}

/// By which statements a fact was allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grounds {
    /// Those that are known.
    pub known: BTreeSet<Arc<Ground>>,
    /// Whether there were others that are not.
    pub more: bool,
}

impl Grounds {
    /// Just this one.
    pub fn one(ground: Arc<Ground>) -> Self {
        Self {
            known: BTreeSet::from([ground]),
            more: false,
        }
    }

    /// That none is known: nobody noted it.
    pub fn unknown() -> Self {
        Self {
            known: BTreeSet::new(),
            more: true,
        }
    }

    /// Adds those of `other`, up to the bound; whether any of them is new.
    pub(super) fn absorb(&mut self, other: Self, grounds_max: usize) -> bool {
        let mut is_new = false;
        self.more |= other.more;
        for ground in other.known {
            if self.known.contains(&ground) {
                continue;
            }
            if self.known.len() < grounds_max {
                is_new |= self.known.insert(ground);
            } else {
                self.more = true;
            }
        }
        is_new
    }

    /// The condition under which all of it was allowed; `None` if some of it was without one, under
    /// another, or nobody knows.
    pub(super) fn condition(&self) -> Option<&Arc<str>> {
        if self.more {
            return None;
        }
        let mut conditions = self.known.iter().map(|ground| ground.condition.as_ref());
        let first = conditions.next()??;
        conditions
            .all(|other| other == Some(first))
            .then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Fact, Observations, Proposal, propose,
            tests::{BOUNDS, allows, ground, group, observed_by, policies, sensors, shared},
            unused,
        },
        *,
    };
    use crate::policy::{Action, Policy};

    const FROM_SITE: &str = r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#;

    fn conditions(proposal: &Proposal<'_>) -> Vec<(String, Option<String>)> {
        let lines = proposal.basis.iter();
        lines
            .map(|line| {
                let condition = line.grant.condition.as_deref().map(str::to_owned);
                (line.sid.clone(), condition)
            })
            .collect()
    }

    #[test]
    fn a_condition_goes_over_where_everything_was_allowed_under_it() {
        let things = sensors();
        let limited = ground(0, Some(FROM_SITE));
        let all = observed_by(
            &things,
            &[
                (
                    ("sensor-1", Action::Publish, "dt/sensor-1/t"),
                    limited.clone(),
                ),
                (("sensor-2", Action::Publish, "dt/sensor-2/t"), limited),
                (("sensor-1", Action::Publish, "log"), ground(1, None)),
            ],
        );
        let shared = shared(&things);
        let proposal = propose(&all, &shared, &group("g")).unwrap();
        let from_site = Some(FROM_SITE.to_owned());
        assert_eq!(
            conditions(&proposal),
            [
                ("Publish".to_owned(), None),
                ("PublishIf".to_owned(), from_site)
            ]
        );
        let json: serde_json::Value = serde_json::from_str(&proposal.policies[0].json).unwrap();
        assert_eq!(
            json["Statement"][1]["Condition"],
            serde_json::from_str::<serde_json::Value>(FROM_SITE).unwrap()
        );
        // Without an address that is in it, the policy allows what was unlimited and nothing else.
        let set = policies(&proposal);
        assert!(allows(&set, &things[0], Action::Publish, "log"));
        assert!(!allows(&set, &things[0], Action::Publish, "dt/sensor-1/t"));
        // And the statement it comes from was used, although nobody can say from where.
        let present = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Publish",
                "Resource":"*","Condition":{FROM_SITE}}}]}}"#
        );
        let present = Arc::new(Policy::parse("device", &present).unwrap());
        assert_eq!(unused(&[present], &proposal.deeds), []);
    }

    #[test]
    fn a_condition_stays_behind_where_something_was_allowed_without_it_and_is_told() {
        let things = sensors();
        for other in [ground(1, None), ground(1, Some(r#"{"Null":{"a":"true"}}"#))] {
            let limited = ground(0, Some(FROM_SITE));
            let all = observed_by(
                &things,
                &[
                    (
                        ("sensor-1", Action::Publish, "dt/sensor-1/t"),
                        limited.clone(),
                    ),
                    (
                        ("sensor-2", Action::Publish, "dt/sensor-2/t"),
                        other.clone(),
                    ),
                ],
            );
            let shared = shared(&things);
            let proposal = propose(&all, &shared, &group("g")).unwrap();
            assert_eq!(conditions(&proposal), [("Publish".to_owned(), None)]);
            let known = &proposal.basis[0].grounds.known;
            assert!(known.contains(&limited) && known.contains(&other));
        }
    }

    #[test]
    fn what_was_noted_before_grounds_were_carries_no_condition() {
        let things = sensors();
        let seen = ("sensor-1", Action::Publish, "dt/sensor-1/t");
        let new = observed_by(&things, &[(seen, ground(0, Some(FROM_SITE)))]);
        let mut all = Observations::new(BOUNDS);
        for (groups, table) in new.tables() {
            for fact in table.facts() {
                let grounds = Grounds::unknown();
                all.add(
                    groups,
                    Fact {
                        grounds,
                        ..fact.clone()
                    },
                );
            }
        }
        all.merge(&new);
        let shared = shared(&things);
        let proposal = propose(&all, &shared, &group("g")).unwrap();
        assert_eq!(conditions(&proposal), [("Publish".to_owned(), None)]);
    }
}
