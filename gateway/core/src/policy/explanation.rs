//! A decision with everything that had a part in it: the data of AWS's `TestAuthorization`.

use std::sync::Arc;

use super::{
    Action, Context, Effect, Policy, PolicySet, StatementRef, context::Values, set::Request,
};

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it, and none denies it.
    Allowed,
    /// A statement denies it.
    ExplicitDeny,
    /// No statement allows it.
    ImplicitDeny,
}

/// A statement that applies to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// Which one.
    pub statement: StatementRef,
    /// The variables and condition keys without a value that it came across, sorted. A Deny may
    /// apply because of them.
    pub missing: Vec<String>,
}

/// Why a request is allowed or denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was asked.
    pub action: Action,
    /// The ARN of what was asked for.
    pub resource_arn: String,
    /// The same as [`PolicySet::decide`] says.
    pub decision: Decision,
    /// Every Allow that applies, in the order of the policies.
    pub allows: Vec<Matching>,
    /// Every Deny that applies, in the order of the policies.
    pub denies: Vec<Matching>,
    /// The policies of which no statement applies.
    pub silent: Vec<Arc<str>>,
    /// Variables and condition keys that statements about this action asked for in vain, sorted.
    pub missing: Vec<String>,
}

impl Decision {
    /// `ALLOWED` and so on, as AWS writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "ALLOWED",
            Self::ExplicitDeny => "EXPLICIT_DENY",
            Self::ImplicitDeny => "IMPLICIT_DENY",
        }
    }
}

impl PolicySet {
    /// Looks at every statement instead of stopping at the one that decides.
    pub fn explain(&self, context: &Context<'_>, action: Action, resource: &str) -> Explanation {
        let mut explanation = Explanation {
            action,
            resource_arn: self.rules().arn.arn(action, resource),
            decision: Decision::ImplicitDeny,
            allows: Vec::new(),
            denies: Vec::new(),
            silent: Vec::new(),
            missing: Vec::new(),
        };
        let values = Values::recording(context, action);
        let request = Request::new(&values, action, resource, self.rules());
        for policy in self.policies() {
            if !explanation.look_at(policy, &request, &values) {
                explanation.silent.push(policy.name.clone());
            }
        }
        explanation.decision = match (&*explanation.denies, &*explanation.allows) {
            ([], []) => Decision::ImplicitDeny,
            ([], _) => Decision::Allowed,
            _ => Decision::ExplicitDeny,
        };
        explanation.missing.sort_unstable();
        explanation.missing.dedup();
        explanation
    }
}

impl Explanation {
    /// Adds the statements of `policy` that apply; whether there is one.
    fn look_at(&mut self, policy: &Policy, request: &Request<'_>, values: &Values<'_>) -> bool {
        let mut applies = false;
        let about_it = |statement: &&super::Statement| statement.actions.contains(self.action);
        for statement in policy.statements.iter().filter(about_it) {
            let meets = request.meets(statement);
            let missing = values.take_missing();
            self.missing.extend_from_slice(&missing);
            if !meets {
                continue;
            }
            applies = true;
            let matching = Matching {
                statement: statement.source.clone(),
                missing,
            };
            match statement.effect {
                Effect::Allow => self.allows.push(matching),
                Effect::Deny => self.denies.push(matching),
            }
        }
        applies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ClientId;

    fn set(policies: &[(&str, &str)]) -> PolicySet {
        let parse = |(name, statements): &(&str, &str)| {
            let json = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
            Arc::new(Policy::parse(name, &json).unwrap())
        };
        PolicySet::new(policies.iter().map(parse).collect())
    }

    fn names(matching: &[Matching]) -> Vec<(&str, usize)> {
        let statements = matching.iter().map(|matching| &matching.statement);
        statements
            .map(|source| (&*source.policy, source.index))
            .collect()
    }

    /// Specification A.5, the shape of `TestAuthorization`.
    #[test]
    fn every_statement_that_applies_is_told_and_what_is_missing() {
        let set = set(&[
            (
                "base",
                r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/a/*"},
                {"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
                {"Effect":"Allow","Action":"*","Resource":"*",
                 "Condition":{"StringLike":{"iot:Connection.Thing.Attributes[zone]":"*"}}}"#,
            ),
            (
                "deny",
                r#"{"Sid":"Own","Effect":"Deny","Action":"iot:Publish",
                  "Resource":"arn:aws:iot:*:*:topic/a/${iot:Connection.Thing.ThingName}"}"#,
            ),
            (
                "other",
                r#"{"Effect":"Deny","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/b"}"#,
            ),
        ]);
        let client_id = ClientId::parse("c1").unwrap();
        let told = set.explain(&Context::of(&client_id), Action::Publish, "a/x");
        assert_eq!(
            told.resource_arn,
            "arn:aws:iot:local:000000000000:topic/a/x"
        );
        assert_eq!(told.decision, Decision::ExplicitDeny);
        assert_eq!(told.decision.name(), "EXPLICIT_DENY");
        assert_eq!(names(&told.allows), [("base", 0)]);
        assert_eq!(names(&told.denies), [("deny", 0)]);
        assert_eq!(told.denies[0].statement.sid.as_deref(), Some("Own"));
        assert_eq!(told.denies[0].missing, ["iot:Connection.Thing.ThingName"]);
        let silent: Vec<_> = told.silent.iter().map(|name| &**name).collect();
        assert_eq!(silent, ["other"]);
        assert_eq!(
            told.missing,
            [
                "iot:Connection.Thing.Attributes[zone]",
                "iot:Connection.Thing.ThingName"
            ]
        );
        let told = set.explain(&Context::of(&client_id), Action::Connect, "c1");
        assert_eq!(
            (told.decision, names(&told.allows)),
            (Decision::Allowed, vec![("base", 1)])
        );
        let told = set.explain(&Context::of(&client_id), Action::Subscribe, "a/#");
        assert_eq!(
            (told.decision, told.silent.len()),
            (Decision::ImplicitDeny, 3)
        );
    }
}
