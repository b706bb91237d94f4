//! `portcullis policy test`: the decision, and the statement that made it.

use std::{net::Ipv4Addr, path::Path};

use portcullis_core::{
    identity::{ClientId, ThingName},
    policy::{Action, Context, Denial, StatementRef},
};
use serde_json::json;

use super::{
    Failure, Outcome,
    outcome::{say, say_json},
    thing::named,
};
use crate::{
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
        (_, Some(topic)) => topic,
        (_, None) => {
            let text = format!("{action} needs a topic; add `--topic TOPIC`");
            return Err(Failure::BadInput(text));
        }
    };
    let snapshot = config::load(config).map_err(Failure::Mistakes)?.snapshot;
    let principal = authenticated(&snapshot, &thing, &client_id)?;
    let context = Context {
        client_id: &client_id,
        thing: principal.thing.as_deref(),
        certificate_id: principal.certificate_id.as_ref(),
    };
    let decision = principal.policies.decide(&context, action, resource);
    let (decision, statement) = match &decision {
        Ok(permit) => ("ALLOWED", Some(permit.statement())),
        Err(Denial::Explicit(statement)) => ("EXPLICIT_DENY", Some(statement)),
        Err(Denial::Implicit) => ("IMPLICIT_DENY", None),
    };
    let arn = format!("{}/{resource}", action.resource_type());
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

/// The thing as it would connect: with its first active certificate, or without any.
fn authenticated(
    snapshot: &Snapshot,
    thing: &ThingName,
    client_id: &ClientId,
) -> Result<portcullis_core::identity::Principal, Failure> {
    let certificate = snapshot
        .registry()
        .certificates
        .iter()
        .find(|c| c.thing.as_ref() == Some(thing) && c.status == Status::Active);
    let credential = match certificate {
        Some(certificate) => Credential::Certificate(certificate.id),
        None => Credential::Plain {
            thing: Some(thing),
            unknown_policy: None,
        },
    };
    snapshot
        .authenticate(&credential, client_id, Ipv4Addr::LOCALHOST.into())
        .map_err(|_| Failure::BadInput(format!("the registry has no thing `{thing}`")))
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
