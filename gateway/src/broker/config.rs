//! Settings of the broker and its listeners.

use std::{net::SocketAddr, time::Duration};

use portcullis_core::identity::ThingName;

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Connections in all.
    pub connections_max: usize,
    /// TLS handshakes under way at once.
    pub handshakes_max: usize,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time from the accepted connection to a complete CONNECT.
    pub connect_timeout: Duration,
    /// Largest MQTT packet.
    pub packet_bytes_max: usize,
    /// What happens to a client that publishes where it may not.
    pub on_publish_denied: OnPublishDenied,
}

/// Where devices connect.
#[derive(Clone, Debug)]
pub enum Listener {
    /// TLS with mandatory client certificates.
    Tls {
        /// The address to bind.
        address: SocketAddr,
    },
    /// No TLS; loopback addresses only.
    Plain {
        /// The address to bind.
        address: SocketAddr,
        /// Who the clients are.
        identity: PlainIdentity,
    },
}

/// Who a client on a plain listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainIdentity {
    /// Every client is this thing; `None`: the thing is the one named like the client id.
    pub thing: Option<ThingName>,
    /// What happens to client ids that name no thing.
    pub unknown: PlainUnknown,
}

/// What happens to client ids that name no thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainUnknown {
    /// CONNECT is refused.
    Refuse,
    /// They are unregistered devices under this policy.
    Allow {
        /// Name of the policy.
        policy: String,
    },
}

/// What happens to a client that publishes where it may not (specification A.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPublishDenied {
    /// Close the connection, as AWS does.
    Disconnect,
    /// MQTT 5: PUBACK 0x87; MQTT 3.1.1: disconnect.
    PubackError,
    /// Acknowledge and forget.
    DropAndAck,
}
