//! What time the cloud says it is, and how AWS writes it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The clock of throughput limits, age limits, iterators and signatures. Delays that a fault asks for
/// always pass in real time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    Real,
    /// A test's.
    Virtual(VirtualClock),
}

impl Clock {
    /// Microseconds of Unix time.
    pub(crate) fn now_micros(&self) -> u64 {
        match self {
            Self::Real => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                micros(since.unwrap_or_default())
            }
            Self::Virtual(clock) => clock.0.load(Ordering::Acquire),
        }
    }
}

/// A clock that stands until it is moved. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    /// Stands at this Unix time.
    pub fn at_millis(unix_millis: u64) -> Self {
        Self(Arc::new(AtomicU64::new(unix_millis.saturating_mul(1000))))
    }

    /// Stands at what the machine's clock says now.
    pub fn now() -> Self {
        Self(Arc::new(AtomicU64::new(Clock::Real.now_micros())))
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(micros(by), Ordering::AcqRel);
    }

    /// Moves to this Unix time.
    pub fn set_millis(&self, unix_millis: u64) {
        self.0
            .store(unix_millis.saturating_mul(1000), Ordering::Release);
    }

    /// The Unix time that it shows.
    pub fn millis(&self) -> u64 {
        self.0.load(Ordering::Acquire) / 1000
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Year, month, day, hour, minute, second and day of the week (0 is Thursday) of a Unix time.
fn civil(unix_secs: i64) -> ([i64; 6], usize) {
    let (days, secs) = (unix_secs.div_euclid(86_400), unix_secs.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let weekday = usize::try_from(days.rem_euclid(7)).expect("a remainder is not negative");
    (
        [year, month, day, secs / 3600, secs / 60 % 60, secs % 60],
        weekday,
    )
}

/// `Sun, 22 Nov 2026 21:00:00 GMT`, for the header `Date`.
pub(crate) fn http_date(unix_secs: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let ([year, month, day, hour, minute, second], weekday) = civil(unix_secs);
    let month = MONTHS[usize::try_from(month - 1).expect("months begin at 1")];
    let weekday = DAYS[weekday];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `20261122T210000Z`, as signatures have it.
pub(crate) fn amz_date(unix_secs: i64) -> String {
    let ([year, month, day, hour, minute, second], _) = civil(unix_secs);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The Unix time of `20261122T210000Z`.
pub(crate) fn from_amz_date(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> { text.get(from..to)?.parse().ok() };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_and_read_as_aws_does() {
        for (secs, amz, http) in [
            (0, "19700101T000000Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (
                951_782_400,
                "20000229T000000Z",
                "Tue, 29 Feb 2000 00:00:00 GMT",
            ),
            (
                1_440_938_160,
                "20150830T123600Z",
                "Sun, 30 Aug 2015 12:36:00 GMT",
            ),
            (
                1_795_391_999,
                "20261122T235959Z",
                "Sun, 22 Nov 2026 23:59:59 GMT",
            ),
        ] {
            assert_eq!(amz_date(secs), amz);
            assert_eq!(http_date(secs), http);
            assert_eq!(from_amz_date(amz), Some(secs));
        }
        for wrong in [
            "",
            "20150830T123600",
            "2015-08-30T12:36Z",
            "2015083äT12360Z",
        ] {
            assert_eq!(from_amz_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_virtual_clock_moves_when_told() {
        let clock = VirtualClock::at_millis(1000);
        let seen = Clock::Virtual(clock.clone());
        clock.advance(Duration::from_millis(5));
        assert_eq!((seen.now_micros(), clock.millis()), (1_005_000, 1005));
    }
}
