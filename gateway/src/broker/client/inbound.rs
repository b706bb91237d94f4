//! What a client publishes, and what it is answered.

use bytes::Bytes;
use futures_util::FutureExt;
use portcullis_core::{
    event::{Event, Qos},
    identity::OnPublishDenied,
    limits::{PAYLOAD_BYTES_MAX, RECEIVE_MAXIMUM},
    policy::Permit,
    topic::TopicName,
};
use rumqttc::v5::mqttbytes::v5::{
    DisconnectReasonCode, PubAck, PubAckReason, PubRec, PubRecReason, Publish,
};
use std::{mem, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::yield_now,
    time::Instant,
};

use super::{
    Client, End, HeldBack,
    pending::{Decided, Pending, next_commit},
    quota::Room,
};
use crate::{
    broker::{
        admission::Denied,
        codec::{Packet, Version, because, qos},
        limits::{Bound, Limits},
        message::{self, Message, is_reserved, property_bytes},
        pace::Verdict,
        sessions::{Address, Origin, Routed},
    },
    buffer::Ack,
    clock::{now, ticks},
    defend::ActivityKind,
    identity::Provisioner,
};

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn on_publish(&mut self, publish: Publish) -> Result<(), End> {
        let limits = &self.shared.config.limits;
        let last = self.last_topic.take();
        let topic = check_publish(&publish, limits, last).map_err(|(end, bound)| {
            if let Some(bound) = bound {
                self.shared.count_beyond(bound);
            }
            end
        })?;
        self.last_topic = Some(topic.clone());
        let level = qos(publish.qos);
        self.check_receive_maximum(level, publish.pkid)?;
        if level == Qos::ExactlyOnce && self.held.has_incoming(publish.pkid) {
            return self.on_repeat(&topic, &publish).await;
        }
        let bytes = topic.as_str().len() + publish.payload.len();
        let verdict = self.pace.publish(bytes, ticks());
        let shared = &self.shared;
        shared.note_pace(self.principal(), topic.as_str(), verdict);
        match verdict {
            Verdict::Go => self.admit(topic, level, publish).await,
            Verdict::Wait(time) => {
                self.held_back = Some(Box::new(HeldBack {
                    until: Instant::now() + time,
                    topic,
                    level,
                    publish,
                }));
                Ok(())
            }
            Verdict::Drop => self.drop_publish(level, publish.pkid),
            Verdict::Disconnect => Err(End::TooFast),
        }
    }

    /// It is the turn of the publish that was held back.
    pub(super) async fn take_held_back(&mut self) -> Result<(), End> {
        let Some(held_back) = self.held_back.take() else {
            return Ok(());
        };
        // It is decided by the rights of this moment.
        self.look()?;
        let HeldBack {
            topic,
            level,
            publish,
            ..
        } = *held_back;
        self.admit(topic, level, publish).await
    }

    /// A publish beyond the rate: MQTT 3.1.1 has no answer for that.
    fn drop_publish(&mut self, level: Qos, pkid: u16) -> Result<(), End> {
        if level != Qos::AtMostOnce && self.version == Version::V311 {
            return Err(End::TooFast);
        }
        self.acknowledge_alone(level, pkid, PubAckReason::QuotaExceeded);
        Ok(())
    }

    /// A publish whose turn it is.
    async fn admit(&mut self, topic: TopicName, level: Qos, publish: Publish) -> Result<(), End> {
        match self.admission.publish(&topic, publish.retain) {
            Ok(_) if !is_as_indicated(&publish) => self.refuse_payload(level, publish.pkid),
            Ok(_) if Provisioner::serves(&topic) => self.ask(topic, level, publish).await,
            Ok(permit) => {
                let published = ActivityKind::Published {
                    bytes: publish.payload.len(),
                };
                let principal = self.admission.principal();
                self.observed.add(&self.shared, principal, published);
                self.take(permit, topic, level, publish).await
            }
            Err(denied) => self.refuse_publish(&denied, level, publish.pkid).await,
        }
    }

    /// An admitted publish: upstream, to the local subscribers, and acknowledged after the commit.
    async fn take(
        &mut self,
        permit: Permit,
        topic: TopicName,
        level: Qos,
        publish: Publish,
    ) -> Result<(), End> {
        let (ack, pending) = match level {
            Qos::AtMostOnce => (self.share.count(publish.payload.len()), None),
            Qos::AtLeastOnce | Qos::ExactlyOnce => {
                let (ack, acked) = Ack::new();
                (
                    Some(ack),
                    Some(Pending {
                        pkid: publish.pkid,
                        qos: level,
                        answer: PubAckReason::Success,
                        acked: Some(acked),
                        durable: None,
                    }),
                )
            }
        };
        match self.room_upstream(&topic, level, &publish).await? {
            Room::There => {}
            Room::None => return Ok(()),
            Room::Denied(denied) => return self.refuse_publish(&denied, level, publish.pkid).await,
        }
        let permit = match self.hand_in(permit, &topic, level, &publish, ack).await? {
            Ok(permit) => permit,
            Err(denied) => return self.refuse_publish(&denied, level, publish.pkid).await,
        };
        self.await_share().await?;
        // While too much waits for the disk nothing more goes there.
        let shared = Arc::clone(&self.shared);
        self.while_it_may(shared.sessions.log.room()).await?;
        let origin = (level == Qos::ExactlyOnce).then_some(publish.pkid);
        let routed = self.spread(&permit, &topic, level, &publish, origin)?;
        if routed.is_crowded {
            // Whoever it is for has its turn before the next publish.
            yield_now().await;
        }
        self.pending.extend(pending.map(|pending| Pending {
            durable: routed.durable,
            ..pending
        }));
        Ok(())
    }

    /// Who has used up what one may have on its way to the buffer waits for some of it to be there.
    async fn await_share(&mut self) -> Result<(), End> {
        if !self.share.is_used_up() {
            return Ok(());
        }
        let mut share = mem::take(&mut self.share);
        self.while_it_may(share.room()).await?;
        self.share = share;
        Ok(())
    }

    /// A client that has more open than it was told to is at fault (MQTT 5.0, 4.9).
    fn check_receive_maximum(&self, level: Qos, pkid: u16) -> Result<(), End> {
        if level == Qos::AtMostOnce || self.version == Version::V311 {
            return Ok(());
        }
        // Of QoS 2 publishes that wait for their commit some count twice.
        if self.pending.len() + self.held.incoming_len() < usize::from(RECEIVE_MAXIMUM) {
            return Ok(());
        }
        let of_one = |pending: &&Pending| pending.qos == Qos::AtLeastOnce;
        let open = self.pending.iter().filter(of_one).count() + self.held.incoming_len();
        if open < usize::from(RECEIVE_MAXIMUM) || self.held.has_incoming(pkid) {
            return Ok(());
        }
        Err(End::Broke(
            DisconnectReasonCode::ReceiveMaximumExceeded,
            format!("over {RECEIVE_MAXIMUM} publishes without an answer"),
        ))
    }

    /// To the stream. That may have to wait, and rights may change meanwhile: what comes back is the
    /// permit at its end. What is not taken is not acknowledged.
    pub(super) async fn hand_in(
        &mut self,
        permit: Permit,
        topic: &TopicName,
        level: Qos,
        publish: &Publish,
        ack: Option<Ack>,
    ) -> Result<Result<Permit, Denied>, End> {
        if is_reserved(topic) {
            if let Some(ack) = ack {
                ack.not_routed();
            }
            return Ok(Ok(permit));
        }
        let mut permit = permit;
        let groups = self.shared.groups(self.principal());
        if !Arc::ptr_eq(&groups, &self.groups) && groups != self.groups {
            // Other groups, other chains: what was sent before goes before.
            self.await_former_commits().await?;
            permit = match self.admission.still_publish(topic, publish.retain) {
                Ok(permit) => permit,
                Err(denied) => return Ok(Err(denied)),
            };
        }
        self.groups = groups;
        let event = self.event(topic.clone(), level, publish);
        // Waiting here is the back-pressure; nothing that ends the session waits for it.
        let shared = Arc::clone(&self.shared);
        let submitted = shared.neighbours.pipeline.submit(event, ack);
        let submitted = self
            .while_it_may_publish(topic, publish.retain, submitted)
            .await?;
        Ok(match submitted {
            Ok(taken) => {
                taken.map_err(|_| End::NotCommitted)?;
                Ok(permit)
            }
            Err(denied) => Err(denied),
        })
    }

    async fn await_former_commits(&mut self) -> Result<(), End> {
        let (taken_over, stop) = (self.ticket.taken_over.clone(), self.stop.clone());
        let kicked = self.ticket.kicked.clone();
        tokio::select! {
            // What is lost when it is dropped is an answer to a client that goes.
            done = self.await_commits() => done,
            () = taken_over.cancelled() => Err(End::TakenOver),
            () = kicked.cancelled() => Err(End::Kicked(kicked.reason())),
            () = stop.cancelled() => Err(End::Stopping),
        }
    }

    /// To the local subscribers.
    pub(super) fn spread(
        &self,
        permit: &Permit,
        topic: &TopicName,
        level: Qos,
        publish: &Publish,
        origin: Option<u16>,
    ) -> Result<Routed, End> {
        let metrics = &self.shared.metrics;
        metrics.publishes_of[usize::from(level.as_u8())].inc();
        metrics
            .publish_bytes
            .inc_by(u64::try_from(publish.payload.len()).unwrap_or(0));
        let address = Address {
            topic,
            qos: level,
            retain: publish.retain,
            publisher: self.held.number,
        };
        let origin = origin.map(|pkid| Origin {
            session: &self.held,
            pkid,
        });
        let mut made = None;
        let message = || {
            let message = Arc::new(message_of(publish, &address));
            made = Some(Arc::clone(&message));
            message
        };
        let routed = self
            .shared
            .sessions
            .publish(permit, address, message, origin);
        if routed.retain_refused {
            metrics.retained_refused.inc();
        }
        self.shared.count_overflow(routed.overflowed);
        if let (true, Some(message)) = (routed.is_for_bus, made) {
            let published = self.shared.bus.publish(permit, &message);
            published.map_err(End::Bus)?;
        }
        Ok(routed)
    }

    fn event(&self, topic: TopicName, level: Qos, publish: &Publish) -> Event {
        let principal = self.principal();
        Event {
            thing: principal.thing.as_ref().map(|thing| thing.name.clone()),
            groups: self.groups.clone(),
            client_id: principal.client_id.clone(),
            received_at: now(),
            topic,
            payload: publish.payload.clone(),
            qos: level,
            retain: publish.retain,
            user_properties: publish
                .properties
                .as_ref()
                .map(|p| p.user_properties.clone())
                .unwrap_or_default(),
        }
    }

    pub(super) async fn refuse_publish(
        &mut self,
        denied: &Denied,
        level: Qos,
        pkid: u16,
    ) -> Result<(), End> {
        self.shared.note_denied(self.principal(), denied);
        let of_its_groups = self.principal().on_publish_denied;
        let answer = match of_its_groups.unwrap_or(self.shared.config.on_publish_denied) {
            OnPublishDenied::Disconnect => return Err(End::NotAuthorized),
            OnPublishDenied::PubackError if self.version == Version::V311 => {
                return Err(End::NotAuthorized);
            }
            OnPublishDenied::PubackError => PubAckReason::NotAuthorized,
            OnPublishDenied::DropAndAck => PubAckReason::Success,
        };
        self.acknowledge_alone(level, pkid, answer);
        Ok(())
    }

    /// The payload is not the text that its format indicator says (MQTT 5.0, 3.3.2.3.2).
    fn refuse_payload(&mut self, level: Qos, pkid: u16) -> Result<(), End> {
        if level == Qos::AtMostOnce {
            let code = DisconnectReasonCode::PayloadFormatInvalid;
            return Err(End::Broke(code, NOT_TEXT.to_owned()));
        }
        self.acknowledge_alone(level, pkid, PubAckReason::PayloadFormatInvalid);
        Ok(())
    }

    /// Queues the answer to a publish that goes no further.
    pub(super) fn acknowledge_alone(&mut self, level: Qos, pkid: u16, answer: PubAckReason) {
        if level == Qos::AtMostOnce {
            return;
        }
        // With an error a QoS 2 exchange ends here, else it goes on as if the message were taken.
        if level == Qos::ExactlyOnce && answer == PubAckReason::Success {
            self.held.take_incoming(&self.shared.sessions.log, pkid);
        }
        let (ack, acked) = Ack::new();
        ack.not_routed();
        self.pending.push_back(Pending {
            pkid,
            qos: level,
            answer,
            acked: Some(acked),
            durable: None,
        });
    }

    /// Answers what is decided: one commit decides many, and one write tells.
    pub(super) async fn acknowledge_decided(&mut self) -> Result<(), End> {
        // Cancel-safe: the receiver stays in the queue.
        while let Some(decided) = next_commit(&mut self.pending).now_or_never() {
            self.acknowledge(decided).await?;
        }
        Ok(())
    }

    /// The oldest pending publish is decided.
    pub(super) async fn acknowledge(&mut self, decided: Decided) -> Result<(), End> {
        let Decided {
            pkid,
            qos,
            answer,
            committed,
        } = decided;
        if !committed {
            self.shared.metrics.unacknowledged.inc();
            return Err(End::NotCommitted);
        }
        if answer == PubAckReason::Success {
            self.shared.metrics.acknowledged.inc();
            if qos == Qos::ExactlyOnce {
                self.held.committed(pkid);
            }
        }
        let (received_reason, why) = match answer {
            PubAckReason::Success => (PubRecReason::Success, None),
            PubAckReason::PayloadFormatInvalid => {
                (PubRecReason::PayloadFormatInvalid, Some(NOT_TEXT))
            }
            PubAckReason::QuotaExceeded => (PubRecReason::QuotaExceeded, Some("there is no room")),
            _ => (PubRecReason::NotAuthorized, Some("no policy allows it")),
        };
        let packet = match qos {
            Qos::ExactlyOnce => {
                let mut received = PubRec::new(pkid, None);
                received.reason = received_reason;
                Packet::PubRec(received)
            }
            Qos::AtLeastOnce | Qos::AtMostOnce => {
                let mut ack = PubAck::new(pkid, None);
                ack.reason = answer;
                Packet::PubAck(ack)
            }
        };
        let packet = match why {
            Some(why) => because(packet, why),
            None => packet,
        };
        self.send(packet).await
    }
}

const NOT_TEXT: &str = "the payload is not the UTF-8 text that its format indicator says";

fn is_as_indicated(publish: &Publish) -> bool {
    let given = publish.properties.as_ref();
    let indicator = given.and_then(|given| given.payload_format_indicator);
    message::is_as_indicated(indicator, &publish.payload)
}

/// What local receivers get of a publish.
fn message_of(publish: &Publish, address: &Address<'_>) -> Message {
    let mut properties = publish.properties.clone();
    // Copied: what may wait in a queue must not keep the whole buffer that it was read into.
    if let Some(data) = properties
        .as_mut()
        .and_then(|given| given.correlation_data.as_mut())
    {
        *data = Bytes::copy_from_slice(data);
    }
    Message {
        topic: address.topic.clone(),
        payload: Bytes::copy_from_slice(&publish.payload),
        qos: address.qos,
        retain: address.retain,
        publisher: address.publisher,
        expires_at: Message::expiry(properties.as_ref(), now()),
        properties,
    }
}

/// The topic of a publish that is as it must be, else how the connection ends and which bound it is
/// beyond. What the client published to `last` was found right.
fn check_publish(
    publish: &Publish,
    limits: &Limits,
    last: Option<TopicName>,
) -> Result<TopicName, (End, Option<Bound>)> {
    use DisconnectReasonCode as Code;
    let broke = |code, detail: &str, bound| Err((End::Broke(code, detail.to_owned()), bound));
    if publish.payload.len() > PAYLOAD_BYTES_MAX {
        let bound = Some(Bound::PayloadBytes);
        return broke(Code::PacketTooLarge, "a payload over the limit", bound);
    }
    if let Some(given) = &publish.properties {
        if !given.subscription_identifiers.is_empty() {
            let detail = "a subscription identifier in a publish";
            return broke(Code::ProtocolError, detail, None);
        }
        if property_bytes(given) > limits.property_bytes_max {
            let bound = Some(Bound::PropertyBytes);
            return broke(Code::QuotaExceeded, "properties over the limit", bound);
        }
    }
    let same = |last: &TopicName| last.as_str().as_bytes() == &publish.topic[..];
    if let Some(last) = last.filter(same) {
        return Ok(last);
    }
    limits.topic(&publish.topic).map_err(|error| {
        let end = End::Broke(Code::TopicNameInvalid, error.to_string());
        (end, error.bound)
    })
}
