//! The buffer against what a disk can do: the same events appended to a plain file with `write` and
//! `fdatasync`, and to generations of the buffer, in turn in one run on one disk.
//!
//! `gateway/benches/buffer [--quick] [--dir DIRECTORY] [FILTER…]`; a filter is a part of a row's name,
//! `json/256`. Every row is run A B A B, so that a machine or a disk that is busy elsewhere is busy for
//! both; what counts is the ratio. The directory has to be on a disk, not in memory.
//!
//! The plain file gets bytes that were encoded before; the buffer encodes, compresses, makes
//! generations and closes them within its time. `written` is `write_bytes` of `/proc/self/io` for each
//! byte of the encoded events. Draining is reading all records again, in order, 500 at a time, noting
//! the cursor durably four times a second, and removing each generation at its end.
#![allow(clippy::print_stdout, reason = "the table is the product")]

mod buffer;
mod events;
mod machine;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use self::{
    buffer::{append, drain},
    events::{Payload, Pool},
    machine::Usage,
};
use anyhow::{Context, Result, bail};

struct Arguments {
    length: Duration,
    rounds: u32,
    dir: PathBuf,
    filters: Vec<String>,
}

fn arguments() -> Result<Arguments> {
    let mut given = std::env::args().skip(1);
    let mut asked = Arguments {
        length: Duration::from_secs(2),
        rounds: 3,
        dir: std::env::temp_dir(),
        filters: Vec::new(),
    };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--quick" => (asked.length, asked.rounds) = (Duration::from_millis(300), 2),
            "--dir" => asked.dir = given.next().context("which directory?")?.into(),
            other if other.starts_with('-') => bail!("there is no {other}"),
            filter => asked.filters.push(filter.to_owned()),
        }
    }
    Ok(asked)
}

/// What one side did in a row.
#[derive(Default)]
struct Outcome {
    events: u64,
    bytes: u64,
    seconds: f64,
    usage: Usage,
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.seconds += other.seconds;
        self.usage.add(&other.usage);
    }

    fn rate(&self) -> f64 {
        number(self.events) / self.seconds
    }

    /// Bytes written to disk for each byte handed in.
    fn amplification(&self) -> f64 {
        number(self.usage.written_bytes) / number(self.bytes)
    }

    fn cpu_seconds_per_million(&self) -> f64 {
        self.usage.cpu_seconds * 1e6 / number(self.events)
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for a table")]
fn number(count: u64) -> f64 {
    count as f64
}

fn main() -> Result<()> {
    let asked = arguments()?;
    println!(
        "{:<12} {:>11} {:>11} {:>6} {:>8} {:>8} {:>6} {:>11} {:>8} {:>7} {:>7}",
        "row",
        "raw ev/s",
        "buffer ev/s",
        "ratio",
        "raw wr.",
        "written",
        "disk",
        "drain ev/s",
        "CPU s/M",
        "drain",
        "RSS MiB"
    );
    for payload in Payload::ALL {
        for batch in [1, 32, 256, 1024] {
            let name = format!("{}/{batch}", payload.name());
            let is_wanted = |filter: &String| name.contains(filter.as_str());
            if asked.filters.is_empty() || asked.filters.iter().any(is_wanted) {
                row(&asked, &name, payload, batch)?;
            }
        }
    }
    Ok(())
}

fn row(asked: &Arguments, name: &str, payload: Payload, batch: usize) -> Result<()> {
    let pool = Pool::new(payload, batch);
    let (mut raw, mut appended, mut drained) = Default::default();
    let (mut disk_bytes, mut rss_bytes) = (0, 0);
    for _ in 0..asked.rounds {
        let dir = tempfile::tempdir_in(&asked.dir)?;
        Outcome::add(&mut raw, &append_raw(dir.path(), &pool, asked.length)?);
        let rss_before = machine::rss_bytes()?;
        let (outcome, kept) = append(dir.path(), &pool, asked.length)?;
        rss_bytes = rss_bytes.max(machine::rss_bytes()?.saturating_sub(rss_before));
        disk_bytes += kept.disk_bytes();
        let drain = drain(dir.path(), kept, outcome.events)?;
        Outcome::add(&mut appended, &outcome);
        Outcome::add(&mut drained, &drain);
    }
    println!(
        "{name:<12} {:>11.0} {:>11.0} {:>6.2} {:>8.2} {:>8.2} {:>6.2} {:>11.0} {:>8.1} {:>7.1} {:>7.1}",
        raw.rate(),
        appended.rate(),
        appended.rate() / raw.rate(),
        raw.amplification(),
        appended.amplification(),
        number(disk_bytes) / number(appended.bytes),
        drained.rate(),
        appended.cpu_seconds_per_million(),
        drained.cpu_seconds_per_million(),
        number(rss_bytes) / 1_048_576.0,
    );
    Ok(())
}

fn append_raw(dir: &Path, pool: &Pool, length: Duration) -> Result<Outcome> {
    let mut file = File::create(dir.join("raw"))?;
    let before = Usage::now()?;
    let started = Instant::now();
    let mut outcome = Outcome::default();
    for encoded in pool.encoded().cycle() {
        file.write_all(encoded)?;
        file.sync_data()?;
        outcome.events += pool.batch();
        outcome.bytes += u64::try_from(encoded.len())?;
        if started.elapsed() >= length {
            break;
        }
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome.usage = Usage::now()?.since(&before);
    Ok(outcome)
}
