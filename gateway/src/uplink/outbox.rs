//! The outbox: NDJSON files for a gateway without a stream. A line is a record's body; a record is
//! accepted when its line is on disk. Lines gather for [`PAUSE`] and are synced together. After a
//! crash the lines say what is already there, so nothing is written twice: a record is skipped only if its very line stands there. The number alone would
//! not do, for the buffer may have been removed or restored beside the outbox, and numbers other
//! records with it now.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    io,
    time::Duration,
};

use portcullis_core::record::Record;
use serde::Deserialize;
use tokio::{
    select,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Metrics, OutboxConfig, RecordSource,
    ndjson::Files,
    source::{Next, next},
    state::{Failure, Link},
};
use crate::supervisor::TaskResult;

pub(super) async fn run<S: RecordSource>(
    config: OutboxConfig,
    mut source: S,
    metrics: Metrics,
    stop: CancellationToken,
) -> TaskResult {
    let mut link = Link::new(metrics.clone());
    let mut outbox = None;
    info!(dir = %config.dir.display(), "Records go to the outbox.");
    // A file is closed between two writes.
    let bytes_max =
        usize::try_from(config.file_bytes_max).map_or(BYTES_MAX, |max| max.min(BYTES_MAX));
    while let Next::Records(records) = next(&mut source, RECORDS_MAX, bytes_max, &stop).await {
        let began = Instant::now();
        let Some(last_seq) = records.last().map(|record| record.seq) else {
            continue;
        };
        let sizes = (records.len(), records.iter().map(Record::wire_bytes).sum());
        let oldest = records.first().map(|record| record.body.clone());
        let mut records = records;
        loop {
            metrics.attempts.inc();
            let config = config.clone();
            let written = spawn_blocking(move || {
                let written = write(&mut outbox, &config, &records);
                (outbox, records, written)
            })
            .await;
            let error = match written {
                Ok((returned, _, Ok(removed))) => {
                    outbox = returned;
                    metrics
                        .dropped_files
                        .with_label_values(&["outbox"])
                        .inc_by(removed);
                    break;
                }
                Ok((_, returned, Err(error))) => {
                    records = returned;
                    error
                }
                Err(join) => return Err(join.into()),
            };
            outbox = None;
            metrics.failed(Failure::Disk.reason(), sizes.0);
            let delay = link.down(Failure::Disk, &error.to_string());
            select! {
                () = sleep(delay) => {}
                // Cancelled already: this was the last attempt.
                () = stop.cancelled() => return Ok(()),
            }
        }
        link.up();
        metrics.sent(sizes.0, sizes.1);
        metrics.note_lag(oldest.as_deref());
        source.accept(last_seq).await;
        // Company for the next write, which costs a sync however small it is. A backlog does not wait.
        if source.unread() < u64::try_from(RECORDS_MAX / 2).unwrap_or(0) {
            select! {
                () = sleep_until(began + PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
    }
    Ok(())
}

/// Records in one write.
const RECORDS_MAX: usize = 4096;
/// Bytes in one write, which is in memory twice.
const BYTES_MAX: usize = 2 * 1024 * 1024;
/// Writes begin no sooner one after the other: a line may be so much later than its commit. Nobody
/// waits for it, and the buffer has it.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Outbox {
    files: Files,
    written: Written,
}

fn write(
    outbox: &mut Option<Outbox>,
    config: &OutboxConfig,
    records: &[Record],
) -> io::Result<u64> {
    let Some(first) = records.first() else {
        return Ok(0);
    };
    if outbox.is_none() {
        let files = Files::open(
            &config.dir,
            "events",
            config.file_bytes_max,
            config.bytes_max,
        )?;
        let written = Written::find(&files, first.seq)?;
        *outbox = Some(Outbox { files, written });
    }
    let Outbox { files, written } = outbox.as_mut().expect("it was opened above");
    let fresh: Vec<_> = records
        .iter()
        .filter(|record| !written.holds(record))
        .collect();
    let Some(first) = fresh.first() else {
        return Ok(0);
    };
    files.append(first.seq, fresh.iter().map(|record| &*record.body))
}

/// What stood in the files when they were opened, as far as it may come again.
#[derive(Debug, Default)]
struct Written {
    last_seq: u64,
    /// Lines by number, hashed.
    lines: HashMap<u64, u64>,
    hasher: RandomState,
    said: bool,
}

impl Written {
    /// Looks for the lines from number `first_seq` on, back from the last one.
    fn find(files: &Files, first_seq: u64) -> io::Result<Self> {
        let mut this = Self {
            last_seq: files.last_line()?.and_then(|line| seq(&line)).unwrap_or(0),
            ..Self::default()
        };
        if this.last_seq < first_seq {
            return Ok(this);
        }
        for path in files.newest_first() {
            let mut reached = false;
            let mut lines = HashMap::new();
            Files::for_each_line(path, |line| match seq(line) {
                Some(seq) if seq >= first_seq => {
                    lines.insert(seq, this.hasher.hash_one(line));
                }
                _ => reached = true,
            })?;
            for (seq, line) in lines {
                // What stands later counts.
                this.lines.entry(seq).or_insert(line);
            }
            if reached || this.lines.len() >= KNOWN_LINES_MAX {
                break;
            }
        }
        Ok(this)
    }

    /// Whether the record's line is there already.
    fn holds(&mut self, record: &Record) -> bool {
        if record.seq > self.last_seq {
            // Nothing older comes after it.
            self.lines = HashMap::new();
            return false;
        }
        let holds = self.lines.get(&record.seq) == Some(&self.hasher.hash_one(&*record.body));
        if !holds && !self.said {
            self.said = true;
            warn!(
                seq = record.seq,
                last_seq = self.last_seq,
                "The buffer's numbers are behind the outbox, for other records; all are written."
            );
        }
        holds
    }
}

/// Lines that are remembered at opening; a crash leaves far fewer that come again.
const KNOWN_LINES_MAX: usize = 1 << 20;

fn seq(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Line {
        seq: u64,
    }
    serde_json::from_slice(line).ok().map(|line: Line| line.seq)
}
