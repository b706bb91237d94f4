//! The decision (specification A.5).

use std::sync::Arc;

use super::{
    Action, Context, Effect, Policy, Rules, Statement, action::ResourceType, context::Values,
};

/// The statement that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementRef {
    /// Name of the policy.
    pub policy: Arc<str>,
    /// Position in the document, from 0.
    pub index: usize,
    /// Its `Sid`, if it has one.
    pub sid: Option<Arc<str>>,
}

impl StatementRef {
    /// Its number in the document, from 1: what people, logs and JSON answers are told.
    pub fn number(&self) -> usize {
        self.index + 1
    }
}

/// Leave to do one thing. Only [`PolicySet::decide`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    action: Action,
    statement: StatementRef,
}

/// Why there is no leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No statement allows it.
    Implicit,
    /// This statement denies it.
    Explicit(StatementRef),
}

/// The policies that apply to a principal, and how they are read.
#[derive(Clone, Debug, Default)]
pub struct PolicySet(Arc<Compiled>);

#[derive(Debug, Default)]
struct Compiled {
    policies: Vec<Arc<Policy>>,
    rules: Arc<Rules>,
    /// By action.
    statements: [Applicable; Action::ALL.len()],
}

/// The statements about one action, as positions of policy and statement.
#[derive(Debug, Default)]
struct Applicable {
    denies: Vec<(usize, usize)>,
    allows: Vec<(usize, usize)>,
}

/// Whether a decision holds for the whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// The same request has the same answer until the registry or a policy changes.
    Yes,
    /// It hangs on the time or on the CONNECT.
    No,
}

impl PolicySet {
    /// All of `policies` apply; their order is irrelevant.
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        Self::with_rules(policies, Arc::default())
    }

    /// All of `policies` apply, read as `rules` say.
    pub fn with_rules(policies: Vec<Arc<Policy>>, rules: Arc<Rules>) -> Self {
        let mut compiled = Compiled {
            policies,
            rules,
            ..Compiled::default()
        };
        for (p, policy) in compiled.policies.iter().enumerate() {
            for (s, statement) in policy.statements.iter().enumerate() {
                for action in Action::ALL {
                    if !statement.actions.contains(action) {
                        continue;
                    }
                    let applicable = &mut compiled.statements[action.index()];
                    match statement.effect {
                        Effect::Deny => applicable.denies.push((p, s)),
                        Effect::Allow => applicable.allows.push((p, s)),
                    }
                }
            }
        }
        Self(Arc::new(compiled))
    }

    /// The policies.
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.0.policies
    }

    /// How they are read.
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// Decides as specification A.5 says: a Deny anywhere wins, else one Allow is needed.
    /// `resource` is the bare client id, topic name or topic filter.
    ///
    /// A shared subscription `$share/<group>/<filter>` is allowed by an Allow of the whole or of
    /// the filter in it (by one with `NotResource` if that lists neither), and denied by a Deny of
    /// either.
    pub fn decide(
        &self,
        context: &Context<'_>,
        action: Action,
        resource: &str,
    ) -> Result<Permit, Denial> {
        self.decide_lasting(context, action, resource).0
    }

    /// The decision, and whether it lasts.
    pub(super) fn decide_lasting(
        &self,
        context: &Context<'_>,
        action: Action,
        resource: &str,
    ) -> (Result<Permit, Denial>, Lasting) {
        let values = Values::of(context, Some(action));
        let decision = self.decide_for(&values, action, resource);
        let lasting = if values.were_volatile() {
            Lasting::No
        } else {
            Lasting::Yes
        };
        (decision, lasting)
    }

    fn decide_for(
        &self,
        values: &Values<'_>,
        action: Action,
        resource: &str,
    ) -> Result<Permit, Denial> {
        let request = Request::new(values, action, resource, &self.0.rules);
        let applicable = &self.0.statements[action.index()];
        if let Some(statement) = self.first_met(&request, &applicable.denies) {
            return Err(Denial::Explicit(statement.source.clone()));
        }
        match self.first_met(&request, &applicable.allows) {
            Some(statement) => Ok(Permit {
                action,
                statement: statement.source.clone(),
            }),
            None => Err(Denial::Implicit),
        }
    }

    fn first_met(&self, request: &Request<'_>, among: &[(usize, usize)]) -> Option<&Statement> {
        among
            .iter()
            .map(|&(policy, statement)| &self.0.policies[policy].statements[statement])
            .find(|statement| request.meets(statement))
    }

    /// Whether both are the very same set.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Permit {
    /// What it allows.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The statement that allowed it.
    pub fn statement(&self) -> &StatementRef {
        &self.statement
    }
}

/// The filter in `$share/<group>/<filter>`.
fn shared_filter(filter: &str) -> Option<&str> {
    let (_group, filter) = filter.strip_prefix("$share/")?.split_once('/')?;
    Some(filter)
}

/// What is asked.
pub(super) struct Request<'a> {
    values: &'a Values<'a>,
    rules: &'a Rules,
    resource_type: ResourceType,
    name: &'a str,
    /// The filter of a shared subscription.
    shared: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(super) fn new(
        values: &'a Values<'a>,
        action: Action,
        name: &'a str,
        rules: &'a Rules,
    ) -> Self {
        let shared = match action {
            Action::Subscribe => shared_filter(name),
            _ => None,
        };
        Self {
            values,
            rules,
            resource_type: action.asks_for(),
            name,
            shared,
        }
    }

    /// Whether resource and condition of `statement`, which is about the action, take the request.
    pub(super) fn meets(&self, statement: &Statement) -> bool {
        self.meets_resources(statement)
            && statement
                .condition
                .as_ref()
                .is_none_or(|c| c.holds(self.values, statement.effect, self.rules))
    }

    fn meets_resources(&self, statement: &Statement) -> bool {
        let met = |name: &str| self.meets_name(statement, name);
        match statement.effect {
            // What is not to be allowed is not, whichever form it is asked for in.
            Effect::Allow if statement.resources.negated => {
                met(self.name) && self.shared.is_none_or(met)
            }
            _ => met(self.name) || self.shared.is_some_and(met),
        }
    }

    /// A variable without a value makes an Allow narrower and a Deny wider, whichever way round
    /// the resources are given.
    fn meets_name(&self, statement: &Statement, name: &str) -> bool {
        let resources = &statement.resources;
        let unresolved = statement.effect.unresolved(resources.negated, self.rules);
        let listed = resources.listed.iter().any(|resource| {
            resource.matches(
                self.resource_type,
                name,
                self.values,
                unresolved,
                self.rules,
            )
        });
        listed != resources.negated
    }
}

#[cfg(test)]
mod tests;
