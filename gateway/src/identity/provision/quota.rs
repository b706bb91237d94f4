//! So many a minute, and no more.

use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Quota {
    max: u32,
    since: Instant,
    taken: u32,
}

impl Quota {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            since: Instant::now(),
            taken: 0,
        }
    }

    /// Whether there is one left in this minute; takes it.
    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.since) >= WINDOW {
            self.since = now;
            self.taken = 0;
        }
        let is_left = self.taken < self.max;
        self.taken += u32::from(is_left);
        is_left
    }
}
