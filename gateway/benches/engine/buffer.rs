//! The buffer's own files, and what the store above them does with them: what is measured is what
//! runs.
#![allow(dead_code, reason = "the store uses the rest")]

#[path = "../../src/buffer/chunk.rs"]
mod chunk;
#[path = "../../src/buffer/engine.rs"]
mod engine;
#[path = "../../src/buffer/generation.rs"]
mod generation;
#[path = "../../src/buffer/mark.rs"]
mod mark;
#[path = "../../src/buffer/slots.rs"]
mod slots;

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use portcullis_core::{
    batch::BatchLimits,
    limits::{CURSOR_INTERVAL, GENERATION_BYTES_MAX},
    record::Record,
};

use self::{
    generation::{Fate, Generation},
    mark::Mark,
};
use super::{Outcome, events::Pool, machine::Usage};

/// What was appended.
pub(super) struct Kept(VecDeque<Generation>);

impl Kept {
    pub(super) fn disk_bytes(&self) -> u64 {
        self.0.iter().map(Generation::disk_bytes).sum()
    }
}

/// Appends as the store does: into one generation until it has its size, then into the next.
pub(super) fn append(dir: &Path, pool: &Pool, length: Duration) -> Result<(Outcome, Kept)> {
    let before = Usage::now()?;
    let started = Instant::now();
    let mut outcome = Outcome::default();
    let mut generations = VecDeque::new();
    let mut next = 1;
    while started.elapsed() < length {
        let generation = Generation::create(dir, next, &[])?;
        while generation.disk_bytes() < GENERATION_BYTES_MAX && started.elapsed() < length {
            let records = pool.records(next);
            generation.append(&records)?;
            next += pool.batch();
            outcome.bytes += records.iter().map(encoded_bytes).sum::<u64>();
        }
        if started.elapsed() < length {
            generation.close_if_idle();
        }
        generations.push_back(generation);
    }
    outcome.events = next - 1;
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome.usage = Usage::now()?.since(&before);
    Ok((outcome, Kept(generations)))
}

fn encoded_bytes(record: &Record) -> u64 {
    u64::try_from(record.encoded_bytes()).unwrap_or(u64::MAX)
}

/// Reads everything and lets go of it.
pub(super) fn drain(dir: &Path, kept: Kept, last: u64) -> Result<Outcome> {
    let Kept(mut generations) = kept;
    let before = Usage::now()?;
    let started = Instant::now();
    let limits = BatchLimits {
        records_max: 500,
        bytes_max: 5 << 20,
    };
    let (mut cursor, _) = Mark::open(&dir.join("cursor"))?;
    let mut noted = Instant::now();
    let mut next = 1;
    while next <= last {
        let generation = generations.front().context("records are missing")?;
        let records = generation.read(next, last + 1, limits)?;
        let Some(end) = records.last() else {
            cursor.raise(next - 1)?;
            generation.retire(Fate::Drained);
            generations.pop_front();
            continue;
        };
        if records.first().is_some_and(|first| first.place != next) {
            bail!("there is a gap at {next}");
        }
        next = end.place + 1;
        if noted.elapsed() >= CURSOR_INTERVAL {
            cursor.raise(next - 1)?;
            noted = Instant::now();
        }
    }
    Ok(Outcome {
        events: last,
        bytes: 0,
        seconds: started.elapsed().as_secs_f64(),
        usage: Usage::now()?.since(&before),
    })
}
