//! One connected client, from its CONNACK to its end.
//!
//! One task owns everything. It waits for whatever comes first (a packet, a commit, a message from
//! the bus, a change of the registry, a newcomer with the same client id, the stop), handles what
//! is at hand, and writes once. Publishes are pipelined: up to the receive maximum may wait for
//! their commit; beyond it the session stops reading, which is the back-pressure that the client
//! feels. One that publishes faster than it may feels the same: its publish is held back until its
//! turn, and nothing more is read, while all else goes on. A client that does not read is cut off after `WRITE_TIMEOUT`; whatever the
//! session waits for, it hears meanwhile that it must end (see `waiting`).

mod answers;
mod end;
mod farewell;
mod inbound;
mod observed;
mod outbound;
mod pending;
mod provision;
mod quota;
mod repeated;
mod share;
mod standing;
mod subscribing;
#[cfg(test)]
mod tests;
mod told;
mod waiting;

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use portcullis_core::{
    event::Qos,
    identity::{GroupName, Principal},
    topic::{TopicFilter, TopicName},
};
use rumqttc::v5::mqttbytes::v5::{
    Disconnect, DisconnectReasonCode, PingResp, Publish, PublishProperties,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{unconstrained, yield_now},
    time::Instant,
};
use tokio_util::{codec::Framed, sync::CancellationToken};
use tracing::warn;

use self::{
    end::End,
    observed::Observed,
    outbound::{Held, OnBus},
    pending::{Answering, Pending, next_answer, next_commit},
    share::Share,
    waiting::{Alarm, next_change},
};
use super::{
    admission::Admission,
    clients::Ticket,
    codec::{self, Codec, DecodeError, EncodeError, Packet, Version},
    lifecycle::Connection,
    limits::Bound,
    pace::Pace,
    sessions::Outbound,
    shared::Shared,
};
use crate::{
    clock::ticks,
    identity::{Credential, SnapshotWatch},
};

/// Packets handled before the session writes and looks at its other duties.
const PACKETS_AT_ONCE: usize = 64;
/// What a client without keep-alive is checked against: never.
const NO_KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is published when the client goes without a DISCONNECT.
#[derive(Debug)]
pub(super) struct Will {
    pub(in crate::broker) topic: TopicName,
    pub(in crate::broker) payload: Bytes,
    pub(in crate::broker) qos: Qos,
    pub(in crate::broker) retain: bool,
    pub(in crate::broker) properties: Option<PublishProperties>,
    /// How long it waits for the client to come back.
    pub(in crate::broker) delay_secs: u32,
}

/// What a session is made of.
#[derive(Debug)]
pub(super) struct Parts<'a, S> {
    pub(super) shared: Arc<Shared>,
    pub(super) framed: Framed<S, Codec>,
    pub(super) version: Version,
    pub(super) credential: Credential<'a>,
    pub(super) admission: Admission,
    pub(super) ticket: Ticket,
    pub(super) connection: Connection,
    /// What outlives the connection.
    pub(super) held: Held,
    pub(super) will: Option<Will>,
    pub(super) keep_alive_secs: u16,
    pub(super) stop: CancellationToken,
}

/// A publish that waits for its turn under the rate of the client.
#[derive(Debug)]
struct HeldBack {
    until: Instant,
    topic: TopicName,
    level: Qos,
    publish: Publish,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client<'a, S> {
    shared: Arc<Shared>,
    framed: Framed<S, Codec>,
    version: Version,
    credential: Credential<'a>,
    identity: SnapshotWatch,
    admission: Admission,
    /// The groups that the last event was sent with.
    groups: Arc<[GroupName]>,
    ticket: Ticket,
    connection: Connection,
    will: Option<Will>,
    keep_alive: Duration,
    /// When to look whether the principal is past its time.
    validity_check: Instant,
    pace: Pace,
    held_back: Option<Box<HeldBack>>,
    /// QoS 1 and 2 publishes in the order in which they came.
    pending: VecDeque<Pending>,
    held: Held,
    /// What the DISCONNECT asked for.
    expiry_secs: Option<u32>,
    on_bus: OnBus,
    told_full: quota::Told,
    /// Answers that wait for the disk, in the order in which they go.
    answering: VecDeque<Answering>,
    /// Room for what is taken from the session's queue.
    batch: Vec<Outbound>,
    /// There may be something in the session's queue that can go.
    has_queued: bool,
    /// The topic that the client published to last: it saves most publishes from being checked for a
    /// valid one.
    last_topic: Option<TopicName>,
    observed: Observed,
    /// What is on its way to the buffer at QoS 0.
    share: Share,
    /// Subscriptions that a change took away and of which nobody is told yet.
    dropped: Vec<TopicFilter>,
    stop: CancellationToken,
}

impl<'a, S> Client<'a, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) fn new(parts: Parts<'a, S>) -> Self {
        let keep_alive = match parts.keep_alive_secs {
            0 => NO_KEEP_ALIVE,
            secs => Duration::from_millis(u64::from(secs) * 1500),
        };
        let principal = parts.admission.principal();
        let identity = parts.shared.neighbours.identity.clone();
        let snapshot = Arc::clone(&identity.borrow());
        let limits = &parts.shared.config.limits.publish;
        let paces = &parts.shared.paces;
        Self {
            pace: paces.of(principal, limits, &snapshot, ticks()),
            held_back: None,
            identity,
            groups: parts.shared.groups(principal),
            validity_check: standing::next_check(principal.valid_until),
            shared: parts.shared,
            framed: parts.framed,
            version: parts.version,
            credential: parts.credential,
            admission: parts.admission,
            ticket: parts.ticket,
            connection: parts.connection,
            will: parts.will,
            keep_alive,
            pending: VecDeque::new(),
            held: parts.held,
            expiry_secs: None,
            on_bus: OnBus::default(),
            told_full: quota::Told::default(),
            answering: VecDeque::new(),
            batch: Vec::new(),
            has_queued: false,
            last_topic: None,
            observed: Observed::default(),
            share: Share::default(),
            dropped: Vec::new(),
            stop: parts.stop,
        }
    }

    /// Serves the client to its end.
    pub(super) async fn run(mut self: Box<Self>) {
        let mut end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if matches!(end, End::TakenOver) {
            end = Box::pin(self.read_out()).await;
        }
        Box::pin(self.finish(end)).await;
    }

    /// What does something is on the heap for as long as that takes: most sessions do nothing most of
    /// the time, and need not carry the states of what they might do.
    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        Box::pin(self.take_up()).await?;
        self.flush().await?;
        Box::pin(self.tell_connected()).await?;
        // Kept from turn to turn, because to begin to wait takes locks and timers. The token of the stop
        // is a child, whose lock no other connection takes.
        let (stop, held) = (self.stop.child_token(), Arc::clone(&self.held));
        let (taken_over, kicked) = (self.ticket.taken_over.clone(), self.ticket.kicked.clone());
        let mut stopped = pin!(stop.cancelled());
        let mut taken_over = pin!(taken_over.cancelled());
        let mut kicked = pin!(kicked.cancelled());
        let mut changed = pin!(next_change(self.identity.clone()));
        let mut woken = pin!(held.woken());
        let mut deadline = Instant::now() + self.keep_alive;
        let mut alarm = Alarm::new(deadline.min(self.validity_check));
        loop {
            let reading = self.reads();
            let due = self.next_due(reading.then_some(deadline));
            // In this order, so that what ends the session is heard whatever else there is. Nothing
            // starves: whatever came first, the rest of the turn looks once at all that stands behind.
            let first = tokio::select! {
                biased;
                () = stopped.as_mut() => return Err(End::Stopping),
                () = taken_over.as_mut() => return Err(End::TakenOver),
                () = kicked.as_mut() => return Err(self.kicked()),
                identity = changed.as_mut() => {
                    if identity.has_changed().is_err() {
                        return Err(End::Stopping);
                    }
                    changed.set(next_change(identity));
                    self.look()?;
                    None
                }
                () = alarm.at(due) => {
                    Box::pin(self.on_alarm()).await?;
                    None
                }
                // Cancel-safe: `Framed` keeps what it has read.
                packet = self.framed.next(), if reading => Some(packet),
                // Cancel-safe: the receiver stays in the queue.
                committed = next_commit(&mut self.pending) => {
                    Box::pin(self.acknowledge(committed)).await?;
                    None
                }
                // Cancel-safe: a wake-up that nobody waits for is kept.
                () = woken.as_mut() => {
                    woken.set(held.woken());
                    self.has_queued = true;
                    None
                }
                // Cancel-safe: see `Link::next`.
                delivery = self.on_bus.next() => {
                    Box::pin(self.deliver_all(delivery)).await?;
                    None
                }
                // Cancel-safe: the receiver stays in the queue.
                answer = next_answer(&mut self.answering) => {
                    Box::pin(self.send(answer.ok_or(End::NotCommitted)?)).await?;
                    None
                }
            };
            if woken.as_mut().now_or_never().is_some() {
                woken.set(held.woken());
                self.has_queued = true;
            }
            let next = match first {
                Some(packet) => {
                    if matches!(packet, Some(Ok(Packet::Publish(_)))) {
                        // The runtime runs first what it woke last. What came before on another
                        // connection, such as a subscription to what is published here, has its turn
                        // before this.
                        yield_now().await;
                    }
                    Some(packet)
                }
                // Whatever else the task has done by now: what has come counts against the keep-alive.
                None if self.reads() => unconstrained(self.framed.next()).now_or_never(),
                None => None,
            };
            match next {
                Some(packet) => {
                    Box::pin(self.handle_packets(packet)).await?;
                    deadline = Instant::now() + self.keep_alive;
                }
                // While the session does not read, silence is its own doing.
                None if !reading || !self.reads() => deadline = Instant::now() + self.keep_alive,
                None if deadline <= Instant::now() => return Err(End::KeepAlive),
                None => {}
            }
            Box::pin(self.finish_turn()).await?;
        }
    }

    /// What the client has to hear after a turn, with one write.
    async fn finish_turn(&mut self) -> Result<(), End> {
        self.acknowledge_decided().await?;
        while let Some(answer) = next_answer(&mut self.answering).now_or_never() {
            self.send(answer.ok_or(End::NotCommitted)?).await?;
        }
        if std::mem::take(&mut self.has_queued) {
            self.send_queued().await?;
        }
        if let Some(delivery) = self.on_bus.next().now_or_never() {
            self.deliver_all(delivery).await?;
        }
        self.flush().await?;
        self.observed.tell(&self.shared, self.admission.principal());
        self.admission.tell();
        self.tell_dropped().await
    }

    /// When the alarm has to go off.
    fn next_due(&self, keep_alive: Option<Instant>) -> Instant {
        let due = keep_alive.map_or(self.validity_check, |end| end.min(self.validity_check));
        let turn = self.held_back.as_ref().map(|held_back| held_back.until);
        turn.map_or(due, |turn| turn.min(due))
    }

    /// It is time for something; whether that is the keep-alive is looked at after packets that have
    /// come meanwhile.
    async fn on_alarm(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.validity_check <= now {
            self.check_validity()?;
        }
        let turn = self.held_back.as_ref().map(|held_back| held_back.until);
        if turn.is_some_and(|turn| turn <= now) {
            self.take_held_back().await?;
        }
        Ok(())
    }

    /// Whether it takes packets now: there is room for what a packet leaves to be answered later.
    fn reads(&self) -> bool {
        let most = usize::from(portcullis_core::limits::RECEIVE_MAXIMUM);
        self.held_back.is_none() && self.pending.len() < most && self.answering.len() < most
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
                Some(Some(Err(error))) => {
                    if matches!(error, DecodeError::TooLarge { .. }) {
                        self.shared.count_beyond(Bound::PacketBytes);
                    }
                    return Err(End::broken(error));
                }
                Some(Some(Ok(packet))) => {
                    // What was allowed a packet ago may not be allowed now.
                    self.look()?;
                    self.handle(packet).await?;
                }
            }
            // Before the next packet is taken: one that is taken and not handled would be lost.
            if count == PACKETS_AT_ONCE || !self.reads() {
                break;
            }
            next = self.framed.next().now_or_never();
        }
        Ok(())
    }

    async fn handle(&mut self, packet: Packet) -> Result<(), End> {
        self.shared.metrics.packets_received.inc();
        match packet {
            Packet::Publish(publish) => self.on_publish(publish).await,
            Packet::PubRel(release) => self.on_pubrel(release.pkid).await,
            Packet::PubAck(ack) => self.on_puback(&ack),
            Packet::PubRec(received) => self.on_pubrec(received).await,
            Packet::PubComp(complete) => self.on_pubcomp(&complete),
            Packet::Subscribe(subscribe) => self.on_subscribe(subscribe).await,
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(unsubscribe).await,
            Packet::PingReq(_) => self.send(Packet::PingResp(PingResp)).await,
            Packet::Disconnect(goodbye) => Err(self.on_disconnect(&goodbye)),
            Packet::Connect(..) => Err(End::Broke(
                DisconnectReasonCode::ProtocolError,
                "a second CONNECT".to_owned(),
            )),
            // A server's to send, or of an authentication that was not begun.
            Packet::Auth(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp(_) => Err(End::Broke(
                DisconnectReasonCode::ProtocolError,
                "an unexpected packet".to_owned(),
            )),
        }
    }

    fn on_disconnect(&mut self, goodbye: &Disconnect) -> End {
        let given = goodbye.properties.as_ref();
        if let Some(secs) = given.and_then(|given| given.session_expiry_interval) {
            if secs > 0 && self.held.expiry_secs() == 0 {
                return End::Broke(
                    DisconnectReasonCode::ProtocolError,
                    "a session without expiry that gets one in its DISCONNECT".to_owned(),
                );
            }
            self.expiry_secs = Some(secs.min(self.shared.config.session_expiry_max_secs));
        }
        match goodbye.reason_code {
            DisconnectReasonCode::NormalDisconnection => End::Disconnected,
            _ => End::DisconnectedWithWill,
        }
    }

    /// Puts a packet into the write buffer, and writes when that is full.
    async fn send(&mut self, packet: Packet) -> Result<(), End> {
        self.try_send(packet).await.map(drop)
    }

    async fn try_send(&mut self, packet: Packet) -> Result<bool, End> {
        self.room().await?;
        let written = self.framed.start_send_unpin(packet);
        self.sent(written)
    }

    /// The same for a delivery; `false` if it is larger than the client takes. There is room for it.
    fn send_delivery(&mut self, delivery: &codec::Delivery<'_>) -> Result<bool, End> {
        let mut buffer = std::mem::take(self.framed.write_buffer_mut());
        let written = self.framed.codec_mut().deliver(delivery, &mut buffer);
        *self.framed.write_buffer_mut() = buffer;
        self.sent(written)
    }

    fn sent(&self, written: Result<(), EncodeError>) -> Result<bool, End> {
        match written {
            Ok(()) => {
                self.shared.metrics.packets_sent.inc();
                Ok(true)
            }
            Err(EncodeError::TooLarge) => Ok(false),
            Err(EncodeError::Io(_)) => Err(End::ConnectionLost),
            Err(EncodeError::Packet(error)) => {
                warn!(
                    client = self.principal().client_id.as_str(),
                    error, "A packet could not be encoded."
                );
                Ok(false)
            }
        }
    }

    /// The end that an operator wants.
    fn kicked(&self) -> End {
        End::Kicked(self.ticket.kicked.reason())
    }

    fn principal(&self) -> &Principal {
        self.admission.principal()
    }
}
