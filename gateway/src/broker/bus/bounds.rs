//! The bounds of the bus, and how often it may build its router anew.

use portcullis_core::limits::{
    BUS_BYTES_MAX, BUS_ENTRIES_MAX, BUS_IDLE_FILTERS_MAX, BUS_LOG_ENTRIES_MAX, BUS_MESSAGES_MAX,
    BUS_PANICS, BUS_REBUILDS, BUS_TOPICS_MAX, Rate,
};
use tokio::time::Instant;

/// Past a bound by this factor, and with no rebuild to be had, the bus takes nothing that would
/// make the router larger.
pub(super) const HARD: usize = 4;

/// See [`portcullis_core::limits`]; tests have smaller ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) topics: usize,
    pub(super) idle_filters: usize,
    pub(super) entries: usize,
    /// Entries of one filter's log.
    pub(super) log_entries: usize,
    /// Messages in the ring, and their bytes.
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) rebuilds: Rate,
    pub(super) panics: Rate,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            topics: BUS_TOPICS_MAX,
            idle_filters: BUS_IDLE_FILTERS_MAX,
            entries: BUS_ENTRIES_MAX,
            log_entries: BUS_LOG_ENTRIES_MAX,
            messages: BUS_MESSAGES_MAX,
            bytes: BUS_BYTES_MAX,
            rebuilds: BUS_REBUILDS,
            panics: BUS_PANICS,
        }
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    rate: Rate,
    left: f64,
    filled: Instant,
}

impl Turns {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            left: f64::from(rate.burst),
            filled: Instant::now(),
        }
    }

    /// Whether there is a turn; it is used up.
    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.rate.per_second;
        self.left = (self.left + gained).min(f64::from(self.rate.burst));
        self.filled = now;
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }
}
