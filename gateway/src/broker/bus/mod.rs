//! The local message bus: rumqttd's router behind one file.
//!
//! The bus sees QoS 0 traffic only. All that a message is besides its topic (quality of service,
//! RETAIN, who sent it, MQTT 5 properties) travels inside the router's payload, where it counts
//! towards the router's bounds; which subscription a message was forwarded for rides as its
//! subscription identifier. Topics and filters get a level of ours in front: the router slices the
//! first byte off a topic, which may be half a character, and refuses filters that start with `$`.
//! Publishing goes through one shared link, subscribing sessions have a link of their own.
//!
//! Known risks of the router: it never frees a filter's log, its topic cache and its topic meters,
//! so that it grows with the number of distinct names; it overwrites the log of a slow subscriber
//! and does not say so; it can panic. A router that is gone shows as [`BusError`] and in
//! [`Bus::gone`], which is a fault of the gateway; rebuilding it in place is not done yet.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
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
use tokio_util::sync::CancellationToken;

use super::message::Message;

/// Bytes of one segment of a filter's log, and how many segments are kept: what a subscriber may
/// lag behind before it loses the oldest messages.
const SEGMENT_BYTES: usize = 1024 * 1024;
const SEGMENTS_MAX: usize = 4;
/// Messages that the router hands to a link at once.
const FORWARDS_AT_ONCE: u64 = 100;

/// What stands before the properties in the router's payload: flags and publisher.
const HEADER_BYTES: usize = 9;
const RETAIN_FLAG: u8 = 0b100;

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

/// A message for one subscription of a session.
#[derive(Debug)]
pub(super) struct Delivery {
    /// The number that the session gave to its subscription.
    pub(super) subscription: usize,
    pub(super) message: Arc<Message>,
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
    /// Those of them whose filter starts with `$`: only they see what the gateway announces.
    reserved_subscriptions: AtomicUsize,
    gone: CancellationToken,
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
            reserved_subscriptions: AtomicUsize::new(0),
            gone: CancellationToken::new(),
        })
    }

    /// Hands a message to the subscribers. `permit` shows that the publisher may.
    pub(super) fn publish(&self, permit: &Permit, message: &Message) -> Result<(), BusError> {
        debug_assert_eq!(permit.action(), Action::Publish);
        if self.subscriptions.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.route(message)
    }

    /// Hands what the gateway itself says on a reserved topic to the subscribers.
    pub(super) fn announce(&self, message: &Message) -> Result<(), BusError> {
        debug_assert!(message.topic.as_str().starts_with('$'));
        // The router keeps something for every topic that it sees, and these hold client ids.
        if self.reserved_subscriptions.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.route(message)
    }

    /// Hands over what was allowed before, such as a will that waited.
    pub(super) fn announce_will(&self, message: &Message) -> Result<(), BusError> {
        if self.subscriptions.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.route(message)
    }

    fn route(&self, message: &Message) -> Result<(), BusError> {
        let publish = Publish::new(
            Bytes::from(path(message.topic.as_str())),
            wrap(message),
            false,
        );
        let expiry = message
            .properties
            .as_ref()
            .and_then(|given| given.message_expiry_interval);
        let properties = expiry.map(|secs| PublishProperties {
            message_expiry_interval: Some(secs),
            ..no_properties()
        });
        let mut link = self
            .publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.send(&mut link, Packet::Publish(publish, properties))
    }

    /// Cancelled once the router does not answer any more.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// The router's channel is full only while the router works it off on its own thread, so this
    /// waits briefly and never for a task.
    fn send(&self, link: &mut LinkTx, packet: Packet) -> Result<(), BusError> {
        match link.send(packet).now_or_never() {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(self.lost()),
        }
    }

    fn lost(&self) -> BusError {
        self.gone.cancel();
        BusError::Gone
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
                reserved: 0,
            }),
            Ok(Err(error)) => {
                self.gone.cancel();
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
    reserved: usize,
}

impl Link {
    /// Adds a filter under the session's number `subscription`; a filter is added once.
    pub(super) fn subscribe(
        &mut self,
        subscription: usize,
        filter: &TopicFilter,
    ) -> Result<(), BusError> {
        // Counted first: a publish that follows the SUBACK must not be skipped.
        self.bus.subscriptions.fetch_add(1, Ordering::AcqRel);
        self.subscriptions += 1;
        if is_reserved(filter) {
            self.bus
                .reserved_subscriptions
                .fetch_add(1, Ordering::AcqRel);
            self.reserved += 1;
        }
        let filter = Filter {
            path: path(filter.as_str()),
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
        self.bus.send(
            &mut self.sender,
            Packet::Subscribe(subscribe, Some(properties)),
        )
    }

    /// Removes a filter that was added.
    pub(super) fn unsubscribe(&mut self, filter: &TopicFilter) -> Result<(), BusError> {
        let unsubscribe = Unsubscribe {
            pkid: 1,
            filters: vec![path(filter.as_str())],
        };
        self.bus.subscriptions.fetch_sub(1, Ordering::AcqRel);
        self.subscriptions -= 1;
        if is_reserved(filter) {
            self.bus
                .reserved_subscriptions
                .fetch_sub(1, Ordering::AcqRel);
            self.reserved -= 1;
        }
        self.bus
            .send(&mut self.sender, Packet::Unsubscribe(unsubscribe, None))
    }

    /// The next message for one of the subscriptions. Cancel-safe: nothing is taken from the
    /// router before the point where the future may be dropped.
    pub(super) async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            match self.receiver.next().await.map_err(|_| self.bus.lost())? {
                Some(Notification::Forward(forward)) => {
                    if let Some(delivery) = unwrap(forward.publish, forward.properties) {
                        return Ok(delivery);
                    }
                }
                // The router has put this link aside because it was slow; it is not any more.
                Some(Notification::Unschedule) => {
                    self.receiver.ready().map_err(|_| self.bus.lost())?
                }
                Some(Notification::Disconnect(..)) => return Err(self.bus.lost()),
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
        self.bus
            .reserved_subscriptions
            .fetch_sub(self.reserved, Ordering::AcqRel);
        let goodbye = Disconnect {
            reason_code: DisconnectReasonCode::NormalDisconnection,
        };
        // If the router is gone there is nobody to leave.
        if self
            .bus
            .send(&mut self.sender, Packet::Disconnect(goodbye, None))
            .is_ok()
        {
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

fn is_reserved(filter: &TopicFilter) -> bool {
    filter.as_str().starts_with('$')
}

/// A topic or filter as the router gets it: see the module.
fn path(text: &str) -> String {
    let level = if text.starts_with('$') { "s/" } else { "t/" };
    format!("{level}{text}")
}

fn no_properties() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: None,
        message_expiry_interval: None,
        topic_alias: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        subscription_identifiers: Vec::new(),
        content_type: None,
    }
}

/// Everything but the topic, as the router's payload.
fn wrap(message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + 1 + message.payload.len());
    let retain = if message.retain { RETAIN_FLAG } else { 0 };
    out.put_u8(message.qos.as_u8() | retain);
    out.put_u64(message.publisher);
    let mut properties = message.properties.clone().unwrap_or_default();
    // The router counts the interval down; it has it as a property of its own.
    properties.message_expiry_interval = None;
    properties
        .write(&mut out)
        .expect("properties that came in a packet fit into one");
    out.extend_from_slice(&message.payload);
    out.freeze()
}

/// `None` for what this file did not put on the bus.
fn unwrap(publish: Publish, properties: Option<PublishProperties>) -> Option<Delivery> {
    let given = properties?;
    let mut wrapped = publish.payload;
    if wrapped.len() <= HEADER_BYTES {
        return None;
    }
    let flags = wrapped.get_u8();
    let publisher = wrapped.get_u64();
    let mut properties = v5p::PublishProperties::read(&mut wrapped).ok()?;
    if let Some(secs) = given.message_expiry_interval {
        properties.get_or_insert_default().message_expiry_interval = Some(secs);
    }
    let message = Message {
        topic: TopicName::parse_bytes(publish.topic.get(2..)?).ok()?,
        payload: wrapped,
        qos: Qos::from_u8(flags & !RETAIN_FLAG),
        retain: flags & RETAIN_FLAG != 0,
        publisher,
        // The router has counted it down, and drops what is over.
        expires_at: None,
        properties,
    };
    Some(Delivery {
        subscription: given.subscription_identifiers.first().copied()?,
        message: Arc::new(message),
    })
}

#[cfg(test)]
mod tests;
