//! Opening all lanes: the lock, an older release's files, the table of sinks, and where the numbers
//! go on.

use std::{
    fs::{self, File, TryLockError},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use portcullis_core::{limits::SEQUENCE_RESERVE, record::Lane};
use tracing::info;

use super::{
    Config, Metrics,
    kept::Slots,
    lanes::{Filtered, Lanes, Numbers, Shared},
    mark::{Found, Mark},
    migrate,
    recovery::Recovered,
    reserve::Reserve,
    sinks::{Sink, Table},
    store::{OpenError, Store},
};

impl Lanes {
    /// Recovers what is on disk. Takes bounded time and memory whatever the backlog.
    pub(super) fn open(
        config: &Config,
        sinks: &[Sink],
        metrics: Metrics,
    ) -> Result<Self, OpenError> {
        let dir = &config.dir;
        let at = |source| OpenError::Io {
            path: dir.clone(),
            source,
        };
        fs::create_dir_all(dir).map_err(at)?;
        if let Some(parent) = dir.parent() {
            File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(at)?;
        }
        let lock = File::create(dir.join("lock")).map_err(at)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(dir.clone())),
            Err(TryLockError::Error(source)) => return Err(at(source)),
        }
        migrate::move_single_lane(dir).map_err(at)?;
        let (reserved, reserved_found) = Mark::open(&dir.join("numbers")).map_err(at)?;
        let (end, _) = Mark::open(&dir.join("numbers-end")).map_err(at)?;
        let numbers = Numbers {
            reserved,
            end,
            next: 1,
        };
        let shared = Arc::new(Shared::new(config, metrics, numbers));
        let [critical, events, bulk] = Lane::ALL.map(|lane| Store::open(lane, &shared));
        let recovered = [critical?, events?, bulk?];
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(at)?;
        let next_seq = recover_numbers(&shared, reserved_found, &recovered).map_err(at)?;

        let cursors = || {
            let cursors = recovered.iter().flat_map(|lane| &lane.cursors);
            let known = |found: &super::recovery::FoundCursor| {
                Some((found.name.clone(), found.position.as_ref()?.bit))
            };
            cursors.filter_map(known).collect()
        };
        let mut table = Table::read(dir, cursors).map_err(at)?;
        let spans = (
            recovered.each_ref().map(Recovered::start),
            recovered.each_ref().map(|lane| lane.store.end()),
        );
        let bits = table.update(dir, sinks, spans).map_err(at)?;
        let stores = recovered.map(|lane| {
            let name = lane.store.lane;
            let holds: Vec<_> = sinks
                .iter()
                .zip(&bits)
                .enumerate()
                .filter(|(_, (sink, _))| sink.lanes.contains(&name))
                .map(|(index, (sink, bit))| {
                    let bit = u8::try_from(*bit).unwrap_or(u8::MAX);
                    (index, sink.name.clone(), bit)
                })
                .collect();
            lane.with_sinks(&holds).map(Arc::new)
        });
        let [critical, events, bulk] = stores;
        let (slots, payload, _) = Slots::open(&dir.join("filtered")).map_err(at)?;
        let reserve = Reserve::open(dir.join("reserve"), config.lane(Lane::Critical).bytes_max);
        info!(next_seq, sinks = sinks.len(), "The buffer is open.");
        Ok(Self {
            stores: [critical?, events?, bulk?],
            sinks: sinks.to_vec(),
            bits,
            filtered: Mutex::new(Filtered::new(slots, payload.as_deref(), sinks)),
            reserve: Mutex::new(reserve),
            shared,
            _lock: lock,
        })
    }
}

/// Where the numbers go on: after the newest record of every lane, without a leap if all of them are
/// there.
fn recover_numbers(
    shared: &Shared,
    reserved_found: Found,
    recovered: &[Recovered; Lane::ALL.len()],
) -> io::Result<u64> {
    let mut numbers = shared
        .numbers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let newest = recovered.iter().filter_map(|lane| lane.last_seq).max();
    let seen = numbers.end.value().max(newest.map_or(1, |seq| seq + 1));
    let ends = recovered.iter().map(|lane| lane.store.end() - 1);
    let is_certain = recovered.iter().all(|lane| lane.is_certain);
    numbers.next = match reserved_found {
        Found::Value if is_certain => seen,
        Found::Value => seen.max(numbers.reserved.value()),
        // The first start with lanes: numbers were places.
        Found::Nothing if is_certain && numbers.end.value() == 0 => {
            seen.max(ends.max().unwrap_or(0) + 1)
        }
        Found::Nothing | Found::Damaged => seen.max(ends.sum::<u64>() + 1) + SEQUENCE_RESERVE,
    };
    // A leap must not be forgotten if nothing is appended before the next start.
    let next = numbers.next;
    numbers.end.raise(next)?;
    Ok(next)
}
