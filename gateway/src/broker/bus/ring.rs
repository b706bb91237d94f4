//! The messages themselves, in the order in which they were published: the router carries only
//! their numbers.
//!
//! The newest are kept, up to a number and to bytes, whatever becomes of routers. Who asks for one
//! that is overwritten was too slow. Numbers are never used twice. Slots have locks of their own, so
//! that subscribers wait neither for publishers nor for each other.

use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::message::Message;

/// What a message takes besides its texts and data.
const OVERHEAD_BYTES: usize = 256;

type Slot = Option<(u64, Arc<Message>)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    slots: Box<[Mutex<Slot>]>,
    bytes_max: usize,
}

/// Which messages are there: the publisher's side.
#[derive(Debug, Default)]
pub(super) struct Extent {
    /// The oldest.
    first: u64,
    /// The number of the next message.
    pub(super) next: u64,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            slots: (0..messages_max.max(1)).map(|_| Mutex::default()).collect(),
            bytes_max,
        }
    }

    /// Keeps a message and gives it its number; the oldest make room.
    pub(super) fn push(&self, extent: &mut Extent, message: &Arc<Message>) -> u64 {
        let bytes = message.bytes() + OVERHEAD_BYTES;
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        while extent.first < extent.next
            && (extent.next - extent.first >= slots || extent.bytes + bytes > self.bytes_max)
        {
            if let Some((_, oldest)) = self.with_slot(extent.first, Option::take) {
                extent.bytes -= oldest.bytes() + OVERHEAD_BYTES;
            }
            extent.first += 1;
        }
        let number = extent.next;
        self.with_slot(number, |slot| *slot = Some((number, Arc::clone(message))));
        extent.bytes += bytes;
        extent.next += 1;
        number
    }

    /// The message with this number, if it is still there.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Message>> {
        self.with_slot(number, |slot| match slot {
            Some((kept, message)) if *kept == number => Some(Arc::clone(message)),
            _ => None,
        })
    }

    fn with_slot<T>(&self, number: u64, act: impl FnOnce(&mut Slot) -> T) -> T {
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        let at = usize::try_from(number % slots).expect("less than the number of slots");
        let mut slot = self.slots[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        act(&mut slot)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::bus::tests::message;

    #[test]
    fn the_newest_messages_are_kept_up_to_a_number_and_to_bytes() {
        let ring = Ring::new(4, 8 * 1024);
        let mut extent = Extent::default();
        for n in 0..10u64 {
            let given = message("t", Bytes::from(n.to_string()));
            assert_eq!(ring.push(&mut extent, &given), n);
        }
        for n in 0..10u64 {
            let expected = (n >= 6).then(|| Bytes::from(n.to_string()));
            assert_eq!(ring.get(n).map(|m| m.payload.clone()), expected, "{n}");
        }
        assert!(ring.get(10).is_none());

        let large = message("t", Bytes::from(vec![0; 5000]));
        ring.push(&mut extent, &large);
        ring.push(&mut extent, &large);
        assert!(ring.get(10).is_none() && ring.get(11).is_some());
        assert!(extent.bytes <= 8 * 1024);
    }
}
