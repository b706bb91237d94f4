//! One connected client, from its CONNACK to its end.
//!
//! One task owns everything. It waits for whatever comes first (a packet, a commit, a message from
//! the bus, a change of the registry, a newcomer with the same client id, the stop), handles what
//! is at hand, and writes once. Publishes are pipelined: up to the receive maximum may wait for
//! their commit; beyond it the session stops reading, which is the back-pressure that the client
//! feels. A client that does not read is cut off after [`WRITE_TIMEOUT`].

mod inbound;
mod outbound;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use portcullis_core::{event::Qos, identity::Principal, limits::WRITE_TIMEOUT, topic::TopicName};
use rumqttc::v5::mqttbytes::v5::{Disconnect, DisconnectReasonCode, PingResp, PublishProperties};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{codec::Framed, sync::CancellationToken};
use tracing::{debug, info, warn};

use self::outbound::Outbound;
use super::{
    Shared,
    admission::{Admission, Denied, action_name},
    bus::BusError,
    clients::Ticket,
    codec::{Codec, DecodeError, EncodeError, Packet, Version},
};
use crate::{
    buffer::Acked,
    clock::now,
    defend::{Activity, ActivityKind},
    identity::Credential,
};

/// Packets handled before the session writes and looks at its other duties.
const PACKETS_AT_ONCE: usize = 64;
/// What a client without keep-alive is checked against: never.
const NO_KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a stopping session waits for the commits of what it took.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

/// What is published when the client goes without a DISCONNECT.
#[derive(Debug)]
pub(super) struct Will {
    pub(in crate::broker) topic: TopicName,
    pub(in crate::broker) payload: Bytes,
    pub(in crate::broker) qos: Qos,
    pub(in crate::broker) retain: bool,
    pub(in crate::broker) properties: Option<PublishProperties>,
}

/// What the client asked for in its CONNECT.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimits {
    /// 0: none.
    pub(super) keep_alive_secs: u16,
    /// Unacknowledged deliveries that the client takes.
    pub(super) receive_maximum: Option<u16>,
}

/// A publish that waits for its commit.
#[derive(Debug)]
struct Pending {
    pkid: u16,
    qos: Qos,
    acked: Acked,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    Disconnected,
    DisconnectedWithWill,
    ConnectionLost,
    KeepAlive,
    TakenOver,
    Stopping,
    NotAuthorized,
    NotWritable,
    /// The client broke the protocol; the code tells it how.
    Broke(DisconnectReasonCode, String),
    /// The buffer did not take what it was given: the client must not believe that it did.
    NotCommitted,
    Bus(BusError),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session<'a, S> {
    shared: Arc<Shared>,
    framed: Framed<S, Codec>,
    version: Version,
    credential: Credential<'a>,
    admission: Admission,
    ticket: Ticket,
    will: Option<Will>,
    keep_alive: Duration,
    /// QoS 1 and 2 publishes in the order in which they came.
    pending: VecDeque<Pending>,
    /// QoS 2 packet ids between PUBREC and PUBREL.
    unreleased: HashSet<u16>,
    outbound: Outbound,
    stop: CancellationToken,
}

impl<'a, S> Session<'a, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, by the code that made each of them"
    )]
    pub(super) fn new(
        shared: Arc<Shared>,
        framed: Framed<S, Codec>,
        version: Version,
        credential: Credential<'a>,
        admission: Admission,
        ticket: Ticket,
        will: Option<Will>,
        limits: ClientLimits,
        stop: CancellationToken,
    ) -> Self {
        let keep_alive = match limits.keep_alive_secs {
            0 => NO_KEEP_ALIVE,
            secs => Duration::from_millis(u64::from(secs) * 1500),
        };
        Self {
            outbound: Outbound::new(limits.receive_maximum),
            shared,
            framed,
            version,
            credential,
            admission,
            ticket,
            will,
            keep_alive,
            pending: VecDeque::new(),
            unreleased: HashSet::new(),
            stop,
        }
    }

    /// Serves the client to its end.
    pub(super) async fn run(mut self) {
        let end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.finish(end).await;
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        let mut identity = self.shared.identity.clone();
        let mut deadline = Instant::now() + self.keep_alive;
        loop {
            let reading =
                self.pending.len() < usize::from(portcullis_core::limits::RECEIVE_MAXIMUM);
            tokio::select! {
                () = self.stop.cancelled() => return Err(End::Stopping),
                () = self.ticket.taken_over.cancelled() => return Err(End::TakenOver),
                // While the session does not read, silence is its own doing.
                () = sleep_until(deadline), if reading => return Err(End::KeepAlive),
                // Cancel-safe: `Framed` keeps what it has read.
                packet = self.framed.next(), if reading => {
                    self.handle_packets(packet).await?;
                    deadline = Instant::now() + self.keep_alive;
                }
                // Cancel-safe: the receiver stays in the queue.
                committed = next_commit(&mut self.pending) => self.acknowledge(committed).await?,
                // Cancel-safe: see `Link::next`.
                delivery = self.outbound.next() => self.deliver(delivery.map_err(End::Bus)?).await?,
                changed = identity.changed() => {
                    if changed.is_err() {
                        return Err(End::Stopping);
                    }
                    identity.mark_unchanged();
                    self.reauthorize()?;
                }
            }
            if !reading {
                deadline = Instant::now() + self.keep_alive;
            }
            match timeout(WRITE_TIMEOUT, self.framed.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(End::ConnectionLost),
                Err(_) => return Err(End::NotWritable),
            }
        }
    }

    /// Handles `first` and what else has already arrived.
    async fn handle_packets(
        &mut self,
        first: Option<Result<Packet, DecodeError>>,
    ) -> Result<(), End> {
        let mut next = Some(first);
        for count in 1.. {
            match next {
                None => break,
                Some(None) => return Err(End::ConnectionLost),
                Some(Some(Err(error))) => return Err(broken(error)),
                Some(Some(Ok(packet))) => self.handle(packet).await?,
            }
            // Before the next packet is taken: one that is taken and not handled would be lost.
            if count == PACKETS_AT_ONCE
                || self.pending.len() >= usize::from(portcullis_core::limits::RECEIVE_MAXIMUM)
            {
                break;
            }
            next = self.framed.next().now_or_never();
        }
        Ok(())
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish).await,
            Packet::PubRel(release) => self.on_pubrel(release.pkid).await,
            Packet::PubAck(ack) => {
                self.outbound.acknowledged(ack.pkid);
                Ok(())
            }
            Packet::Subscribe(subscribe) => self.on_subscribe(subscribe).await,
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(unsubscribe).await,
            Packet::PingReq(_) => self.send(Packet::PingResp(PingResp)).await,
            Packet::Disconnect(goodbye) => Err(match goodbye.reason_code {
                DisconnectReasonCode::NormalDisconnection => End::Disconnected,
                _ => End::DisconnectedWithWill,
            }),
            Packet::Connect(..) => Err(End::Broke(
                DisconnectReasonCode::ProtocolError,
                "a second CONNECT".to_owned(),
            )),
            // Deliveries have QoS 0 or 1, so these answer nothing; and the rest is a server's to send.
            Packet::PubRec(_)
            | Packet::PubComp(_)
            | Packet::Auth(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp(_) => Err(End::Broke(
                DisconnectReasonCode::ProtocolError,
                "an unexpected packet".to_owned(),
            )),
        }
    }

    /// Puts a packet into the write buffer, and writes when that is full.
    async fn send(&mut self, packet: Packet) -> Result<(), End> {
        let delivery = match &packet {
            Packet::Publish(publish) => publish.pkid,
            _ => 0,
        };
        match timeout(WRITE_TIMEOUT, self.framed.feed(packet)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(EncodeError::TooLarge)) => {
                self.shared
                    .metrics
                    .delivery_dropped
                    .with_label_values(&["packet-too-large"])
                    .inc();
                self.outbound.acknowledged(delivery);
                Ok(())
            }
            Ok(Err(EncodeError::Io(_))) => Err(End::ConnectionLost),
            Ok(Err(EncodeError::Packet(error))) => {
                warn!(client = %self.principal().client_id, error, "A packet could not be encoded.");
                Ok(())
            }
            Err(_) => Err(End::NotWritable),
        }
    }

    /// The registry or a policy changed: who may not connect any more goes, and subscriptions that
    /// are not allowed any more are dropped (invariant 9).
    fn reauthorize(&mut self) -> Result<(), End> {
        let snapshot = self.shared.identity.borrow().clone();
        let principal = self.principal();
        let renewed =
            snapshot.authenticate(&self.credential, &principal.client_id, principal.source);
        let principal = renewed.map_err(|refusal| {
            warn!(
                client = %self.principal().client_id, reason = refusal.reason(), detail = %refusal,
                "Client must go: it would not be let in now."
            );
            End::NotAuthorized
        })?;
        self.admission = Admission::new(principal);
        self.admission.connect().map_err(|denied| {
            note_denied(&self.shared, self.principal(), &denied);
            End::NotAuthorized
        })?;
        self.outbound.reauthorize(&self.admission).map_err(End::Bus)
    }

    /// Says goodbye as the end asks for; publishes the will unless the client took leave.
    async fn finish(mut self, end: End) {
        if matches!(end, End::Stopping | End::Disconnected) {
            self.await_commits().await;
        }
        let label = end.label();
        self.shared
            .metrics
            .disconnected
            .with_label_values(&[label])
            .inc();
        let detail = end.detail();
        info!(client = %self.principal().client_id, reason = label, detail, "Client disconnected.");
        observe(&self.shared, self.principal(), ActivityKind::Disconnected);
        if let Some(reason) = end.goodbye().filter(|_| self.version == Version::V5) {
            let _sent = self.send(Packet::Disconnect(Disconnect::new(reason))).await;
        }
        // The peer may be gone already, which is what this is about.
        drop(timeout(WRITE_TIMEOUT, self.framed.close()).await);
        if !matches!(end, End::Disconnected) {
            self.publish_will().await;
        }
    }

    /// What was taken is acknowledged if its commit comes in time.
    async fn await_commits(&mut self) {
        let all = async {
            while !self.pending.is_empty() {
                let committed = next_commit(&mut self.pending).await;
                if self.acknowledge(committed).await.is_err() {
                    break;
                }
            }
        };
        if timeout(COMMIT_GRACE, all).await.is_err() {
            debug!(client = %self.principal().client_id, "Commits did not come in time.");
        }
    }

    fn principal(&self) -> &Principal {
        self.admission.principal()
    }
}

/// The oldest pending publish, once its commit is decided; never if nothing is pending.
async fn next_commit(pending: &mut VecDeque<Pending>) -> (u16, Qos, bool) {
    match pending.front_mut() {
        None => std::future::pending().await,
        Some(front) => {
            let committed = (&mut front.acked).await.is_ok();
            let decided = (front.pkid, front.qos, committed);
            pending.pop_front();
            decided
        }
    }
}

/// Tells defend what the principal did.
pub(super) fn observe(shared: &Shared, principal: &Principal, kind: ActivityKind) {
    shared
        .observer
        .observe(Activity::of(principal, now(), kind));
}

/// Counts and logs what was not allowed.
pub(super) fn note_denied(shared: &Shared, principal: &Principal, denied: &Denied) {
    let (action, reason) = (action_name(denied.action), denied.reason());
    shared
        .metrics
        .denied
        .with_label_values(&[action, reason])
        .inc();
    warn!(
        client = %principal.client_id, device = principal.device(),
        certificate = principal.certificate_id.map(|id| id.to_string()),
        action, resource = denied.resource, reason, statement = ?denied.denial, "Request denied."
    );
    observe(shared, principal, ActivityKind::Denied { reason });
}

fn broken(error: DecodeError) -> End {
    match error {
        DecodeError::Io(_) => End::ConnectionLost,
        DecodeError::TooLarge { .. } => {
            End::Broke(DisconnectReasonCode::PacketTooLarge, error.to_string())
        }
        other => End::Broke(DisconnectReasonCode::MalformedPacket, other.to_string()),
    }
}

impl End {
    /// The metric label.
    fn label(&self) -> &'static str {
        match self {
            Self::Disconnected => "client",
            Self::DisconnectedWithWill => "client-with-will",
            Self::ConnectionLost => "connection-lost",
            Self::KeepAlive => "keep-alive",
            Self::TakenOver => "taken-over",
            Self::Stopping => "stopping",
            Self::NotAuthorized => "not-authorized",
            Self::NotWritable => "not-reading",
            Self::Broke(..) => "protocol",
            Self::NotCommitted => "not-committed",
            Self::Bus(_) => "bus",
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Broke(_, detail) => Some(detail.clone()),
            Self::Bus(error) => Some(crate::telemetry::chain(error)),
            _ => None,
        }
    }

    /// The reason code of the server's DISCONNECT, where there is one to send.
    fn goodbye(&self) -> Option<DisconnectReasonCode> {
        match self {
            Self::Disconnected
            | Self::DisconnectedWithWill
            | Self::ConnectionLost
            | Self::NotWritable => None,
            Self::KeepAlive => Some(DisconnectReasonCode::KeepAliveTimeout),
            Self::TakenOver => Some(DisconnectReasonCode::SessionTakenOver),
            Self::Stopping => Some(DisconnectReasonCode::ServerShuttingDown),
            Self::NotAuthorized => Some(DisconnectReasonCode::NotAuthorized),
            Self::Broke(code, _) => Some(*code),
            Self::NotCommitted | Self::Bus(_) => Some(DisconnectReasonCode::UnspecifiedError),
        }
    }
}
