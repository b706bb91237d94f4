//! What a client is sent: what its session has for it, and what the bus forwards at QoS 0.
//!
//! Messages come from the session's queue, and those of QoS 1 and 2 wait there while the window is
//! full. The bus forwards what is published on reserved topics at QoS 0. Every delivery is asked about
//! (`iot:Receive`) when it goes.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::FutureExt;
use portcullis_core::{
    event::Qos,
    topic::{Subscribed, TopicFilter},
};
use rumqttc::v5::mqttbytes::v5::{PubRel, Publish, PublishProperties};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{End, PACKETS_AT_ONCE, Session, inbound::qos_label};
use crate::{
    broker::{
        bus::{Bus, BusError, Delivery, Link},
        codec::{self, Packet},
        message::Message,
        sessions::{self, Options, Outbound, Queued},
    },
    clock::now,
    defend::ActivityKind,
};

/// The subscriptions as the bus knows them.
#[derive(Debug, Default)]
pub(super) struct OnBus {
    /// Made at the first subscription.
    link: Option<Link>,
    numbers: BTreeMap<usize, Subscribed>,
    last: usize,
}

impl OnBus {
    /// The next message from the bus; waits forever while there is no subscription.
    pub(super) async fn next(&mut self) -> Result<Delivery, BusError> {
        match &mut self.link {
            Some(link) => link.next().await,
            None => std::future::pending().await,
        }
    }

    /// Lets the bus forward what `subscribed` takes on reserved topics, which a wildcard at the front
    /// does not match (MQTT 5.0, 4.7.2). Shares go another way.
    pub(super) async fn subscribe(
        &mut self,
        bus: &Arc<Bus>,
        subscribed: &Subscribed,
    ) -> Result<(), BusError> {
        let is_reserved = subscribed.filter.as_str().starts_with('$');
        if !is_reserved || subscribed.share.is_some() || self.number_of(subscribed).is_some() {
            return Ok(());
        }
        if self.link.is_none() {
            self.link = Some(bus.link().await?);
        }
        self.last += 1;
        if let Some(link) = &mut self.link {
            link.subscribe(self.last, &subscribed.filter)?;
        }
        self.numbers.insert(self.last, subscribed.clone());
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, subscribed: &Subscribed) -> Result<(), BusError> {
        let Some(number) = self.number_of(subscribed) else {
            return Ok(());
        };
        self.numbers.remove(&number);
        match &mut self.link {
            Some(link) => link.unsubscribe(&subscribed.filter),
            None => Ok(()),
        }
    }

    fn number_of(&self, subscribed: &Subscribed) -> Option<usize> {
        let mut numbers = self.numbers.iter();
        numbers
            .find(|(_, known)| *known == subscribed)
            .map(|(&number, _)| number)
    }
}

/// One message as it goes out.
struct Going {
    message: Arc<Message>,
    qos: Qos,
    /// 0 at QoS 0.
    pkid: u16,
    dup: bool,
    retain: bool,
    identifiers: Vec<u32>,
    /// Its place in the session's queue.
    place: Option<u64>,
}

impl Going {
    fn at_most_once(message: Arc<Message>, options: &Options, retain: bool) -> Self {
        Self {
            message,
            qos: Qos::AtMostOnce,
            pkid: 0,
            dup: false,
            retain,
            identifiers: options.identifier.into_iter().collect(),
            place: None,
        }
    }
}

impl<S> Session<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Sends `first` and what else the bus has for the client, for one write.
    pub(super) async fn deliver_all(
        &mut self,
        first: Result<Delivery, BusError>,
    ) -> Result<(), End> {
        self.deliver(first.map_err(End::Bus)?).await?;
        for _ in 1..PACKETS_AT_ONCE {
            // Cancel-safe: see `Link::next`.
            let Some(next) = self.on_bus.next().now_or_never() else {
                break;
            };
            self.deliver(next.map_err(End::Bus)?).await?;
        }
        Ok(())
    }

    /// Sends what the bus forwarded, if the client may receive it.
    async fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
        self.ready_to_deliver().await?;
        // Forwarded before the subscription ended.
        let Some(subscribed) = self.on_bus.numbers.get(&delivery.subscription) else {
            return Ok(());
        };
        let Some(options) = self.held.options(subscribed) else {
            return Ok(());
        };
        let message = delivery.message;
        let is_own = options.excludes(&message, self.held.number);
        if is_own || message.is_expired(now()) {
            return Ok(());
        }
        let retain = options.retain_as_published && message.retain;
        self.forward(Going::at_most_once(message, &options, retain))
            .await
    }

    /// Sends what the session has, as far as the window goes.
    pub(super) async fn send_queued(&mut self) -> Result<(), End> {
        let unsent = self.held.unsent();
        loop {
            self.ready_to_deliver().await?;
            let shared = Arc::clone(&self.shared);
            let dropped = |reason: &'static str| {
                let dropped = &shared.metrics.delivery_dropped;
                dropped.with_label_values(&[reason]).inc();
            };
            let Some(next) =
                self.held
                    .next(&shared.sessions.log, self.ticket.session, now(), dropped)
            else {
                break;
            };
            match next {
                Outbound::Release { pkid } => {
                    // That the PUBREC came may be on its way to the disk.
                    let durable = self.held.durable(&self.shared.sessions.log);
                    let release = Packet::PubRel(PubRel::new(pkid, None));
                    self.answer_when_durable(release, durable).await?;
                }
                Outbound::Publish {
                    pkid,
                    number,
                    dup,
                    qos,
                    queued,
                } => {
                    let Queued {
                        message,
                        retain,
                        identifiers,
                        ..
                    } = queued;
                    let place = (qos != Qos::AtMostOnce).then_some(number);
                    let going = Going {
                        message,
                        qos,
                        pkid,
                        dup,
                        retain,
                        identifiers,
                        place,
                    };
                    self.forward(going).await?;
                }
            }
        }
        if self.held.unsent() != unsent {
            self.held.sent(&self.shared.sessions.log);
        }
        Ok(())
    }

    /// Sends an answer of the gateway to this client alone, if it subscribed to its topic and may
    /// receive it. At QoS 0: it may hold a key, which has no place in a queue on disk.
    pub(super) async fn answer(&mut self, message: Message) -> Result<(), End> {
        self.ready_to_deliver().await?;
        let subscriptions = self.held.subscriptions();
        let found = subscriptions
            .iter()
            .find(|(subscribed, _)| subscribed.filter.matches(&message.topic));
        match found {
            Some((_, options)) => {
                self.forward(Going::at_most_once(Arc::new(message), options, false))
                    .await
            }
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

    /// Sends the retained messages that a new subscription takes (MQTT 5.0, 3.3.1.3).
    pub(super) async fn send_retained(&mut self, subscribed: &Subscribed) -> Result<(), End> {
        let shared = Arc::clone(&self.shared);
        let mut retained = shared.sessions.retained.matching(&subscribed.filter, now());
        retained.extend(shared.figures.matching(&subscribed.filter));
        for message in retained {
            self.ready_to_deliver().await?;
            let Some(options) = self.held.options(subscribed) else {
                // It was taken away meanwhile.
                break;
            };
            if options.excludes(&message, self.held.number) {
                continue;
            }
            let qos = message.qos.min(options.qos);
            if qos == Qos::AtMostOnce {
                self.forward(Going::at_most_once(message, &options, true))
                    .await?;
                continue;
            }
            let sessions = &shared.sessions;
            if !sessions.queue_retained(&self.held, subscribed, options, qos, &message) {
                let dropped = &shared.metrics.delivery_dropped;
                dropped.with_label_values(&["queue-full"]).inc();
            }
        }
        Ok(())
    }

    /// What the client is subscribed to, as lifecycle events and recorders name it.
    pub(super) fn filters(&self) -> Vec<TopicFilter> {
        let subscriptions = self.held.subscriptions();
        subscriptions
            .iter()
            .map(|(subscribed, _)| subscribed.as_filter())
            .collect()
    }

    async fn forward(&mut self, going: Going) -> Result<(), End> {
        let message = &going.message;
        if let Err(denied) = self.admission.receive(&message.topic) {
            self.shared.note_denied(self.principal(), &denied);
            self.drop_delivery("not-authorized", going.place);
            return Ok(());
        }
        let mut properties = message.properties_at(now());
        if !going.identifiers.is_empty() {
            let given = properties.get_or_insert_with(PublishProperties::default);
            let identifiers = going.identifiers.iter();
            given.subscription_identifiers = identifiers
                .filter_map(|&identifier| usize::try_from(identifier).ok())
                .collect();
        }
        let publish = Publish {
            dup: going.dup,
            qos: codec::wire_qos(going.qos),
            retain: going.retain,
            topic: bytes::Bytes::copy_from_slice(message.topic.as_str().as_bytes()),
            pkid: going.pkid,
            payload: message.payload.clone(),
            properties,
        };
        let delivered = ActivityKind::Delivered {
            topic: message.topic.clone(),
            bytes: message.payload.len(),
        };
        if !self.send_delivery(publish).await? {
            self.drop_delivery("packet-too-large", going.place);
            return Ok(());
        }
        self.shared
            .metrics
            .deliveries
            .with_label_values(&[qos_label(going.qos)])
            .inc();
        self.shared.observe(self.principal(), delivered);
        Ok(())
    }

    fn drop_delivery(&self, reason: &'static str, place: Option<u64>) {
        let dropped = &self.shared.metrics.delivery_dropped;
        dropped.with_label_values(&[reason]).inc();
        if let Some(place) = place {
            self.held.discard(&self.shared.sessions.log, place);
        }
    }
}

/// A packet that promises what has to become durable first: the PUBREL that the PUBREC came, the PUBCOMP
/// that the PUBREL did, and so on.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) answer: Packet,
    pub(super) durable: crate::wal::Durable,
}

/// The kept half of a session; the name `Session` is the connection's here.
pub(super) type Held = Arc<sessions::Session>;
