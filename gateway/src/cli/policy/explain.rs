//! `portcullis policy explain`: what a thing may do and may not, and from where.

use std::{path::Path, sync::Arc};

use portcullis_core::{
    identity::{Principal, Thing},
    policy::{Action, Context, Effect, Policy, Reading, Rules, StatementView},
};
use serde_json::{Value, json};

use super::{
    super::{
        Failure, Outcome,
        outcome::{say, say_json},
    },
    describe, short,
    who::{self, Connection, Who},
};
use crate::{
    clock::now,
    identity::{AttachedTo, Snapshot},
};

/// Arguments of `policy explain`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExplainArgs {
    /// The thing.
    thing: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn explain(
    args: &ExplainArgs,
    config: &Path,
    as_json: bool,
) -> Result<Outcome, Failure> {
    let loaded = who::load(config)?;
    let snapshot = &loaded.1;
    let thing = who::thing(snapshot, &args.thing)?;
    let client_id = args.connection.client_id(thing)?;
    let principal = match args.connection.who(&loaded, thing, &client_id)? {
        Who::Known(principal) => principal,
        Who::Refused(reason) => {
            if as_json {
                say_json(&json!({ "thingName": thing.name.as_str(), "reason": reason }));
            } else {
                say(&format!("`{}` may do nothing: {reason}", thing.name));
            }
            return Ok(Outcome::Done);
        }
    };
    let context = Context {
        source: args.connection.source_ip(),
        ..principal.context(now())
    };
    let attached = attached(snapshot, thing, &principal);
    if as_json {
        say_json(&to_json(&principal, &context, &attached));
    } else {
        tell(&principal, &context, &attached, snapshot.rules());
    }
    Ok(Outcome::Done)
}

/// A policy that holds, and why it does.
struct Attached {
    policy: Arc<Policy>,
    to: Vec<String>,
}

/// In the order in which the gateway has them, each once.
fn attached(snapshot: &Snapshot, thing: &Thing, principal: &Principal) -> Vec<Attached> {
    let certificate = principal.certificate_id();
    let mut found: Vec<Attached> = Vec::new();
    for (to, policy) in snapshot.policies_of(&thing.name, certificate.as_ref()) {
        let to = place(&to);
        let known = found
            .iter_mut()
            .find(|known| known.policy.name() == policy.name());
        match known {
            Some(known) => known.to.push(to),
            None => found.push(Attached {
                policy,
                to: vec![to],
            }),
        }
    }
    found
}

fn place(to: &AttachedTo) -> String {
    match to {
        AttachedTo::Certificate(id) => format!("the certificate {id}"),
        AttachedTo::Group {
            group,
            inherited_by: None,
        } => format!("the group `{group}`"),
        AttachedTo::Group {
            group,
            inherited_by: Some(heir),
        } => format!("the group `{group}`, from which `{heir}` inherits"),
        AttachedTo::Plain => "the plain listener".to_owned(),
    }
}

/// A statement that is about an action.
struct Line<'a> {
    statement: StatementView<'a>,
    attached: &'a Attached,
    resources: Vec<Reading>,
}

/// Deny first: it wins.
fn lines<'a>(attached: &'a [Attached], context: &Context<'_>, action: Action) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for attached in attached {
        for statement in attached.policy.statements() {
            if !statement.is_about(action) {
                continue;
            }
            let mut resources = statement.resources_in(context);
            if !statement.is_not_resource() {
                resources.retain(|reading| may_be(action, &reading.text));
            }
            if !resources.is_empty() {
                lines.push(Line {
                    statement,
                    attached,
                    resources,
                });
            }
        }
    }
    lines.sort_by_key(|line| line.statement.effect() == Effect::Allow);
    lines
}

/// Whether the resource may be of the action's type.
fn may_be(action: Action, resource: &str) -> bool {
    let name = resource.splitn(6, ':').nth(5).unwrap_or(resource);
    match name.split_once('/') {
        Some((kind, _)) if !kind.contains(['*', '?', '$']) => kind == action.resource_type(),
        _ => true,
    }
}

fn tell(principal: &Principal, context: &Context<'_>, attached: &[Attached], rules: &Rules) {
    say(&format!("thing        {}", principal.device()));
    say(&format!("client id    {}", principal.client_id));
    if let Some(id) = principal.certificate_id() {
        say(&format!("certificate  {id}"));
    }
    if attached.is_empty() {
        say("No policy is attached to it, so it may do nothing.");
        return;
    }
    for attached in attached {
        let (name, to) = (attached.policy.name(), attached.to.join("; "));
        say(&format!(
            "policy       policies/{name}.json, attached to {to}"
        ));
    }
    for action in Action::ALL {
        say("");
        say(action.name());
        let lines = lines(attached, context, action);
        if lines
            .iter()
            .all(|line| line.statement.effect() == Effect::Deny)
        {
            say("  nothing: no statement allows it");
        }
        for line in lines {
            tell_line(&line, rules);
        }
    }
}

fn tell_line(line: &Line<'_>, rules: &Rules) {
    let statement = line.statement;
    let verb = match statement.effect() {
        Effect::Allow => "may  ",
        Effect::Deny => "never",
    };
    let resources = line
        .resources
        .iter()
        .map(|reading| format!("{}{}", short(&reading.text), gap(statement, reading, rules)));
    if statement.is_not_resource() {
        // One sentence: each alone would say that the others are in it.
        let resources = resources.collect::<Vec<_>>().join(" and ");
        say(&format!("  {verb} everything but {resources}"));
    } else {
        for resource in resources {
            say(&format!("  {verb} {resource}"));
        }
    }
    if let Some(condition) = statement.condition() {
        say(&format!("        if {condition}"));
    }
    say(&format!("        {}", describe(statement.source())));
}

/// What becomes of a resource whose variable has no value.
fn gap(statement: StatementView<'_>, reading: &Reading, rules: &Rules) -> String {
    if reading.unresolved.is_empty() {
        return String::new();
    }
    let names = reading.unresolved.join(", ");
    let effect = match (statement.effect(), statement.is_not_resource()) {
        (Effect::Allow, false) => "so this allows nothing",
        (Effect::Deny, false) if rules.deny_on_unresolved => "so this denies as if it were `*`",
        (Effect::Deny, false) => "so this denies nothing",
        (Effect::Allow, true) => "so this leaves out as if it were `*`",
        (Effect::Deny, true) => "so this leaves out nothing",
    };
    format!("  [{names} has no value, {effect}]")
}

fn to_json(principal: &Principal, context: &Context<'_>, attached: &[Attached]) -> Value {
    let policies = attached
        .iter()
        .map(|attached| json!({ "policyName": attached.policy.name(), "attachedTo": attached.to }));
    let actions = Action::ALL.into_iter().map(|action| {
        let lines = lines(attached, context, action);
        let statements: Vec<Value> = lines.iter().map(line_to_json).collect();
        json!({ "action": action.name(), "statements": statements })
    });
    json!({
        "thingName": principal.device(),
        "clientId": principal.client_id.as_str(),
        "certificateId": principal.certificate_id().map(|id| id.to_string()),
        "policies": policies.collect::<Vec<_>>(),
        "actions": actions.collect::<Vec<_>>(),
    })
}

fn line_to_json(line: &Line<'_>) -> Value {
    let statement = line.statement;
    let resources: Vec<Value> = line
        .resources
        .iter()
        .map(|reading| {
            json!({ "resource": reading.text, "missingContextValues": reading.unresolved })
        })
        .collect();
    let condition = statement.condition();
    json!({
        "effect": match statement.effect() {
            Effect::Allow => "Allow",
            Effect::Deny => "Deny",
        },
        "policy": line.attached.policy.name(),
        "statement": statement.source().number(),
        "sid": statement.sid(),
        "attachedTo": line.attached.to,
        "notResource": statement.is_not_resource(),
        "resources": resources,
        "condition": condition.and_then(|text| serde_json::from_str::<Value>(text).ok()),
    })
}
