//! The local message bus: rumqttd's router behind one file.
//!
//! The bus sees QoS 0 traffic only. What the session at the other end needs to know of a message
//! (its quality of service, RETAIN, who sent it) rides as the last user property; which subscription a
//! message was forwarded for rides as its subscription identifier. Publishing goes through one
//! shared link, subscribing sessions have a link of their own.
//!
//! Known risks of the router: it never frees a filter's log nor its topic cache, it overwrites the
//! log of a slow subscriber, it can panic. A router that is gone shows as [`BusError`], which ends
//! the broker in order; rebuilding it in place is not done yet.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::FutureExt;
use portcullis_core::{
    event::Qos,
    policy::{Action, Permit},
    topic::{TopicFilter, TopicName},
};
use rumqttc::v5::mqttbytes::v5 as v5p;
use rumqttd::{
    Notification, Router, RouterConfig,
    local::{LinkBuilder, LinkError, LinkRx, LinkTx},
    protocol::{
        Disconnect, DisconnectReasonCode, Filter, Packet, Publish, PublishProperties, QoS,
        RetainForwardRule, Subscribe, SubscribeProperties, Unsubscribe,
    },
};
use tokio::task::JoinError;

/// Bytes of one segment of a filter's log, and how many segments are kept: what a subscriber may
/// lag behind before it loses the oldest messages.
const SEGMENT_BYTES: usize = 1024 * 1024;
const SEGMENTS_MAX: usize = 4;
/// Messages that the router hands to a link at once.
const FORWARDS_AT_ONCE: u64 = 100;

/// Key of the user property that carries quality of service, RETAIN and publisher.
const ENVELOPE_KEY: &str = "portcullis";

/// The router does not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    #[error("the local bus refused a link")]
    Link(#[source] Box<LinkError>),
    #[error("the local bus is gone")]
    Gone,
    #[error("failed to reach the local bus")]
    Join(#[from] JoinError),
}

/// A message on its way to local subscribers.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) topic: TopicName,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    /// Whether it was published with RETAIN.
    pub(super) retain: bool,
    /// Number of the session that published it.
    pub(super) publisher: u64,
    pub(super) properties: Option<v5p::PublishProperties>,
}

/// A message for one subscription of a session.
#[derive(Debug)]
pub(super) struct Delivery {
    /// The number that the session gave to its subscription.
    pub(super) subscription: usize,
    pub(super) message: Message,
}

type Connect = dyn Fn(&str) -> Result<(LinkTx, LinkRx), BusError> + Send + Sync;

/// The router and the link through which everyone publishes.
pub(super) struct Bus {
    connect: Box<Connect>,
    publisher: Mutex<LinkTx>,
    /// Keeps the publisher's link alive; the router has nothing to say to it.
    _publisher_rx: LinkRx,
    /// Free numbers for links: the router keeps a trace of every client id that it ever saw, so
    /// ids are used again.
    slots: Mutex<Vec<usize>>,
    subscriptions: AtomicUsize,
}

impl Bus {
    /// Starts the router for `links_max` subscribing sessions. Blocks briefly.
    pub(super) fn start(links_max: usize) -> Result<Self, BusError> {
        let config = RouterConfig {
            max_connections: links_max + 1,
            max_outgoing_packet_count: FORWARDS_AT_ONCE,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS_MAX,
            ..RouterConfig::default()
        };
        let router = Router::new(0, config).spawn();
        let connect = move |name: &str| {
            LinkBuilder::new(name, router.clone())
                .build()
                .map(|(sender, receiver, _ack)| (sender, receiver))
                .map_err(|error| BusError::Link(Box::new(error)))
        };
        let (publisher, publisher_rx) = connect("publisher")?;
        Ok(Self {
            connect: Box::new(connect),
            publisher: Mutex::new(publisher),
            _publisher_rx: publisher_rx,
            slots: Mutex::new((0..links_max).rev().collect()),
            subscriptions: AtomicUsize::new(0),
        })
    }

    /// Hands a message to the subscribers. `permit` shows that the publisher may.
    pub(super) fn publish(&self, permit: &Permit, message: Message) -> Result<(), BusError> {
        debug_assert_eq!(permit.action(), Action::Publish);
        if self.subscriptions.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let topic = Bytes::copy_from_slice(message.topic.as_str().as_bytes());
        let publish = Publish::new(topic, message.payload, false);
        let properties = wrap(
            message.properties,
            message.qos,
            message.retain,
            message.publisher,
        );
        let mut link = self
            .publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        send(&mut link, Packet::Publish(publish, Some(properties)))
    }

    /// A link for a subscribing session.
    pub(super) async fn link(self: &Arc<Self>) -> Result<Link, BusError> {
        let slot = self.with_slots(Vec::pop).ok_or(BusError::Gone)?;
        let bus = Arc::clone(self);
        let built =
            tokio::task::spawn_blocking(move || (bus.connect)(&format!("session-{slot}"))).await;
        match built {
            Ok(Ok((sender, receiver))) => Ok(Link {
                bus: Arc::clone(self),
                slot,
                sender,
                receiver,
                subscriptions: 0,
            }),
            Ok(Err(error)) => {
                self.with_slots(|slots| slots.push(slot));
                Err(error)
            }
            Err(error) => Err(BusError::Join(error)),
        }
    }

    fn with_slots<T>(&self, act: impl FnOnce(&mut Vec<usize>) -> T) -> T {
        act(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("subscriptions", &self.subscriptions)
            .finish_non_exhaustive()
    }
}

/// A session's place on the bus; dropping it leaves.
pub(super) struct Link {
    bus: Arc<Bus>,
    slot: usize,
    sender: LinkTx,
    receiver: LinkRx,
    subscriptions: usize,
}

impl Link {
    /// Adds a filter under the session's number `subscription`; a filter is added once.
    pub(super) fn subscribe(
        &mut self,
        subscription: usize,
        filter: &TopicFilter,
    ) -> Result<(), BusError> {
        let filter = Filter {
            path: filter.as_str().to_owned(),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let properties = SubscribeProperties {
            id: Some(subscription),
            user_properties: Vec::new(),
        };
        let subscribe = Subscribe {
            pkid: 1,
            filters: vec![filter],
        };
        // Counted first: a publish that follows the SUBACK must not be skipped.
        self.bus.subscriptions.fetch_add(1, Ordering::AcqRel);
        self.subscriptions += 1;
        send(
            &mut self.sender,
            Packet::Subscribe(subscribe, Some(properties)),
        )
    }

    /// Removes a filter that was added.
    pub(super) fn unsubscribe(&mut self, filter: &TopicFilter) -> Result<(), BusError> {
        let unsubscribe = Unsubscribe {
            pkid: 1,
            filters: vec![filter.as_str().to_owned()],
        };
        self.bus.subscriptions.fetch_sub(1, Ordering::AcqRel);
        self.subscriptions -= 1;
        send(&mut self.sender, Packet::Unsubscribe(unsubscribe, None))
    }

    /// The next message for one of the subscriptions. Cancel-safe: nothing is taken from the
    /// router before the point where the future may be dropped.
    pub(super) async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            match self.receiver.next().await.map_err(|_| BusError::Gone)? {
                Some(Notification::Forward(forward)) => {
                    if let Some(delivery) = unwrap(forward.publish, forward.properties) {
                        return Ok(delivery);
                    }
                }
                // The router has put this link aside because it was slow; it is not any more.
                Some(Notification::Unschedule) => {
                    self.receiver.ready().map_err(|_| BusError::Gone)?
                }
                Some(Notification::Disconnect(..)) => return Err(BusError::Gone),
                Some(_) | None => {}
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.bus
            .subscriptions
            .fetch_sub(self.subscriptions, Ordering::AcqRel);
        let goodbye = Disconnect {
            reason_code: DisconnectReasonCode::NormalDisconnection,
        };
        // If the router is gone there is nobody to leave.
        if send(&mut self.sender, Packet::Disconnect(goodbye, None)).is_ok() {
            self.bus.with_slots(|slots| slots.push(self.slot));
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

/// The router's channel is full only while the router works it off on its own thread, so this
/// waits briefly and never for a task.
fn send(link: &mut LinkTx, packet: Packet) -> Result<(), BusError> {
    match link.send(packet).now_or_never() {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) | None => Err(BusError::Gone),
    }
}

fn wrap(
    properties: Option<v5p::PublishProperties>,
    qos: Qos,
    retain: bool,
    publisher: u64,
) -> PublishProperties {
    let given = properties.unwrap_or_default();
    let mut user_properties = given.user_properties;
    user_properties.push((
        ENVELOPE_KEY.to_owned(),
        format!("{} {} {publisher}", qos.as_u8(), u8::from(retain)),
    ));
    PublishProperties {
        payload_format_indicator: given.payload_format_indicator,
        message_expiry_interval: given.message_expiry_interval,
        topic_alias: None,
        response_topic: given.response_topic,
        correlation_data: given.correlation_data,
        user_properties,
        subscription_identifiers: Vec::new(),
        content_type: given.content_type,
    }
}

/// `None` for what this file did not put on the bus.
fn unwrap(publish: Publish, properties: Option<PublishProperties>) -> Option<Delivery> {
    let mut given = properties?;
    let (_, envelope) = given.user_properties.pop()?;
    let mut parts = envelope.split(' ');
    let (qos, retain, publisher) = (parts.next()?, parts.next()?, parts.next()?);
    let qos = match qos {
        "0" => Qos::AtMostOnce,
        "1" => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    let properties = v5p::PublishProperties {
        payload_format_indicator: given.payload_format_indicator,
        message_expiry_interval: given.message_expiry_interval,
        topic_alias: None,
        response_topic: given.response_topic,
        correlation_data: given.correlation_data,
        user_properties: given.user_properties,
        subscription_identifiers: Vec::new(),
        content_type: given.content_type,
    };
    Some(Delivery {
        subscription: given.subscription_identifiers.first().copied()?,
        message: Message {
            topic: TopicName::parse_bytes(&publish.topic).ok()?,
            payload: publish.payload,
            qos,
            retain: retain == "1",
            publisher: publisher.parse().ok()?,
            properties: (properties != v5p::PublishProperties::default()).then_some(properties),
        },
    })
}
