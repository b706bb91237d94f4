//! Connections whose CONNECT has not been accepted yet, by the address that they come from.
//!
//! Nobody knows who they are, and each holds a place and a descriptor until its time is up: one
//! address gets a bounded number of them, and never the greater part of all places. What comes from
//! this machine gets more, because all local applications share one address.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use portcullis_core::limits::CONNECTING_PER_ADDRESS_MIN;

use super::census::source;

/// See the module. There are at most as many entries as connections.
#[derive(Debug)]
pub(super) struct Newcomers {
    by_source: Mutex<HashMap<IpAddr, usize>>,
    per_address_max: usize,
    loopback_max: usize,
}

/// A connection among the newcomers; dropping it leaves them.
#[derive(Debug)]
pub(super) struct Newcomer {
    newcomers: Arc<Newcomers>,
    source: IpAddr,
}

impl Newcomers {
    /// `per_address_max` of each address, as long as that is a part of `connections_max`.
    pub(super) fn new(per_address_max: usize, connections_max: usize) -> Self {
        let at_least = |max: usize| max.max(CONNECTING_PER_ADDRESS_MIN);
        Self {
            by_source: Mutex::default(),
            per_address_max: at_least(per_address_max.min(connections_max / 4)),
            loopback_max: at_least(connections_max / 2),
        }
    }

    /// `None` if there are as many from there as there may be.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Newcomer> {
        let source = source(address);
        let max = if source.is_loopback() {
            self.loopback_max
        } else {
            self.per_address_max
        };
        let mut by_source = self
            .by_source
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = by_source.entry(source).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Newcomer {
            newcomers: Arc::clone(self),
            source,
        })
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let by_source = &self.newcomers.by_source;
        let mut by_source = by_source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = by_source.entry(self.source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(newcomers: &Arc<Newcomers>, address: &str) -> Vec<Newcomer> {
        let address = address.parse().unwrap();
        std::iter::from_fn(|| newcomers.enter(address)).collect()
    }

    #[test]
    fn one_address_gets_its_share_and_others_get_theirs() {
        let newcomers = Arc::new(Newcomers::new(100, 1000));
        let mut crowd = fill(&newcomers, "192.0.2.1");
        assert_eq!(crowd.len(), 100);
        assert!(
            newcomers
                .enter("::ffff:192.0.2.1".parse().unwrap())
                .is_none()
        );
        assert_eq!(fill(&newcomers, "192.0.2.2").len(), 100);
        // One of them said CONNECT, or left.
        crowd.pop();
        assert_eq!(fill(&newcomers, "192.0.2.1").len(), 1);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let newcomers = Arc::new(Newcomers::new(100, 1000));
        let _crowd = fill(&newcomers, "2001:db8:0:1::1");
        assert!(fill(&newcomers, "2001:db8:0:1:ffff::2").is_empty());
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
        assert!(newcomers.by_source.lock().unwrap().is_empty());
    }
}
