//! Reading a generation through the engine, from a copy: it goes on behind what it fails at.

use std::{
    fs,
    io::{self, ErrorKind},
    ops::ControlFlow,
    path::Path,
    thread,
};

use flume::{RecvTimeoutError, Sender};
use portcullis_core::{
    limits::{SALVAGE_TRIES_MAX, SCAN_PATIENCE},
    record::Record,
};

use super::{Generation, Reading};
use crate::{
    buffer::{
        chunk::{self, Unpacker},
        engine::{Database, EngineError},
        generation::BASE,
        slots,
    },
    chain::chain,
};

impl Generation {
    /// Hands out the records from place `from` on, in order, each once; where the engine fails it goes
    /// on behind. `None`: the generation is not there any more.
    pub fn read(
        &self,
        from: u64,
        mut each: impl FnMut(Record) -> ControlFlow<()>,
    ) -> io::Result<Option<Reading>> {
        let scratch = tempfile::Builder::new()
            .prefix("portcullis-buffer-")
            .tempdir()?;
        match copy(&self.dir, scratch.path()) {
            Ok(()) => {}
            // Drained meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut reading = Reading::default();
        // Positions are slots, or in a generation of the first release places.
        let (mut at, mut stride, mut reached) = (0, 1, None);
        for _ in 0..SALVAGE_TRIES_MAX {
            let before = reached;
            let ended = scan(scratch.path(), at, |position, record| {
                reached = reached.max(Some(position));
                let is_known = reading.last().is_some_and(|last| record.place <= last);
                if is_known || record.place < from {
                    return ControlFlow::Continue(());
                }
                reading.note(record.place);
                each(record)
            });
            let Err(failure) = ended else {
                break;
            };
            if !reading.failures.contains(&failure) {
                reading.failures.push(failure);
            }
            // Behind what it failed at, in growing steps, for nobody knows how far the damage goes.
            stride = if reached == before { stride * 2 } else { 1 };
            at = reached.map_or(at, |reached| at.max(reached + 1));
            at = at.saturating_add(stride);
        }
        Ok(Some(reading))
    }
}

/// Copies files and directories.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            match fs::copy(entry.path(), &target) {
                Ok(_) => {}
                // The engine's snapshots come and go.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    // Removed while it was copied?
    fs::metadata(from).map(drop)
}

/// Hands out what the engine finds in the copy from position `from` on, with where it stood; why it
/// stopped before the end.
fn scan(
    dir: &Path,
    from: u64,
    mut each: impl FnMut(u64, Record) -> ControlFlow<()>,
) -> Result<(), String> {
    let (sender, receiver) = flume::bounded(SCAN_AHEAD);
    let dir = dir.to_owned();
    let scanning = thread::Builder::new()
        .name("buffer-scan".into())
        .spawn(move || scan_here(&dir, from, &sender))
        .map_err(|error| error.to_string())?;
    loop {
        match receiver.recv_timeout(SCAN_PATIENCE) {
            Ok((position, record)) => {
                if each(position, record).is_break() {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => return Err("the engine hangs".to_owned()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match scanning.join() {
        Ok(ended) => ended.map_err(|error| chain(&error)),
        Err(_) => Err("the engine panicked".to_owned()),
    }
}

fn scan_here(dir: &Path, from: u64, found: &Sender<(u64, Record)>) -> Result<(), EngineError> {
    // The first release left no such file.
    let has_slots = dir.join(BASE).exists();
    let database = Database::open_copy(dir)?;
    let has_slots = has_slots || database.key_bytes()? != Some(chunk::OLD_KEY_BYTES);
    let start = if has_slots {
        // Beyond the last slot there is nothing.
        slots::key(u32::try_from(from).unwrap_or(u32::MAX)).to_vec()
    } else {
        chunk::old_key(from, 0).to_vec()
    };
    let mut unpacker = Unpacker::default();
    database.scan(&start, |key, value| {
        let position = if has_slots {
            slots::split_key(key).map(u64::from)
        } else {
            chunk::split_old_key(key).map(|(place, _)| place)
        };
        let Some(position) = position else {
            return ControlFlow::Continue(());
        };
        let mut is_wanted = true;
        unpacker.unpack(key, value, |record| {
            is_wanted &= found.send((position, record)).is_ok();
        });
        if is_wanted {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })
}

/// Records that are read ahead of who wants them.
const SCAN_AHEAD: usize = 256;
