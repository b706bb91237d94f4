//! What present policies allow and nobody did.

use std::{collections::BTreeSet, sync::Arc};

use super::proposal::Deed;
use crate::{
    identity::ClientId,
    policy::{Action, Context, Effect, Policy, PolicySet, StatementRef, StatementView},
};

/// Leave that no thing made use of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// The statement that gives it.
    pub statement: StatementRef,
    /// The action.
    pub action: Action,
    /// The resource of the statement; `None`: any that the statement is about.
    pub resource: Option<String>,
}

/// What Allow statements of `policies` give that none of `deeds` needed. A statement with
/// `NotResource` or a condition is looked at as a whole: which resource was meant, it does not say.
pub fn unused(policies: &[Arc<Policy>], deeds: &[Deed<'_>]) -> Vec<Unused> {
    let mut unused = Vec::new();
    for policy in policies {
        let set = PolicySet::new(vec![policy.clone()]);
        let mut used = used_statements(&set, deeds);
        used.extend(noted_statements(policy, deeds));
        for statement in policy.statements() {
            if statement.effect() == Effect::Deny {
                continue;
            }
            for action in Action::ALL
                .into_iter()
                .filter(|action| statement.is_about(*action))
            {
                let of = |resource| Unused {
                    statement: statement.source().clone(),
                    action,
                    resource,
                };
                if !used.contains(&(statement.index(), action.name())) {
                    if resources(statement, action).is_empty() && !statement.is_not_resource() {
                        // `iot:Subscribe` on a topic: it allows nothing to anybody.
                        continue;
                    }
                    unused.push(of(None));
                } else if !statement.is_not_resource() && statement.condition().is_none() {
                    let idle = resources(statement, action).into_iter();
                    let idle = idle.filter(|resource| !is_used(action, resource, deeds));
                    unused.extend(idle.map(|resource| of(Some(resource.to_owned()))));
                }
            }
        }
    }
    unused
}

/// The resources of a statement that may be of the action's type.
fn resources(statement: StatementView<'_>, action: Action) -> Vec<&str> {
    let may_be = |resource: &&str| {
        let name = resource.splitn(6, ':').nth(5).unwrap_or(resource);
        match name.split_once('/') {
            Some((kind, _)) if !kind.contains(['*', '?', '$']) => kind == action.resource_type(),
            _ => true,
        }
    };
    statement.resources().filter(may_be).collect()
}

fn used_statements(set: &PolicySet, deeds: &[Deed<'_>]) -> BTreeSet<(usize, &'static str)> {
    let mut used = BTreeSet::new();
    for deed in deeds {
        if let Ok(client_id) = ClientId::parse(&deed.client_id) {
            let context = Context {
                thing: Some(deed.thing),
                ..Context::of(&client_id)
            };
            let explanation = set.explain(&context, deed.action, &deed.resource);
            let allows = explanation.allows.iter();
            used.extend(allows.map(|m| (m.statement.index, deed.action.name())));
        }
    }
    used
}

/// The statements of `policy` that were noted to have allowed a deed, whatever their conditions ask
/// for, and that are still the same.
fn noted_statements<'d>(
    policy: &'d Policy,
    deeds: &'d [Deed<'_>],
) -> impl Iterator<Item = (usize, &'static str)> + 'd {
    deeds.iter().flat_map(move |deed| {
        let known = deed.grounds.known.iter();
        let known = known.filter(|ground| {
            let statement = policy.statements().nth(ground.index);
            statement.is_some_and(|statement| ground.is(policy.name(), statement))
        });
        known.map(|ground| (ground.index, deed.action.name()))
    })
}

/// Whether a policy with nothing but this would have allowed a deed.
fn is_used(action: Action, resource: &str, deeds: &[Deed<'_>]) -> bool {
    let document = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": action.name(), "Resource": resource }],
    });
    let Ok(policy) = Policy::parse("one-line", &document.to_string()) else {
        return true;
    };
    let set = PolicySet::new(vec![Arc::new(policy)]);
    let mut its = deeds.iter().filter(|deed| deed.action == action);
    its.any(|deed| {
        ClientId::parse(&deed.client_id).is_ok_and(|client_id| {
            let context = Context {
                thing: Some(deed.thing),
                ..Context::of(&client_id)
            };
            set.decide(&context, action, &deed.resource).is_ok()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{group, observed, shared, thing},
        *,
    };
    use crate::learn::propose;

    #[test]
    fn what_nobody_used_is_named_by_statement_action_and_resource() {
        let things = [thing("s-1", None, &[])];
        let seen = [
            ("s-1", Action::Publish, "dt/s-1/t"),
            ("s-1", Action::Subscribe, "cmd/s-1/#"),
        ];
        let (all, things) = (observed(&things, &seen), shared(&things));
        let proposal = propose(&all, &things, &group("g")).unwrap();
        let policy = r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["iot:Publish", "iot:RetainPublish"], "Resource": [
                "arn:aws:iot:*:*:topic/dt/${iot:Connection.Thing.ThingName}/*",
                "arn:aws:iot:*:*:topic/old/*"]},
            {"Effect": "Allow", "Action": "iot:*", "Resource": "arn:aws:iot:*:*:topicfilter/cmd/*"},
            {"Effect": "Deny", "Action": "iot:Connect", "Resource": "*"}]}"#;
        let policy = Arc::new(Policy::parse("device", policy).unwrap());
        let unused: Vec<_> = unused(&[policy], &proposal.deeds)
            .into_iter()
            .map(|unused| (unused.statement.index, unused.action, unused.resource))
            .collect();
        let old = Some("arn:aws:iot:*:*:topic/old/*".to_owned());
        assert_eq!(
            unused,
            [(0, Action::Publish, old), (0, Action::RetainPublish, None)]
        );
    }
}
