//! `portcullis buffer`: what the buffer holds, whether it can be read, and getting it out. Nothing here
//! changes it; see `buffer::inspect`.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use portcullis_core::record::Record;
use serde_json::{Value, json};

use super::{
    Failure, Outcome,
    outcome::{say, say_document, say_error, say_json},
};
use crate::{
    buffer::{
        Account,
        inspect::{Cursor, Generation, Lane, Reading, accounts, is_in_use, lanes},
    },
    config,
};

/// What to do with the buffer.
#[derive(Debug, clap::Subcommand)]
pub(super) enum BufferCommand {
    /// Count what stands in it: generations, bytes, cursors.
    Stats,
    /// Show the records that are delivered next; with `--json`, a line each as they go upstream.
    Peek {
        /// So many of each lane.
        #[arg(long, value_name = "COUNT", default_value_t = 10)]
        limit: u64,
    },
    /// Read everything and say which places are good and which are damaged; exit code 1 on damage.
    Verify,
    /// Get what can be had from the generations that were set aside as damaged, a line each.
    Salvage {
        /// The file to write, which must not be there yet; without it, standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Write every record that is not delivered yet, a line each as it goes upstream.
    Export {
        /// The file to write, which must not be there yet; without it, standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub(super) fn buffer(
    command: &BufferCommand,
    file: &Path,
    as_json: bool,
) -> Result<Outcome, Failure> {
    // The engine panics on damage. That is expected here and told as a failure; its own words would
    // stand between the lines of the answer.
    std::panic::set_hook(Box::new(|_| {}));
    let dir = config::buffer_dir(file);
    let site = Site {
        lanes: lanes(&dir).map_err(|error| failed(&dir, error))?,
        is_running: is_in_use(&dir),
        dir,
    };
    match command {
        BufferCommand::Stats => Ok(site.stats(as_json)),
        BufferCommand::Peek { limit } => site.peek(*limit, as_json),
        BufferCommand::Verify => site.verify(as_json),
        BufferCommand::Salvage { out } => site.salvage(out.as_deref(), as_json),
        BufferCommand::Export { out } => site.export(out.as_deref(), as_json),
    }
}

fn failed(path: &Path, error: io::Error) -> Failure {
    Failure::other(format!("failed to read `{}`", path.display()), error)
}

/// The buffer of a configuration.
struct Site {
    dir: PathBuf,
    lanes: Vec<Lane>,
    /// A gateway writes to it.
    is_running: bool,
}

impl Site {
    fn stats(&self, as_json: bool) -> Outcome {
        if as_json {
            say_json(&json!({
                "directory": self.dir.to_string_lossy(),
                "inUse": self.is_running,
                "lanes": self.lanes.iter().map(lane_json).collect::<Vec<_>>(),
                "sinks": accounts(&self.dir, &self.lanes).iter().map(account_json).collect::<Vec<_>>(),
            }));
            return Outcome::Done;
        }
        say(&format!(
            "{} ({})",
            self.dir.display(),
            if self.is_running {
                "a gateway runs on it"
            } else {
                "no gateway runs on it"
            }
        ));
        for lane in &self.lanes {
            let records = lane.undelivered();
            let records = records.map_or("an unknown number of".to_owned(), |n| n.to_string());
            say(&format!(
                "{}: {records} records not delivered, {} generations of {} bytes, {} set aside of {} bytes",
                lane.name,
                lane.generations.len(),
                bytes(&lane.generations),
                lane.set_aside.len(),
                bytes(&lane.set_aside),
            ));
            for (name, value) in &lane.marks {
                say(&format!("  {name} {value}"));
            }
            for cursor in &lane.cursors {
                let (sink, place, kept) = (&cursor.sink, cursor.place, cursor.account.kept);
                say(&format!(
                    "  cursor of {sink}: {place}, {kept} records before it"
                ));
            }
            for generation in &lane.generations {
                say(&format!(
                    "  generation from {}: {} bytes",
                    generation.first, generation.bytes
                ));
            }
        }
        for account in accounts(&self.dir, &self.lanes) {
            say(&account_text(&account));
        }
        Outcome::Done
    }

    fn peek(&self, limit: u64, as_json: bool) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::Done;
        for lane in &self.lanes {
            let mut left = limit;
            for generation in &lane.generations {
                if left == 0 {
                    break;
                }
                let shown = generation.read(lane.cursor() + 1, |record| {
                    show(&record, lane, as_json);
                    left -= 1;
                    if left == 0 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                let shown = shown.map_err(|error| failed(&generation.dir, error))?;
                if shown.is_some_and(|reading| !reading.failures.is_empty()) {
                    say_error(&format!(
                        "the generation from {} is damaged; see `buffer verify`",
                        generation.first
                    ));
                    outcome = Outcome::Failed;
                }
            }
        }
        Ok(outcome)
    }

    fn verify(&self, as_json: bool) -> Result<Outcome, Failure> {
        let mut findings = Vec::new();
        for lane in &self.lanes {
            for at in 0..lane.generations.len() {
                findings.extend(self.verify_one(lane, at)?);
            }
        }
        let set_aside: Vec<_> = self.lanes.iter().flat_map(|lane| &lane.set_aside).collect();
        let is_good = findings.iter().all(Finding::is_good) && set_aside.is_empty();
        if as_json {
            say_json(&json!({
                "ok": is_good,
                "inUse": self.is_running,
                "generations": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
                "setAside": set_aside.iter().map(|generation| generation_json(generation)).collect::<Vec<_>>(),
            }));
        } else {
            findings
                .iter()
                .for_each(|finding| say(&finding.to_string()));
            for generation in set_aside {
                say(&format!(
                    "generation from {}: set aside as damaged; `buffer salvage` reads it",
                    generation.first
                ));
            }
            say(if is_good { "ok" } else { "damaged" });
        }
        Ok(if is_good {
            Outcome::Done
        } else {
            Outcome::Failed
        })
    }

    /// `None` if it was drained meanwhile.
    fn verify_one(&self, lane: &Lane, at: usize) -> Result<Option<Finding>, Failure> {
        let generation = &lane.generations[at];
        let reading = generation
            .read(0, |_| ControlFlow::Continue(()))
            .map_err(|error| failed(&generation.dir, error))?;
        let Some(reading) = reading else {
            return Ok(None);
        };
        // A gateway may be writing to the newest one, and a copy of that is torn.
        let is_written_to = self.is_running && at + 1 == lane.generations.len();
        let end = if is_written_to { None } else { lane.end_of(at) };
        Ok(Some(Finding {
            lane: lane.name.clone(),
            first: generation.first,
            damaged: damaged(generation.first, end, lane, &reading),
            reading,
            is_written_to,
        }))
    }

    fn salvage(&self, out: Option<&Path>, as_json: bool) -> Result<Outcome, Failure> {
        let mut lines = Lines::to(out)?;
        let mut reports = Vec::new();
        for lane in &self.lanes {
            for generation in &lane.set_aside {
                let reading = generation
                    .salvage(|record| lines.write(&record))
                    .map_err(|error| failed(&generation.dir, error))?;
                let Some(reading) = reading else {
                    continue;
                };
                reports.push(Report::new(lane, generation, &reading));
            }
        }
        lines.end(&reports, as_json)?;
        Ok(Outcome::Done)
    }

    fn export(&self, out: Option<&Path>, as_json: bool) -> Result<Outcome, Failure> {
        let mut lines = Lines::to(out)?;
        let mut reports = Vec::new();
        let mut is_damaged = false;
        for lane in &self.lanes {
            let from = lane.cursor() + 1;
            for (at, generation) in lane.generations.iter().enumerate() {
                if lane
                    .generations
                    .get(at + 1)
                    .is_some_and(|next| next.first <= from)
                {
                    continue;
                }
                let reading = generation
                    .read(from, |record| {
                        lines.write(&record);
                        ControlFlow::Continue(())
                    })
                    .map_err(|error| failed(&generation.dir, error))?;
                let Some(reading) = reading else {
                    continue;
                };
                is_damaged |= !reading.failures.is_empty() || reading.good.len() > 1;
                reports.push(Report::new(lane, generation, &reading));
            }
        }
        lines.end(&reports, as_json)?;
        Ok(if is_damaged {
            Outcome::Failed
        } else {
            Outcome::Done
        })
    }
}

fn bytes(generations: &[Generation]) -> u64 {
    generations.iter().map(|generation| generation.bytes).sum()
}

fn generation_json(generation: &Generation) -> Value {
    json!({
        "first": generation.first,
        "bytes": generation.bytes,
        "directory": generation.dir.to_string_lossy(),
    })
}

fn lane_json(lane: &Lane) -> Value {
    json!({
        "lane": lane.name,
        "cursor": lane.cursor(),
        "undelivered": lane.undelivered(),
        "cursors": lane.cursors.iter().map(cursor_json).collect::<Vec<_>>(),
        "marks": lane.marks,
        "bytes": bytes(&lane.generations),
        "generations": lane.generations.iter().map(generation_json).collect::<Vec<_>>(),
        "setAside": lane.set_aside.iter().map(generation_json).collect::<Vec<_>>(),
    })
}

fn cursor_json(cursor: &Cursor) -> Value {
    json!({
        "sink": cursor.sink,
        "place": cursor.place,
        "live": cursor.live,
        "account": account_json(&cursor.account),
    })
}

fn account_json(account: &Account) -> Value {
    json!({
        "sink": account.name,
        "received": account.received,
        "delivered": account.delivered,
        "filtered": account.filtered,
        "kept": account.kept,
        "dropped": account.dropped,
    })
}

fn account_text(account: &Account) -> String {
    let mut text = format!(
        "sink {}: {} received = {} delivered + {} filtered + {} kept",
        account.name, account.received, account.delivered, account.filtered, account.kept,
    );
    for (reason, count) in &account.dropped {
        text += &format!(" + {count} dropped ({reason})");
    }
    text
}

fn show(record: &Record, lane: &Lane, as_json: bool) {
    let body = String::from_utf8_lossy(&record.body);
    if as_json {
        say_document(&body);
    } else {
        say(&format!(
            "{} {} {}: {body}",
            lane.name, record.seq, record.partition_key
        ));
    }
}

/// The places that should have a record and have none: between the good ones and up to `end`. What is
/// below the cursor, nobody waits for.
fn damaged(first: u64, end: Option<u64>, lane: &Lane, reading: &Reading) -> Vec<(u64, u64)> {
    let mut damaged = Vec::new();
    let mut expected = first;
    for (from, to) in &reading.good {
        if *from > expected {
            damaged.push((expected, from - 1));
        }
        expected = to + 1;
    }
    // Places leap after a loss that was told; without a failure, a gap at the end may be one of them.
    let is_told = lane
        .set_aside
        .iter()
        .any(|gone| gone.first >= first && end.is_some_and(|end| gone.first < end));
    if let Some(end) = end
        && end > expected
        && !is_told
    {
        damaged.push((expected, end - 1));
    }
    damaged.retain(|(_, to)| *to > lane.cursor());
    damaged
}

/// What became of a generation.
struct Finding {
    lane: String,
    first: u64,
    reading: Reading,
    damaged: Vec<(u64, u64)>,
    is_written_to: bool,
}

impl Finding {
    fn is_good(&self) -> bool {
        self.is_written_to || self.reading.failures.is_empty() && self.damaged.is_empty()
    }

    fn to_json(&self) -> Value {
        json!({
            "lane": self.lane,
            "first": self.first,
            "ok": self.is_good(),
            "beingWritten": self.is_written_to,
            "records": self.reading.records(),
            "good": self.reading.good,
            "damaged": self.damaged,
            "failures": self.reading.failures,
        })
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} generation from {}: ", self.lane, self.first)?;
        write!(
            f,
            "{} records, good {}",
            self.reading.records(),
            runs(&self.reading.good)
        )?;
        if !self.damaged.is_empty() {
            write!(f, ", damaged {}", runs(&self.damaged))?;
        }
        for failure in &self.reading.failures {
            write!(f, "; {failure}")?;
        }
        if self.is_written_to {
            f.write_str("; the gateway writes to it, so its end is not judged")?;
        }
        Ok(())
    }
}

fn runs(runs: &[(u64, u64)]) -> String {
    if runs.is_empty() {
        return "none".to_owned();
    }
    let runs: Vec<_> = runs
        .iter()
        .map(|(from, to)| format!("{from}-{to}"))
        .collect();
    runs.join(" ")
}

/// What was had from a generation.
struct Report {
    lane: String,
    first: u64,
    records: u64,
    good: Vec<(u64, u64)>,
    failures: Vec<String>,
}

impl Report {
    fn new(lane: &Lane, generation: &Generation, reading: &Reading) -> Self {
        Self {
            lane: lane.name.clone(),
            first: generation.first,
            records: reading.records(),
            good: reading.good.clone(),
            failures: reading.failures.clone(),
        }
    }
}

/// Where records go, a line each.
struct Lines {
    out: Box<dyn Write>,
    /// Standard output is free for the report.
    is_file: bool,
    error: Option<io::Error>,
}

impl Lines {
    fn to(out: Option<&Path>) -> Result<Self, Failure> {
        let made: Box<dyn Write> = match out {
            None => Box::new(io::stdout().lock()),
            Some(path) => match File::create_new(path) {
                Ok(file) => Box::new(file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let told = format!("`{}` is there already", path.display());
                    return Err(Failure::BadInput(told));
                }
                Err(error) => {
                    let told = format!("failed to make `{}`", path.display());
                    return Err(Failure::other(told, error));
                }
            },
        };
        Ok(Self {
            out: Box::new(BufWriter::new(made)),
            is_file: out.is_some(),
            error: None,
        })
    }

    fn write(&mut self, record: &Record) {
        if self.error.is_none() {
            let written = self.out.write_all(&record.body);
            let written = written.and_then(|()| self.out.write_all(b"\n"));
            self.error = written.err();
        }
    }

    /// Says what was written: on standard output, or beside it if the records stand there.
    fn end(mut self, reports: &[Report], as_json: bool) -> Result<(), Failure> {
        let flushed = self.out.flush();
        match self.error.or_else(|| flushed.err()) {
            // A reader that has gone (`| head`) is no failure.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.is_file => {}
            Some(error) => return Err(Failure::other("failed to write the records", error)),
            None => {}
        }
        // Gives standard output back.
        drop(self.out);
        if as_json && self.is_file {
            let reports: Vec<_> = reports
                .iter()
                .map(|report| {
                    json!({
                        "lane": report.lane,
                        "first": report.first,
                        "records": report.records,
                        "good": report.good,
                        "failures": report.failures,
                    })
                })
                .collect();
            say_json(&json!({ "generations": reports }));
            return Ok(());
        }
        let tell = if self.is_file { say } else { say_error };
        for report in reports {
            let mut line = format!(
                "{} generation from {}: {} records, {}",
                report.lane,
                report.first,
                report.records,
                runs(&report.good)
            );
            for failure in &report.failures {
                line += &format!("; {failure}");
            }
            tell(&line);
        }
        Ok(())
    }
}
