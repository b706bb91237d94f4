//! Devices and local applications: listeners, sessions, admission, the local bus.
//!
//! The only place that knows MQTT packets and rumqttd. A connection is accepted by a
//! [`listener`], proves its certificate in [`tls`], says CONNECT in [`connect`] and is then served
//! by a [`session`], which asks [`admission`] before anything happens. What is refused on the way is
//! told by [`denials`], what becomes of connections by [`lifecycle`]. Sessions of this version live
//! as long as their connection: nothing is queued for a client that is away.

mod admission;
mod bus;
mod census;
mod clients;
mod codec;
pub mod config;
mod connect;
mod counted;
mod denials;
mod handshakes;
mod lifecycle;
mod limits;
mod listener;
#[allow(dead_code)]
mod message;
mod metrics;
mod newcomers;
#[allow(dead_code, reason = "sessions do not ask it yet")]
mod pace;
mod retained;
mod session;
#[allow(dead_code)]
mod sessions;
mod shared;
#[allow(dead_code, reason = "nothing publishes for it yet")]
mod sys;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::Semaphore;

use self::{
    bus::Bus, handshakes::Handshakes, lifecycle::Versions, newcomers::Newcomers,
    retained::Retained, shared::Shared,
};
use crate::{
    clock::ticks,
    defend::Observer,
    identity::{Fleet, Provisioner, SnapshotWatch},
    pipeline,
    traffic::Recorder,
};

pub use clients::Clients;
pub use config::{Config, LifecycleEvents, Listener, PlainIdentity, PlainUnknown};
pub use denials::Denials;
pub use limits::{Limits, OnPublishRate, PublishLimits};
pub use listener::BoundListener;
pub use metrics::Metrics;

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

/// Binds every configured listener, so that an address in use is found before anything runs.
///
/// # Errors
/// The first listener that cannot be bound, or a bus that does not start.
pub async fn bind(
    config: Config,
    neighbours: Neighbours,
    metrics: Metrics,
) -> Result<Vec<BoundListener>, StartError> {
    let bus =
        Bus::start(config.connections_max).map_err(|error| StartError::Bus(Box::new(error)))?;
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
        bus: Arc::new(bus),
        clients: Arc::clone(&neighbours.clients),
        versions: Versions::new(config.connections_max),
        retained: Retained::default(),
        config,
        metrics,
        neighbours,
    });
    let mut bound = Vec::new();
    for listener in &shared.config.listeners {
        bound.push(BoundListener::bind(listener.clone(), Arc::clone(&shared)).await?);
    }
    Ok(bound)
}

/// What an unknown peer says of itself, for the log: no more of it than this.
fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max))
        .unwrap_or(text)
}
