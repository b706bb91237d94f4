//! From an open connection to a served session: CONNECT, authentication, admission, CONNACK.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use portcullis_core::{
    event::Qos,
    identity::ClientId,
    limits::{CLIENT_ID_BYTES_MAX, PROPERTY_BYTES_MAX, RECEIVE_MAXIMUM, WRITE_TIMEOUT},
    topic::TopicName,
};
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{ConnAck, ConnAckProperties, Connect, ConnectReturnCode, LastWill},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::{codec::Framed, sync::CancellationToken};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Shared,
    admission::Admission,
    clients::Entered,
    codec::{Codec, DecodeError, Packet, Version},
    session::{self, Session, Will, property_bytes},
};
use crate::{defend::ActivityKind, identity::Credential};

/// What a newcomer waits for the former connection with its client id to end.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer<'a> {
    pub(super) address: SocketAddr,
    pub(super) credential: Credential<'a>,
}

/// Why a CONNECT is refused: the metric label, what goes into the CONNACK, what goes into the log.
struct Refusal {
    reason: &'static str,
    code: ConnectReturnCode,
    detail: String,
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    shared: &Arc<Shared>,
    stream: S,
    peer: &Peer<'_>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut framed = Framed::new(stream, Codec::new(shared.config.packet_bytes_max));
    let first = tokio::select! {
        () = stop.cancelled() => return,
        first = timeout(shared.config.connect_timeout, framed.next()) => first,
    };
    let (connect, will) = match first {
        Ok(Some(Ok(Packet::Connect(connect, will, _)))) => (connect, will),
        Ok(Some(Ok(_))) => {
            return refuse_silently(shared, peer, "not-mqtt", "the first packet is no CONNECT");
        }
        Ok(Some(Err(error))) => return refuse_malformed(shared, &mut framed, peer, &error).await,
        Ok(None) => {
            return refuse_silently(shared, peer, "closed-before-connect", "the peer closed");
        }
        Err(_) => return refuse_silently(shared, peer, "connect-timeout", "no CONNECT in time"),
    };
    let version = framed.codec().version().unwrap_or(Version::V311);
    let (client_id, assigned) = match client_id(&connect, version) {
        Ok(named) => named,
        Err(refusal) => {
            return refuse(shared, &mut framed, peer, &connect.client_id, refusal).await;
        }
    };
    let (admission, will) = match admit(shared, peer, &client_id, will, version) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            return refuse(shared, &mut framed, peer, client_id.as_str(), refusal).await;
        }
    };
    let (ticket, entered) = shared.clients.enter(&client_id);
    let takeover = match entered {
        Entered::Alone => "no",
        Entered::TookOver(gone) => {
            // Its will comes before what the newcomer says, unless it is stuck.
            drop(timeout(TAKEOVER_TIMEOUT, gone.cancelled()).await);
            "yes"
        }
    };
    let ack = accept(shared, &connect, assigned.as_deref());
    if let Some(bytes_max) = connect
        .properties
        .as_ref()
        .and_then(|given| given.max_packet_size)
    {
        framed.codec_mut().limit_outgoing(bytes_max);
    }
    if !matches!(
        timeout(WRITE_TIMEOUT, framed.send(Packet::ConnAck(ack))).await,
        Ok(Ok(()))
    ) {
        return;
    }
    let version_label = if version == Version::V5 { "5" } else { "3.1.1" };
    shared
        .metrics
        .connected
        .with_label_values(&[version_label, takeover])
        .inc();
    let principal = admission.principal();
    info!(
        client = client_id.as_str(), device = principal.device(), peer = %peer.address, version = version_label,
        takeover, "Client connected."
    );
    session::observe(shared, principal, ActivityKind::Connected);
    let limits = session::ClientLimits {
        keep_alive_secs: connect.keep_alive,
        receive_maximum: connect
            .properties
            .as_ref()
            .and_then(|given| given.receive_maximum),
    };
    shared.metrics.connections.inc();
    Session::new(
        Arc::clone(shared),
        framed,
        version,
        peer.credential,
        admission,
        ticket,
        will,
        limits,
        stop,
    )
    .run()
    .await;
    shared.metrics.connections.dec();
}

/// The client id, and the one that was assigned if the client left it to the server.
fn client_id(connect: &Connect, version: Version) -> Result<(ClientId, Option<String>), Refusal> {
    let refusal = |detail: String| Refusal {
        reason: "client-id",
        code: ConnectReturnCode::ClientIdentifierNotValid,
        detail,
    };
    let assigned = connect
        .client_id
        .is_empty()
        .then(|| format!("auto-{}", Uuid::new_v4().simple()));
    if let Some(given) = &connect.properties
        && (given.receive_maximum == Some(0) || given.max_packet_size == Some(0))
    {
        return Err(Refusal {
            reason: "protocol",
            code: ConnectReturnCode::ProtocolError,
            detail: "a Receive Maximum or Maximum Packet Size of 0".to_owned(),
        });
    }
    if assigned.is_some() && version == Version::V311 && !connect.clean_start {
        return Err(refusal(
            "an empty client id needs a clean session".to_owned(),
        ));
    }
    let text = assigned.as_deref().unwrap_or(&connect.client_id);
    ClientId::parse(text)
        .map(|id| (id, assigned.clone()))
        .map_err(|error| refusal(error.to_string()))
}

/// Authentication and `iot:Connect`; the will must be allowed as well.
fn admit(
    shared: &Shared,
    peer: &Peer<'_>,
    client_id: &ClientId,
    will: Option<LastWill>,
    version: Version,
) -> Result<(Admission, Option<Will>), Refusal> {
    let not_authorized = |reason: &'static str, detail: String| Refusal {
        reason,
        code: ConnectReturnCode::NotAuthorized,
        detail,
    };
    let snapshot = shared.identity.borrow().clone();
    let principal = snapshot
        .authenticate(
            &peer.credential,
            client_id,
            peer.address.ip().to_canonical(),
        )
        .map_err(|refusal| not_authorized(refusal.reason(), refusal.to_string()))?;
    let admission = Admission::new(principal);
    session::observe(shared, admission.principal(), ActivityKind::ConnectAttempt);
    let will = will.map(|will| to_will(will, version)).transpose()?;
    let denied = |denied: super::admission::Denied| {
        session::note_denied(shared, admission.principal(), &denied);
        not_authorized(
            "policy",
            format!(
                "{:?} on `{}` is not allowed",
                denied.action, denied.resource
            ),
        )
    };
    admission.connect().map_err(denied)?;
    if let Some(will) = &will {
        admission
            .publish(&will.topic, will.retain)
            .map_err(denied)?;
    }
    Ok((admission, will))
}

fn to_will(will: LastWill, version: Version) -> Result<Will, Refusal> {
    let topic = TopicName::parse_bytes(&will.topic).map_err(|error| Refusal {
        reason: "will-topic",
        code: match version {
            Version::V5 => ConnectReturnCode::TopicNameInvalid,
            Version::V311 => ConnectReturnCode::NotAuthorized,
        },
        detail: error.to_string(),
    })?;
    let properties = will
        .properties
        .map(|given| rumqttc::v5::mqttbytes::v5::PublishProperties {
            payload_format_indicator: given.payload_format_indicator,
            message_expiry_interval: given.message_expiry_interval,
            response_topic: given.response_topic,
            correlation_data: given.correlation_data,
            user_properties: given.user_properties,
            content_type: given.content_type,
            ..Default::default()
        });
    if properties.as_ref().map_or(0, property_bytes) > PROPERTY_BYTES_MAX {
        return Err(Refusal {
            reason: "will-properties",
            code: ConnectReturnCode::QuotaExceeded,
            detail: "properties over the limit".to_owned(),
        });
    }
    let (payload, retain) = (will.message, will.retain);
    Ok(Will {
        topic,
        payload,
        qos: qos(will.qos),
        retain,
        properties,
    })
}

pub(super) fn qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

/// The CONNACK says what this version does not do: sessions end with their connection, no topic
/// aliases, no shared subscriptions, no subscription identifiers.
fn accept(shared: &Shared, connect: &Connect, assigned: Option<&str>) -> ConnAck {
    let asked_expiry = connect
        .properties
        .as_ref()
        .and_then(|given| given.session_expiry_interval);
    let properties = ConnAckProperties {
        session_expiry_interval: asked_expiry.filter(|&secs| secs > 0).map(|_| 0),
        receive_max: Some(RECEIVE_MAXIMUM),
        max_qos: None,
        retain_available: None,
        max_packet_size: u32::try_from(shared.config.packet_bytes_max).ok(),
        assigned_client_identifier: assigned.map(str::to_owned),
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
    ConnAck {
        session_present: false,
        code: ConnectReturnCode::Success,
        properties: Some(properties),
    }
}

async fn refuse<S>(
    shared: &Shared,
    framed: &mut Framed<S, Codec>,
    peer: &Peer<'_>,
    client: &str,
    refusal: Refusal,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    shared
        .metrics
        .refused
        .with_label_values(&[refusal.reason])
        .inc();
    let certificate = match &peer.credential {
        Credential::Certificate { certificate, .. } => certificate.id.to_string(),
        Credential::Plain { .. } => "none".to_owned(),
    };
    warn!(
        client = super::cut(client, CLIENT_ID_BYTES_MAX), peer = %peer.address, certificate, reason = refusal.reason,
        detail = refusal.detail, "CONNECT refused."
    );
    let ack = ConnAck {
        session_present: false,
        code: refusal.code,
        properties: None,
    };
    // The peer may be gone; it was refused either way.
    drop(timeout(WRITE_TIMEOUT, framed.send(Packet::ConnAck(ack))).await);
}

async fn refuse_malformed<S>(
    shared: &Shared,
    framed: &mut Framed<S, Codec>,
    peer: &Peer<'_>,
    error: &DecodeError,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reason, code) = match error {
        DecodeError::UnsupportedVersion { .. } => (
            "unsupported-version",
            Some(ConnectReturnCode::RefusedProtocolVersion),
        ),
        DecodeError::TooLarge { .. } => ("packet-too-large", None),
        DecodeError::NotConnect => ("not-mqtt", None),
        DecodeError::Malformed(_) => ("malformed", None),
        DecodeError::Io(_) => ("connection", None),
    };
    if let Some(code) = code {
        let ack = ConnAck {
            session_present: false,
            code,
            properties: None,
        };
        drop(timeout(WRITE_TIMEOUT, framed.send(Packet::ConnAck(ack))).await);
    }
    refuse_silently(shared, peer, reason, &error.to_string());
}

fn refuse_silently(shared: &Shared, peer: &Peer<'_>, reason: &'static str, detail: &str) {
    shared.metrics.refused.with_label_values(&[reason]).inc();
    info!(peer = %peer.address, reason, detail, "Connection ended before a CONNECT.");
}
