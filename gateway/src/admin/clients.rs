//! `/api/v1/clients`: who is connected; and `/api/v1/clients/ID/disconnect`, which sends one away.
//!
//! The list comes in pages: `?after=ID` asks for what is behind that client id. Members are added, not
//! renamed. What is asked of the broker goes through [`Clients`]: the two do not know each other.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, Path, RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use portcullis_core::limits::CLIENTS_PER_PAGE;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::{Seen, guard};

/// What an operator may say of why a client is sent away, in bytes.
pub const REASON_BYTES_MAX: usize = 256;

/// The connected clients, for whoever asks and whoever sends one away.
#[derive(Clone)]
pub struct Clients {
    list: Arc<List>,
    kick: Arc<Kick>,
}

type List = dyn Fn(Option<&str>, usize) -> Value + Send + Sync;
type Kick = dyn Fn(&str, Option<&str>) -> bool + Send + Sync;

impl Clients {
    /// `list` has so many clients behind a client id, `kick` sends one away for a reason if it is
    /// there.
    pub fn new(
        list: impl Fn(Option<&str>, usize) -> Value + Send + Sync + 'static,
        kick: impl Fn(&str, Option<&str>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            list: Arc::new(list),
            kick: Arc::new(kick),
        }
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

/// What may stand in the body of a disconnect.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    reason: Option<String>,
}

pub(super) async fn list(State(seen): State<Seen>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let after = match query.as_deref().map(|query| query.strip_prefix("after=")) {
        None => None,
        Some(encoded) => match encoded.and_then(decoded) {
            Some(after) => Some(after),
            None => return failed(StatusCode::BAD_REQUEST, "ask with `?after=CLIENT_ID`"),
        },
    };
    let page = (seen.clients.list)(after.as_deref(), CLIENTS_PER_PAGE);
    (StatusCode::OK, Json(page))
}

pub(super) async fn disconnect(
    State(seen): State<Seen>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(client_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    if let Err(why) = guard::check(&headers, peer.ip(), seen.address.ip()) {
        info!(%peer, why, "A request to the admin listener was refused.");
        return failed(StatusCode::FORBIDDEN, why);
    }
    let asked = if body.is_empty() {
        Some(Asked::default())
    } else {
        serde_json::from_slice(&body).ok()
    };
    let Some(Asked { reason }) = asked else {
        let why = "the body must be empty or `{\"reason\": \"…\"}`";
        return failed(StatusCode::BAD_REQUEST, why);
    };
    if reason.as_deref().is_some_and(|reason| !is_fit(reason)) {
        let why = "the reason is too long, or has control characters";
        return failed(StatusCode::BAD_REQUEST, why);
    }
    if !(seen.clients.kick)(&client_id, reason.as_deref()) {
        return failed(StatusCode::NOT_FOUND, "no such client is connected");
    }
    info!(client = client_id, reason, %peer, "An operator disconnects a client.");
    (StatusCode::OK, Json(json!({ "disconnected": client_id })))
}

fn failed(status: StatusCode, why: &str) -> (StatusCode, Json<Value>) {
    (status, Json(json!({ "error": why })))
}

fn is_fit(reason: &str) -> bool {
    reason.len() <= REASON_BYTES_MAX && !reason.chars().any(char::is_control)
}

/// What a percent-encoded text stands for.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let byte = match byte {
            b'%' => u8::try_from(digit()? * 16 + digit()?).ok()?,
            byte => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        assert_eq!(decoded("a%20b%C3%A9").as_deref(), Some("a bé"));
        for broken in ["%", "%4", "%zz", "%FF"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_reason_must_fit_into_a_line_of_the_log() {
        assert!(is_fit("noisy"));
        assert!(!is_fit("a\nb"));
        assert!(!is_fit(&"a".repeat(REASON_BYTES_MAX + 1)));
    }
}
