//! Records that a sink will never take: kept as lines that say why, durably, before the cursor
//! passes them. All sinks share the files and their bound.

use std::{io, path::PathBuf, sync::Arc};

use portcullis_core::{
    limits::{DEAD_LETTER_BYTES_MAX, DEAD_LETTER_FILE_BYTES_MAX},
    record::Record,
};
use tokio::{sync::Mutex, task::spawn_blocking};
use tracing::error;

use super::{Metrics, metrics::SinkMetrics, ndjson::Files};

/// A handle; clones write to the same files.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    dir: PathBuf,
    metrics: Metrics,
    files: Arc<Mutex<Option<Files>>>,
}

/// Why records are set aside, together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Why<'a> {
    /// A label.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) detail: &'a str,
}

impl DeadLetters {
    pub(super) fn new(dir: PathBuf, metrics: Metrics) -> Self {
        Self {
            dir,
            metrics,
            files: Arc::default(),
        }
    }

    /// Writes `{"sink":…,"reason":…,"detail":…,"partition_key":…,"record":<the body>}` for each.
    pub(super) async fn put(
        &self,
        sink: &SinkMetrics,
        records: Vec<Record>,
        why: Why<'_>,
    ) -> io::Result<()> {
        let Some(seq) = records.first().map(|record| record.seq) else {
            return Ok(());
        };
        let lines: Vec<_> = records
            .iter()
            .map(|record| line(sink.sink(), record, why))
            .collect();
        let mut files = self.files.lock().await;
        let (taken, dir) = (files.take(), self.dir.clone());
        let (returned, removed) = spawn_blocking(move || {
            let mut files = match taken {
                Some(files) => files,
                None => Files::open(
                    &dir,
                    "dead-letter",
                    DEAD_LETTER_FILE_BYTES_MAX,
                    DEAD_LETTER_BYTES_MAX,
                )?,
            };
            let removed = files.append(seq, lines.iter().map(Vec::as_slice))?;
            Ok::<_, io::Error>((files, removed))
        })
        .await
        .map_err(io::Error::other)??;
        *files = Some(returned);
        drop(files);
        let place = &["dead-letter"];
        let dropped_files = &self.metrics.dropped_files;
        dropped_files.with_label_values(place).inc_by(removed);
        sink.dead_letters(why.reason, records.len());
        let (dir, Why { reason, detail }) = (self.dir.display(), why);
        let (sink, count) = (sink.sink(), records.len());
        error!(sink, first_seq = seq, count, reason, detail, %dir, "Records were set aside.");
        Ok(())
    }
}

fn line(sink: &str, record: &Record, why: Why<'_>) -> Vec<u8> {
    let head = serde_json::json!({
        "sink": sink,
        "reason": why.reason,
        "detail": why.detail,
        "partition_key": &*record.partition_key,
    });
    let mut line = head.to_string().into_bytes();
    line.pop();
    line.extend_from_slice(b",\"record\":");
    line.extend_from_slice(&record.body);
    line.push(b'}');
    line
}
