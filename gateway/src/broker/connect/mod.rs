//! From an open connection to a served client: CONNECT, authentication, admission, CONNACK.

mod admit;
mod introduce;
mod refuse;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use portcullis_core::{
    identity::{ClientId, Principal},
    limits::{BUFFER_BYTES, BUFFER_BYTES_MIN, DELIVERY_WINDOW_MAX, RECEIVE_MAXIMUM, WRITE_TIMEOUT},
};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, Connect, ConnectReturnCode, LastWill,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::{codec::Framed, sync::CancellationToken};
use tracing::info;
use uuid::Uuid;

use self::{
    admit::{admit, client_id, expiry_secs},
    introduce::introduce,
    refuse::{Early, Refusal, refuse, refuse_early},
};
use super::{
    admission::Admission,
    client::{Client, Parts},
    clients::{About, Entered, Ticket},
    codec::{Codec, Packet, Version},
    lifecycle::Connection,
    newcomers::Newcomer,
    sessions::{Asked, Attached},
    shared::Shared,
};
use crate::{clock::now, defend::ActivityKind, identity::Credential};

/// What a newcomer waits for the former connection with its client id to end.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer<'a> {
    pub(super) address: SocketAddr,
    /// The certificates that it sent, its own first.
    pub(super) chain: &'a [CertificateDer<'static>],
    pub(super) credential: Credential<'a>,
}

/// A client that has its CONNACK.
#[derive(Debug)]
struct Begun<'a, S> {
    client_id: ClientId,
    connection: Connection,
    client: Box<Client<'a, S>>,
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    shared: &Arc<Shared>,
    stream: S,
    peer: &Peer<'_>,
    newcomer: Newcomer,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // On the heap, and gone with its end: the session lives for much longer.
    let begun = Box::pin(begin(shared, stream, peer, newcomer, stop)).await;
    let Some(Begun {
        client_id,
        connection,
        client,
    }) = begun
    else {
        return;
    };
    shared.metrics.connections.inc();
    client.run().await;
    shared.metrics.connections.dec();
    shared.versions.disconnected(&client_id, connection.version);
}

/// From CONNECT to CONNACK; `None` if it came to nothing.
async fn begin<'a, S>(
    shared: &Arc<Shared>,
    stream: S,
    peer: &Peer<'a>,
    newcomer: Newcomer,
    stop: CancellationToken,
) -> Option<Begun<'a, S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let codec = Codec::new(shared.config.packet_bytes_max);
    let mut framed = Framed::with_capacity(stream, codec, BUFFER_BYTES_MIN);
    framed.set_backpressure_boundary(BUFFER_BYTES);
    let (connect, will) = hear(shared, &mut framed, peer, &stop).await?;
    let version = framed.codec().version().unwrap_or(Version::V311);
    let (client_id, assigned) =
        match client_id(&connect, version, shared.config.limits.client_id_bytes_max) {
            Ok(named) => named,
            Err(refusal) => {
                refuse(shared, &mut framed, peer, Err(&connect.client_id), refusal).await;
                return None;
            }
        };
    let (admission, will) = match admit(shared, peer, &client_id, &connect, will, version) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            // What it asks of the registry is not broken off.
            if !newcomer.settle() {
                return None;
            }
            let refusal = introduce(shared, peer, &client_id, *refusal).await;
            refuse(shared, &mut framed, peer, Ok(&client_id), refusal).await;
            return None;
        }
    };
    // From here on it is somebody.
    if !newcomer.settle() {
        return None;
    }
    let about = about(admission.principal(), peer.address, version);
    let per_certificate_max = shared.config.limits.connections_per_certificate_max;
    let Ok((ticket, entered)) = shared.clients.enter(&client_id, about, per_certificate_max) else {
        let refusal = Refusal::crowded();
        refuse(shared, &mut framed, peer, Ok(&client_id), refusal).await;
        return None;
    };
    let takeover = match entered {
        Entered::Alone => "no",
        Entered::TookOver(gone) => {
            // Its will comes before what the newcomer says, unless it is stuck.
            drop(timeout(TAKEOVER_TIMEOUT, gone.cancelled()).await);
            "yes"
        }
    };
    let held = match attach(shared, &admission, &connect, version, &ticket).await {
        Ok(held) => held,
        Err(refusal) => {
            refuse(shared, &mut framed, peer, Ok(&client_id), refusal).await;
            return None;
        }
    };
    if let Some(aliases) = connect.properties.as_ref().and_then(|p| p.topic_alias_max) {
        framed.codec_mut().alias_outgoing(aliases);
    }
    let ack = Packet::ConnAck(accept(shared, &connect, assigned.as_deref(), &held));
    if !matches!(timeout(WRITE_TIMEOUT, framed.send(ack)).await, Ok(Ok(()))) {
        shared.sessions.detach(&held.session, ticket.session, None);
        return None;
    }
    shared.metrics.packets_sent.inc();
    let connection = Connection {
        session: Uuid::new_v4(),
        version: shared.versions.connected(&client_id),
    };
    greet(shared, &admission, version, takeover, peer);
    let client = Client::new(Parts {
        shared: Arc::clone(shared),
        framed,
        version,
        credential: peer.credential,
        admission,
        ticket,
        connection,
        held: held.session,
        will,
        keep_alive_secs: match version {
            Version::V5 => keep_alive_of_server(shared, &connect).unwrap_or(connect.keep_alive),
            Version::V311 => connect.keep_alive,
        },
        stop,
    });
    Some(Begun {
        client_id,
        connection,
        client: Box::new(client),
    })
}

/// The CONNECT; `None` if something else came, or nothing.
async fn hear<S>(
    shared: &Shared,
    framed: &mut Framed<S, Codec>,
    peer: &Peer<'_>,
    stop: &CancellationToken,
) -> Option<(Connect, Option<LastWill>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let first = tokio::select! {
        () = stop.cancelled() => return None,
        first = timeout(shared.config.connect_timeout, framed.next()) => first,
    };
    if let Ok(Some(Ok(_))) = &first {
        shared.metrics.packets_received.inc();
    }
    match first {
        Ok(Some(Ok(Packet::Connect(connect, will, _)))) => Some((connect, will)),
        other => {
            let early = Early::of(other);
            refuse_early(shared, framed, peer, &early).await;
            None
        }
    }
}

/// The session that the client left, or a new one.
async fn attach(
    shared: &Arc<Shared>,
    admission: &Admission,
    connect: &Connect,
    version: Version,
    ticket: &Ticket,
) -> Result<Attached, Refusal> {
    let principal = admission.principal();
    let thing = principal.thing.as_ref().map(|thing| thing.name.to_string());
    let certificate = || principal.certificate_id().map(|id| id.to_string());
    let receive_maximum = connect
        .properties
        .as_ref()
        .and_then(|given| given.receive_maximum);
    let asked = Asked {
        clean_start: connect.clean_start,
        expiry_secs: expiry_secs(connect, version, shared.config.session_expiry_max_secs),
        window: receive_maximum
            .unwrap_or(DELIVERY_WINDOW_MAX)
            .min(DELIVERY_WINDOW_MAX),
        owner: thing.or_else(certificate),
        connection: ticket.session,
    };
    let attached = shared
        .sessions
        .attach(&principal.client_id, &asked)
        .map_err(|full| {
            Refusal::new(
                "sessions-max",
                ConnectReturnCode::QuotaExceeded,
                full.to_string(),
            )
        })?;
    if let Some(will) = &attached.will {
        shared.publish_left(will).await;
    }
    Ok(attached)
}

/// What operators are told of it.
fn about(principal: &Principal, address: SocketAddr, version: Version) -> About {
    About {
        thing: principal.thing.as_ref().map(|thing| thing.name.clone()),
        certificate: principal.certificate_id(),
        address,
        version,
        since: now(),
    }
}

/// Counts and logs a client that has its CONNACK.
fn greet(
    shared: &Shared,
    admission: &Admission,
    version: Version,
    takeover: &str,
    peer: &Peer<'_>,
) {
    let version = if version == Version::V5 { "5" } else { "3.1.1" };
    let labels = [version, takeover];
    shared.metrics.connected.with_label_values(&labels).inc();
    let principal = admission.principal();
    info!(
        client = principal.client_id.as_str(), device = principal.device(), peer = %peer.address, version,
        takeover, "Client connected."
    );
    if let Some(thing) = &principal.thing {
        shared.neighbours.fleet.connected(&thing.name);
    }
    shared.observe(principal, ActivityKind::Connected);
}

/// The keep-alive that a client is told to use instead of its own, which is too long (MQTT 5.0,
/// 3.2.2.3.14). None is as it was: without a keep-alive nobody is waited for.
fn keep_alive_of_server(shared: &Shared, connect: &Connect) -> Option<u16> {
    let secs_max = shared.config.keep_alive_max_secs;
    (secs_max > 0 && connect.keep_alive > secs_max).then_some(secs_max)
}

/// The CONNACK, with what the server does otherwise than the client asked for.
fn accept(shared: &Shared, connect: &Connect, assigned: Option<&str>, held: &Attached) -> ConnAck {
    let asked_expiry = connect
        .properties
        .as_ref()
        .and_then(|given| given.session_expiry_interval);
    let expiry = held.session.expiry_secs();
    let properties = ConnAckProperties {
        session_expiry_interval: asked_expiry.filter(|&secs| secs != expiry).map(|_| expiry),
        receive_max: Some(RECEIVE_MAXIMUM),
        max_qos: None,
        retain_available: None,
        max_packet_size: u32::try_from(shared.config.packet_bytes_max).ok(),
        assigned_client_identifier: assigned.map(str::to_owned),
        topic_alias_max: Some(Codec::aliases_in()),
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: keep_alive_of_server(shared, connect),
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
    ConnAck {
        session_present: held.is_present,
        code: ConnectReturnCode::Success,
        properties: Some(properties),
    }
}
