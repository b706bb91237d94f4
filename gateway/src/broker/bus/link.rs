//! A session's place on the bus, which outlives routers.
//!
//! The link keeps its subscriptions and goes to the next router by itself. What the former router
//! owed it comes from the ring: of each subscription the link knows the last message that it got,
//! and from which one on the new router sends. A message that the ring does not have any more by
//! then is lost.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use portcullis_core::{limits::BUS_LINK_TIMEOUT, topic::TopicFilter};
use rumqttd::{
    Forward, Notification,
    local::{LinkRx, LinkTx},
    protocol::{
        Disconnect, DisconnectReasonCode, Filter, Packet, QoS, RetainForwardRule, Subscribe,
        SubscribeProperties, Unsubscribe,
    },
};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Bus, BusError, Front, Slot,
    generation::{self, Generation},
    index::Room,
    metrics::Loss,
    path,
};
use crate::broker::message::Message;

/// How far before the end of a router the search begins for what it owed: it is behind by less, and
/// a subscription that is quiet must not make the search long.
const OWED_MAX: u64 = 4096;

/// How long publishers wait for the router to take subscriptions. It does as soon as it comes to them.
const TAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message for one subscription of a session.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Delivery {
    /// The number that the session gave to its subscription.
    pub(in crate::broker) subscription: usize,
    pub(in crate::broker) message: Arc<Message>,
}

/// See the module; dropping it leaves.
pub(in crate::broker) struct Link {
    bus: Arc<Bus>,
    slot: Arc<Slot>,
    subscriptions: BTreeMap<usize, Subscription>,
    attached: Option<Attached>,
    attaching: Option<Attaching>,
    owed: Owed,
}

struct Subscription {
    filter: TopicFilter,
    /// The message after the last one that it got, or with which it began.
    next: u64,
    /// Messages before this one come from the ring, the others from the router; `None` while no
    /// router has the subscription.
    routed_from: Option<u64>,
    /// The entry of the filter's log that comes next.
    entry: u64,
}

/// A place at one router.
pub(super) struct Attached {
    generation: Arc<Generation>,
    sender: LinkTx,
    receiver: LinkRx,
    /// Given back after the place is.
    _slot: Arc<Slot>,
}

/// Asks for a place at a router. Kept while nobody waits for it, and then waited for again.
struct Attaching {
    /// The router that was asked first.
    generation: Arc<Generation>,
    asked: JoinHandle<Result<Attached, BusError>>,
}

/// What comes from the ring: messages, for the subscriptions after `after` in the first of them.
#[derive(Default)]
struct Owed {
    messages: Range<u64>,
    after: Option<usize>,
}

impl Link {
    pub(super) fn new(bus: &Arc<Bus>, slot: Arc<Slot>) -> Self {
        Self {
            bus: Arc::clone(bus),
            slot,
            subscriptions: BTreeMap::new(),
            attached: None,
            attaching: None,
            owed: Owed::default(),
        }
    }

    /// Adds a filter under the session's number `subscription`; a filter is added once. Every message
    /// that is published after this is for it.
    pub(in crate::broker) fn subscribe(
        &mut self,
        subscription: usize,
        filter: &TopicFilter,
    ) -> Result<(), BusError> {
        let bus = Arc::clone(&self.bus);
        // Counted first: a publish that follows the SUBACK must not be skipped.
        bus.subscriptions.fetch_add(1, Ordering::AcqRel);
        let mut front = bus.front();
        let room = bus.make_room_for(&mut front, filter);
        front.index.subscribed(filter);
        let added = Subscription {
            filter: filter.clone(),
            next: front.extent.next,
            routed_from: None,
            entry: 0,
        };
        self.subscriptions.insert(subscription, added);
        // A router that is gone shows when its messages are waited for.
        self.enter(&mut front);
        room
    }

    /// Removes a filter that was added.
    pub(in crate::broker) fn unsubscribe(&mut self, filter: &TopicFilter) -> Result<(), BusError> {
        let found = self.subscriptions.iter().find(|(_, s)| s.filter == *filter);
        let Some(number) = found.map(|(&number, _)| number) else {
            return Ok(());
        };
        self.subscriptions.remove(&number);
        self.bus.front().index.unsubscribed(filter);
        self.bus.subscriptions.fetch_sub(1, Ordering::AcqRel);
        if let Some(attached) = &mut self.attached {
            let unsubscribe = Unsubscribe {
                pkid: 1,
                filters: vec![path(filter.as_str())],
            };
            let packet = Packet::Unsubscribe(unsubscribe, None);
            // As with `subscribe`.
            drop(generation::send(&mut attached.sender, packet));
        }
        Ok(())
    }

    /// The next message for one of the subscriptions. Cancel-safe: nothing is taken from the
    /// router before the point where the future may be dropped.
    pub(in crate::broker) async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            if let Some(delivery) = self.next_owed() {
                return Ok(delivery);
            }
            let Some(attached) = &mut self.attached else {
                self.attach().await?;
                continue;
            };
            match attached.receiver.next().await {
                Ok(Some(Notification::Forward(forward))) => {
                    if let Some(delivery) = self.take(&forward) {
                        return Ok(delivery);
                    }
                }
                // The router has put this link aside because it was slow; it is not any more.
                Ok(Some(Notification::Unschedule)) => {
                    if attached.receiver.ready().is_err() {
                        self.leave()?;
                    }
                }
                Ok(Some(Notification::Disconnect(..))) | Err(_) => self.leave()?,
                Ok(_) => {}
            }
        }
    }

    /// The router is gone, or has thrown this link out.
    fn leave(&mut self) -> Result<(), BusError> {
        match self.detach() {
            // Links go before the channel does: a router that still seems to be there is about to
            // go, and would leave whoever asks it without an answer.
            Some(attached) => self.bus.died(&attached.generation),
            None => Ok(()),
        }
    }

    fn detach(&mut self) -> Option<Attached> {
        self.subscriptions
            .values_mut()
            .for_each(|subscription| subscription.routed_from = None);
        self.attached.take()
    }

    /// Goes to the router that is there now. Cancel-safe: what was asked for is kept.
    async fn attach(&mut self) -> Result<(), BusError> {
        let (bus, slot) = (&self.bus, &self.slot);
        let attaching = self.attaching.get_or_insert_with(|| Attaching {
            generation: Arc::clone(&bus.front().generation),
            asked: bus.ask(slot),
        });
        let answer = timeout(BUS_LINK_TIMEOUT, &mut attaching.asked).await;
        let asked = self.attaching.take();
        match (answer, asked) {
            (Ok(attached), _) => self.attached = Some(attached??),
            // The thread that asks waits forever for a router that is gone.
            (Err(_), Some(asked)) => return self.bus.died(&asked.generation),
            (Err(_), None) => {}
        }
        let bus = Arc::clone(&self.bus);
        self.enter(&mut bus.front());
        Ok(())
    }

    /// Subscribes to whatever the router does not have yet, if it is the one that is there now.
    /// Under the lock of the publishers, and until the router has taken it: what was published before
    /// comes from the ring, what is published after it from the router.
    fn enter(&mut self, front: &mut Front) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        if !Arc::ptr_eq(&attached.generation, &front.generation) {
            self.detach();
            return;
        }
        let now = front.extent.next;
        let oldest = front.began.saturating_sub(OWED_MAX);
        let mut packets = Vec::new();
        let mut owed_from = now;
        for (&number, subscription) in &mut self.subscriptions {
            // One that is new to a router that is full waits for the next router.
            if subscription.routed_from.is_none()
                && front.index.room_for_filter(&subscription.filter) != Room::Full
            {
                subscription.entry = front.index.routed(&subscription.filter);
                subscription.routed_from = Some(now);
                subscription.next = subscription.next.max(oldest);
                packets.push(subscribe_packet(number, &subscription.filter));
            }
            if subscription.is_owed() {
                owed_from = owed_from.min(subscription.next);
            }
        }
        if !attached.subscribe(packets) {
            self.detach();
            return;
        }
        self.owed = Owed {
            messages: owed_from..now,
            after: None,
        };
    }

    /// The next message from the ring.
    fn next_owed(&mut self) -> Option<Delivery> {
        while !self.owed.messages.is_empty() {
            let number = self.owed.messages.start;
            if let Some(message) = self.bus.ring.get(number) {
                let after = self.owed.after.map_or(0, |number| number + 1);
                let mut wanting = self.subscriptions.range_mut(after..);
                let found = wanting.find(|(_, subscription)| {
                    subscription.next <= number
                        && subscription.routed_from.is_some_and(|from| number < from)
                        && subscription.filter.matches(&message.topic)
                });
                if let Some((&subscription, state)) = found {
                    state.next = number + 1;
                    self.owed.after = Some(subscription);
                    return Some(Delivery {
                        subscription,
                        message,
                    });
                }
            }
            self.owed.messages.start += 1;
            self.owed.after = None;
            if self.owed.messages.is_empty() {
                self.subscriptions
                    .values_mut()
                    .for_each(Subscription::settle);
            }
        }
        None
    }

    /// What the router forwarded: `None` for what this file did not subscribe to, or what is lost.
    fn take(&mut self, forward: &Forward) -> Option<Delivery> {
        let given = forward.properties.as_ref()?;
        let number = given.correlation_data.as_ref()?.as_ref().try_into().ok()?;
        let number = u64::from_be_bytes(number);
        let subscription = given.subscription_identifiers.first()?.checked_sub(1)?;
        // Forwarded before the subscription ended.
        let state = self.subscriptions.get_mut(&subscription)?;
        if number < state.routed_from.unwrap_or(state.next) {
            return None;
        }
        let mut missed = 0;
        if let Some((_, entry)) = forward.cursor {
            missed = entry.saturating_sub(state.entry);
            state.entry = entry + 1;
        }
        state.next = number + 1;
        let message = self.bus.ring.get(number);
        missed += u64::from(message.is_none());
        if missed > 0 {
            self.bus.metrics.lost(Loss::Slow).inc_by(missed);
        }
        Some(Delivery {
            subscription,
            message: message?,
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut front = self.bus.front();
        for subscription in self.subscriptions.values() {
            front.index.unsubscribed(&subscription.filter);
        }
        let count = self.subscriptions.len();
        self.bus.subscriptions.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Subscription {
    /// Whether there may be something for it in the ring.
    fn is_owed(&self) -> bool {
        self.routed_from.is_some_and(|from| self.next < from)
    }

    /// Nothing in the ring is for it any more.
    fn settle(&mut self) {
        self.next = self.next.max(self.routed_from.unwrap_or(0));
    }
}

impl Attached {
    /// Asks for a place. Blocks until the router answers.
    pub(super) fn ask(generation: &Arc<Generation>, slot: &Arc<Slot>) -> Result<Self, BusError> {
        let (sender, receiver) = generation.connect(&format!("session-{}", slot.number))?;
        Ok(Self {
            generation: Arc::clone(generation),
            sender,
            receiver,
            _slot: Arc::clone(slot),
        })
    }

    /// Hands the router subscriptions and waits until it has taken them: it takes the packets of one
    /// link all at once, so what a publisher says later could come to it earlier. Whether it did.
    fn subscribe(&mut self, mut packets: Vec<Packet>) -> bool {
        let Some(last) = packets.pop() else {
            return true;
        };
        self.sender.buffer().extend(packets);
        if generation::send(&mut self.sender, last).is_err() {
            return false;
        }
        let deadline = Instant::now() + TAKE_TIMEOUT;
        while !self.sender.buffer().is_empty() {
            // The router is gone, or this place at it is.
            if self.generation.is_gone() || Instant::now() > deadline {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let goodbye = Disconnect {
            reason_code: DisconnectReasonCode::NormalDisconnection,
        };
        // If the router is gone there is nobody to leave.
        drop(generation::send(
            &mut self.sender,
            Packet::Disconnect(goodbye, None),
        ));
    }
}

fn subscribe_packet(number: usize, filter: &TopicFilter) -> Packet {
    let filter = Filter {
        path: path(filter.as_str()),
        qos: QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::Never,
    };
    let properties = SubscribeProperties {
        // The router takes no 0.
        id: Some(number + 1),
        user_properties: Vec::new(),
    };
    let subscribe = Subscribe {
        pkid: 1,
        filters: vec![filter],
    };
    Packet::Subscribe(subscribe, Some(properties))
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("slot", &self.slot.number)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("generation", &self.generation.number)
            .finish_non_exhaustive()
    }
}
