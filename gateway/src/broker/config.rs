//! Settings of the broker and its listeners.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use portcullis_core::{
    identity::{OnPublishDenied, ThingName},
    limits::{
        CLIENT_ID_BYTES_MAX, CONNECT_TIMEOUT, CONNECTING_PER_ADDRESS_MAX,
        CONNECTING_PER_ADDRESS_MIN, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_BURST,
        HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, HANDSHAKES_PER_SECOND, KEEP_ALIVE_MAX_SECS,
        ORIGINS_MAX, PACKET_BYTES_MAX, PROPERTY_BYTES_MAX, SESSION_EXPIRY_MAX_SECS,
        SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_MESSAGES_MAX, SESSIONS_MAX,
        SUBSCRIPTIONS_PER_SESSION_MAX, SYS_INTERVAL, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX,
    },
};
use serde::Deserialize;

use super::limits::{Limits, OnPublishRate};
use crate::{
    document::{Document, Section},
    identity::Registry,
};

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Connections in all.
    pub connections_max: usize,
    /// Those of one address whose CONNECT has not been accepted yet.
    pub connecting_per_address_max: usize,
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
    /// Where lifecycle events go.
    pub lifecycle_events: LifecycleEvents,
    /// Longest time that a session lives without a connection.
    pub session_expiry_max_secs: u32,
    /// Longest keep-alive that MQTT 5 clients may have, in seconds; 0: any.
    pub keep_alive_max_secs: u16,
    /// Refuse clients that ask in TLS for a host that the server certificate does not name.
    pub check_sni: bool,
    /// What one client, one certificate and one address may have.
    pub limits: Limits,
}

/// Where lifecycle events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LifecycleEvents {
    /// To local subscribers and into the event stream.
    #[default]
    All,
    /// To local subscribers.
    Local,
    /// Nowhere.
    Off,
}

/// Where devices connect.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// As [`Self::Tls`], within WebSockets.
    Wss {
        /// The address to bind.
        address: SocketAddr,
        /// Pages that may connect from a browser, besides those of the listener's own origin.
        origins: Vec<String>,
    },
    /// As [`Self::Plain`], within WebSockets.
    Ws {
        /// The address to bind.
        address: SocketAddr,
        /// Who the clients are.
        identity: PlainIdentity,
        /// Pages that may connect from a browser, besides those of this machine.
        origins: Vec<String>,
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

/// `[broker]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct BrokerToml {
    connections_max: usize,
    connecting_per_address_max: usize,
    handshakes_max: usize,
    handshake_timeout_ms: u64,
    connect_timeout_ms: u64,
    packet_bytes_max: usize,
    on_publish_denied: OnPublishDenied,
    lifecycle_events: LifecycleEvents,
    session_expiry_max_s: u32,
    keep_alive_max_s: u16,
    check_sni: bool,
    pub(super) connections_per_address_max: usize,
    pub(super) connections_per_certificate_max: usize,
    pub(super) handshakes_per_address_max: usize,
    pub(super) handshakes_per_second: u64,
    pub(super) handshakes_burst: u64,
    pub(super) subscriptions_per_client_max: usize,
    pub(super) topic_bytes_max: usize,
    pub(super) topic_levels_max: usize,
    pub(super) client_id_bytes_max: usize,
    pub(super) property_bytes_max: usize,
    pub(super) publish_rate: u64,
    pub(super) publish_burst: u64,
    pub(super) publish_bytes_per_second: u64,
    pub(super) publish_bytes_burst: u64,
    pub(super) on_publish_rate: OnPublishRate,
    pub(super) sessions_max: usize,
    pub(super) queue_messages_max: usize,
    pub(super) queue_bytes_max: usize,
    pub(super) sys_interval_ms: u64,
}

impl Default for BrokerToml {
    fn default() -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            connections_max: CONNECTIONS_MAX,
            connecting_per_address_max: CONNECTING_PER_ADDRESS_MAX,
            handshakes_max: HANDSHAKES_MAX,
            handshake_timeout_ms: millis(HANDSHAKE_TIMEOUT),
            connect_timeout_ms: millis(CONNECT_TIMEOUT),
            packet_bytes_max: PACKET_BYTES_MAX,
            on_publish_denied: OnPublishDenied::default(),
            lifecycle_events: LifecycleEvents::default(),
            session_expiry_max_s: SESSION_EXPIRY_MAX_SECS,
            keep_alive_max_s: KEEP_ALIVE_MAX_SECS,
            check_sni: true,
            connections_per_address_max: 0,
            connections_per_certificate_max: 0,
            handshakes_per_address_max: HANDSHAKES_PER_ADDRESS_MAX,
            handshakes_per_second: HANDSHAKES_PER_SECOND,
            handshakes_burst: HANDSHAKES_BURST,
            subscriptions_per_client_max: SUBSCRIPTIONS_PER_SESSION_MAX,
            topic_bytes_max: TOPIC_BYTES_MAX,
            topic_levels_max: TOPIC_LEVELS_MAX,
            client_id_bytes_max: CLIENT_ID_BYTES_MAX,
            property_bytes_max: PROPERTY_BYTES_MAX,
            publish_rate: 0,
            publish_burst: 0,
            publish_bytes_per_second: 0,
            publish_bytes_burst: 0,
            on_publish_rate: OnPublishRate::default(),
            sessions_max: SESSIONS_MAX,
            queue_messages_max: SESSION_QUEUE_MESSAGES_MAX,
            queue_bytes_max: SESSION_QUEUE_BYTES_MAX,
            sys_interval_ms: millis(SYS_INTERVAL),
        }
    }
}

/// `[[listener]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ListenerToml {
    kind: KindToml,
    address: String,
    plain_thing: Option<String>,
    plain_unknown: Option<PlainUnknownToml>,
    plain_policy: Option<String>,
    origins: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindToml {
    Tls,
    Plain,
    Wss,
    Ws,
}

impl KindToml {
    fn is_plain(self) -> bool {
        matches!(self, Self::Plain | Self::Ws)
    }

    fn is_websocket(self) -> bool {
        matches!(self, Self::Wss | Self::Ws)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PlainUnknownToml {
    Refuse,
    Allow,
}

impl Config {
    /// Reads `[broker]` and every `[[listener]]`; `registry` and `policies` say what exists.
    pub(crate) fn read(
        document: &mut Document<'_>,
        registry: &Registry,
        policies: &BTreeSet<String>,
    ) -> Self {
        let listeners = Listener::read_all(document, registry, policies);
        let section = &mut document.section("broker");
        let toml: BrokerToml = section.read().unwrap_or_default();
        let handshake_ms = section.within(
            "handshake-timeout-ms",
            toml.handshake_timeout_ms,
            100,
            600_000,
        );
        let connect_ms =
            section.within("connect-timeout-ms", toml.connect_timeout_ms, 100, 600_000);
        Self {
            listeners,
            connections_max: section.within("connections-max", toml.connections_max, 1, 1_000_000),
            connecting_per_address_max: section.within(
                "connecting-per-address-max",
                toml.connecting_per_address_max,
                CONNECTING_PER_ADDRESS_MIN,
                1_000_000,
            ),
            handshakes_max: section.within("handshakes-max", toml.handshakes_max, 1, 4096),
            handshake_timeout: Duration::from_millis(handshake_ms),
            connect_timeout: Duration::from_millis(connect_ms),
            packet_bytes_max: section.within(
                "packet-bytes-max",
                toml.packet_bytes_max,
                1024,
                PACKET_BYTES_MAX,
            ),
            on_publish_denied: toml.on_publish_denied,
            lifecycle_events: toml.lifecycle_events,
            session_expiry_max_secs: section.within(
                "session-expiry-max-s",
                toml.session_expiry_max_s,
                0,
                u32::MAX,
            ),
            keep_alive_max_secs: toml.keep_alive_max_s,
            check_sni: toml.check_sni,
            limits: Limits::read(section, &toml),
        }
    }

    /// The policies of unknown clients of plain listeners.
    pub fn plain_policies(&self) -> Vec<String> {
        let policies = self.listeners.iter().filter_map(|listener| match listener {
            Listener::Plain { identity, .. } | Listener::Ws { identity, .. } => {
                match &identity.unknown {
                    PlainUnknown::Allow { policy } => Some(policy.clone()),
                    PlainUnknown::Refuse => None,
                }
            }
            _ => None,
        });
        policies.collect()
    }
}

impl Listener {
    /// The address to bind.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Tls { address }
            | Self::Plain { address, .. }
            | Self::Wss { address, .. }
            | Self::Ws { address, .. } => *address,
        }
    }

    /// Of a listener for WebSockets: the pages that may connect besides its own.
    pub fn origins(&self) -> Option<&[String]> {
        match self {
            Self::Wss { origins, .. } | Self::Ws { origins, .. } => Some(origins),
            Self::Tls { .. } | Self::Plain { .. } => None,
        }
    }

    fn read_all(
        document: &mut Document<'_>,
        registry: &Registry,
        policies: &BTreeSet<String>,
    ) -> Vec<Self> {
        let count = document.section_count("listener");
        if count == 0 && !document.has("listener") {
            document.problem(
                None,
                "there is no `[[listener]]`, so no device could connect",
                "add `[[listener]]` with `kind = \"tls\"` and `address = \"0.0.0.0:8883\"`",
            );
        }
        let mut listeners: Vec<Self> = Vec::new();
        for index in 0..count {
            let mut section = document.section_at("listener", index);
            let Some(listener) = Self::read(&mut section, registry, policies) else {
                continue;
            };
            let address = listener.address();
            if let Some(other) = listeners
                .iter()
                .find(|other| overlap(other.address(), address))
            {
                let message = format!("the address is that of the listener {}", other.address());
                section.problem("address", message, "choose another port, or remove it");
            }
            listeners.push(listener);
        }
        listeners
    }

    fn read(
        section: &mut Section<'_, '_>,
        registry: &Registry,
        policies: &BTreeSet<String>,
    ) -> Option<Self> {
        let toml: ListenerToml = section.read()?;
        let remedy = "write an IP address and a port, such as \"0.0.0.0:8883\"";
        let address = section.parsed("address", &toml.address, str::parse, remedy);
        let origins = read_origins(section, &toml);
        if !toml.kind.is_plain() {
            for (key, is_set) in [
                ("plain-thing", toml.plain_thing.is_some()),
                ("plain-unknown", toml.plain_unknown.is_some()),
                ("plain-policy", toml.plain_policy.is_some()),
            ] {
                if is_set {
                    let message = format!("`{key}` is for plain listeners");
                    section.problem(key, message, "remove it");
                }
            }
            let address = address?;
            return Some(match toml.kind.is_websocket() {
                true => Self::Wss { address, origins },
                false => Self::Tls { address },
            });
        }
        let identity = PlainIdentity::read(section, &toml, registry, policies);
        let address: SocketAddr = address?;
        if !address.ip().is_loopback() {
            section.problem(
                "address",
                format!("a plain listener on {address}: anyone on the network could be any thing"),
                format!(
                    "write \"127.0.0.1:{}\", or `kind = \"{}\"`",
                    address.port(),
                    if toml.kind.is_websocket() {
                        "wss"
                    } else {
                        "tls"
                    }
                ),
            );
        }
        Some(match toml.kind.is_websocket() {
            true => Self::Ws {
                address,
                identity,
                origins,
            },
            false => Self::Plain { address, identity },
        })
    }
}

fn read_origins(section: &mut Section<'_, '_>, toml: &ListenerToml) -> Vec<String> {
    let Some(origins) = toml.origins.clone() else {
        return Vec::new();
    };
    if !toml.kind.is_websocket() {
        let message = "`origins` is for listeners for WebSockets";
        section.problem("origins", message, "remove it");
    }
    if origins.len() > ORIGINS_MAX {
        let message = format!("{} origins, and {ORIGINS_MAX} is the limit", origins.len());
        section.problem("origins", message, "remove some");
    }
    for origin in &origins {
        let is_origin = origin.split_once("://").is_some_and(|(scheme, authority)| {
            !scheme.is_empty() && !authority.is_empty() && !authority.contains(['/', '*', ' '])
        });
        if !is_origin {
            let message = format!("`{origin}` is no origin");
            let remedy = "write what a browser sends, such as \"https://dashboard.example:8443\"";
            section.problem("origins", message, remedy);
        }
    }
    origins
}

impl PlainIdentity {
    fn read(
        section: &mut Section<'_, '_>,
        toml: &ListenerToml,
        registry: &Registry,
        policies: &BTreeSet<String>,
    ) -> Self {
        let mut thing = None;
        if let Some(name) = &toml.plain_thing {
            thing = registry.thing(name).map(|found| found.thing.name.clone());
            if thing.is_none() {
                let message = format!("the thing `{name}` does not exist");
                section.problem("plain-thing", message, "add it with `portcullis thing add`");
            }
        }
        let unknown = match (toml.plain_unknown, &toml.plain_policy) {
            (Some(PlainUnknownToml::Allow), Some(policy)) => {
                if !policies.contains(policy) {
                    let message = format!("the policy `{policy}` does not exist");
                    let remedy = format!("create `policies/{policy}.json`");
                    section.problem("plain-policy", message, remedy);
                }
                PlainUnknown::Allow {
                    policy: policy.clone(),
                }
            }
            (Some(PlainUnknownToml::Allow), None) => {
                section.problem(
                    "plain-unknown",
                    "unknown clients are allowed under no policy",
                    "add `plain-policy = \"NAME\"`, or write \"refuse\"",
                );
                PlainUnknown::Refuse
            }
            (_, Some(_)) => {
                section.problem(
                    "plain-policy",
                    "`plain-policy` has no effect while unknown clients are refused",
                    "remove it, or add `plain-unknown = \"allow\"`",
                );
                PlainUnknown::Refuse
            }
            (_, None) => PlainUnknown::Refuse,
        };
        Self { thing, unknown }
    }
}

/// Whether both addresses cannot be bound at once. Port 0 is any free port.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.port() != 0
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}
