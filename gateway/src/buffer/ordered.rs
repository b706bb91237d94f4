//! All lanes of a sink as one, in the order of their numbers: for whoever does not tell lanes apart.

use std::collections::VecDeque;

use portcullis_core::record::{Lane, Record};

use super::{Part, ReadError, Reader, Tally};

/// See the module.
#[derive(Debug)]
pub struct InOrder {
    reader: Reader,
    /// Read and not given out, by lane.
    waiting: [VecDeque<Record>; Lane::ALL.len()],
    /// Given out and not accepted: number, lane, place.
    given: VecDeque<(u64, Lane, u64)>,
}

/// Records that are read from a lane at once.
const RECORDS_AT_ONCE: usize = 500;
const BYTES_AT_ONCE: usize = 1024 * 1024;

impl InOrder {
    /// Reads everything that the sink of `reader` has before it.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            waiting: Default::default(),
            given: VecDeque::new(),
        }
    }

    /// The next records, under the limits but at least one; waits until there is one. Numbers grow.
    /// Cancel-safe: what a cancelled read would have returned, the next one returns.
    pub async fn read(
        &mut self,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        loop {
            self.fill().await?;
            let (mut records, mut bytes_left) = (Vec::new(), bytes_max);
            while records.len() < records_max.max(1)
                && let Some(lane) = self.next_lane()
            {
                let waiting = &mut self.waiting[lane as usize];
                let bytes = waiting.front().map_or(0, Record::wire_bytes);
                if bytes > bytes_left && !records.is_empty() {
                    break;
                }
                bytes_left = bytes_left.saturating_sub(bytes);
                if let Some(record) = waiting.pop_front() {
                    self.given.push_back((record.seq, lane, record.place));
                    records.push(record);
                }
                // What another lane has next is not known.
                if self.waiting[lane as usize].is_empty() {
                    break;
                }
            }
            if !records.is_empty() {
                return Ok(records);
            }
            self.reader.changed().await?;
        }
    }

    /// Lower lanes first: what a higher one commits with them has the smaller numbers, and is there
    /// when they are.
    async fn fill(&mut self) -> Result<(), ReadError> {
        for lane in self.reader.lanes().into_iter().rev() {
            if self.waiting[lane as usize].is_empty() {
                let read = self
                    .reader
                    .read(lane, Part::Backlog, RECORDS_AT_ONCE, BYTES_AT_ONCE);
                self.waiting[lane as usize].extend(read.await?);
            }
        }
        Ok(())
    }

    fn next_lane(&self) -> Option<Lane> {
        let next = |lane: &Lane| Some((self.waiting[*lane as usize].front()?.seq, *lane));
        let first = Lane::ALL.iter().filter_map(next).min();
        first.map(|(_, lane)| lane)
    }

    /// The sink has everything up to number `upto_seq`.
    pub async fn accept(&mut self, upto_seq: u64) {
        let mut settled = [(0, 0); Lane::ALL.len()];
        while let Some((_, lane, place)) = self.given.pop_front_if(|(seq, ..)| *seq <= upto_seq) {
            let (upto, delivered) = &mut settled[lane as usize];
            *upto = place;
            *delivered += 1;
        }
        for (lane, (upto, delivered)) in Lane::ALL.into_iter().zip(settled) {
            if delivered > 0 {
                let tally = Tally {
                    delivered,
                    dropped: Vec::new(),
                };
                self.reader.settle(lane, Part::Backlog, upto, tally).await;
            }
        }
    }

    /// How many records a read would find without waiting; damage may make it fewer.
    pub fn unread(&self) -> u64 {
        let waiting: usize = self.waiting.iter().map(VecDeque::len).sum();
        let lanes = self.reader.lanes().into_iter();
        let unread: u64 = lanes
            .map(|lane| self.reader.unread(lane, Part::Backlog))
            .sum();
        unread + u64::try_from(waiting).unwrap_or(u64::MAX)
    }
}
