//! The one place that asks the machine what time it is, and whether it knows.

use std::{
    mem::MaybeUninit,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use portcullis_core::{record::Clock, timestamp::Timestamp};

/// How long an answer of the kernel serves.
const STATE_AGE_MAX: Duration = Duration::from_secs(1);

/// The time of an event; the epoch if the machine's clock stands before it.
pub fn now() -> Timestamp {
    #[cfg(test)]
    if let Some(stands_at) = STANDS_AT.get() {
        return stands_at;
    }
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds of a clock that only goes forward, since somebody first asked.
pub fn ticks() -> u64 {
    static START: OnceLock<tokio::time::Instant> = OnceLock::new();
    let start = *START.get_or_init(tokio::time::Instant::now);
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
thread_local! {
    static STANDS_AT: std::cell::Cell<Option<Timestamp>> = const { std::cell::Cell::new(None) };
}

/// From now on it is `at` for this thread.
#[cfg(test)]
pub(crate) fn stand_at(at: Timestamp) {
    STANDS_AT.set(Some(at));
}

/// Whether a time source disciplines the clock, as the kernel says (`adjtimex(2)`, which
/// timesyncd, chrony and ntpd set alike). Where the kernel is not to be asked (some containers), the
/// clock counts as unsynced.
pub fn state() -> Clock {
    static LAST: Mutex<Option<(Instant, Clock)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match *last {
        Some((asked, state)) if asked.elapsed() < STATE_AGE_MAX => state,
        _ => {
            let state = if kernel_is_synced() {
                Clock::Synced
            } else {
                Clock::Unsynced
            };
            *last = Some((Instant::now(), state));
            state
        }
    }
}

#[expect(
    unsafe_code,
    reason = "there is no safe way to adjtimex; it only reads here"
)]
fn kernel_is_synced() -> bool {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all-zero is a valid `timex` (integers only), and with `modes` 0 the kernel sets
    // nothing and writes no more than the structure that it is given.
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    state != -1 && state != libc::TIME_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_the_kernels_and_serves_for_a_while() {
        let asked = if kernel_is_synced() {
            Clock::Synced
        } else {
            Clock::Unsynced
        };
        assert_eq!(state(), asked);
        assert_eq!(state(), asked);
    }
}
