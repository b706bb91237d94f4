//! One router, from its start to its end.
//!
//! A router's thread does not end by itself: the router holds a sender of its own channel. It ends
//! when a panic takes it, and that is how it is ended here, without a word in the log: it gets a
//! message whose payload has an owner, and when the router has found that nobody wants the message
//! and drops it, the owner unwinds the thread (`resume_unwind` calls no panic hook). Everything that
//! the router holds goes with its stack.
//!
//! Whoever asks a router for a link waits until the router answers. If it goes before it does, he
//! waits forever, because the question itself keeps the channel: so a router is ended only while
//! nobody asks, and who asks one that panics is given up after a time (see `link`).

use std::{
    fmt,
    panic::resume_unwind,
    sync::{Arc, PoisonError, RwLock, TryLockError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use rumqttd::{
    Router, RouterConfig,
    local::{LinkBuilder, LinkRx, LinkTx},
    protocol::{Packet, Publish},
};
use tracing::warn;

use super::BusError;

/// What an entry of the router's logs counts there, besides its topic: what it takes in memory.
pub(super) const ENTRY_BYTES: usize = 256;
/// Segments of a filter's log; the oldest is dropped whole.
const SEGMENTS: usize = 4;
/// The router takes none that are smaller.
const SEGMENT_BYTES_MIN: usize = 1024;
/// Messages that the router hands to a link at once.
const FORWARDS_AT_ONCE: u64 = 100;
/// Where no filter of ours reaches: they all have a level of ours in front.
const NOWHERE: &str = "end";
/// How long those who ask for a link may keep a router that is to end.
const END_GRACE: Duration = Duration::from_secs(2);
const END_POLL: Duration = Duration::from_millis(1);

type Connect = dyn Fn(&str) -> Result<(LinkTx, LinkRx), BusError> + Send + Sync;

/// See the module.
pub(super) struct Generation {
    pub(super) number: usize,
    connect: Box<Connect>,
    is_gone: Box<dyn Fn() -> bool + Send + Sync>,
    /// Held for reading by those who ask for a link; `true`: nobody may ask any more.
    is_closed: RwLock<bool>,
}

/// The link through which everyone publishes. The router has nothing to say to it.
pub(super) struct Publisher {
    sender: LinkTx,
    _receiver: LinkRx,
}

impl Generation {
    /// Starts a router for `links_max` links, whose filters have logs of `log_entries`.
    pub(super) fn start(
        number: usize,
        links_max: usize,
        log_entries: usize,
    ) -> Result<(Self, Publisher), BusError> {
        let config = RouterConfig {
            max_connections: links_max + 1,
            max_outgoing_packet_count: FORWARDS_AT_ONCE,
            max_segment_size: (log_entries * ENTRY_BYTES / SEGMENTS).max(SEGMENT_BYTES_MIN),
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        };
        let router = Router::new(number, config).spawn();
        let channel = router.clone();
        let connect = move |name: &str| {
            LinkBuilder::new(name, channel.clone())
                .build()
                .map(|(sender, receiver, _ack)| (sender, receiver))
                .map_err(|error| BusError::Link(Box::new(error)))
        };
        let (sender, receiver) = connect("publisher")?;
        let generation = Self {
            number,
            connect: Box::new(connect),
            is_gone: Box::new(move || router.is_disconnected()),
            is_closed: RwLock::new(false),
        };
        let publisher = Publisher {
            sender,
            _receiver: receiver,
        };
        Ok((generation, publisher))
    }

    /// A link of this name. Blocks until the router answers.
    pub(super) fn connect(&self, name: &str) -> Result<(LinkTx, LinkRx), BusError> {
        let is_closed = self
            .is_closed
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if *is_closed {
            return Err(BusError::Gone);
        }
        (self.connect)(name)
    }

    /// Whether the router is not there any more.
    pub(super) fn is_gone(&self) -> bool {
        (self.is_gone)()
    }

    /// Ends the router for good, on a thread of its own: it waits for those who ask for a link.
    pub(super) fn retire(self: Arc<Self>, mut publisher: Publisher) {
        let ending = thread::Builder::new().name("bus-end".to_owned());
        let spawned = ending.spawn(move || {
            self.close();
            publisher.end(self.number);
        });
        if let Err(error) = spawned {
            warn!(%error, "A router of the local bus could not be ended and keeps its memory.");
        }
    }

    fn close(&self) {
        let deadline = Instant::now() + END_GRACE;
        loop {
            match self.is_closed.try_write() {
                Ok(mut is_closed) => return *is_closed = true,
                Err(TryLockError::Poisoned(poisoned)) => return *poisoned.into_inner() = true,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(END_POLL);
                }
                // They ask a router that is gone already.
                Err(TryLockError::WouldBlock) => return,
            }
        }
    }
}

impl Publisher {
    pub(super) fn send(&mut self, packet: Packet) -> Result<(), BusError> {
        send(&mut self.sender, packet)
    }

    /// Ends the router of this number; see the module.
    pub(super) fn end(&mut self, number: usize) {
        let last = Bytes::from_owner(LastMessage { number });
        let publish = Publish::new(Bytes::from_static(NOWHERE.as_bytes()), last, false);
        // If the router is gone there is nothing to end.
        drop(self.send(Packet::Publish(publish, None)));
    }
}

/// Unwinds the router's thread when that drops it.
struct LastMessage {
    number: usize,
}

impl AsRef<[u8]> for LastMessage {
    fn as_ref(&self) -> &[u8] {
        // An empty one would mean something to the router.
        b"end"
    }
}

impl Drop for LastMessage {
    fn drop(&mut self) {
        let current = thread::current();
        let is_router = current.name() == Some(format!("router-{}", self.number).as_str());
        if is_router && !thread::panicking() {
            resume_unwind(Box::new("the local bus goes on with another router"));
        }
    }
}

/// The router's channel is full only while the router works it off on its own thread, so this
/// waits briefly and never for a task.
pub(super) fn send(link: &mut LinkTx, packet: Packet) -> Result<(), BusError> {
    match link.send(packet).now_or_never() {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) | None => Err(BusError::Gone),
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
