//! `portcullis policy test`: the decision, and the statement that made it.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use portcullis_core::{
    certificate::Certificate,
    identity::{ClientId, Principal, ThingName},
    policy::{Action, Denial, StatementRef},
    topic::{TopicFilter, TopicName},
};
use serde_json::json;

use super::{
    Failure, Outcome,
    outcome::{say, say_json},
    thing::named,
};
use crate::{
    clock::now,
    config,
    identity::{Credential, Snapshot, registry::Status},
};

/// What to ask.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Exit with 0 if it is allowed, 3 if it is denied.
    Test {
        /// The thing that acts.
        #[arg(long)]
        thing: String,
        /// Its client id; the thing's name unless said otherwise.
        #[arg(long, value_name = "ID")]
        client_id: Option<String>,
        /// What it does.
        #[arg(long, value_enum)]
        action: ActionArg,
        /// The topic, or the topic filter of a subscription.
        #[arg(long)]
        topic: Option<String>,
    },
}

/// An action as it is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ActionArg {
    Connect,
    Publish,
    Subscribe,
    Receive,
    RetainPublish,
}

impl From<ActionArg> for Action {
    fn from(action: ActionArg) -> Self {
        match action {
            ActionArg::Connect => Self::Connect,
            ActionArg::Publish => Self::Publish,
            ActionArg::Subscribe => Self::Subscribe,
            ActionArg::Receive => Self::Receive,
            ActionArg::RetainPublish => Self::RetainPublish,
        }
    }
}

pub(super) fn policy(
    command: &PolicyCommand,
    config: &Path,
    as_json: bool,
) -> Result<Outcome, Failure> {
    let PolicyCommand::Test {
        thing,
        client_id,
        action,
        topic,
    } = command;
    let thing = named(thing, ThingName::parse)?;
    let client_id = client_id.as_deref().unwrap_or(thing.as_str());
    let client_id = ClientId::parse(client_id)
        .map_err(|error| Failure::BadInput(format!("`{client_id}` is no client id: {error}")))?;
    let action = Action::from(*action);
    let resource = match (action, topic) {
        (Action::Connect, None) => client_id.as_str(),
        (Action::Connect, Some(_)) => {
            let text = "a connect has no topic; remove `--topic`";
            return Err(Failure::BadInput(text.to_owned()));
        }
        (_, Some(topic)) => {
            must_be_topic(action, topic)?;
            topic
        }
        (_, None) => {
            let text = format!("{action} needs a topic; add `--topic TOPIC`");
            return Err(Failure::BadInput(text));
        }
    };
    let snapshot = config::load(config).map_err(Failure::Mistakes)?.snapshot;
    let Some(principal) = authenticated(&snapshot, &thing, &client_id)? else {
        not_active(&thing, action, resource, as_json);
        return Ok(Outcome::Denied);
    };
    let context = principal.context(now());
    let decision = principal.policies.decide(&context, action, resource);
    let (decision, statement) = match &decision {
        Ok(permit) => ("ALLOWED", Some(permit.statement())),
        Err(Denial::Explicit(statement)) => ("EXPLICIT_DENY", Some(statement)),
        Err(Denial::Implicit) => ("IMPLICIT_DENY", None),
    };
    let arn = arn(action, resource);
    if as_json {
        say_json(&json!({
            "authInfo": { "actionType": action.name(), "resources": [arn] },
            "authDecision": decision,
            "policy": statement.map(|statement| &*statement.policy),
            "statement": statement.map(|statement| statement.index),
            "sid": statement.and_then(|statement| statement.sid.as_deref()),
        }));
    } else {
        let by = statement.map_or_else(
            || "no statement allows it".to_owned(),
            |statement| format!("by {}", describe(statement)),
        );
        say(&format!("{decision}: {action} on {arn}, {by}"));
    }
    Ok(if decision == "ALLOWED" {
        Outcome::Done
    } else {
        Outcome::Denied
    })
}

fn arn(action: Action, resource: &str) -> String {
    format!("{}/{resource}", action.resource_type())
}

/// What a device could write there: anything else the gateway refuses before it asks the policies.
fn must_be_topic(action: Action, topic: &str) -> Result<(), Failure> {
    let (kind, error) = match action {
        Action::Subscribe => ("topic filter", TopicFilter::parse(topic).err()),
        _ => ("topic", TopicName::parse(topic).err()),
    };
    match error {
        Some(error) => {
            let text = format!("`{topic}` is no {kind}: {error}; correct `--topic`");
            Err(Failure::BadInput(text))
        }
        None => Ok(()),
    }
}

/// The thing as it would connect: with its first active certificate, or without any if it never had
/// one. `None` if it has certificates, none of them active.
fn authenticated(
    snapshot: &Snapshot,
    thing: &ThingName,
    client_id: &ClientId,
) -> Result<Option<Principal>, Failure> {
    let certificates = snapshot.registry().certificates.iter();
    let mut its = certificates
        .filter(|c| c.thing.as_ref() == Some(thing))
        .peekable();
    let has_any = its.peek().is_some();
    let certificate;
    let credential = match its.find(|c| c.status == Status::Active) {
        Some(listed) => {
            certificate = Arc::new(Certificate::unseen(listed.id));
            Credential::certificate(&certificate)
        }
        None if has_any => return Ok(None),
        None => Credential::Plain {
            thing: Some(thing),
            unknown_policy: None,
        },
    };
    snapshot
        .authenticate(&credential, client_id, Ipv4Addr::LOCALHOST.into())
        .map(Some)
        .map_err(|_| Failure::BadInput(format!("the registry has no thing `{thing}`")))
}

/// Says that the policies do not matter.
fn not_active(thing: &ThingName, action: Action, resource: &str, as_json: bool) {
    let arn = arn(action, resource);
    let reason = format!("no certificate of `{thing}` is active, so it cannot connect");
    if as_json {
        say_json(&json!({
            "authInfo": { "actionType": action.name(), "resources": [arn] },
            "authDecision": "IMPLICIT_DENY",
            "reason": reason,
        }));
    } else {
        say(&format!("IMPLICIT_DENY: {action} on {arn}, {reason}"));
    }
}

fn describe(statement: &StatementRef) -> String {
    let sid = statement.sid.as_ref();
    let sid = sid.map_or_else(String::new, |sid| format!(" (`{sid}`)"));
    format!(
        "statement {}{sid} of policies/{}.json",
        statement.index + 1,
        statement.policy
    )
}
