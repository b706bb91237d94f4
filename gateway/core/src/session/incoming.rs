//! QoS 2 publishes of the client that it has not released yet.

use std::collections::BTreeSet;

/// Packet ids between PUBLISH and PUBREL: a publish with one of them is the same publish again
/// (MQTT 5.0, 4.3.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    unreleased: BTreeSet<u16>,
}

impl Incoming {
    /// A QoS 2 PUBLISH came. Whether it is a new one, which goes on.
    pub fn publish(&mut self, pkid: u16) -> bool {
        self.unreleased.insert(pkid)
    }

    /// A PUBREL came. Whether there was such a publish; the answer is a PUBCOMP in any case.
    pub fn release(&mut self, pkid: u16) -> bool {
        self.unreleased.remove(&pkid)
    }

    /// Whether a publish with this id waits for its PUBREL.
    pub fn contains(&self, pkid: u16) -> bool {
        self.unreleased.contains(&pkid)
    }

    /// The ids, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.unreleased.iter().copied()
    }

    /// How many publishes wait for their PUBREL.
    pub fn len(&self) -> usize {
        self.unreleased.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.unreleased.is_empty()
    }
}
