//! One connection's share of the way to the buffer. At QoS 0 nothing tells a publisher to pause, and
//! whoever fills the queue makes everybody wait for his records. So now and then a publish at QoS 0
//! carries a mark that resolves with its commit, and with a few of them open the connection waits for
//! the oldest: its next bytes stay in its own socket, and others' records come soon. (At QoS 1 and 2
//! the receive maximum does the same.)

use std::collections::VecDeque;

use portcullis_core::limits::{SHARE_MARKS_MAX, SHARE_STEP_BYTES, SHARE_STEP_RECORDS};

use crate::buffer::{Ack, Acked};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// Since the last mark.
    records: usize,
    bytes: usize,
    marks: VecDeque<Acked>,
}

impl Share {
    /// Counts a publish of so many bytes; the mark that it carries, if it is its turn.
    pub(super) fn count(&mut self, bytes: usize) -> Option<Ack> {
        self.records += 1;
        self.bytes += bytes;
        if self.records < SHARE_STEP_RECORDS && self.bytes < SHARE_STEP_BYTES {
            return None;
        }
        (self.records, self.bytes) = (0, 0);
        let (ack, mark) = Ack::new();
        self.marks.push_back(mark);
        Some(ack)
    }

    /// Whether the next publish has to wait.
    pub(super) fn is_used_up(&self) -> bool {
        self.marks.len() > SHARE_MARKS_MAX
    }

    /// Waits while the share is used up. Cancel-safe.
    pub(super) async fn room(&mut self) {
        while self.is_used_up()
            && let Some(oldest) = self.marks.front_mut()
        {
            // Lost or committed, it is on its way no more.
            let _decided: Result<(), _> = oldest.await;
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn fill(share: &mut Share, bytes: usize) -> Vec<Ack> {
        let mut acks = Vec::new();
        for _ in 0..=SHARE_MARKS_MAX {
            acks.extend((0..SHARE_STEP_RECORDS).find_map(|_| share.count(bytes)));
        }
        acks
    }

    #[test]
    fn a_share_that_is_used_up_waits_for_its_oldest_mark() {
        let mut share = Share::default();
        let acks = fill(&mut share, 1);
        assert_eq!(acks.len(), SHARE_MARKS_MAX + 1);
        assert!(share.room().now_or_never().is_none());
        assert!(share.room().now_or_never().is_none(), "asked again");
        let mut acks = acks.into_iter();
        acks.next().unwrap().commit();
        assert!(share.room().now_or_never().is_some());
    }

    #[test]
    fn bytes_count_as_well_and_what_is_lost_is_on_its_way_no_more() {
        let mut share = Share::default();
        let acks = fill(&mut share, SHARE_STEP_BYTES);
        assert_eq!(acks.len(), SHARE_MARKS_MAX + 1);
        assert!(share.room().now_or_never().is_none());
        drop(acks);
        assert!(share.room().now_or_never().is_some());
    }
}
