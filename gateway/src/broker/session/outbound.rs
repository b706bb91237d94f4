//! What a client is sent: its subscriptions, and the deliveries that wait for their PUBACK.
//!
//! Deliveries have the lower of the publish's and the subscription's quality of service, at most
//! QoS 1 in this version. While the window is full the session takes nothing more from the bus,
//! whose log then drops the oldest messages of this subscriber.

use std::collections::{BTreeMap, HashSet};

use portcullis_core::{
    event::Qos,
    limits::DELIVERY_WINDOW_MAX,
    policy::{Action, Permit},
    topic::TopicFilter,
};
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Filter, Publish, RetainForwardRule, SubscribeReasonCode},
};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{End, Session, inbound::qos_label};
use crate::{
    broker::{
        admission::{Admission, Denied},
        bus::{Bus, BusError, Delivery, Link, Message},
        codec::Packet,
    },
    defend::ActivityKind,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Outbound {
    /// Made at the first subscription.
    link: Option<Link>,
    subscriptions: BTreeMap<usize, Subscription>,
    next_number: usize,
    window: usize,
    subscriptions_max: usize,
    in_flight: HashSet<u16>,
    last_pkid: u16,
}

#[derive(Clone, Debug)]
struct Subscription {
    filter: TopicFilter,
    qos: Qos,
    no_local: bool,
    retain_as_published: bool,
}

/// What became of a filter in a SUBSCRIBE.
#[derive(Debug)]
pub(super) struct Subscribed {
    pub(super) code: SubscribeReasonCode,
    pub(super) wants_retained: bool,
}

impl Outbound {
    pub(super) fn new(receive_maximum: Option<u16>, subscriptions_max: usize) -> Self {
        let window = receive_maximum
            .unwrap_or(DELIVERY_WINDOW_MAX)
            .min(DELIVERY_WINDOW_MAX);
        Self {
            link: None,
            subscriptions: BTreeMap::new(),
            next_number: 1,
            window: usize::from(window),
            subscriptions_max,
            in_flight: HashSet::new(),
            last_pkid: 0,
        }
    }

    /// The next message from the bus; waits forever while there is no subscription or no room.
    pub(super) async fn next(&mut self) -> Result<Delivery, BusError> {
        match &mut self.link {
            Some(link) if self.in_flight.len() < self.window => link.next().await,
            _ => std::future::pending().await,
        }
    }

    pub(super) fn acknowledged(&mut self, pkid: u16) {
        self.in_flight.remove(&pkid);
    }

    /// Adds or replaces a subscription.
    pub(super) async fn subscribe(
        &mut self,
        bus: &Arc<Bus>,
        permit: &Permit,
        parsed: &TopicFilter,
        filter: &Filter,
    ) -> Result<Subscribed, BusError> {
        debug_assert_eq!(permit.action(), Action::Subscribe);
        let granted = if filter.qos == QoS::AtMostOnce {
            Qos::AtMostOnce
        } else {
            Qos::AtLeastOnce
        };
        let subscription = Subscription {
            filter: parsed.clone(),
            qos: granted,
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
        };
        let existing = self.number_of(parsed);
        if existing.is_none() && self.subscriptions.len() >= self.subscriptions_max {
            return Ok(Subscribed {
                code: SubscribeReasonCode::QuotaExceeded,
                wants_retained: false,
            });
        }
        let number = match existing {
            Some(number) => number,
            None => {
                let number = self.next_number;
                self.next_number += 1;
                if self.link.is_none() {
                    self.link = Some(bus.link().await?);
                }
                if let Some(link) = &mut self.link {
                    link.subscribe(number, parsed)?;
                }
                number
            }
        };
        self.subscriptions.insert(number, subscription);
        let wants_retained = match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => true,
            RetainForwardRule::OnNewSubscribe => existing.is_none(),
            RetainForwardRule::Never => false,
        };
        let code = SubscribeReasonCode::Success(match granted {
            Qos::AtMostOnce => QoS::AtMostOnce,
            Qos::AtLeastOnce | Qos::ExactlyOnce => QoS::AtLeastOnce,
        });
        Ok(Subscribed {
            code,
            wants_retained,
        })
    }

    /// Whether there was such a subscription.
    pub(super) fn unsubscribe(&mut self, filter: &TopicFilter) -> Result<bool, BusError> {
        let Some(number) = self.number_of(filter) else {
            return Ok(false);
        };
        self.subscriptions.remove(&number);
        if let Some(link) = &mut self.link {
            link.unsubscribe(filter)?;
        }
        Ok(true)
    }

    /// Drops the subscriptions that are not allowed any more, and says which.
    pub(super) fn reauthorize(
        &mut self,
        admission: &mut Admission,
    ) -> Result<Vec<(TopicFilter, Denied)>, BusError> {
        let mut denied = Vec::new();
        let filters = self.subscriptions.values().map(|s| s.filter.clone());
        for filter in filters.collect::<Vec<_>>() {
            if let Err(denial) = admission.subscribe(&filter) {
                self.unsubscribe(&filter)?;
                denied.push((filter, denial));
            }
        }
        Ok(denied)
    }

    /// What is subscribed to.
    pub(super) fn filters(&self) -> impl Iterator<Item = &TopicFilter> {
        self.subscriptions.values().map(|s| &s.filter)
    }

    fn number_of(&self, filter: &TopicFilter) -> Option<usize> {
        self.subscriptions
            .iter()
            .find(|(_, s)| s.filter == *filter)
            .map(|(&number, _)| number)
    }

    /// A packet id that is not in flight; the window keeps most of them free.
    fn next_pkid(&mut self) -> u16 {
        loop {
            self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains(&self.last_pkid) {
                return self.last_pkid;
            }
        }
    }
}

/// Whether a delivery is of a stored message (MQTT 5.0, 3.3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Live,
    Retained,
}

impl<S> Session<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Sends what the bus forwarded, if the client may receive it.
    pub(super) async fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
        self.ready_to_deliver().await?;
        // Forwarded before the subscription ended.
        let Some(subscription) = self
            .outbound
            .subscriptions
            .get(&delivery.subscription)
            .cloned()
        else {
            return Ok(());
        };
        if subscription.no_local && delivery.message.publisher == self.ticket.session {
            return Ok(());
        }
        self.forward(delivery.message, &subscription, Origin::Live)
            .await
    }

    /// Sends an answer of the gateway to this client alone, if it subscribed to its topic and may
    /// receive it.
    pub(super) async fn answer(&mut self, message: Message) -> Result<(), End> {
        self.ready_to_deliver().await?;
        let mut subscriptions = self.outbound.subscriptions.values();
        let subscription = subscriptions.find(|s| s.filter.matches(&message.topic));
        match subscription.cloned() {
            Some(subscription) => self.forward(message, &subscription, Origin::Live).await,
            None => {
                let dropped = &self.shared.metrics.delivery_dropped;
                dropped.with_label_values(&["not-subscribed"]).inc();
                Ok(())
            }
        }
    }

    /// There is room in the socket, and the client has the rights that it has now: what waits for a
    /// client that reads slowly is not sent with rights that are gone.
    async fn ready_to_deliver(&mut self) -> Result<(), End> {
        self.room().await?;
        self.look()
    }

    /// Sends the retained messages that a new subscription takes.
    pub(super) async fn send_retained(&mut self, filter: &TopicFilter) -> Result<(), End> {
        let Some(number) = self.outbound.number_of(filter) else {
            return Ok(());
        };
        let subscription = self.outbound.subscriptions.get(&number).cloned();
        let Some(subscription) = subscription else {
            return Ok(());
        };
        for mut message in self.shared.retained.matching(filter) {
            self.ready_to_deliver().await?;
            if self.outbound.number_of(filter) != Some(number) {
                // It was taken away meanwhile.
                break;
            }
            if self.outbound.in_flight.len() >= self.outbound.window {
                // The window is for live messages to wait in; stored ones go at QoS 0 beyond it.
                message.qos = Qos::AtMostOnce;
            }
            self.forward(message, &subscription, Origin::Retained)
                .await?;
        }
        Ok(())
    }

    async fn forward(
        &mut self,
        message: Message,
        subscription: &Subscription,
        origin: Origin,
    ) -> Result<(), End> {
        if let Err(denied) = self.admission.receive(&message.topic) {
            self.shared.note_denied(self.principal(), &denied);
            self.shared
                .metrics
                .delivery_dropped
                .with_label_values(&["not-authorized"])
                .inc();
            return Ok(());
        }
        let level = message.qos.min(subscription.qos);
        let bytes = message.payload.len();
        let (qos, pkid) = match level {
            Qos::AtMostOnce => (QoS::AtMostOnce, 0),
            Qos::AtLeastOnce | Qos::ExactlyOnce => {
                let pkid = self.outbound.next_pkid();
                self.outbound.in_flight.insert(pkid);
                (QoS::AtLeastOnce, pkid)
            }
        };
        let publish = Publish {
            dup: false,
            qos,
            retain: origin == Origin::Retained
                || subscription.retain_as_published && message.retain,
            topic: bytes::Bytes::copy_from_slice(message.topic.as_str().as_bytes()),
            pkid,
            payload: message.payload,
            properties: message.properties,
        };
        self.shared
            .metrics
            .deliveries
            .with_label_values(&[qos_label(level)])
            .inc();
        let delivered = ActivityKind::Delivered {
            topic: message.topic,
            bytes,
        };
        self.shared.observe(self.principal(), delivered);
        self.send(Packet::Publish(publish)).await
    }
}
