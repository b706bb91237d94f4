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
use rumqttc::v5::mqttbytes::v5::{PubRel, PublishProperties};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, End, PACKETS_AT_ONCE};
use crate::{
    broker::{
        bus::{self, Bus, BusError, Link},
        codec::{Delivery, Packet},
        message::Message,
        sessions::{self, Options, Outbound, Queued},
    },
    clock::now,
    defend::ActivityKind,
};

/// What is taken from the session's queue at once.
const DELIVERIES_AT_ONCE: usize = 128;

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
    pub(super) async fn next(&mut self) -> Result<bus::Delivery, BusError> {
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

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Sends `first` and what else the bus has for the client, for one write.
    pub(super) async fn deliver_all(
        &mut self,
        first: Result<bus::Delivery, BusError>,
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
    async fn deliver(&mut self, delivery: bus::Delivery) -> Result<(), End> {
        self.ready_to_deliver().await?;
        // Forwarded before the subscription ended.
        let Some(subscribed) = self.on_bus.numbers.get(&delivery.subscription) else {
            return Ok(());
        };
        let Some(options) = self.held.options(subscribed) else {
            return Ok(());
        };
        let message = delivery.message;
        let is_own = options.excludes(message.publisher, self.held.number);
        if is_own || message.is_expired(now()) {
            return Ok(());
        }
        let retain = options.retain_as_published && message.retain;
        self.forward(&Going::at_most_once(message, &options, retain))
    }

    /// Sends what the session has, as far as the window goes; of very much a part, and the rest in the
    /// next turn.
    pub(super) async fn send_queued(&mut self) -> Result<(), End> {
        self.ready_to_deliver().await?;
        let shared = Arc::clone(&self.shared);
        let dropped = |reason: &'static str| {
            let dropped = &shared.metrics.delivery_dropped;
            dropped.with_label_values(&[reason]).inc();
        };
        let (log, connection) = (&shared.sessions.log, self.ticket.session);
        let mut batch = std::mem::take(&mut self.batch);
        let held = Arc::clone(&self.held);
        held.next_batch(
            log,
            connection,
            now(),
            DELIVERIES_AT_ONCE,
            &mut batch,
            dropped,
        );
        if batch.len() == DELIVERIES_AT_ONCE {
            // There may be more.
            self.held.wake();
        }
        let rights = self.admission.generation();
        for outbound in batch.drain(..) {
            self.ready_to_deliver().await?;
            self.send_outbound(outbound, rights).await?;
        }
        self.batch = batch;
        Ok(())
    }

    /// Sends what was taken from the queue when the rights were of the generation `rights`.
    async fn send_outbound(&mut self, outbound: Outbound, rights: u64) -> Result<(), End> {
        let (pkid, number, dup, qos, queued) = match outbound {
            Outbound::Release { pkid } => {
                // That the PUBREC came may be on its way to the disk.
                let durable = self.held.durable(&self.shared.sessions.log);
                let release = Packet::PubRel(PubRel::new(pkid, None));
                return self.answer_when_durable(release, durable).await;
            }
            Outbound::Publish {
                pkid,
                number,
                dup,
                qos,
                queued,
            } => (pkid, number, dup, qos, queued),
        };
        let place = (qos != Qos::AtMostOnce).then_some(number);
        // While it waited for room in the socket, its subscription may have been taken away.
        if rights != self.admission.generation() && !dup && !self.held.takes(&queued) {
            self.drop_delivery("not-subscribed", place);
            return Ok(());
        }
        let Queued {
            message,
            retain,
            identifiers,
            ..
        } = queued;
        self.forward(&Going {
            message,
            qos,
            pkid,
            dup,
            retain,
            identifiers,
            place,
        })
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
                self.forward(&Going::at_most_once(Arc::new(message), options, false))
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
            if options.excludes(message.publisher, self.held.number) {
                continue;
            }
            let qos = message.qos.min(options.qos);
            if qos == Qos::AtMostOnce {
                self.forward(&Going::at_most_once(message, &options, true))?;
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

    /// Puts a message into the write buffer, where there is room for it.
    fn forward(&mut self, going: &Going) -> Result<(), End> {
        let message = &*going.message;
        if let Err(denied) = self.admission.receive(&message.topic) {
            self.shared.note_denied(self.principal(), &denied);
            self.drop_delivery("not-authorized", going.place);
            return Ok(());
        }
        let mut properties = match message.properties {
            None => None,
            Some(_) => message.properties_at(now()),
        };
        if !going.identifiers.is_empty() {
            let given = properties.get_or_insert_with(PublishProperties::default);
            let identifiers = going.identifiers.iter();
            given.subscription_identifiers = identifiers
                .filter_map(|&identifier| usize::try_from(identifier).ok())
                .collect();
        }
        let delivery = Delivery {
            dup: going.dup,
            qos: going.qos,
            retain: going.retain,
            pkid: going.pkid,
            topic: message.topic.as_str(),
            payload: &message.payload,
            properties,
        };
        if !self.send_delivery(&delivery)? {
            self.drop_delivery("packet-too-large", going.place);
            return Ok(());
        }
        self.shared.metrics.deliveries_of[usize::from(going.qos.as_u8())].inc();
        let delivered = ActivityKind::Delivered {
            bytes: message.payload.len(),
        };
        let principal = self.admission.principal();
        self.observed.add(&self.shared, principal, delivered);
        Ok(())
    }

    fn drop_delivery(&self, reason: &'static str, place: Option<u64>) {
        let dropped = &self.shared.metrics.delivery_dropped;
        dropped.with_label_values(&[reason]).inc();
        if let Some(place) = place {
            self.held.discard(&self.shared.sessions.log, place);
            // There is room in the window for another one, and no answer to come that says so.
            self.held.wake();
        }
    }
}

/// The session that is there without a connection too.
pub(super) type Held = Arc<sessions::Session>;
