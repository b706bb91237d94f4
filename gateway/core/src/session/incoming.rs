//! QoS 2 publishes of the client that it has not released yet.

use std::collections::BTreeSet;

/// Packet ids between PUBLISH and PUBREL: a publish with one of them is the same publish again
/// (MQTT 5.0, 4.3.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    unreleased: BTreeSet<u16>,
    /// Those of them of which nobody has heard that they are committed.
    open: BTreeSet<u16>,
}

impl Incoming {
    /// A QoS 2 PUBLISH came. Whether it is a new one, which goes on.
    pub fn publish(&mut self, pkid: u16) -> bool {
        let is_new = self.unreleased.insert(pkid);
        if is_new {
            self.open.insert(pkid);
        }
        is_new
    }

    /// The publish with this id is where it has to be before it may be answered.
    pub fn committed(&mut self, pkid: u16) {
        self.open.remove(&pkid);
    }

    /// Whether nobody has heard that of the publish with this id: if it comes again, its commit is to be
    /// waited for again.
    pub fn is_open(&self, pkid: u16) -> bool {
        self.open.contains(&pkid)
    }

    /// A PUBREL came. Whether there was such a publish; the answer is a PUBCOMP in any case.
    pub fn release(&mut self, pkid: u16) -> bool {
        self.open.remove(&pkid);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_open_until_its_commit_or_its_release() {
        let mut incoming = Incoming::default();
        assert!(incoming.publish(1) && incoming.publish(2));
        assert!(incoming.is_open(1));
        incoming.committed(1);
        assert!(!incoming.publish(1), "the same again");
        assert!(!incoming.is_open(1));
        assert!(incoming.release(1) && incoming.release(2));
        assert!(!incoming.is_open(2));
        assert!(incoming.publish(1), "another one");
        assert!(incoming.is_open(1));
    }
}
