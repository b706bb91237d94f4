//! TLS handshakes: who may begin one, and whose turn it is.
//!
//! A handshake costs a signature, and whoever connects gets one for nothing. So an address may begin
//! so many a second, and is told no before any TLS is spoken; and of those whose turn it is at once it
//! gets a part. A turn is asked for with a whole ClientHello in hand, and given back when the peer does
//! not go on for `HANDSHAKE_TURN` (see the listener): peers that begin and say nothing more hold
//! nobody up, and a mass of devices that comes back at once is worked off in order. An
//! address is a /64 in IPv6; this machine gets more, because all local applications share one. The
//! table of addresses is bounded: while it is full of busy ones, further addresses share one bucket.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use portcullis_core::{
    limits::{HANDSHAKE_ADDRESSES_MAX, HANDSHAKES_OF_LOOPBACK},
    rate::{Allowance, Bucket},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::census::source;

/// While the table is full it is searched for idle addresses at most this often, in milliseconds.
const SWEEP_MS: u64 = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct Handshakes {
    paces: Option<Mutex<Paces>>,
    all: Semaphore,
    /// Those that wait for a turn or have one, by their address.
    queues: Mutex<HashMap<IpAddr, Queue>>,
    per_address_max: usize,
    loopback_max: usize,
}

#[derive(Debug)]
struct Paces {
    allowance: Allowance,
    by_source: HashMap<IpAddr, Bucket>,
    others: Bucket,
    swept_at: u64,
}

#[derive(Debug)]
struct Queue {
    turns: Arc<Semaphore>,
    /// Those that wait for a turn, or have one.
    members: usize,
}

/// A handshake's turn; dropping it gives it to the next.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _of_all: SemaphorePermit<'a>,
    _of_address: Waiting<'a>,
}

/// A member of an address's queue.
#[derive(Debug)]
struct Waiting<'a> {
    handshakes: &'a Handshakes,
    source: IpAddr,
    turns: Arc<Semaphore>,
    has_turn: bool,
}

impl Handshakes {
    /// `max` at once, `per_address_max` of them of one address as long as that is a part of all, and as
    /// many a second of one address as `pace` allows.
    pub(super) fn new(
        max: usize,
        per_address_max: usize,
        pace: Option<Allowance>,
        now: u64,
    ) -> Self {
        Self {
            paces: pace.map(|allowance| Mutex::new(Paces::new(allowance, now))),
            all: Semaphore::new(max),
            queues: Mutex::default(),
            per_address_max: per_address_max.min(max / 4).max(1),
            loopback_max: (max / 2).max(1),
        }
    }

    /// Whether a further handshake of this address may begin; it counts then.
    pub(super) fn may_begin(&self, address: IpAddr, now: u64) -> bool {
        let Some(paces) = &self.paces else {
            return true;
        };
        let mut paces = paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.take(source(address), now)
    }

    /// Waits for a turn. Cancel-safe.
    pub(super) async fn turn(&self, address: IpAddr) -> Turn<'_> {
        let mut of_address = self.wait(source(address));
        let turns = Arc::clone(&of_address.turns);
        // Given back by `Waiting`, which knows whether it is held.
        if let Ok(permit) = turns.acquire().await {
            permit.forget();
            of_address.has_turn = true;
        }
        let of_all = self.all.acquire().await;
        Turn {
            _of_all: of_all.expect("the semaphore is never closed"),
            _of_address: of_address,
        }
    }

    fn wait(&self, source: IpAddr) -> Waiting<'_> {
        let max = if source.is_loopback() {
            self.loopback_max
        } else {
            self.per_address_max
        };
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(source).or_insert_with(|| Queue {
            turns: Arc::new(Semaphore::new(max)),
            members: 0,
        });
        queue.members += 1;
        Waiting {
            handshakes: self,
            source,
            turns: Arc::clone(&queue.turns),
            has_turn: false,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.has_turn {
            self.turns.add_permits(1);
        }
        let queues = &self.handshakes.queues;
        let mut queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get_mut(&self.source) {
            queue.members -= 1;
            if queue.members == 0 {
                queues.remove(&self.source);
            }
        }
    }
}

impl Paces {
    fn new(allowance: Allowance, now: u64) -> Self {
        Self {
            allowance,
            by_source: HashMap::new(),
            others: Bucket::new(allowance, now),
            swept_at: now,
        }
    }

    fn take(&mut self, source: IpAddr, now: u64) -> bool {
        if !self.by_source.contains_key(&source) {
            self.make_room(now);
            if self.by_source.len() < HANDSHAKE_ADDRESSES_MAX {
                let allowance = if source.is_loopback() {
                    self.allowance.times(HANDSHAKES_OF_LOOPBACK)
                } else {
                    self.allowance
                };
                let bucket = Bucket::new(allowance, now);
                self.by_source.insert(source, bucket);
            }
        }
        let bucket = self.by_source.get_mut(&source).unwrap_or(&mut self.others);
        bucket.take(1, now).is_ok()
    }

    fn make_room(&mut self, now: u64) {
        if self.by_source.len() < HANDSHAKE_ADDRESSES_MAX || now < self.swept_at + SWEEP_MS {
            return;
        }
        self.swept_at = now;
        self.by_source.retain(|_, bucket| !bucket.is_full(now));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn begun(handshakes: &Handshakes, address: &str, times: usize, now: u64) -> usize {
        let begins = (0..times).filter(|_| handshakes.may_begin(ip(address), now));
        begins.count()
    }

    /// Those that get a turn at once.
    fn turns<'a>(handshakes: &'a Handshakes, address: &str) -> Vec<Turn<'a>> {
        std::iter::from_fn(|| handshakes.turn(ip(address)).now_or_never()).collect()
    }

    #[test]
    fn an_address_begins_so_many_a_second_and_others_begin_theirs() {
        let handshakes = Handshakes::new(64, 16, Allowance::new(10, 20), 0);
        assert_eq!(begun(&handshakes, "192.0.2.1", 100, 0), 20);
        assert_eq!(begun(&handshakes, "::ffff:192.0.2.1", 100, 500), 5);
        assert_eq!(begun(&handshakes, "192.0.2.2", 100, 500), 20);
        assert_eq!(begun(&handshakes, "2001:db8::1", 15, 500), 15);
        assert_eq!(begun(&handshakes, "2001:db8::2:1", 15, 500), 5, "one /64");
        assert_eq!(begun(&handshakes, "127.0.0.1", 1000, 500), 200, "ten times");
        assert_eq!(begun(&handshakes, "::1", 1000, 500), 200, "ten times");
        assert_eq!(begun(&handshakes, "127.0.0.1", 1000, 1500), 100);
        let unlimited = Handshakes::new(64, 16, None, 0);
        assert_eq!(begun(&unlimited, "192.0.2.1", 1000, 0), 1000);
    }

    #[test]
    fn the_table_is_bounded_and_idle_addresses_make_room() {
        let mut paces = Paces::new(Allowance::new(1, 2).unwrap(), 0);
        let address = |n: usize| IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(n).unwrap()));
        let granted = (0..HANDSHAKE_ADDRESSES_MAX + 100).filter(|n| paces.take(address(*n), 0));
        assert_eq!(granted.count(), HANDSHAKE_ADDRESSES_MAX + 2);
        assert_eq!(paces.by_source.len(), HANDSHAKE_ADDRESSES_MAX);
        assert!(paces.take(address(HANDSHAKE_ADDRESSES_MAX + 200), 60_000));
        assert_eq!(paces.by_source.len(), 1);
    }

    #[test]
    fn no_address_holds_every_turn() {
        let handshakes = Handshakes::new(64, 16, None, 0);
        let mut crowd = turns(&handshakes, "192.0.2.1");
        assert_eq!(crowd.len(), 16);
        assert_eq!(turns(&handshakes, "127.0.0.1").len(), 32);
        let other = turns(&handshakes, "192.0.2.2");
        assert_eq!(other.len(), 16);
        assert!(handshakes.turn(ip("192.0.2.1")).now_or_never().is_none());
        crowd.pop();
        assert_eq!(turns(&handshakes, "192.0.2.1").len(), 1);
    }

    #[test]
    fn there_are_no_more_turns_than_in_all_and_everybody_gets_one() {
        let handshakes = Handshakes::new(2, 16, None, 0);
        let first = turns(&handshakes, "192.0.2.1");
        let second = turns(&handshakes, "192.0.2.2");
        assert_eq!((first.len(), second.len()), (1, 1));
        assert!(turns(&handshakes, "192.0.2.3").is_empty());
        drop(first);
        assert_eq!(turns(&handshakes, "192.0.2.3").len(), 1);
    }

    #[test]
    fn who_waited_and_left_leaves_no_trace() {
        let handshakes = Handshakes::new(4, 1, None, 0);
        let held = turns(&handshakes, "192.0.2.1");
        assert_eq!(held.len(), 1);
        assert!(handshakes.turn(ip("192.0.2.1")).now_or_never().is_none());
        drop(held);
        assert!(handshakes.queues.lock().unwrap().is_empty());
        assert_eq!(handshakes.all.available_permits(), 4);
    }
}
