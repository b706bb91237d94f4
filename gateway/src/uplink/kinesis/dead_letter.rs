//! Records that the stream will never take: kept as lines that say why, durably, before the cursor
//! passes them.

use std::{io, path::PathBuf};

use portcullis_core::{
    limits::{DEAD_LETTER_BYTES_MAX, DEAD_LETTER_FILE_BYTES_MAX},
    record::Record,
};
use tokio::task::spawn_blocking;
use tracing::error;

use crate::uplink::{Metrics, ndjson::Files};

#[derive(Debug)]
pub(super) struct DeadLetters {
    dir: PathBuf,
    metrics: Metrics,
    files: Option<Files>,
}

impl DeadLetters {
    pub(super) fn new(dir: PathBuf, metrics: Metrics) -> Self {
        Self {
            dir,
            metrics,
            files: None,
        }
    }

    /// Writes `{"reason":…,"detail":…,"partition_key":…,"record":<the body>}`.
    pub(super) async fn put(
        &mut self,
        record: Record,
        reason: &'static str,
        detail: &str,
    ) -> io::Result<()> {
        let head = serde_json::json!({
            "reason": reason,
            "detail": detail,
            "partition_key": &*record.partition_key,
        });
        let mut line = head.to_string().into_bytes();
        line.pop();
        line.extend_from_slice(b",\"record\":");
        line.extend_from_slice(&record.body);
        line.push(b'}');
        let (files, dir, seq) = (self.files.take(), self.dir.clone(), record.seq);
        let (files, removed) = spawn_blocking(move || {
            let mut files = match files {
                Some(files) => files,
                None => Files::open(
                    &dir,
                    "dead-letter",
                    DEAD_LETTER_FILE_BYTES_MAX,
                    DEAD_LETTER_BYTES_MAX,
                )?,
            };
            let removed = files.append(seq, std::iter::once(&*line))?;
            Ok::<_, io::Error>((files, removed))
        })
        .await
        .map_err(io::Error::other)??;
        self.files = Some(files);
        self.metrics
            .dropped_files
            .with_label_values(&["dead-letter"])
            .inc_by(removed);
        self.metrics.dead_letter(reason);
        error!(seq, reason, detail, dir = %self.dir.display(), "A record was set aside.");
        Ok(())
    }
}
