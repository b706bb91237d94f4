//! How many there are of whoever is alike: connections of an address, handshakes of one.
//!
//! A count that is held by [`Place`]s; at the bound there is no further one. There are at most as many
//! entries as places.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Census<K> {
    counts: Mutex<HashMap<K, usize>>,
}

/// One of those that are counted; dropping it leaves.
#[derive(Debug)]
pub(super) struct Place<K: Eq + Hash> {
    census: Arc<Census<K>>,
    key: K,
}

impl<K> Default for Census<K> {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
        }
    }
}

impl<K: Copy + Eq + Hash> Census<K> {
    /// `None` if there are `max` of them already.
    pub(super) fn enter(self: &Arc<Self>, key: K, max: usize) -> Option<Place<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&key).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        counts.insert(key, count + 1);
        Some(Place {
            census: Arc::clone(self),
            key,
        })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let counts = &self.census.counts;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Who an address stands for: who has one IPv6 address has the 2^64 around it.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = address.to_bits() & (u128::MAX << 64);
            Ipv6Addr::from_bits(network).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_so_many_places_and_who_left_leaves_no_trace() {
        let census = Arc::new(Census::default());
        let mut places: Vec<_> = std::iter::from_fn(|| census.enter('a', 3)).collect();
        assert_eq!(places.len(), 3);
        assert!(census.enter('b', 1).is_some());
        places.pop();
        assert!(census.enter('a', 3).is_some());
        drop(places);
        assert!(census.counts.lock().unwrap().is_empty());
    }
}
