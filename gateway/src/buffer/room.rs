//! Whether the buffer takes more than what is on its way to it.
//!
//! A reserve below the disk bound is kept for what was taken and waits for its commit: who could be
//! told that there is no room is told while what he sent before still fits, and his answers keep
//! their order. Who cannot be told uses the reserve and then waits.

use portcullis_core::limits::{BUFFER_RESERVE_BYTES_MAX, BUFFER_RESERVE_SHARE};
use tokio::sync::watch;

/// Changes with every commit and with every generation that is dropped.
#[derive(Debug)]
pub(super) struct Room {
    /// What the generations may take before there is none.
    bytes: u64,
    is_there: watch::Sender<bool>,
}

impl Room {
    /// Of a buffer that may take `bytes_max` of disk.
    pub(super) fn below(bytes_max: u64) -> Self {
        let reserve = (bytes_max / BUFFER_RESERVE_SHARE).min(BUFFER_RESERVE_BYTES_MAX);
        Self {
            bytes: bytes_max - reserve,
            is_there: watch::Sender::new(true),
        }
    }

    /// Of a buffer whose bound makes nobody wait.
    pub(super) fn endless() -> Self {
        Self {
            bytes: u64::MAX,
            is_there: watch::Sender::new(true),
        }
    }

    /// The generations take `disk_bytes`.
    pub(super) fn note(&self, disk_bytes: u64) {
        self.set(disk_bytes < self.bytes);
    }

    /// The disk is full, whoever filled it.
    pub(super) fn note_no_space(&self) {
        self.set(false);
    }

    fn set(&self, is_there: bool) {
        self.is_there
            .send_if_modified(|known| std::mem::replace(known, is_there) != is_there);
    }

    pub(super) fn is_there(&self) -> bool {
        *self.is_there.borrow()
    }

    /// Waits until there is room.
    pub(super) async fn wait(&self) {
        // The sender is `self`, which is there.
        drop(
            self.is_there
                .subscribe()
                .wait_for(|is_there| *is_there)
                .await,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_reserve_is_kept_below_the_bound() {
        for (bytes_max, reserve) in [(4 * MIB, MIB / 2), (2048 * MIB, BUFFER_RESERVE_BYTES_MAX)] {
            let room = Room::below(bytes_max);
            room.note(bytes_max - reserve - 1);
            assert!(room.is_there());
            room.note(bytes_max - reserve);
            assert!(!room.is_there());
        }
    }

    #[tokio::test]
    async fn who_waits_for_room_hears_of_it() {
        let room = Room::below(4 * MIB);
        room.note_no_space();
        let (waited, ()) = tokio::join!(
            async {
                room.wait().await;
                room.is_there()
            },
            async {
                tokio::task::yield_now().await;
                room.note(0);
            }
        );
        assert!(waited);
    }
}
