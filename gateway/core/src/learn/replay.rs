//! Holds documents to everything that was seen.

use std::sync::Arc;

use super::{
    document::ProposedPolicy,
    proposal::{Deed, LeftOut, NoProposal},
};
use crate::{
    identity::ClientId,
    policy::{Context, Policy, PolicySet},
    problem::Mistake,
};

/// The document without its conditions: they held when the deeds were done, and what they ask for
/// was not noted.
fn unconditional(json: &str) -> String {
    let mut document: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let statements = document.get_mut("Statement").and_then(|s| s.as_array_mut());
    for statement in statements.into_iter().flatten() {
        if let Some(members) = statement.as_object_mut() {
            members.remove("Condition");
        }
    }
    document.to_string()
}

/// Whether the documents are policies, and allow every deed that is not left out.
pub(super) fn replay(
    policies: &[ProposedPolicy],
    deeds: &[Deed<'_>],
    left_out: &[LeftOut],
) -> Result<(), NoProposal> {
    let text = |mistakes: Vec<Mistake>| {
        let all = mistakes.into_iter();
        NoProposal::Unsound(all.map(|m| m.message).collect::<Vec<_>>().join("; "))
    };
    let mut parsed = Vec::new();
    for policy in policies {
        Policy::parse("learned", &policy.json).map_err(text)?;
        let bare = unconditional(&policy.json);
        parsed.push(Arc::new(Policy::parse("learned", &bare).map_err(text)?));
    }
    let set = PolicySet::new(parsed);
    for deed in deeds {
        let Ok(client_id) = ClientId::parse(&deed.client_id) else {
            continue;
        };
        let context = Context {
            thing: Some(deed.thing),
            ..Context::of(&client_id)
        };
        let is_left_out = || {
            left_out.iter().any(|left| {
                left.action == deed.action && left.shape.takes(&deed.actor(), &deed.resource)
            })
        };
        if set.decide(&context, deed.action, &deed.resource).is_err() && !is_left_out() {
            return Err(NoProposal::Unsound(format!(
                "it would deny {} on `{}` to `{}`",
                deed.action, deed.resource, deed.thing.name
            )));
        }
    }
    Ok(())
}
