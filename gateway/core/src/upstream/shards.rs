//! The shards of a stream: which one a partition key belongs to (specification D.1), and how much
//! each takes a second, so that a backlog is not thrown at a stream that would refuse it.

use md5::{Digest, Md5};

use crate::rate::{Allowance, Bucket};

/// Records that a shard takes a second.
pub const SHARD_RECORDS_PER_SECOND: u64 = 1000;
/// Bytes that a shard takes a second.
pub const SHARD_BYTES_PER_SECOND: u64 = 1_000_000;

/// Where a partition key stands among the hash keys of a stream.
pub fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

/// An open shard with the hash keys that belong to it, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub id: String,
    /// The first hash key.
    pub first: u128,
    /// The last one.
    pub last: u128,
}

/// The open shards of a stream with what each may get. Without shards everything may go: nobody
/// knows them.
#[derive(Debug, Default)]
pub struct Shards {
    /// By their first hash key.
    shards: Vec<(Shard, Bucket, Bucket)>,
}

impl Shards {
    /// `share` is the part of a shard's limits that is ours. Shards that were known keep what they
    /// have had.
    pub fn new(mut shards: Vec<Shard>, share: f64, now_millis: u64, before: Self) -> Self {
        shards.sort_by_key(|shard| shard.first);
        let mut known = before.shards;
        let bucket = |per_second| {
            Bucket::new(
                Allowance::new(part(per_second, share), 0).expect("a part is at least one"),
                now_millis,
            )
        };
        let shards = shards.into_iter().map(|shard| {
            match known.iter().position(|(old, ..)| *old == shard) {
                Some(at) => known.swap_remove(at),
                None => (
                    shard,
                    bucket(SHARD_RECORDS_PER_SECOND),
                    bucket(SHARD_BYTES_PER_SECOND),
                ),
            }
        });
        Self {
            shards: shards.collect(),
        }
    }

    /// How many there are; 0 if nobody knows.
    pub fn count(&self) -> usize {
        self.shards.len()
    }

    /// Whether `id` is among them, or nobody knows.
    pub fn knows(&self, id: &str) -> bool {
        self.shards.is_empty() || self.shards.iter().any(|(shard, ..)| shard.id == id)
    }

    /// The number of the shard of a hash key; `None` if nobody knows.
    pub fn of(&self, hash_key: u128) -> Option<usize> {
        let after = self
            .shards
            .partition_point(|(shard, ..)| shard.first <= hash_key);
        let at = after.checked_sub(1)?;
        (hash_key <= self.shards.get(at)?.0.last).then_some(at)
    }

    /// The name of a shard by its number.
    pub fn id(&self, at: usize) -> Option<&str> {
        self.shards.get(at).map(|(shard, ..)| shard.id.as_str())
    }

    /// Takes a record's share of what its shard may get now; `false`, and nothing taken, if that is
    /// used up.
    pub fn take(&mut self, hash_key: u128, bytes: u64, now_millis: u64) -> bool {
        let Some(at) = self.of(hash_key) else {
            return true;
        };
        let Some((_, records, room)) = self.shards.get_mut(at) else {
            return true;
        };
        if !records.has(1, now_millis) {
            return false;
        }
        room.take(bytes, now_millis).is_ok() && records.take(1, now_millis).is_ok()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "rates are small positive numbers"
)]
fn part(of: u64, share: f64) -> u64 {
    ((of as f64 * share.clamp(0.0, 1000.0)) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` shards of the same size.
    fn shards(n: u128) -> Vec<Shard> {
        let size = u128::MAX / n;
        (0..n)
            .map(|at| Shard {
                id: format!("shardId-{at}"),
                first: at * size,
                last: if at + 1 == n {
                    u128::MAX
                } else {
                    (at + 1) * size - 1
                },
            })
            .collect()
    }

    #[test]
    fn a_key_belongs_where_its_md5_falls() {
        // MD5("") and MD5("a") by the RFC.
        assert_eq!(hash_key(""), 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
        assert_eq!(hash_key("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
        let two = Shards::new(shards(2), 1.0, 0, Shards::default());
        assert_eq!(two.of(hash_key("a")), Some(0));
        assert_eq!(two.of(hash_key("")), Some(1));
        assert_eq!([two.of(0), two.of(u128::MAX)], [Some(0), Some(1)]);
        assert_eq!(two.id(1), Some("shardId-1"));
        assert!(two.knows("shardId-0") && !two.knows("shardId-7"));
        let none = Shards::default();
        assert_eq!(none.of(7), None);
        assert!(none.knows("shardId-7"));
    }

    #[test]
    fn a_shard_gets_its_share_of_records_and_bytes_a_second() {
        let mut half = Shards::new(shards(2), 0.5, 0, Shards::default());
        let taken = |shards: &mut Shards, bytes, now| {
            (0..2000).filter(|_| shards.take(1, bytes, now)).count()
        };
        assert_eq!(taken(&mut half, 10, 0), 500);
        assert_eq!(taken(&mut half, 10, 100), 50);
        assert!(half.take(u128::MAX, 10, 100), "the other has its own");
        let mut whole = Shards::new(shards(1), 1.0, 0, Shards::default());
        assert_eq!(taken(&mut whole, 10_000, 0), 100);
        assert_eq!(taken(&mut Shards::default(), 1 << 20, 0), 2000);
    }

    #[test]
    fn a_shard_that_was_known_keeps_what_it_has_had() {
        let mut one = Shards::new(shards(1), 1.0, 0, Shards::default());
        while one.take(1, 1, 0) {}
        let mut again = Shards::new(shards(1), 1.0, 0, one);
        assert!(!again.take(1, 1, 0));
        let mut split = Shards::new(shards(2), 1.0, 0, again);
        assert!(split.take(1, 1, 0));
    }
}
