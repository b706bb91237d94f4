//! What operators and their tools ask over HTTP: `/metrics`, `/livez`, `/readyz`, `/api/v1/status`,
//! `/api/v1/things/NAME`, `/api/v1/clients`.
//!
//! Without authentication in this version: bind it to the management network. The one thing that
//! changes something, `POST /api/v1/clients/ID/disconnect`, is for this machine alone (see [`guard`]).

mod clients;
pub mod config;
mod guard;
mod status;
mod things;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{identity::Fleet, supervisor::TaskResult, telemetry::Readiness};

pub use clients::{Clients, REASON_BYTES_MAX};
pub use config::Config;
pub use guard::HEADER;
pub use status::{Source, Sources};

/// Where the status is.
pub const STATUS_PATH: &str = "/api/v1/status";
/// Below it, each thing has its name.
pub const THINGS_PATH: &str = "/api/v1/things";
/// Who is connected; below it, each client id has its `disconnect`.
pub const CLIENTS_PATH: &str = "/api/v1/clients";

/// What is asked for fits into it.
const BODY_BYTES_MAX: usize = 4096;

/// How long a request that is under way at the stop may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The admin listener with its socket.
#[derive(Debug)]
pub struct Admin {
    socket: TcpListener,
    address: SocketAddr,
    seen: Seen,
}

#[derive(Clone, Debug)]
struct Seen {
    registry: Registry,
    readiness: Readiness,
    address: SocketAddr,
    sources: Sources,
    clients: Clients,
    fleet: Fleet,
    started: Instant,
}

/// The configured address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

impl Admin {
    /// Binds the listener. `sources` are for the status; `clients` are those that
    /// are connected; `fleet` knows the things.
    ///
    /// # Errors
    /// [`BindError`] if another process has the address.
    pub async fn bind(
        config: &Config,
        registry: Registry,
        readiness: Readiness,
        sources: Sources,
        clients: Clients,
        fleet: Fleet,
    ) -> Result<Self, BindError> {
        let bind = async {
            let socket = TcpListener::bind(config.address).await?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, address) = bind.await.map_err(|source| BindError {
            address: config.address,
            source,
        })?;
        Ok(Self {
            socket,
            address,
            seen: Seen {
                registry,
                readiness,
                address,
                sources,
                clients,
                fleet,
                started: Instant::now(),
            },
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    pub async fn run(self, stop: CancellationToken) -> TaskResult {
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route(STATUS_PATH, get(status))
            .route(&format!("{THINGS_PATH}/:name"), get(thing))
            .route(CLIENTS_PATH, get(clients::list))
            .route(
                &format!("{CLIENTS_PATH}/:id/disconnect"),
                post(clients::disconnect),
            )
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self.seen)
            .into_make_service_with_connect_info::<SocketAddr>();
        let serve =
            axum::serve(self.socket, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(GOODBYE).await;
        };
        tokio::select! {
            served = serve => served?,
            // Somebody has asked half a question and waits.
            () = overdue => {}
        }
        Ok(())
    }
}

async fn metrics(State(seen): State<Seen>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&seen.registry.gather()) {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            format!("{error}\n"),
        ),
    }
}

async fn status(State(seen): State<Seen>) -> impl IntoResponse {
    Json(status::document(
        &seen.registry,
        &seen.readiness,
        seen.started,
        &seen.sources,
    ))
}

async fn thing(State(seen): State<Seen>, Path(name): Path<String>) -> impl IntoResponse {
    match things::document(&seen.fleet, &name) {
        Some(document) => (StatusCode::OK, Json(document)),
        None => {
            let error = "the registry in force has no such thing";
            let document = serde_json::json!({ "error": error });
            (StatusCode::NOT_FOUND, Json(document))
        }
    }
}

/// 200 once everything is ready, else 503 with the parts that are not; then the notes, a line each.
async fn readyz(State(seen): State<Seen>) -> impl IntoResponse {
    let waiting = seen.readiness.waiting();
    let (status, mut body) = if waiting.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for: {}\n", waiting.join(", ")),
        )
    };
    for note in seen.readiness.notes() {
        body += &note;
        body.push('\n');
    }
    (status, body)
}
