//! What a sink reads of a lane, and what it says of records that it is done with.

/// A part of what waits for a sink in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// From the oldest on.
    Backlog,
    /// From where the lane was split on.
    Live,
}

/// What became of records; reasons are metric labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that the sink has.
    pub delivered: u64,
    /// Records that it will never have, by reason.
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
