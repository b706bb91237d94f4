//! Points in time as values; nobody here reads a clock.

use std::fmt;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How many milliseconds passed since `earlier`; 0 if `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This point in time, `millis` later.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// As it is written, in ASCII; `None` after the year 9999. Every record has one: no allocation,
    /// no general formatter.
    pub(crate) fn rfc3339(self) -> Option<[u8; 24]> {
        let (days, millis) = (self.0 / DAY_MILLIS, self.0 % DAY_MILLIS);
        // Howard Hinnant's `civil_from_days`: years that begin in March, in eras of 400 of them.
        let since_era_0 = days + 719_468;
        let (era, day_of_era) = (since_era_0 / ERA_DAYS, since_era_0 % ERA_DAYS);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        if year > 9999 {
            return None;
        }
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, digits: usize, mut value: u64| {
            for digit in text[at..at + digits].iter_mut().rev() {
                *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, millis / 3_600_000);
        put(14, 2, millis / 60_000 % 60);
        put(17, 2, millis / 1000 % 60);
        put(20, 3, millis % 1000);
        Some(text)
    }

    /// Reads RFC 3339 (`2026-11-22T10:00:00.123Z`); `None` if it is not, or before 1970.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let when = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(when.unix_timestamp_nanos() / 1_000_000)
            .ok()
            .map(Self)
    }
}

const DAY_MILLIS: u64 = 86_400_000;
const ERA_DAYS: u64 = 146_097;

/// RFC 3339 in UTC with milliseconds: `2026-11-22T10:00:00.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rfc3339() {
            Some(text) => f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?),
            None => write!(f, "@{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn is_written_and_read_as_rfc_3339() {
        let when = Timestamp::from_millis(1_795_341_600_123);
        assert_eq!(when.to_string(), "2026-11-22T10:00:00.123Z");
        assert_eq!(Timestamp::parse_rfc3339(&when.to_string()), Some(when));
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    proptest! {
        #[test]
        fn every_day_is_written_as_the_calendar_has_it(millis in 0..253_402_300_800_000_u64) {
            let form = time::macros::format_description!(
                "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
            );
            let nanos = i128::from(millis) * 1_000_000;
            let when = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap();
            prop_assert_eq!(Timestamp::from_millis(millis).to_string(), when.format(form).unwrap());
        }
    }

    #[test]
    fn a_time_that_no_calendar_has_is_still_told() {
        let last = Timestamp::from_millis(253_402_300_799_999);
        assert_eq!(last.to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(last.plus_millis(1).to_string(), "@253402300800000ms");
        assert_eq!(
            Timestamp::from_millis(u64::MAX).to_string(),
            "@18446744073709551615ms"
        );
    }
}
