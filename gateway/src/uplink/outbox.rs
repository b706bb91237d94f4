//! The outbox: NDJSON files for a gateway without a stream. A line is a record's body; a record is
//! accepted when its line is on disk. After a crash the last line says what is already there, so
//! nothing is written twice.

use std::io;

use portcullis_core::{
    limits::{PUT_RECORDS_BYTES_MAX, SHARD_QUEUE_EVENTS_MAX},
    record::Record,
};
use serde::Deserialize;
use tokio::{select, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

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
    while let Next::Records(records) =
        next(&mut source, RECORDS_MAX, PUT_RECORDS_BYTES_MAX, &stop).await
    {
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
    }
    Ok(())
}

/// Records in one write.
const RECORDS_MAX: usize = SHARD_QUEUE_EVENTS_MAX;

#[derive(Debug)]
struct Outbox {
    files: Files,
    last_seq: u64,
}

fn write(
    outbox: &mut Option<Outbox>,
    config: &OutboxConfig,
    records: &[Record],
) -> io::Result<u64> {
    if outbox.is_none() {
        let files = Files::open(
            &config.dir,
            "events",
            config.file_bytes_max,
            config.bytes_max,
        )?;
        let last_seq = files.last_line()?.and_then(|line| seq(&line)).unwrap_or(0);
        *outbox = Some(Outbox { files, last_seq });
    }
    let outbox = outbox.as_mut().expect("it was opened above");
    let known = records.partition_point(|record| record.seq <= outbox.last_seq);
    let fresh = &records[known..];
    let (Some(first), Some(last)) = (fresh.first(), fresh.last()) else {
        return Ok(0);
    };
    let lines = fresh.iter().map(|record| &*record.body);
    let removed = outbox.files.append(first.seq, lines)?;
    outbox.last_seq = last.seq;
    Ok(removed)
}

fn seq(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Line {
        seq: u64,
    }
    serde_json::from_slice(line).ok().map(|line: Line| line.seq)
}
