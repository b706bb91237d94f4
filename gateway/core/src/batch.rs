//! Packing records under the limits of a request.

use crate::record::Record;

/// The limits of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records in one request.
    pub records_max: usize,
    /// Bodies and partition keys in one request.
    pub bytes_max: usize,
}

/// What is left of the limits while a batch is filled.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    records: usize,
    bytes: usize,
}

impl BatchLimits {
    /// An empty batch.
    pub const fn room(&self) -> Room {
        Room {
            records: self.records_max,
            bytes: self.bytes_max,
        }
    }
}

impl Room {
    /// Takes the record's share of what is left; `false`, and nothing taken, if it does not fit.
    pub fn take(&mut self, record: &Record) -> bool {
        let (Some(records), Some(bytes)) = (
            self.records.checked_sub(1),
            self.bytes.checked_sub(record.wire_bytes()),
        ) else {
            return false;
        };
        *self = Self { records, bytes };
        true
    }

    /// Records that may still come.
    pub const fn records(&self) -> usize {
        self.records
    }

    /// Bytes that may still come.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Kind, SinkSet};

    fn record(key: usize, body: usize) -> Record {
        Record {
            seq: 1,
            place: 1,
            kind: Kind::Event,
            sinks: SinkSet::ALL,
            at_millis: 0,
            partition_key: "k".repeat(key).into(),
            body: Bytes::from(vec![b'x'; body]),
        }
    }

    #[test]
    fn the_partition_key_counts() {
        let limits = BatchLimits {
            records_max: 10,
            bytes_max: 100,
        };
        assert!(limits.room().take(&record(10, 90)));
        assert!(!limits.room().take(&record(10, 91)));
    }

    #[test]
    fn a_record_that_does_not_fit_takes_nothing() {
        let mut room = BatchLimits {
            records_max: 2,
            bytes_max: 100,
        }
        .room();
        assert!(room.take(&record(0, 60)));
        assert!(!room.take(&record(0, 60)));
        assert!(room.take(&record(0, 40)));
        assert!(!room.take(&record(0, 0)), "two records are enough");
    }

    proptest! {
        #[test]
        fn a_batch_never_passes_its_limits(
            sizes in proptest::collection::vec((0_usize..20, 0_usize..300), 0..50),
            records_max in 0_usize..20,
            bytes_max in 0_usize..2000,
        ) {
            let mut room = BatchLimits { records_max, bytes_max }.room();
            let taken: Vec<_> = sizes.iter().map(|(key, body)| record(*key, *body)).filter(|r| room.take(r)).collect();
            prop_assert!(taken.len() <= records_max);
            prop_assert!(taken.iter().map(Record::wire_bytes).sum::<usize>() <= bytes_max);
        }
    }
}
