//! What a sink reads from: lanes of the buffer, by way of `app.rs`.

use std::future::Future;

use portcullis_core::record::{Lane, Record};

use crate::uplink::SourceError;

/// What became of records; reasons are metric labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The sink has them.
    pub delivered: u64,
    /// It will never have them, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

impl Tally {
    /// So many more were dropped for this reason.
    pub fn drop(&mut self, reason: &'static str, records: u64) {
        match self.dropped.iter_mut().find(|(of, _)| *of == reason) {
            Some((_, count)) => *count += records,
            None => self.dropped.push((reason, records)),
        }
    }
}

/// Backlog: from the oldest on. Live: from where `split` was called on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From the oldest on.
    Backlog,
    /// From where `split` was called on.
    Live,
}

/// What an uplink's sink reads from.
pub trait RecordSource: Send + 'static {
    /// The next records of a lane that are for this sink, under the limits but at least one if there
    /// is any; none: nothing to read now. Never waits for appends.
    fn read(
        &mut self,
        lane: Lane,
        part: Part,
        records_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Record>, SourceError>> + Send;

    /// All that was read of this part up to and with `upto_place` is settled as the tally says
    /// (durable lazily; at least once).
    fn settle(
        &mut self,
        lane: Lane,
        part: Part,
        upto_place: u64,
        tally: Tally,
    ) -> impl Future<Output = ()> + Send;

    /// Waits until something was appended since the last call, in any lane (at once if so).
    /// Cancel-safe. `Err(Closed)` when nothing more will come.
    fn changed(&mut self) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// How many records reads would find.
    fn unread(&self, lane: Lane, part: Part) -> u64;

    /// From here on `Part::Live` begins at the lane's end; `Part::Backlog` ends there. Nothing if a
    /// split is open already; it closes itself when the backlog reaches it.
    fn split(&mut self, lane: Lane) -> impl Future<Output = ()> + Send;
}
