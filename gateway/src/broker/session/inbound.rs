//! What a client sends: PUBLISH with its acknowledgements, SUBSCRIBE, UNSUBSCRIBE.

use portcullis_core::{
    event::{Event, Qos},
    identity::OnPublishDenied,
    limits::{FILTERS_PER_SUBSCRIBE_MAX, PAYLOAD_BYTES_MAX},
    policy::Permit,
    topic::{TopicFilter, TopicName},
};
use rumqttc::v5::mqttbytes::v5::{
    DisconnectReasonCode, Filter, PubAck, PubAckReason, PubComp, PubRec, PubRecReason, Publish,
    PublishProperties, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, UnsubAckReason,
    Unsubscribe,
};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Decided, End, Pending, Session};
use crate::{
    broker::{
        admission::Denied,
        bus::Message,
        codec::{Packet, Version},
        connect::qos,
        lifecycle::Happened,
        limits::Limits,
        retained::Kept,
    },
    buffer::Ack,
    clock::now,
    defend::ActivityKind,
    identity::Provisioner,
};

/// A subscription that a SUBSCRIBE made.
#[derive(Debug)]
struct Granted {
    filter: TopicFilter,
    wants_retained: bool,
}

/// Topics that start like this are the gateway's own and go to no stream.
const RESERVED: char = '$';

impl<S> Session<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn on_publish(&mut self, publish: Publish) -> Result<(), End> {
        let limits = &self.shared.config.limits;
        check_publish(&publish, limits)?;
        let topic = limits.topic(&publish.topic).map_err(|error| {
            End::Broke(DisconnectReasonCode::TopicNameInvalid, error.to_string())
        })?;
        let level = qos(publish.qos);
        if level == Qos::ExactlyOnce && self.unreleased.contains(&publish.pkid) {
            // The client has not seen our PUBREC; the message is in already.
            let waiting = self
                .pending
                .iter()
                .any(|pending| pending.pkid == publish.pkid);
            return if waiting {
                Ok(())
            } else {
                self.send(Packet::PubRec(PubRec::new(publish.pkid, None)))
                    .await
            };
        }
        match self.admission.publish(&topic, publish.retain) {
            Ok(_) if Provisioner::serves(&topic) => self.ask(topic, level, publish).await,
            Ok(permit) => {
                let published = ActivityKind::Published {
                    topic: topic.clone(),
                    bytes: publish.payload.len(),
                };
                self.shared.observe(self.principal(), published);
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
            Qos::AtMostOnce => (None, None),
            Qos::AtLeastOnce | Qos::ExactlyOnce => {
                let (ack, acked) = Ack::new();
                (
                    Some(ack),
                    Some(Pending {
                        pkid: publish.pkid,
                        qos: level,
                        answer: PubAckReason::Success,
                        acked,
                    }),
                )
            }
        };
        let permit = match self.hand_in(permit, &topic, level, &publish, ack).await? {
            Ok(permit) => permit,
            Err(denied) => return self.refuse_publish(&denied, level, publish.pkid).await,
        };
        if level == Qos::ExactlyOnce {
            self.unreleased.insert(publish.pkid);
        }
        self.pending.extend(pending);
        self.spread(&permit, topic, level, &publish)
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
        if topic.as_str().starts_with(RESERVED) {
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
        topic: TopicName,
        level: Qos,
        publish: &Publish,
    ) -> Result<(), End> {
        let metrics = &self.shared.metrics;
        metrics
            .publishes
            .with_label_values(&[qos_label(level)])
            .inc();
        metrics
            .publish_bytes
            .inc_by(u64::try_from(publish.payload.len()).unwrap_or(0));
        let message = Message {
            topic,
            payload: publish.payload.clone(),
            qos: level,
            retain: publish.retain,
            publisher: self.ticket.session,
            properties: publish.properties.clone(),
        };
        if publish.retain && self.shared.retained.keep(message.clone()) == Kept::Full {
            metrics.retained_refused.inc();
        }
        self.shared.bus.publish(permit, message).map_err(End::Bus)
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

    async fn refuse_publish(&mut self, denied: &Denied, level: Qos, pkid: u16) -> Result<(), End> {
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

    /// Queues the answer to a publish that goes no further.
    pub(super) fn acknowledge_alone(&mut self, level: Qos, pkid: u16, answer: PubAckReason) {
        if level == Qos::AtMostOnce {
            return;
        }
        // With an error a QoS 2 exchange ends here, else it goes on as if the message were taken.
        if level == Qos::ExactlyOnce && answer == PubAckReason::Success {
            self.unreleased.insert(pkid);
        }
        let (ack, acked) = Ack::new();
        ack.not_routed();
        self.pending.push_back(Pending {
            pkid,
            qos: level,
            answer,
            acked,
        });
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
        }
        let answer = match qos {
            Qos::ExactlyOnce => {
                let mut received = PubRec::new(pkid, None);
                if answer != PubAckReason::Success {
                    received.reason = PubRecReason::NotAuthorized;
                }
                Packet::PubRec(received)
            }
            Qos::AtLeastOnce | Qos::AtMostOnce => {
                let mut ack = PubAck::new(pkid, None);
                ack.reason = answer;
                Packet::PubAck(ack)
            }
        };
        self.send(answer).await
    }

    pub(super) async fn on_pubrel(&mut self, pkid: u16) -> Result<(), End> {
        self.unreleased.remove(&pkid);
        self.send(Packet::PubComp(PubComp::new(pkid, None))).await
    }

    pub(super) async fn on_subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let broke =
            |detail: &str| End::Broke(DisconnectReasonCode::ProtocolError, detail.to_owned());
        if subscribe.filters.is_empty() {
            return Err(broke("a SUBSCRIBE without a filter"));
        }
        let identifier = subscribe.properties.as_ref().and_then(|given| given.id);
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut granted = Vec::new();
        for (index, filter) in subscribe.filters.iter().enumerate() {
            let code = if index >= FILTERS_PER_SUBSCRIBE_MAX {
                SubscribeReasonCode::QuotaExceeded
            } else if identifier.is_some() {
                SubscribeReasonCode::SubscriptionIdNotSupported
            } else {
                self.subscribe(filter, &mut granted).await?
            };
            codes.push(code);
        }
        let ack = SubAck {
            pkid: subscribe.pkid,
            return_codes: codes,
            properties: None,
        };
        self.send(Packet::SubAck(ack)).await?;
        for filter in granted.iter().filter(|granted| granted.wants_retained) {
            self.send_retained(&filter.filter).await?;
        }
        let filters: Vec<_> = granted.into_iter().map(|granted| granted.filter).collect();
        self.tell_subscriptions(&filters, |connection, filters| Happened::Subscribed {
            connection,
            filters,
        })
        .await
    }

    async fn subscribe(
        &mut self,
        filter: &Filter,
        granted: &mut Vec<Granted>,
    ) -> Result<SubscribeReasonCode, End> {
        if filter.path.starts_with("$share/") {
            return Ok(SubscribeReasonCode::SharedSubscriptionsNotSupported);
        }
        let Ok(parsed) = self.shared.config.limits.filter(&filter.path) else {
            return Ok(SubscribeReasonCode::TopicFilterInvalid);
        };
        let permit = match self.admission.subscribe(&parsed) {
            Ok(permit) => permit,
            Err(denied) => {
                self.shared.note_denied(self.principal(), &denied);
                return Ok(SubscribeReasonCode::NotAuthorized);
            }
        };
        let bus = &self.shared.bus;
        let outcome = self
            .outbound
            .subscribe(bus, &permit, &parsed, filter)
            .await
            .map_err(End::Bus)?;
        if matches!(outcome.code, SubscribeReasonCode::Success(_)) {
            granted.push(Granted {
                filter: parsed,
                wants_retained: outcome.wants_retained,
            });
        }
        Ok(outcome.code)
    }

    pub(super) async fn on_unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), End> {
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut ended = Vec::new();
        for filter in &unsubscribe.filters {
            reasons.push(match TopicFilter::parse(filter) {
                Err(_) => UnsubAckReason::TopicFilterInvalid,
                Ok(filter) if self.outbound.unsubscribe(&filter).map_err(End::Bus)? => {
                    ended.push(filter);
                    UnsubAckReason::Success
                }
                Ok(_) => UnsubAckReason::NoSubscriptionExisted,
            });
        }
        self.send(Packet::UnsubAck(UnsubAck {
            pkid: unsubscribe.pkid,
            reasons,
            properties: None,
        }))
        .await?;
        self.tell_subscriptions(&ended, |connection, filters| Happened::Unsubscribed {
            connection,
            filters,
        })
        .await
    }
}

/// What a publish must be besides its topic.
fn check_publish(publish: &Publish, limits: &Limits) -> Result<(), End> {
    let broke = |code, detail: &str| Err(End::Broke(code, detail.to_owned()));
    if publish.payload.len() > PAYLOAD_BYTES_MAX {
        return broke(
            DisconnectReasonCode::PacketTooLarge,
            "a payload over the limit",
        );
    }
    let Some(given) = &publish.properties else {
        return Ok(());
    };
    if given.topic_alias.is_some() {
        return broke(
            DisconnectReasonCode::TopicAliasInvalid,
            "a topic alias, and the maximum is 0",
        );
    }
    if !given.subscription_identifiers.is_empty() {
        return broke(
            DisconnectReasonCode::ProtocolError,
            "a subscription identifier in a publish",
        );
    }
    if property_bytes(given) > limits.property_bytes_max {
        return broke(
            DisconnectReasonCode::QuotaExceeded,
            "properties over the limit",
        );
    }
    Ok(())
}

/// What the texts and data of the properties take.
pub(in crate::broker) fn property_bytes(given: &PublishProperties) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let user = given
        .user_properties
        .iter()
        .map(|(name, value)| name.len() + value.len() + 5);
    user.sum::<usize>()
        + text(&given.response_topic)
        + text(&given.content_type)
        + given.correlation_data.as_ref().map_or(0, |data| data.len())
}

pub(super) fn qos_label(qos: Qos) -> &'static str {
    match qos {
        Qos::AtMostOnce => "0",
        Qos::AtLeastOnce => "1",
        Qos::ExactlyOnce => "2",
    }
}
