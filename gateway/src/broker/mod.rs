//! Devices and local applications: listeners, sessions, admission, the local bus.
//!
//! The only place that knows MQTT packets and rumqttd. A connection is accepted by a
//! [`listener`], proves its certificate in [`tls`], says CONNECT in [`connect`] and is then served
//! by a [`client`], which asks [`admission`] before anything happens. What is refused on the way is
//! told by [`denials`], what becomes of connections by [`lifecycle`]. What outlives a connection (its
//! subscriptions, what waits, what is in flight) and what is retained is in [`sessions`]; the
//! [`bus`] carries what may be lost.

mod admission;
mod bus;
mod census;
mod client;
mod clients;
mod codec;
pub mod config;
mod connect;
mod counted;
mod denials;
#[cfg(test)]
#[path = "../../fuzz/src/broker/packets.rs"]
mod fuzzed;
mod handshakes;
mod lifecycle;
mod limits;
mod listener;
mod message;
mod metrics;
mod newcomers;
mod pace;
mod sessions;
mod shared;
mod sys;
mod text;
mod tls;
mod websocket;
mod wills;

use std::{net::SocketAddr, path::Path, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};

use self::{
    bus::Bus, handshakes::Handshakes, lifecycle::Versions, newcomers::Newcomers, pace::Paces,
    sessions::Sessions, shared::Shared, sys::Figures, text::cut,
};
use crate::{
    clock::ticks,
    defend::Observer,
    identity::{Fleet, Provisioner, SnapshotWatch},
    pipeline,
    traffic::Recorder,
    wal,
};

pub use clients::Clients;
pub use config::{Config, LifecycleEvents, Listener, PlainIdentity, PlainUnknown};
pub use denials::Denials;
pub use limits::{Limits, OnPublishRate, PublishLimits};
pub use listener::BoundListener;
pub use metrics::Metrics;
pub use sys::Sys;
pub use wills::Keeper;

/// The broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the address, or it is none of this machine's.
    #[error("failed to listen on {address}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The session log cannot be read.
    #[error("failed to read the sessions back")]
    Sessions(#[source] wal::OpenError),
    /// The router did not start.
    #[error("failed to start the local bus")]
    Bus(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the broker works with.
#[derive(Debug)]
pub struct Neighbours {
    /// Who may connect as what.
    pub identity: SnapshotWatch,
    /// Which dynamic groups things are in.
    pub fleet: Fleet,
    /// Registers devices that come with certificates of their own, or with a claim.
    pub provisioner: Provisioner,
    /// Takes events.
    pub pipeline: pipeline::Handle,
    /// Takes what devices do.
    pub observer: Observer,
    /// Takes what is allowed.
    pub recorder: Recorder,
    /// Takes what is refused.
    pub denials: Denials,
    /// Who is connected, for operators as well.
    pub clients: Arc<Clients>,
}

/// The broker, bound and not running yet: its parts run on their own.
#[derive(Debug)]
pub struct Broker {
    /// Where devices connect.
    pub listeners: Vec<BoundListener>,
    /// Looks after sessions.
    pub keeper: Keeper,
    /// Tells `$SYS/broker/…`, if it is to be told.
    pub sys: Option<Sys>,
    /// Writes the session log, on a thread.
    pub log: wal::Writer,
}

/// Reads the sessions back from `sessions_dir` and binds every configured listener, so that an address
/// in use is found before anything runs.
///
/// # Errors
/// The first listener that cannot be bound, a log that cannot be read, or a bus that does not start.
pub async fn bind(
    config: Config,
    neighbours: Neighbours,
    sessions_dir: &Path,
    metrics: Metrics,
    log: wal::Metrics,
) -> Result<Broker, StartError> {
    let bus =
        Bus::start(config.connections_max).map_err(|error| StartError::Bus(Box::new(error)))?;
    let dir = sessions_dir.to_owned();
    let bounds = config.limits.of_sessions();
    let (sessions, log) = spawn_blocking(move || Sessions::open(&dir, bounds, log))
        .await
        .map_err(|error| StartError::Bus(Box::new(error)))?
        .map_err(StartError::Sessions)?;
    let shared = Arc::new(Shared {
        connections: Arc::new(Semaphore::new(config.connections_max)),
        newcomers: Arc::new(Newcomers::new(
            config.connecting_per_address_max,
            config.connections_max,
        )),
        handshakes: Handshakes::new(
            config.handshakes_max,
            config.limits.handshakes_per_address_max,
            config.limits.handshakes_per_address,
            ticks(),
        ),
        of_address: Arc::default(),
        bus: Arc::new(bus.counting(metrics.bus.clone())),
        clients: Arc::clone(&neighbours.clients),
        versions: Versions::new(config.connections_max),
        sessions: Arc::new(sessions),
        paces: Paces::default(),
        figures: Figures::default(),
        config,
        metrics,
        neighbours,
    });
    let mut listeners = Vec::new();
    for listener in &shared.config.listeners {
        listeners.push(BoundListener::bind(listener.clone(), Arc::clone(&shared)).await?);
    }
    Ok(Broker {
        listeners,
        sys: Sys::of(&shared),
        keeper: Keeper::new(shared),
        log,
    })
}
