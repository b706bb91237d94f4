//! The outbox: NDJSON files for a gateway without a stream. A line is a record's body; a record is
//! accepted when its line is on disk. Lines gather for [`PAUSE`] and are synced together. After a
//! crash the lines say what is already there, so nothing is written twice: a record is skipped only if its very line stands there. The number alone would
//! not do, for the buffer may have been removed or restored beside the outbox, and numbers other
//! records with it now.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    io,
    time::Duration,
};

use portcullis_core::record::{Kind, Lane, Record};
use serde::Deserialize;
use tokio::{
    select,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    OutboxConfig, Part, RecordSource, Tally, Waits,
    metrics::SinkMetrics,
    ndjson::Files,
    source::{Next, next},
    state::{Failure, Link},
};
use crate::{clock::ticks, supervisor::TaskResult};

pub(super) async fn run<S: RecordSource>(
    config: OutboxConfig,
    mut source: S,
    metrics: SinkMetrics,
    stop: CancellationToken,
) -> TaskResult {
    let mut link = Link::new(metrics.clone(), Waits::default());
    let mut outbox = None;
    info!(dir = %config.dir.display(), "Records go to the outbox.");
    // A file is closed between two writes.
    let bytes_max =
        usize::try_from(config.file_bytes_max).map_or(BYTES_MAX, |max| max.min(BYTES_MAX));
    while let Next::Records(lane, records) =
        next(&mut source, &LANES, RECORDS_MAX, bytes_max, &stop).await
    {
        let began = Instant::now();
        let Some(upto_place) = records.last().map(|record| record.place) else {
            continue;
        };
        let sizes = (records.len(), records.iter().map(Record::wire_bytes).sum());
        let oldest = records.first().cloned();
        let mut records = records;
        loop {
            metrics.attempts.inc();
            let config = config.clone();
            let written = spawn_blocking(move || {
                let written = write(&mut outbox, &config, lane, &records);
                (outbox, records, written)
            })
            .await;
            let error = match written {
                Ok((returned, _, Ok(removed))) => {
                    outbox = returned;
                    metrics
                        .all
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
            let delay = link.down(Failure::Disk, &error.to_string(), ticks());
            select! {
                () = sleep(delay) => {}
                // Cancelled already: this was the last attempt.
                () = stop.cancelled() => return Ok(()),
            }
        }
        link.up(0.0, ticks());
        metrics.sent(sizes.0, sizes.1);
        metrics.note_lag(oldest.as_ref());
        let tally = Tally {
            delivered: u64::try_from(sizes.0).unwrap_or(u64::MAX),
            ..Tally::default()
        };
        source.settle(lane, Part::Backlog, upto_place, tally).await;
        let unread = LANES.map(|lane| source.unread(lane, Part::Backlog));
        let unread = unread.into_iter().sum();
        metrics.note_backlog(unread);
        // Company for the next write, which costs a sync however small it is. A backlog does not wait.
        if unread < u64::try_from(RECORDS_MAX / 2).unwrap_or(0) {
            select! {
                () = sleep_until(began + PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
    }
    Ok(())
}

/// What the outbox takes, urgent first.
const LANES: [Lane; 2] = [Lane::Critical, Lane::Events];
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
    /// What stood there of each lane, once something of it comes.
    written: HashMap<Lane, Written>,
}

fn write(
    outbox: &mut Option<Outbox>,
    config: &OutboxConfig,
    lane: Lane,
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
        *outbox = Some(Outbox {
            files,
            written: HashMap::new(),
        });
    }
    let Outbox { files, written } = outbox.as_mut().expect("it was opened above");
    let written = match written.entry(lane) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(Written::find(files, lane, first.seq)?),
    };
    let fresh: Vec<_> = records
        .iter()
        .filter(|record| !written.holds(record))
        .collect();
    let Some(first) = fresh.first() else {
        return Ok(0);
    };
    files.append(first.seq, fresh.iter().map(|record| &*record.body))
}

/// What stood in the files of a lane when something of it came first, as far as it may come again.
/// Numbers grow within a lane; what is urgent is written before what is older.
#[derive(Debug, Default)]
struct Written {
    last_seq: u64,
    /// Lines by number, hashed.
    lines: HashMap<u64, u64>,
    hasher: RandomState,
    said: bool,
}

impl Written {
    /// Looks for the lane's lines from number `first_seq` on, back from the last one.
    fn find(files: &Files, lane: Lane, first_seq: u64) -> io::Result<Self> {
        let mut this = Self::default();
        for (looked_at, path) in files.newest_first().enumerate() {
            if looked_at >= FILES_LOOKED_AT_MAX && this.last_seq == 0 {
                break;
            }
            let mut reached = false;
            let mut lines = HashMap::new();
            Files::for_each_line(path, |line| {
                let Some(seq) = seq(line, lane) else { return };
                this.last_seq = this.last_seq.max(seq);
                if seq >= first_seq {
                    lines.insert(seq, this.hasher.hash_one(line));
                } else {
                    reached = true;
                }
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

/// Files that are read back for a lane of which nothing is found: what is written and comes again is
/// what was written last.
const FILES_LOOKED_AT_MAX: usize = 4;

/// The number of a line, if it is of this lane.
fn seq(line: &[u8], lane: Lane) -> Option<u64> {
    #[derive(Deserialize)]
    struct Line<'a> {
        seq: u64,
        #[serde(borrow, default)]
        schema: Option<Cow<'a, str>>,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let schema = line.schema.as_deref();
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| schema == Some(kind.schema()));
    (kind.map_or(Lane::Events, Kind::lane) == lane).then_some(line.seq)
}
