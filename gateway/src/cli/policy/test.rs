//! `portcullis policy test`: the decision, and the statement that made it.
//!
//! What the gateway refuses before it asks the policies is refused here too. A connect with a will
//! is several requests, as it is at the gateway: all of them must be allowed.

use std::path::Path;

use portcullis_core::{
    identity::Principal,
    policy::{Action, ArnIdentity, ConnectRequest, Context, Decision, Explanation, StatementRef},
    reserved::is_reserved,
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
    /// The will is to be retained.
    #[arg(long)]
    will_retain: bool,
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
    let arns = &loaded.1.rules().arn;
    let principal = match args.connection.who(&loaded, thing, &client_id)? {
        Who::Known(principal) => principal,
        Who::Refused(reason) => {
            let refused = Answer::refused(action, resource, reason);
            if as_json {
                let mut json = refused.to_json(arns);
                json["will"] = json!([]);
                say_json(&json);
            } else {
                refused.tell();
            }
            return Ok(Outcome::Denied);
        }
    };
    let context = Context {
        source: args.connection.source_ip(),
        ..principal.context(args.at.unwrap_or_else(now))
    };
    let connect = (action == Action::Connect).then_some(ConnectRequest {
        persistent: args.persistent,
        will_topic: will_topic.as_ref(),
    });
    let asked = Context { connect, ..context };
    let answer = Answer::to(&principal, &asked, action, resource);
    let will = will_topic.as_ref().map_or_else(Vec::new, |topic| {
        let needed = [Action::RetainPublish, Action::Publish].into_iter();
        let needed = needed.filter(|action| args.will_retain || *action == Action::Publish);
        needed
            .map(|action| Answer::to(&principal, &context, action, topic.as_str()))
            .collect()
    });
    let denied = [&answer].into_iter().chain(&will).find(|a| !a.is_allowed());
    if as_json {
        let mut json = denied.unwrap_or(&answer).to_json(arns);
        json["will"] = will.iter().map(|answer| answer.to_json(arns)).collect();
        say_json(&json);
    } else {
        answer.tell();
        for answer in &will {
            answer.tell();
        }
        if answer.is_allowed() && denied.is_some() {
            say("So it cannot connect with this will.");
        }
    }
    Ok(match denied {
        None => Outcome::Done,
        Some(_) => Outcome::Denied,
    })
}

/// What becomes of one request.
enum Answer {
    /// The policies decided.
    Decided {
        explanation: Explanation,
        resource: String,
    },
    /// The policies do not matter.
    Refused {
        action: Action,
        resource: String,
        reason: String,
    },
}

impl Answer {
    fn to(principal: &Principal, context: &Context<'_>, action: Action, resource: &str) -> Self {
        let speaks = matches!(action, Action::Publish | Action::RetainPublish);
        if speaks && TopicName::parse(resource).is_ok_and(|topic| is_reserved(&topic)) {
            let reason = "only the gateway itself speaks there, whatever policies allow";
            return Self::refused(action, resource, reason.to_owned());
        }
        Self::Decided {
            explanation: principal.policies.explain(context, action, resource),
            resource: resource.to_owned(),
        }
    }

    fn refused(action: Action, resource: &str, reason: String) -> Self {
        Self::Refused {
            action,
            resource: resource.to_owned(),
            reason,
        }
    }

    fn is_allowed(&self) -> bool {
        match self {
            Self::Decided { explanation, .. } => explanation.decision == Decision::Allowed,
            Self::Refused { .. } => false,
        }
    }

    fn tell(&self) {
        match self {
            Self::Decided {
                explanation,
                resource,
            } => tell(explanation, resource),
            Self::Refused {
                action,
                resource,
                reason,
            } => {
                let kind = action.resource_type();
                say(&format!(
                    "IMPLICIT_DENY: {action} on {kind}/{resource}, {reason}"
                ));
            }
        }
    }

    fn to_json(&self, arns: &ArnIdentity) -> Value {
        match self {
            Self::Decided { explanation, .. } => to_json(explanation),
            Self::Refused {
                action,
                resource,
                reason,
            } => refused(*action, &arns.arn(*action, resource), reason),
        }
    }
}

impl TestArgs {
    fn will_topic(&self, action: Action) -> Result<Option<TopicName>, Failure> {
        let asks = self.persistent || self.will_retain || self.will_topic.is_some();
        if action != Action::Connect && asks {
            let text = "only a connect has `--persistent`, `--will-topic` and `--will-retain`; \
                        remove them";
            return Err(Failure::BadInput(text.to_owned()));
        }
        if self.will_retain && self.will_topic.is_none() {
            let text = "a will needs a topic; add `--will-topic TOPIC`, or remove `--will-retain`";
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
        "statement": statement.map(StatementRef::number),
        "sid": statement.and_then(|statement| statement.sid.as_deref()),
        "reason": null,
    })
}

/// The same where the policies do not matter.
fn refused(action: Action, arn: &str, reason: &str) -> Value {
    let none = json!({ "policies": [] });
    json!({
        "authInfo": { "actionType": action_type(action), "resources": [arn] },
        "allowed": none,
        "denied": { "implicitDeny": none, "explicitDeny": none },
        "authDecision": "IMPLICIT_DENY",
        "missingContextValues": [],
        "policy": null,
        "statement": null,
        "sid": null,
        "reason": reason,
    })
}
