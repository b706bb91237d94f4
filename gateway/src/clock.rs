//! The one place that reads the wall clock for timestamps.

use std::time::SystemTime;

use portcullis_core::timestamp::Timestamp;

/// The time of an event; the epoch if the machine's clock stands before it.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
