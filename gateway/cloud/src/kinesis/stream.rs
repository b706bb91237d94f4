//! A stream: its shards, what is in them, splitting and merging.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    order::Order,
    refusal::Refusal,
    settings::{Keep, ShardLimits},
};

/// A stream's default, and what it may be raised to.
pub(super) const RECORD_BYTES_DEFAULT: usize = 1 << 20;
pub(super) const RECORD_BYTES_MAX: usize = 10 << 20;

/// A record that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The number of the request that brought it.
    pub request: u64,
    /// `shardId-000000000000`.
    pub shard: Arc<str>,
    /// 56 digits; of one shard, they grow.
    pub sequence_number: String,
    /// What chose the shard.
    pub partition_key: String,
    /// What chose it instead.
    pub explicit_hash_key: Option<u128>,
    /// Unix time of arrival.
    pub at_millis: u64,
    /// As the producer meant them, without base64.
    pub data: Bytes,
}

/// A shard, as `ListShards` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// `shardId-000000000000`.
    pub id: Arc<str>,
    /// What it was split from, or merged from.
    pub parent: Option<Arc<str>>,
    /// What else it was merged from.
    pub adjacent_parent: Option<Arc<str>>,
    /// The first hash key.
    pub start: u128,
    /// The last one.
    pub end: u128,
    /// Whether it takes records.
    pub open: bool,
    /// How many it has taken.
    pub records: u64,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) info: ShardInfo,
    /// The end of an outcome in an answer, written once.
    pub(super) outcome_end: String,
    /// Places in the stream's log.
    places: VecDeque<u64>,
    /// How many of them are forgotten.
    pub(super) forgotten: u64,
    /// The first 36 digits of its sequence numbers.
    prefix: String,
    pub(super) first: u64,
    next: u64,
    bucket: Option<Bucket>,
}

impl Shard {
    fn new(info: ShardInfo, created_secs: u64) -> Self {
        let ordinal = info.id.rsplit('-').next().and_then(|n| n.parse().ok());
        let ordinal: u64 = ordinal.unwrap_or_default();
        // What follows "49" grows with time and with the shard, so that a child's numbers are larger
        // than its parent's.
        let noise = (ordinal + created_secs).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_u64.pow(18);
        let first = noise % 1_000_000_007;
        Self {
            outcome_end: format!("\",\"ShardId\":\"{}\"}}", info.id),
            prefix: format!("49{created_secs:010}{ordinal:06}{noise:018}"),
            info,
            places: VecDeque::new(),
            forgotten: 0,
            first,
            next: first,
            bucket: None,
        }
    }

    /// The next sequence number, written behind `out`.
    pub(super) fn number(&mut self, out: &mut String) {
        self.next += 1 + self.next.wrapping_mul(2_654_435_761) % 13;
        self.push_number(self.next, out);
    }

    fn push_number(&self, low: u64, out: &mut String) {
        out.push_str(&self.prefix);
        let mut digits = [b'0'; 20];
        let (mut rest, mut at) = (low, digits.len());
        while rest > 0 {
            at -= 1;
            digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        out.push_str(std::str::from_utf8(&digits).expect("digits"));
    }

    pub(super) fn first_number(&self) -> String {
        let mut number = String::new();
        self.push_number(self.first, &mut number);
        number
    }

    pub(super) fn latest_number(&self) -> String {
        let mut number = String::new();
        self.push_number(self.next, &mut number);
        number
    }

    /// Whether its limits let a record of this size in.
    pub(super) fn lets_in(&mut self, limits: ShardLimits, now_micros: u64, bytes: usize) -> bool {
        let bucket = self.bucket.get_or_insert_with(|| Bucket {
            records: f64::from(limits.records_per_second),
            bytes: f64::from(limits.bytes_per_second),
            at_micros: now_micros,
        });
        bucket.take(limits, now_micros, bytes)
    }

    /// How many records it has ever taken.
    pub(super) fn taken(&self) -> u64 {
        self.info.records
    }
}

/// What is left of a shard's second.
#[derive(Debug)]
struct Bucket {
    records: f64,
    bytes: f64,
    at_micros: u64,
}

impl Bucket {
    fn take(&mut self, limits: ShardLimits, now_micros: u64, bytes: usize) -> bool {
        let since = Duration::from_micros(now_micros.saturating_sub(self.at_micros)).as_secs_f64();
        self.at_micros = self.at_micros.max(now_micros);
        let (records_max, bytes_max) = (
            f64::from(limits.records_per_second),
            f64::from(limits.bytes_per_second),
        );
        self.records = (self.records + since * records_max).min(records_max);
        self.bytes = (self.bytes + since * bytes_max).min(bytes_max);
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        // A record larger than a second's worth gets in when the bucket is full, and is paid off.
        if self.records < 1.0 || (self.bytes < bytes && self.bytes < bytes_max) {
            return false;
        }
        self.records -= 1.0;
        self.bytes -= bytes;
        true
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) shards: Vec<Shard>,
    pub(super) created_micros: u64,
    pub(super) active_micros: u64,
    pub(super) on_demand: bool,
    pub(super) record_bytes_max: usize,
    pub(super) order: Order,
    /// The first hash key of each open shard, and its place.
    open: Vec<(u128, usize)>,
    log: VecDeque<Record>,
    /// How many records before the log are forgotten.
    forgotten: u64,
    kept_bytes: u64,
}

impl Stream {
    pub(super) fn new(name: &str, shards: u32, now_micros: u64, takes: Duration) -> Self {
        let shards = shards.max(1);
        let takes = u64::try_from(takes.as_micros()).unwrap_or(u64::MAX);
        let mut stream = Self {
            name: name.to_owned(),
            shards: Vec::new(),
            created_micros: now_micros,
            active_micros: now_micros.saturating_add(takes),
            on_demand: false,
            record_bytes_max: RECORD_BYTES_DEFAULT,
            order: Order::default(),
            open: Vec::new(),
            log: VecDeque::new(),
            forgotten: 0,
            kept_bytes: 0,
        };
        let step = u128::MAX / u128::from(shards);
        for n in 0..u128::from(shards) {
            let last = n + 1 == u128::from(shards);
            let end = if last { u128::MAX } else { (n + 1) * step - 1 };
            stream.add(n * step, end, [None, None], now_micros);
        }
        stream
    }

    fn add(&mut self, start: u128, end: u128, parents: [Option<Arc<str>>; 2], now_micros: u64) {
        let [parent, adjacent_parent] = parents;
        let info = ShardInfo {
            id: format!("shardId-{:012}", self.shards.len()).into(),
            parent,
            adjacent_parent,
            start,
            end,
            open: true,
            records: 0,
        };
        self.shards.push(Shard::new(info, now_micros / 1_000_000));
        let open = (0..self.shards.len()).filter(|at| self.shards[*at].info.open);
        self.open = open.map(|at| (self.shards[at].info.start, at)).collect();
        self.open.sort_unstable();
    }

    /// Which shard takes this hash key.
    pub(super) fn shard_of(&self, hash: u128) -> usize {
        let after = self.open.partition_point(|(start, _)| *start <= hash);
        self.open[after.saturating_sub(1)].1
    }

    pub(super) fn open_shards(&self) -> usize {
        self.open.len()
    }

    pub(super) fn position(&self, id: &str) -> Result<usize, Refusal> {
        let mut shards = self.shards.iter();
        shards
            .position(|shard| *shard.info.id == *id)
            .ok_or_else(|| {
                let stream = &self.name;
                Refusal::bad(
                    "ResourceNotFoundException",
                    format!(
                        "Shard {id} in stream {stream} under account {} does not exist",
                        crate::ACCOUNT
                    ),
                )
            })
    }

    fn must_be_open(&self, at: usize) -> Result<&ShardInfo, Refusal> {
        let info = &self.shards[at].info;
        match info.open {
            true => Ok(info),
            false => Err(Refusal::argument(format!(
                "Shard {} in stream {} is closed",
                info.id, self.name
            ))),
        }
    }

    /// Closes a shard; two take its place, the second from this hash key on.
    pub(super) fn split(&mut self, id: &str, at: u128, now_micros: u64) -> Result<(), Refusal> {
        let place = self.position(id)?;
        let ShardInfo { id, start, end, .. } = self.must_be_open(place)?.clone();
        if at <= start || at > end {
            return Err(Refusal::argument(format!(
                "NewStartingHashKey {at} used in SplitShard() on shard {id} in stream {} is not both greater than one plus the shard's StartingHashKey {start} and less than the shard's EndingHashKey {end}.",
                self.name
            )));
        }
        self.shards[place].info.open = false;
        self.add(start, at - 1, [Some(id.clone()), None], now_micros);
        self.add(at, end, [Some(id), None], now_micros);
        Ok(())
    }

    /// Closes two shards next to each other; one takes their place.
    pub(super) fn merge(&mut self, one: &str, other: &str, now_micros: u64) -> Result<(), Refusal> {
        let places = [self.position(one)?, self.position(other)?];
        let [first, second] = [
            self.must_be_open(places[0])?.clone(),
            self.must_be_open(places[1])?.clone(),
        ];
        let (low, high) = match first.start < second.start {
            true => (first.clone(), second.clone()),
            false => (second.clone(), first.clone()),
        };
        if low.end.checked_add(1) != Some(high.start) {
            return Err(Refusal::argument(format!(
                "Shards {one} and {other} in stream {} are not an adjacent pair of shards eligible for merging",
                self.name
            )));
        }
        for place in places {
            self.shards[place].info.open = false;
        }
        self.add(
            low.start,
            high.end,
            [Some(first.id), Some(second.id)],
            now_micros,
        );
        Ok(())
    }

    /// Remembers a record of the shard at this place.
    pub(super) fn remember(&mut self, shard: usize, record: Record, keep: Keep) {
        let place = self.forgotten + u64::try_from(self.log.len()).unwrap_or(u64::MAX);
        self.kept_bytes += weight(&record);
        self.shards[shard].places.push_back(place);
        self.log.push_back(record);
        while keep.is_over(self.kept_bytes) && self.forget_oldest() {}
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(record) = self.log.pop_front() else {
            return false;
        };
        self.kept_bytes -= weight(&record);
        let place = self.forgotten;
        self.forgotten += 1;
        let of = |shard: &&mut Shard| shard.places.front() == Some(&place);
        if let Some(shard) = self.shards.iter_mut().find(of) {
            shard.places.pop_front();
            shard.forgotten += 1;
        }
        true
    }

    /// In the order in which they were accepted.
    pub(super) fn log(&self) -> impl Iterator<Item = &Record> {
        self.log.iter()
    }

    /// The nth record that a shard has taken, and those after it.
    pub(super) fn of_shard(&self, shard: usize, from: u64) -> impl Iterator<Item = &Record> {
        let shard = &self.shards[shard];
        let skip = usize::try_from(from.saturating_sub(shard.forgotten)).unwrap_or(usize::MAX);
        let places = shard.places.iter().skip(skip);
        places.filter_map(|place| self.log.get(usize::try_from(place - self.forgotten).ok()?))
    }
}

fn weight(record: &Record) -> u64 {
    u64::try_from(record.data.len() + record.partition_key.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(shards: u32) -> Stream {
        Stream::new("s", shards, 1_700_000_000_000_000, Duration::ZERO)
    }

    #[test]
    fn shards_cover_every_hash_key_once() {
        for shards in [1, 2, 3, 7, 100] {
            let stream = stream(shards);
            let mut next = Some(0);
            for shard in &stream.shards {
                assert_eq!(Some(shard.info.start), next);
                next = shard.info.end.checked_add(1);
            }
            assert_eq!(next, None);
            assert_eq!(stream.shard_of(0), 0);
            assert_eq!(stream.shard_of(u128::MAX) + 1, stream.shards.len());
        }
    }

    #[test]
    fn children_take_the_place_of_parents_and_number_on() {
        let mut stream = stream(1);
        let mut before = String::new();
        stream.shards[0].number(&mut before);
        stream
            .split("shardId-000000000000", 1 << 127, 1_700_000_001_000_000)
            .unwrap();
        assert_eq!((stream.shard_of(5), stream.shard_of(u128::MAX)), (1, 2));
        let mut after = String::new();
        stream.shards[1].number(&mut after);
        assert_eq!((before.len(), after.len()), (56, 56));
        assert!(before < after);
        stream
            .merge(
                "shardId-000000000002",
                "shardId-000000000001",
                1_700_000_001_000_000,
            )
            .unwrap();
        assert_eq!(stream.shard_of(1 << 127), 3);
        assert_eq!(
            stream.shards[3].info.parent.as_deref(),
            Some("shardId-000000000002")
        );
        assert!(
            stream.split("shardId-000000000001", 9, 0).is_err(),
            "closed"
        );
    }

    #[test]
    fn a_shard_takes_its_second_and_no_more() {
        let limits = ShardLimits::default();
        let mut stream = stream(1);
        let shard = &mut stream.shards[0];
        let taken = (0..1500)
            .filter(|_| shard.lets_in(limits, 1_000_000, 10))
            .count();
        assert_eq!(taken, 1000);
        let taken = (0..1500)
            .filter(|_| shard.lets_in(limits, 1_500_000, 10))
            .count();
        assert_eq!(taken, 500, "half a second later");
        let large = 200 << 10;
        let taken = (0..9)
            .filter(|_| shard.lets_in(limits, 9_000_000, large))
            .count();
        assert_eq!(taken, 5, "a MiB a second");
        assert!(!shard.lets_in(limits, 9_000_000, 5 << 20));
        assert!(shard.lets_in(limits, 20_000_000, 5 << 20), "on credit");
        assert!(
            !shard.lets_in(limits, 21_000_000, 10),
            "which is paid off first"
        );
    }

    #[test]
    fn what_is_forgotten_is_the_oldest() {
        let mut stream = stream(2);
        for n in 0..10_u8 {
            let record = Record {
                request: 1,
                shard: "x".into(),
                sequence_number: String::new(),
                partition_key: String::new(),
                explicit_hash_key: None,
                at_millis: 0,
                data: Bytes::from(vec![n; 10]),
            };
            stream.remember(usize::from(n % 2), record, Keep::UpTo { bytes: 45 });
        }
        let left: Vec<_> = stream.log().map(|record| record.data[0]).collect();
        assert_eq!(left, [6, 7, 8, 9]);
        let of_first: Vec<_> = stream.of_shard(0, 0).map(|record| record.data[0]).collect();
        assert_eq!(of_first, [6, 8]);
        let from: Vec<_> = stream.of_shard(0, 4).map(|record| record.data[0]).collect();
        assert_eq!(from, [8], "the fifth of the shard");
    }
}
