//! Connections whose CONNECT has not been accepted yet, by the address that they come from.
//!
//! Nobody knows who they are, and each holds a place and a descriptor until its time is up: one
//! address gets a bounded number of them, and never the greater part of all places. What comes from
//! this machine gets more, because all local applications share one address.
//!
//! At the bound the one that has been there longest goes, not the one that comes: whoever means it is
//! through in milliseconds and is hardly ever the oldest, however many there are who do not get on.
//! So it is with the places of all connections while newcomers have some of them. A newcomer that is
//! displaced is dropped wherever it waits; once it has settled it is a client, and nobody displaces it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{AbortHandle, AbortRegistration};
use portcullis_core::limits::CONNECTING_PER_ADDRESS_MIN;

use super::census::source;

/// See the module. There are at most as many entries as connections.
#[derive(Debug)]
pub(super) struct Newcomers {
    crowd: Mutex<Crowd>,
    per_address_max: usize,
    loopback_max: usize,
}

#[derive(Debug, Default)]
struct Crowd {
    /// The number of the last that came.
    last: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, Waiting>,
    by_source: HashMap<IpAddr, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Waiting {
    address: IpAddr,
    connection: AbortHandle,
}

/// A connection among the newcomers; dropping it leaves them.
#[derive(Debug)]
pub(super) struct Newcomer {
    newcomers: Arc<Newcomers>,
    number: u64,
}

/// One that came in.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) newcomer: Newcomer,
    /// What its connection has to run under.
    pub(super) registration: AbortRegistration,
    /// Where the one came from that had to go for it.
    pub(super) displaced: Option<IpAddr>,
}

impl Newcomers {
    /// `per_address_max` of each address, as long as that is a part of `connections_max`.
    pub(super) fn new(per_address_max: usize, connections_max: usize) -> Self {
        let at_least = |max: usize| max.max(CONNECTING_PER_ADDRESS_MIN);
        Self {
            crowd: Mutex::default(),
            per_address_max: at_least(per_address_max.min(connections_max / 4)),
            loopback_max: at_least(connections_max / 2),
        }
    }

    /// Displaces the oldest from there if there are as many as there may be.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Entered {
        let source = source(address);
        let max = if source.is_loopback() {
            self.loopback_max
        } else {
            self.per_address_max
        };
        let (connection, registration) = AbortHandle::new_pair();
        let mut crowd = self.lock();
        let there = crowd.by_source.get(&source);
        let oldest = there.filter(|there| there.len() >= max);
        let oldest = oldest.and_then(|there| there.first().copied());
        let displaced = oldest.and_then(|oldest| crowd.displace(oldest));
        crowd.last += 1;
        let number = crowd.last;
        crowd.by_source.entry(source).or_default().insert(number);
        let waiting = Waiting {
            address,
            connection,
        };
        crowd.all.insert(number, waiting);
        drop(crowd);
        Entered {
            newcomer: Newcomer {
                newcomers: Arc::clone(self),
                number,
            },
            registration,
            displaced,
        }
    }

    /// Displaces the oldest of all besides this one, and says where it came from.
    pub(super) fn displace_for(&self, newcomer: &Newcomer) -> Option<IpAddr> {
        let mut crowd = self.lock();
        let mut numbers = crowd.all.keys().copied();
        let oldest = numbers.find(|number| *number != newcomer.number)?;
        crowd.displace(oldest)
    }

    fn lock(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// It is known who it is, and nobody displaces it any more; `false` if somebody did already, and
    /// it has to go.
    #[must_use]
    pub(super) fn settle(self) -> bool {
        self.newcomers.lock().remove(self.number).is_some()
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.newcomers.lock().remove(self.number);
    }
}

impl Crowd {
    fn displace(&mut self, number: u64) -> Option<IpAddr> {
        let gone = self.remove(number)?;
        gone.connection.abort();
        Some(gone.address)
    }

    /// `None` if it has gone already.
    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let gone = self.all.remove(&number)?;
        if let Entry::Occupied(mut there) = self.by_source.entry(source(gone.address)) {
            there.get_mut().remove(&number);
            if there.get().is_empty() {
                there.remove();
            }
        }
        Some(gone)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::Abortable};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// So many from there as displace nobody.
    fn fill(newcomers: &Arc<Newcomers>, address: &str) -> Vec<Entered> {
        let mut crowd = Vec::new();
        let mut displaced = None;
        while displaced.is_none() {
            let entered = newcomers.enter(ip(address));
            displaced = entered.displaced;
            crowd.push(entered);
        }
        // The first one has gone, the last one is left out.
        crowd.pop();
        crowd
    }

    fn is_displaced(entered: Entered) -> bool {
        let pending = std::future::pending::<()>();
        let run = Abortable::new(pending, entered.registration);
        assert_eq!(run.is_aborted(), run.now_or_never().is_some());
        !entered.newcomer.settle()
    }

    #[test]
    fn one_address_gets_its_share_and_others_get_theirs() {
        let newcomers = Arc::new(Newcomers::new(100, 1000));
        let mut crowd = fill(&newcomers, "192.0.2.1");
        assert_eq!(crowd.len(), 100);
        assert_eq!(fill(&newcomers, "192.0.2.2").len(), 100);
        // One place is free, of whom the last one came for; one of them said CONNECT, or left.
        crowd.pop();
        for _ in 0..2 {
            let entered = newcomers.enter(ip("::ffff:192.0.2.1"));
            assert_eq!(entered.displaced, None);
            crowd.push(entered);
        }
        assert!(newcomers.enter(ip("192.0.2.1")).displaced.is_some());
    }

    #[test]
    fn who_comes_displaces_the_oldest_of_its_address() {
        let newcomers = Arc::new(Newcomers::new(8, 1000));
        let other = newcomers.enter(ip("192.0.2.2"));
        let mut crowd: Vec<_> = (0..8).map(|_| newcomers.enter(ip("192.0.2.1"))).collect();
        let latest = newcomers.enter(ip("192.0.2.1"));
        assert_eq!(latest.displaced, Some(ip("192.0.2.1")));
        assert!(is_displaced(crowd.remove(0)));
        for stays in crowd.into_iter().chain([other, latest]) {
            assert!(!is_displaced(stays));
        }
    }

    #[test]
    fn the_oldest_of_all_goes_for_another_one_and_who_has_settled_stays() {
        let newcomers = Arc::new(Newcomers::new(8, 1000));
        let first = newcomers.enter(ip("192.0.2.1"));
        let second = newcomers.enter(ip("192.0.2.2"));
        let third = newcomers.enter(ip("192.0.2.3"));
        assert!(first.newcomer.settle());
        let displaced = newcomers.displace_for(&third.newcomer);
        assert_eq!(displaced, Some(ip("192.0.2.2")));
        assert!(is_displaced(second));
        assert_eq!(newcomers.displace_for(&third.newcomer), None);
        assert!(!is_displaced(third));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let newcomers = Arc::new(Newcomers::new(100, 1000));
        let crowd = fill(&newcomers, "2001:db8:0:1::1");
        assert_eq!(crowd.len(), 100);
        // As the one that was left out.
        let _last = newcomers.enter(ip("2001:db8:0:1:ffff::2"));
        let entered = newcomers.enter(ip("2001:db8:0:1:ffff::3"));
        assert_eq!(entered.displaced, Some(ip("2001:db8:0:1::1")));
        assert_eq!(fill(&newcomers, "2001:db8:0:2::1").len(), 100);
    }

    #[test]
    fn no_address_gets_every_place_and_this_machine_gets_half() {
        let newcomers = Arc::new(Newcomers::new(256, 60));
        assert_eq!(fill(&newcomers, "192.0.2.1").len(), 15);
        assert_eq!(fill(&newcomers, "127.0.0.1").len(), 30);
        assert_eq!(fill(&newcomers, "::1").len(), 30);
        let few = Arc::new(Newcomers::new(1, 1));
        assert_eq!(fill(&few, "192.0.2.1").len(), CONNECTING_PER_ADDRESS_MIN);
    }

    #[test]
    fn who_left_leaves_no_trace() {
        let newcomers = Arc::new(Newcomers::new(100, 1000));
        drop(fill(&newcomers, "192.0.2.1"));
        let crowd = newcomers.lock();
        assert!(crowd.all.is_empty() && crowd.by_source.is_empty());
    }
}
