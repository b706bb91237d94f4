//! The local bus: rumqttd's router, contained.
//!
//! The bus carries what may be lost and is rare: messages at QoS 0 on reserved topics (`$…`); what
//! else there is goes straight to the sessions. A message is
//! kept once, in the [`ring`]; the router gets its topic and its number, finds the filters that take
//! it and tells each subscriber's [`link`], which takes the message from the ring. Publishing goes
//! through one shared link, subscribing sessions have a link of their own. Topics and filters get a
//! level of ours in front: the router slices the first byte off a topic, which may be half a
//! character, and refuses filters that start with `$`.
//!
//! The router never frees a filter's log, its topic cache and its topic meters, it overwrites the log
//! of a slow subscriber and does not say so, and it can panic. Therefore it is replaced: what it
//! knows is counted beside it in the [`index`], and past a bound, or when it is gone, there is the
//! next [`generation`] of it. The sessions notice nothing: links go there by themselves with their
//! subscriptions, and get from the ring what the former router owed them. What is overwritten before
//! a subscriber asks for it is lost, and counted: a link knows which entry of its filter's log comes
//! next. The ring is one for all: whoever publishes much leaves slow subscribers less time, of others'
//! topics too. Only what was lost around a rebuild, because the ring did not have it any more or because
//! more than a few thousand messages were owed, is not counted.
//!
//! Routers that grow too fast are replaced a few times a minute and not more often; meanwhile they
//! may grow to [`HARD`](bounds::HARD) times the bound, and beyond it messages on new topics, or for logs that are not
//! long yet, are dropped and counted, and new filters wait for the next router. A router that cannot
//! be had, or that panics again and again, shows as [`BusError`] and in [`Bus::gone`], which is a
//! fault of the gateway.

mod bounds;
mod generation;
mod index;
mod link;
mod metrics;
mod ring;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use portcullis_core::{
    limits::BUS_LOG_ENTRIES_MIN,
    policy::{Action, Permit},
    topic::TopicFilter,
};
use rumqttd::{
    local::LinkError,
    protocol::{Packet, Publish, PublishProperties},
};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    bounds::{Bounds, Turns},
    generation::{ENTRY_BYTES, Generation, Publisher},
    index::{Index, Room},
    link::Attached,
    metrics::{Loss, Rebuild},
    ring::{Extent, Ring},
};
use super::message::Message;

pub(super) use self::{
    link::{Delivery, Link},
    metrics::Metrics,
};

/// What the router counts a message as, besides its topic.
static WEIGHT: [u8; ENTRY_BYTES] = [0; ENTRY_BYTES];

/// The router does not answer, and neither does another one.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    #[error("the local bus refused a link")]
    Link(#[source] Box<LinkError>),
    #[error("the local bus is gone")]
    Gone,
    #[error("failed to reach the local bus")]
    Join(#[from] JoinError),
}

/// See the module.
pub(super) struct Bus {
    links_max: usize,
    log_entries_max: usize,
    metrics: Metrics,
    ring: Ring,
    front: Mutex<Front>,
    /// Free numbers for links: the router keeps a trace of every client id that it ever saw, so
    /// ids are used again.
    slots: Arc<Mutex<Vec<usize>>>,
    /// Of all links: without any, nobody needs the lock.
    subscriptions: AtomicUsize,
    gone: CancellationToken,
}

/// The router of now, and what publishers agree on.
struct Front {
    generation: Arc<Generation>,
    publisher: Publisher,
    index: Index,
    extent: Extent,
    /// The first message of this router.
    began: u64,
    /// Entries of one filter's log in this router.
    log_entries: usize,
    rebuilds: Turns,
    panics: Turns,
}

/// The number of a link.
struct Slot {
    number: usize,
    free: Arc<Mutex<Vec<usize>>>,
}

impl Bus {
    /// Starts the router for `links_max` subscribing sessions. Blocks briefly.
    pub(super) fn start(links_max: usize) -> Result<Self, BusError> {
        Self::with_bounds(links_max, Bounds::default())
    }

    fn with_bounds(links_max: usize, bounds: Bounds) -> Result<Self, BusError> {
        let (generation, publisher) = Generation::start(0, links_max, bounds.log_entries)?;
        let front = Front {
            generation: Arc::new(generation),
            publisher,
            index: Index::new(bounds),
            extent: Extent::default(),
            began: 0,
            log_entries: bounds.log_entries,
            rebuilds: Turns::new(bounds.rebuilds),
            panics: Turns::new(bounds.panics),
        };
        Ok(Self {
            links_max,
            log_entries_max: bounds.log_entries,
            metrics: Metrics::detached(),
            ring: Ring::new(bounds.messages, bounds.bytes),
            front: Mutex::new(front),
            slots: Arc::new(Mutex::new((0..links_max).rev().collect())),
            subscriptions: AtomicUsize::new(0),
            gone: CancellationToken::new(),
        })
    }

    /// Counts here from now on.
    pub(super) fn counting(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Hands a message to the subscribers. `permit` shows that the publisher may.
    pub(super) fn publish(&self, permit: &Permit, message: &Arc<Message>) -> Result<(), BusError> {
        debug_assert_eq!(permit.action(), Action::Publish);
        self.route(message)
    }

    /// Hands what the gateway itself says on a reserved topic to the subscribers.
    pub(super) fn announce(&self, message: &Arc<Message>) -> Result<(), BusError> {
        debug_assert!(message.topic.as_str().starts_with('$'));
        self.route(message)
    }

    /// Hands over what was allowed before, such as a will that waited.
    pub(super) fn announce_will(&self, message: &Arc<Message>) -> Result<(), BusError> {
        self.route(message)
    }

    fn route(&self, message: &Arc<Message>) -> Result<(), BusError> {
        if self.subscriptions.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let mut front = self.front();
        // Nothing that nobody wants gets as far as the router.
        if !front.index.find(&message.topic) {
            return Ok(());
        }
        match front.index.room() {
            Room::Free => {}
            room => {
                if front.rebuilds.take() {
                    self.rebuild(&mut front, Rebuild::Growth)?;
                    front.index.find(&message.topic);
                } else if room == Room::Full {
                    self.metrics.lost(Loss::Full).inc();
                    return Ok(());
                }
            }
        }
        let number = self.ring.push(&mut front.extent, message);
        // Links that are not at this router yet will find it in the ring.
        if front.index.append() && front.publisher.send(packet(message, number)).is_err() {
            return self.rebuild(&mut front, Rebuild::Panic);
        }
        Ok(())
    }

    /// Cancelled once no router answers any more.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// A link for a subscribing session.
    pub(super) async fn link(self: &Arc<Self>) -> Result<Link, BusError> {
        let number = lock(&self.slots).pop().ok_or(BusError::Gone)?;
        let slot = Arc::new(Slot {
            number,
            free: Arc::clone(&self.slots),
        });
        Ok(Link::new(self, slot))
    }

    /// Asks for a place at the router of now.
    fn ask(self: &Arc<Self>, slot: &Arc<Slot>) -> JoinHandle<Result<Attached, BusError>> {
        let (bus, slot) = (Arc::clone(self), Arc::clone(slot));
        spawn_blocking(move || {
            loop {
                let generation = Arc::clone(&bus.front().generation);
                match Attached::ask(&generation, &slot) {
                    Ok(attached) => return Ok(attached),
                    // This ends: only so many routers are tried.
                    Err(_) => bus.died(&generation)?,
                }
            }
        })
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        lock(&self.front)
    }

    /// The router of this generation does not answer.
    fn died(&self, generation: &Arc<Generation>) -> Result<(), BusError> {
        let mut front = self.front();
        if Arc::ptr_eq(&front.generation, generation) {
            self.rebuild(&mut front, Rebuild::Panic)?;
        }
        Ok(())
    }

    /// The router is to get this filter.
    fn make_room_for(&self, front: &mut Front, filter: &TopicFilter) -> Result<(), BusError> {
        if front.index.room_for_filter(filter) != Room::Free && front.rebuilds.take() {
            self.rebuild(front, Rebuild::Growth)?;
        }
        Ok(())
    }

    /// Goes on with another router. What the former one has not delivered is in the ring.
    fn rebuild(&self, front: &mut Front, reason: Rebuild) -> Result<(), BusError> {
        if self.gone.is_cancelled() {
            return Err(BusError::Gone);
        }
        if reason == Rebuild::Panic && !front.panics.take() {
            error!("The local bus cannot be kept alive.");
            self.gone.cancel();
            return Err(BusError::Gone);
        }
        if front.index.has_long_logs() {
            // There are many busy filters: each gets less.
            front.log_entries = (front.log_entries / 2).max(BUS_LOG_ENTRIES_MIN);
        } else {
            front.log_entries = (front.log_entries * 2).min(self.log_entries_max);
        }
        let number = front.generation.number + 1;
        let (generation, publisher) = Generation::start(number, self.links_max, front.log_entries)
            .inspect_err(|_| self.gone.cancel())?;
        let former = std::mem::replace(&mut front.generation, Arc::new(generation));
        let publisher = std::mem::replace(&mut front.publisher, publisher);
        if !former.is_gone() {
            former.retire(publisher);
        }
        front.index.renew(front.log_entries);
        front.began = front.extent.next;
        self.metrics.rebuilt(reason).inc();
        match reason {
            Rebuild::Panic => warn!("The local bus panicked and was built anew."),
            Rebuild::Growth => info!("The local bus has grown too large and was built anew."),
        }
        Ok(())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let front = self.front.get_mut().unwrap_or_else(PoisonError::into_inner);
        front.publisher.end(front.generation.number);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.free).push(self.number);
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("subscriptions", &self.subscriptions)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A topic or filter as the router gets it: see the module.
fn path(text: &str) -> String {
    let level = if text.starts_with('$') { "s/" } else { "t/" };
    format!("{level}{text}")
}

/// What the router gets of a message.
fn packet(message: &Message, number: u64) -> Packet {
    let topic = Bytes::from(path(message.topic.as_str()));
    let publish = Publish::new(topic, Bytes::from_static(&WEIGHT), false);
    let properties = PublishProperties {
        payload_format_indicator: None,
        message_expiry_interval: None,
        topic_alias: None,
        response_topic: None,
        correlation_data: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
        user_properties: Vec::new(),
        subscription_identifiers: Vec::new(),
        content_type: None,
    };
    Packet::Publish(publish, Some(properties))
}

#[cfg(test)]
mod tests;
