//! What became of every record, by sink, going by the files alone: where cursors stand and what they
//! counted, how many records a lane had for whom, what was filtered.
//!
//! A running gateway writes cursors now and then, so these counts are a little behind its own; each
//! cursor's place and counts are written as one and never part.

use std::{collections::BTreeMap, io, path::Path};

use super::Lane;
use crate::buffer::{
    Account,
    counts::{Counts, decode_noted},
    cursor::{NEWEST, Position},
    kept::Slots,
    lanes::decode_filtered,
    sinks::list_cursors,
};

/// Where a sink is in a lane, and what became of the lane's records for it.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// The sink.
    pub sink: String,
    /// All up to this place is settled.
    pub place: u64,
    /// While a backlog is delivered: from where to where what came since is settled.
    pub live: Option<(u64, u64)>,
    /// Of this lane.
    pub account: Account,
}

/// The cursors in the directory of a lane; damaged ones are left out.
pub(super) fn cursors(dir: &Path) -> io::Result<Vec<Cursor>> {
    let noted = Slots::peek(&dir.join("counts"));
    let counts = noted.as_deref().and_then(decode_noted);
    let counts = counts.map_or_else(Counts::default, |(_, counts)| counts);
    let mut cursors = Vec::new();
    for (sink, path) in list_cursors(dir)? {
        let payload = Slots::peek(&path);
        if let Some(position) = payload.as_deref().and_then(Position::decode) {
            cursors.push(cursor(sink, position, &counts));
        }
    }
    Ok(cursors)
}

fn cursor(sink: String, position: Position, counts: &Counts) -> Cursor {
    // After a power cut the counts may be older than the cursor.
    let passed = position.live.map_or(position.at, |live| live.at).passed;
    let end_count = counts.of(usize::from(position.bit)).max(passed);
    let mut account = Account {
        name: sink.clone(),
        received: end_count.saturating_sub(position.base) + position.refused,
        delivered: position.delivered,
        filtered: 0,
        kept: position.kept(end_count),
        dropped: position.dropped,
    };
    if position.refused > 0 {
        *account.dropped.entry(NEWEST.to_owned()).or_default() += position.refused;
    }
    Cursor {
        sink,
        place: position.at.place,
        live: position.live.map(|live| (live.from.place, live.at.place)),
        account,
    }
}

/// What became of everything that was for each sink, over all lanes of the buffer in `dir`.
pub fn accounts(dir: &Path, lanes: &[Lane]) -> Vec<Account> {
    let filtered = Slots::peek(&dir.join("filtered"));
    let filtered = filtered.as_deref().and_then(decode_filtered);
    let filtered = filtered.unwrap_or_default();
    let mut accounts: BTreeMap<&str, Account> = BTreeMap::new();
    for cursor in lanes.iter().flat_map(|lane| &lane.cursors) {
        let of_sink = accounts.entry(&cursor.sink).or_insert_with(|| {
            let filtered = filtered.get(&cursor.sink).copied().unwrap_or(0);
            Account {
                name: cursor.sink.clone(),
                received: filtered,
                filtered,
                ..Account::default()
            }
        });
        of_sink.received += cursor.account.received;
        of_sink.delivered += cursor.account.delivered;
        of_sink.kept += cursor.account.kept;
        for (reason, count) in &cursor.account.dropped {
            *of_sink.dropped.entry(reason.clone()).or_default() += count;
        }
    }
    accounts.into_values().collect()
}
