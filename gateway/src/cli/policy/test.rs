//! `portcullis policy test`: the decision, and the statement that made it.

use std::path::Path;

use portcullis_core::{
    policy::{Action, ConnectRequest, Context, Decision, Explanation, StatementRef},
    timestamp::Timestamp,
    topic::{TopicFilter, TopicName},
};
use serde_json::{Value, json};

use super::{
    super::{
        Failure, Outcome,
        outcome::{say, say_json},
    },
    ActionArg, describe,
    who::{self, Connection, Who},
};
use crate::clock::now;

/// Arguments of `policy test`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TestArgs {
    /// The thing that acts.
    #[arg(long)]
    thing: String,
    #[command(flatten)]
    connection: Connection,
    /// What it does.
    #[arg(long, value_enum)]
    action: ActionArg,
    /// The topic, or the topic filter of a subscription.
    #[arg(long)]
    topic: Option<String>,
    /// A connect whose session is to outlive the connection.
    #[arg(long)]
    persistent: bool,
    /// A connect with a will on this topic.
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// When, in RFC 3339; now unless said otherwise.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| "write a time such as 2026-11-22T10:00:00Z".to_owned())
}

pub(super) fn test(args: &TestArgs, config: &Path, as_json: bool) -> Result<Outcome, Failure> {
    let action = Action::from(args.action);
    let will_topic = args.will_topic(action)?;
    args.check_topic(action)?;
    let loaded = who::load(config)?;
    let thing = who::thing(&loaded.1, &args.thing)?;
    let client_id = args.connection.client_id(thing)?;
    let resource = args.topic.as_deref().unwrap_or(client_id.as_str());
    let principal = match args.connection.who(&loaded, thing, &client_id)? {
        Who::Known(principal) => principal,
        Who::Refused(reason) => {
            refused(action, resource, &reason, as_json);
            return Ok(Outcome::Denied);
        }
    };
    let context = Context {
        source: args.connection.source_ip(),
        connect: (action == Action::Connect).then_some(ConnectRequest {
            persistent: args.persistent,
            will_topic: will_topic.as_ref(),
        }),
        ..principal.context(args.at.unwrap_or_else(now))
    };
    let explanation = principal.policies.explain(&context, action, resource);
    if as_json {
        say_json(&to_json(&explanation));
    } else {
        tell(&explanation, resource);
    }
    Ok(match explanation.decision {
        Decision::Allowed => Outcome::Done,
        Decision::ExplicitDeny | Decision::ImplicitDeny => Outcome::Denied,
    })
}

impl TestArgs {
    fn will_topic(&self, action: Action) -> Result<Option<TopicName>, Failure> {
        if action != Action::Connect && (self.persistent || self.will_topic.is_some()) {
            let text = "only a connect has `--persistent` and `--will-topic`; remove them";
            return Err(Failure::BadInput(text.to_owned()));
        }
        let Some(topic) = &self.will_topic else {
            return Ok(None);
        };
        let parsed = TopicName::parse(topic).map_err(|error| {
            Failure::BadInput(format!(
                "`{topic}` is no topic: {error}; correct `--will-topic`"
            ))
        })?;
        Ok(Some(parsed))
    }

    /// What a device could write there: anything else the gateway refuses before it asks the
    /// policies.
    fn check_topic(&self, action: Action) -> Result<(), Failure> {
        let text = match (action, &self.topic) {
            (Action::Connect, None) => return Ok(()),
            (Action::Connect, Some(_)) => "a connect has no topic; remove `--topic`".to_owned(),
            (_, None) => format!("{action} needs a topic; add `--topic TOPIC`"),
            (_, Some(topic)) => {
                let (kind, error) = match action {
                    Action::Subscribe => ("topic filter", TopicFilter::parse(topic).err()),
                    _ => ("topic", TopicName::parse(topic).err()),
                };
                match error {
                    None => return Ok(()),
                    Some(error) => format!("`{topic}` is no {kind}: {error}; correct `--topic`"),
                }
            }
        };
        Err(Failure::BadInput(text))
    }
}

fn tell(explanation: &Explanation, resource: &str) {
    let decision = explanation.decision.name();
    let action = explanation.action;
    let by = deciding(explanation).map_or_else(
        || "no statement allows it".to_owned(),
        |statement| format!("by {}", describe(statement)),
    );
    let kind = action.resource_type();
    say(&format!("{decision}: {action} on {kind}/{resource}, {by}"));
    if !explanation.missing.is_empty() {
        let names = explanation.missing.join(", ");
        say(&format!(
            "Statements asked for what has no value here: {names}"
        ));
    }
}

fn deciding(explanation: &Explanation) -> Option<&StatementRef> {
    let matching = match explanation.decision {
        Decision::Allowed => explanation.allows.first(),
        Decision::ExplicitDeny => explanation.denies.first(),
        Decision::ImplicitDeny => None,
    };
    matching.map(|matching| &matching.statement)
}

/// In AWS's words; retained publishes, which it does not test, in the like.
fn action_type(action: Action) -> &'static str {
    match action {
        Action::Connect => "CONNECT",
        Action::Publish => "PUBLISH",
        Action::RetainPublish => "RETAIN_PUBLISH",
        Action::Subscribe => "SUBSCRIBE",
        Action::Receive => "RECEIVE",
    }
}

/// The shape of one of `TestAuthorization`'s `authResults`, and the statement that decided.
fn to_json(explanation: &Explanation) -> Value {
    let owner = explanation.resource_arn.splitn(6, ':').take(5);
    let prefix = owner.collect::<Vec<_>>().join(":");
    let policies = |names: Vec<&str>| -> Value {
        let mut seen: Vec<&str> = Vec::new();
        for name in names {
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        let policies = seen.into_iter().map(
            |name| json!({ "policyName": name, "policyArn": format!("{prefix}:policy/{name}") }),
        );
        json!({ "policies": policies.collect::<Vec<_>>() })
    };
    let allows = explanation.allows.iter().map(|m| &*m.statement.policy);
    let denies = explanation.denies.iter().map(|m| &*m.statement.policy);
    let statement = deciding(explanation);
    json!({
        "authInfo": {
            "actionType": action_type(explanation.action),
            "resources": [explanation.resource_arn],
        },
        "allowed": policies(allows.collect()),
        "denied": {
            "implicitDeny": policies(explanation.silent.iter().map(|name| &**name).collect()),
            "explicitDeny": policies(denies.collect()),
        },
        "authDecision": explanation.decision.name(),
        "missingContextValues": explanation.missing,
        "policy": statement.map(|statement| &*statement.policy),
        "statement": statement.map(|statement| statement.index),
        "sid": statement.and_then(|statement| statement.sid.as_deref()),
    })
}

/// Says that the policies do not matter.
fn refused(action: Action, resource: &str, reason: &str, as_json: bool) {
    let arn = format!("{}/{resource}", action.resource_type());
    if as_json {
        let none = json!({ "policies": [] });
        say_json(&json!({
            "authInfo": { "actionType": action_type(action), "resources": [arn] },
            "allowed": none,
            "denied": { "implicitDeny": none, "explicitDeny": none },
            "authDecision": "IMPLICIT_DENY",
            "missingContextValues": [],
            "reason": reason,
        }));
    } else {
        say(&format!("IMPLICIT_DENY: {action} on {arn}, {reason}"));
    }
}
