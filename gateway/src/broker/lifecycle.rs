//! What becomes of connections, told on the reserved topics (specification A.9): to local
//! subscribers that may read them, and into the event stream.
//!
//! The gateway alone publishes there; clients cannot, whatever their policy says (see
//! [`super::reserved`]). An event that the pipeline does not take in [`LIFECYCLE_TIMEOUT`] is
//! dropped and counted: a full disk must not keep clients out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use portcullis_core::{
    event::{Event, Qos},
    identity::{CertificateId, ClientId, GroupName, Principal, ThingName},
    limits::{LIFECYCLE_TIMEOUT, NUMBERED_CLIENTS_AWAY_MAX},
    timestamp::Timestamp,
    topic::{TopicFilter, TopicName},
};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Shared, config::LifecycleEvents, message::Message};
use crate::clock::now;

/// No session has this number; see [`Message::publisher`].
const GATEWAY: u64 = 0;

/// One connection of a client id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// `sessionIdentifier`.
    pub(super) session: Uuid,
    /// `versionNumber`.
    pub(super) version: u64,
}

/// Whose event it is.
#[derive(Clone, Debug)]
pub(super) struct Who<'a> {
    pub(super) client_id: &'a ClientId,
    pub(super) thing: Option<&'a ThingName>,
    pub(super) groups: Arc<[GroupName]>,
    pub(super) certificate: Option<CertificateId>,
}

impl<'a> Who<'a> {
    pub(super) fn of(shared: &Shared, principal: &'a Principal) -> Self {
        Self {
            client_id: &principal.client_id,
            thing: principal.thing.as_ref().map(|thing| &thing.name),
            groups: shared.groups(principal),
            certificate: principal.certificate_id(),
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happened<'a> {
    Connected {
        connection: Connection,
        source: IpAddr,
    },
    Disconnected {
        connection: Connection,
        reason: DisconnectReason,
    },
    /// The client may not connect, or not with its will.
    ConnectFailed,
    Subscribed {
        connection: Connection,
        filters: &'a [TopicFilter],
    },
    Unsubscribed {
        connection: Connection,
        filters: &'a [TopicFilter],
    },
}

/// `disconnectReason`: those that there are at AWS and can be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DisconnectReason {
    AuthError,
    ClientInitiated,
    ClientError,
    ConnectionLost,
    DuplicateClientId,
    ForbiddenAccess,
    KeepAliveTimeout,
    ServerError,
    ServerInitiated,
    Throttled,
}

impl DisconnectReason {
    const fn name(self) -> &'static str {
        match self {
            Self::AuthError => "AUTH_ERROR",
            Self::ClientInitiated => "CLIENT_INITIATED_DISCONNECT",
            Self::ClientError => "CLIENT_ERROR",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::DuplicateClientId => "DUPLICATE_CLIENTID",
            Self::ForbiddenAccess => "FORBIDDEN_ACCESS",
            Self::KeepAliveTimeout => "MQTT_KEEP_ALIVE_TIMEOUT",
            Self::ServerError => "SERVER_ERROR",
            Self::ServerInitiated => "SERVER_INITIATED_DISCONNECT",
            Self::Throttled => "THROTTLED",
        }
    }
}

impl Happened<'_> {
    /// What follows `$aws/events/`.
    const fn place(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "presence/connected",
            Self::Disconnected { .. } => "presence/disconnected",
            Self::ConnectFailed => "presence/connect_failed",
            Self::Subscribed { .. } => "subscriptions/subscribed",
            Self::Unsubscribed { .. } => "subscriptions/unsubscribed",
        }
    }

    /// The label in metrics and `eventType`.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::ConnectFailed => "connect_failed",
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribed { .. } => "unsubscribed",
        }
    }

    fn members(&self) -> Vec<(&'static str, Value)> {
        let session = |connection: &Connection| {
            let session = connection.session.to_string();
            ("sessionIdentifier", Value::from(session))
        };
        let presence = |connection: &Connection| {
            let version = ("versionNumber", Value::from(connection.version));
            vec![session(connection), version]
        };
        let topics = |connection: &Connection, filters: &[TopicFilter]| {
            let topics: Value = filters.iter().map(TopicFilter::as_str).collect();
            vec![session(connection), ("topics", topics)]
        };
        match self {
            Self::Connected { connection, source } => {
                let mut members = presence(connection);
                members.push(("ipAddress", json!(source)));
                members
            }
            Self::Disconnected { connection, reason } => {
                let by_client = *reason == DisconnectReason::ClientInitiated;
                let mut members = presence(connection);
                members.push(("clientInitiatedDisconnect", by_client.into()));
                members.push(("disconnectReason", reason.name().into()));
                members
            }
            Self::ConnectFailed => vec![("connectFailureReason", "AUTHORIZATION_FAILED".into())],
            Self::Subscribed {
                connection,
                filters,
            }
            | Self::Unsubscribed {
                connection,
                filters,
            } => topics(connection, filters),
        }
    }
}

/// Topic and payload; `None` for a client id that makes no topic.
fn compose(who: &Who<'_>, happened: &Happened<'_>, at: Timestamp) -> Option<(TopicName, Bytes)> {
    let client_id = who.client_id.as_str();
    let topic = TopicName::parse(&format!("$aws/events/{}/{client_id}", happened.place())).ok()?;
    let mut payload = Map::new();
    let mut put = |name: &str, value: Value| payload.insert(name.to_owned(), value);
    put("clientId", client_id.into());
    put("timestamp", at.as_millis().into());
    put("eventType", happened.kind().into());
    if let Some(thing) = who.thing {
        put("thingName", thing.as_str().into());
    }
    if let Some(certificate) = who.certificate {
        put("principalIdentifier", certificate.to_string().into());
    }
    for (name, value) in happened.members() {
        put(name, value);
    }
    Some((topic, Value::Object(payload).to_string().into()))
}

impl Shared {
    /// Tells subscribers and the stream what happened.
    pub(super) async fn tell(&self, who: &Who<'_>, happened: &Happened<'_>) {
        let reach = self.config.lifecycle_events;
        if reach != LifecycleEvents::Off
            && let Some((topic, payload)) = compose(who, happened, now())
        {
            self.publish_own(who, happened.kind(), topic, payload, reach)
                .await;
        }
    }

    /// Tells subscribers and the stream what else the gateway has to say.
    pub(super) async fn announce(
        &self,
        who: &Who<'_>,
        kind: &'static str,
        topic: TopicName,
        payload: Bytes,
    ) {
        self.publish_own(who, kind, topic, payload, LifecycleEvents::All)
            .await;
    }

    async fn publish_own(
        &self,
        who: &Who<'_>,
        kind: &'static str,
        topic: TopicName,
        payload: Bytes,
        reach: LifecycleEvents,
    ) {
        let mut told = Told {
            shared: self,
            kind,
            fate: "dropped",
        };
        let message = own_message(topic.clone(), payload.clone());
        self.announce_own(message);
        if reach == LifecycleEvents::Local {
            told.fate = "told";
            return;
        }
        let event = Event {
            thing: who.thing.cloned(),
            groups: who.groups.clone(),
            client_id: who.client_id.clone(),
            received_at: now(),
            topic,
            payload,
            qos: Qos::AtLeastOnce,
            retain: false,
            user_properties: Vec::new(),
        };
        // On the heap: this stands in many places of a session, and most of the time in none.
        let submit = Box::pin(self.neighbours.pipeline.submit(event, None));
        if matches!(timeout(LIFECYCLE_TIMEOUT, submit).await, Ok(Ok(()))) {
            told.fate = "told";
        }
    }
}

impl Shared {
    /// Hands what the gateway itself says to the local subscribers.
    pub(super) fn announce_own(&self, message: Message) {
        let message = Arc::new(message);
        let routed = self.sessions.dispatch(&message, None);
        self.count_overflow(routed.overflowed);
        if routed.is_for_bus {
            // A bus that is gone is a fault of the process, which the listeners report.
            drop(self.bus.announce(&message));
        }
    }
}

/// Counts what became of an event, also if whoever waits for the stream gives up.
struct Told<'a> {
    shared: &'a Shared,
    kind: &'static str,
    fate: &'static str,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let labels = [self.kind, self.fate];
        let lifecycle = &self.shared.metrics.lifecycle;
        lifecycle.with_label_values(&labels).inc();
    }
}

/// What the gateway itself says to local clients.
pub(super) fn own_message(topic: TopicName, payload: Bytes) -> Message {
    Message {
        topic,
        payload,
        qos: Qos::AtLeastOnce,
        retain: false,
        publisher: GATEWAY,
        properties: None,
        expires_at: None,
    }
}

/// Numbers the connections of each client id: the greater number is the later connection.
#[derive(Debug)]
pub(super) struct Versions {
    clients: Mutex<HashMap<ClientId, Numbered>>,
    clients_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Numbered {
    version: u64,
    connected: bool,
}

impl Versions {
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            clients: Mutex::default(),
            clients_max: connections_max.saturating_add(NUMBERED_CLIENTS_AWAY_MAX),
        }
    }

    /// The number of a new connection, from 0.
    pub(super) fn connected(&self, client_id: &ClientId) -> u64 {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(client_id) {
            client.version += 1;
            client.connected = true;
            return client.version;
        }
        if clients.len() >= self.clients_max {
            clients.retain(|_, client| client.connected);
        }
        let first = Numbered {
            version: 0,
            connected: true,
        };
        clients.insert(client_id.clone(), first);
        0
    }

    /// That connection has ended; a later one may have begun.
    pub(super) fn disconnected(&self, client_id: &ClientId, version: u64) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(client_id)
            && client.version == version
        {
            client.connected = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_573_002_340_451);

    fn composed(thing: Option<&str>, happened: &Happened<'_>) -> (String, Value) {
        let client_id = ClientId::parse("c1").unwrap();
        let thing = thing.map(|name| ThingName::parse(name).unwrap());
        let who = Who {
            client_id: &client_id,
            thing: thing.as_ref(),
            groups: Arc::from([]),
            certificate: Some(CertificateId::of_der(b"")),
        };
        let (topic, payload) = compose(&who, happened, AT).unwrap();
        (topic.to_string(), serde_json::from_slice(&payload).unwrap())
    }

    fn connection() -> Connection {
        Connection {
            session: Uuid::nil(),
            version: 3,
        }
    }

    #[test]
    fn a_lost_connection_is_told_as_the_specification_shows() {
        let reason = DisconnectReason::ConnectionLost;
        let lost = Happened::Disconnected {
            connection: connection(),
            reason,
        };
        let (topic, payload) = composed(Some("t1"), &lost);
        assert_eq!(topic, "$aws/events/presence/disconnected/c1");
        assert_eq!(
            payload,
            json!({
                "clientId": "c1", "thingName": "t1", "timestamp": 1_573_002_340_451_u64,
                "eventType": "disconnected",
                "sessionIdentifier": "00000000-0000-0000-0000-000000000000",
                "principalIdentifier": CertificateId::of_der(b"").to_string(),
                "clientInitiatedDisconnect": false, "disconnectReason": "CONNECTION_LOST",
                "versionNumber": 3
            })
        );
    }

    #[test]
    fn every_kind_has_its_topic_and_its_members() {
        let source = IpAddr::from([192, 0, 2, 7]);
        let connected = Happened::Connected {
            connection: connection(),
            source,
        };
        let (topic, payload) = composed(None, &connected);
        assert_eq!(topic, "$aws/events/presence/connected/c1");
        assert_eq!(payload["ipAddress"], "192.0.2.7");
        assert_eq!(payload.get("thingName"), None);

        let (topic, payload) = composed(None, &Happened::ConnectFailed);
        assert_eq!(topic, "$aws/events/presence/connect_failed/c1");
        assert_eq!(payload["connectFailureReason"], "AUTHORIZATION_FAILED");
        assert_eq!(payload.get("sessionIdentifier"), None);

        let filters = [TopicFilter::parse("a/+").unwrap()];
        let subscribed = Happened::Subscribed {
            connection: connection(),
            filters: &filters,
        };
        let (topic, payload) = composed(None, &subscribed);
        assert_eq!(topic, "$aws/events/subscriptions/subscribed/c1");
        assert_eq!(payload["topics"], json!(["a/+"]));
        assert_eq!(payload.get("versionNumber"), None);
    }

    #[test]
    fn numbers_grow_per_client_and_those_away_are_forgotten_at_the_bound() {
        let versions = Versions::new(1);
        let id = |text: &str| ClientId::parse(text).unwrap();
        assert_eq!(versions.connected(&id("a")), 0);
        assert_eq!(versions.connected(&id("a")), 1);
        assert_eq!(versions.connected(&id("b")), 0);
        // The end of the former connection does not end the newcomer's.
        versions.disconnected(&id("a"), 0);
        for n in 0..=NUMBERED_CLIENTS_AWAY_MAX {
            let away = id(&n.to_string());
            let version = versions.connected(&away);
            versions.disconnected(&away, version);
        }
        assert!(versions.clients.lock().unwrap().len() <= versions.clients_max);
        assert_eq!(versions.connected(&id("a")), 2);
    }
}
