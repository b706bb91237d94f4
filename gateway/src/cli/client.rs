//! `portcullis client`: who is connected to the running gateway, and sending one away.

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};

use super::{
    Failure, Outcome,
    ask::{self, encoded},
    outcome::{escaped, say, say_json},
};
use crate::admin;

/// What to do with connected clients.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ClientCommand {
    /// List who is connected.
    List,
    /// Disconnect a client. It may come again: `thing quarantine` and `cert deactivate` shut it out.
    Kick {
        /// Its client id.
        client: String,
        /// Why, for the gateway's log.
        #[arg(long)]
        reason: Option<String>,
    },
}

pub(super) fn client(
    command: &ClientCommand,
    file: &Path,
    as_json: bool,
) -> Result<Outcome, Failure> {
    let address = ask::address(file)?;
    match command {
        ClientCommand::List => list(address, as_json),
        ClientCommand::Kick { client, reason } => kick(address, client, reason.as_deref(), as_json),
    }
}

fn list(address: SocketAddr, as_json: bool) -> Result<Outcome, Failure> {
    let mut clients = Vec::new();
    let mut next = None::<String>;
    loop {
        let path = match &next {
            None => admin::CLIENTS_PATH.to_owned(),
            Some(after) => format!("{}?after={}", admin::CLIENTS_PATH, encoded(after)),
        };
        let mut page = ask::ask(address, &path)
            .map_err(|error| Failure::other(format!("no gateway answers at {address}"), error))?;
        if let Some(more) = page["clients"].as_array_mut() {
            clients.append(more);
        }
        // Each page is behind the one before, so this ends.
        match page["next"].as_str() {
            Some(after) if next.as_deref().is_none_or(|before| before < after) => {
                next = Some(after.to_owned());
            }
            _ => break,
        }
    }
    if as_json {
        say_json(&json!({ "clients": clients }));
    } else {
        clients.iter().map(line).for_each(|line| say(&line));
    }
    Ok(Outcome::Done)
}

/// A client for people.
fn line(client: &Value) -> String {
    let text = |name: &str| escaped(client[name].as_str().unwrap_or("-")).into_owned();
    format!(
        "{}  thing {}  {}  MQTT {}  since {}",
        text("clientId"),
        text("thingName"),
        text("address"),
        text("protocol"),
        text("since")
    )
}

fn kick(
    address: SocketAddr,
    client: &str,
    reason: Option<&str>,
    as_json: bool,
) -> Result<Outcome, Failure> {
    let path = format!("{}/{}/disconnect", admin::CLIENTS_PATH, encoded(client));
    let body = reason.map_or(Value::Null, |reason| json!({ "reason": reason }));
    let (code, answer) = ask::tell(address, &path, &body)
        .map_err(|error| Failure::other(format!("no gateway answers at {address}"), error))?;
    if code != 200 {
        let why = answer["error"].as_str().unwrap_or("the gateway refused it");
        return Err(Failure::BadInput(format!("`{client}`: {why}")));
    }
    if as_json {
        say_json(&answer);
    } else {
        say(&format!("Disconnected `{}`.", escaped(client)));
    }
    Ok(Outcome::Done)
}
