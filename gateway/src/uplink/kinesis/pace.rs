//! What may be sent now: the shards' limits, the operator's, the day's budget, and a record's age. Pure:
//! time is handed in.

use portcullis_core::{
    limits::RECORD_BYTES_MAX,
    rate::{Allowance, Bucket},
    record::{Lane, Record},
    upstream::shards::{Shard, Shards},
};

use super::window::Admission;
use crate::uplink::StreamConfig;

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct Pacer {
    max_age_millis: Option<u64>,
    share: f64,
    records: Option<Bucket>,
    bytes: Option<Bucket>,
    day: Option<Day>,
    pub(super) shards: Shards,
}

/// The budget of a day (UTC).
#[derive(Debug)]
struct Day {
    bytes_max: u64,
    number: u64,
    spent: u64,
}

/// What time it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Of a clock that only goes forward.
    pub(super) ticks: u64,
    /// Since 1970.
    pub(super) unix_millis: u64,
}

impl Pacer {
    pub(super) fn new(config: &StreamConfig, now: Now) -> Self {
        let bucket = |per_second: Option<u64>| {
            let allowance = Allowance::new(per_second?, 0)?;
            Some(Bucket::new(allowance, now.ticks))
        };
        Self {
            max_age_millis: config
                .max_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            share: f64::from(config.share_permille) / 1000.0,
            records: bucket(config.pace.records_per_second_max),
            bytes: bucket(config.pace.bytes_per_second_max),
            day: config.pace.bytes_per_day_max.map(|bytes_max| Day {
                bytes_max,
                number: now.unix_millis / DAY_MILLIS,
                spent: 0,
            }),
            shards: Shards::default(),
        }
    }

    /// The shards are these now.
    pub(super) fn learn(&mut self, shards: Vec<Shard>, now: Now) {
        let before = std::mem::take(&mut self.shards);
        self.shards = Shards::new(shards, self.share, now.ticks, before);
    }

    /// What becomes of a record now.
    pub(super) fn admit(&mut self, record: &Record, hash_key: u128, now: Now) -> Admission {
        if record.wire_bytes() > RECORD_BYTES_MAX {
            return Admission::Drop("oversize");
        }
        let age = now.unix_millis.saturating_sub(record.at_millis);
        if record.at_millis > 0 && self.max_age_millis.is_some_and(|max| age > max) {
            return Admission::Drop("expired");
        }
        let bytes = u64::try_from(record.wire_bytes()).unwrap_or(u64::MAX);
        let critical = record.kind.lane() == Lane::Critical;
        if self.is_spent(now) && !critical {
            return Admission::Hold;
        }
        let has = |bucket: &mut Option<Bucket>, cost| {
            bucket
                .as_mut()
                .is_none_or(|bucket| bucket.has(cost, now.ticks))
        };
        let fits = has(&mut self.records, 1) && has(&mut self.bytes, bytes);
        if !fits || !self.shards.take(hash_key, bytes, now.ticks) {
            return Admission::Hold;
        }
        for (bucket, cost) in [(&mut self.records, 1), (&mut self.bytes, bytes)] {
            if let Some(bucket) = bucket {
                bucket.reserve(cost, now.ticks);
            }
        }
        if let Some(day) = &mut self.day {
            day.spent = day.spent.saturating_add(bytes);
        }
        Admission::Take
    }

    /// Whether the day's budget is used up.
    pub(super) fn is_spent(&mut self, now: Now) -> bool {
        let Some(day) = &mut self.day else {
            return false;
        };
        let today = now.unix_millis / DAY_MILLIS;
        if today != day.number {
            *day = Day {
                number: today,
                spent: 0,
                ..*day
            };
        }
        day.spent >= day.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_core::record::{Kind, SinkSet};

    use super::*;
    use crate::uplink::Pace;

    fn record(kind: Kind, bytes: usize, at_millis: u64) -> Record {
        Record {
            seq: 1,
            place: 1,
            kind,
            sinks: SinkSet::ALL,
            at_millis,
            partition_key: "".into(),
            body: vec![b'x'; bytes].into(),
        }
    }

    fn pacer(pace: Pace, max_age: Option<Duration>) -> Pacer {
        let config = StreamConfig {
            pace,
            max_age,
            ..StreamConfig::new("s", "r")
        };
        Pacer::new(&config, at(0))
    }

    fn at(millis: u64) -> Now {
        Now {
            ticks: millis,
            unix_millis: 1000 * DAY_MILLIS + millis,
        }
    }

    #[test]
    fn what_is_too_old_or_too_large_is_never_sent() {
        let mut pacer = pacer(Pace::default(), Some(Duration::from_secs(60)));
        let mut admit = |record: Record| pacer.admit(&record, 0, at(0));
        let now = at(0).unix_millis;
        assert_eq!(admit(record(Kind::Event, 1, now - 60_000)), Admission::Take);
        let expired = Admission::Drop("expired");
        assert_eq!(admit(record(Kind::Event, 1, now - 60_001)), expired);
        assert_eq!(
            admit(record(Kind::Event, 1, 0)),
            Admission::Take,
            "nobody knows"
        );
        let oversize = Admission::Drop("oversize");
        assert_eq!(
            admit(record(Kind::Event, RECORD_BYTES_MAX + 1, now)),
            oversize
        );
    }

    #[test]
    fn records_and_bytes_a_second_are_bounded() {
        let pace = Pace {
            records_per_second_max: Some(10),
            bytes_per_second_max: Some(1000),
            bytes_per_day_max: None,
        };
        let mut pacer = pacer(pace, None);
        let mut taken = |bytes, now| {
            let record = record(Kind::Event, bytes, 0);
            let goes = |_: &i32| pacer.admit(&record, 0, at(now)) == Admission::Take;
            (0..100).filter(goes).count()
        };
        assert_eq!(taken(1, 0), 10);
        assert_eq!(taken(1, 500), 5);
        assert_eq!(taken(600, 5000), 1);
    }

    #[test]
    fn after_the_days_budget_only_what_is_critical_goes_until_the_next_day() {
        let pace = Pace {
            bytes_per_day_max: Some(1000),
            ..Pace::default()
        };
        let mut pacer = pacer(pace, None);
        let mut admit = |kind, now| pacer.admit(&record(kind, 500, 0), 0, at(now));
        assert_eq!(admit(Kind::Event, 0), Admission::Take);
        assert_eq!(admit(Kind::Event, 0), Admission::Take);
        assert_eq!(admit(Kind::Event, DAY_MILLIS - 1), Admission::Hold);
        assert_eq!(admit(Kind::Violation, DAY_MILLIS - 1), Admission::Take);
        assert_eq!(admit(Kind::Event, DAY_MILLIS), Admission::Take);
    }
}
