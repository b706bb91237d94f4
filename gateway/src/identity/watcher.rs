//! Looks at the files and publishes a new snapshot when they change.
//!
//! Polling metadata needs no kernel interface that a container or a network file system might not
//! have, and a dozen `stat` calls four times a second cost nothing. A change with any mistake is
//! refused whole: every problem is logged, the last good snapshot stays. One thing does not wait
//! for the correction: what a registry without mistakes takes away, such as a revoked certificate,
//! is taken from the last good snapshot at once.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use portcullis_core::limits::{RELOAD_POLL, RELOAD_SETTLE};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Metrics, Snapshot,
    snapshot::{self, Refused},
};
use crate::{document::json_files, supervisor::TaskResult};

/// The newest good snapshot.
pub type SnapshotWatch = watch::Receiver<Arc<Snapshot>>;

/// The task that keeps the snapshot new.
#[derive(Debug)]
pub struct Watcher {
    config: Config,
    metrics: Metrics,
    sender: watch::Sender<Arc<Snapshot>>,
    /// Of the files that were last loaded, or refused.
    seen: Fingerprint,
}

impl Watcher {
    /// Starts from `initial`, which was loaded from `config`.
    pub fn new(config: Config, initial: Snapshot, metrics: Metrics) -> (Self, SnapshotWatch) {
        let seen = initial.fingerprint.clone();
        let (sender, receiver) = watch::channel(Arc::new(initial));
        let watcher = Self {
            config,
            metrics,
            sender,
            seen,
        };
        watcher.show();
        (watcher, receiver)
    }

    /// Runs until `stop`; `reload` forces a look.
    pub async fn run(mut self, reload: Arc<Notify>, stop: CancellationToken) -> TaskResult {
        loop {
            let forced = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = reload.notified() => true,
                () = sleep(RELOAD_POLL) => false,
            };
            let mut now = self.fingerprint().await?;
            if now == self.seen && !forced {
                continue;
            }
            // An empty registry is a valid one: never read a file that is still being written.
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = sleep(RELOAD_SETTLE) => {}
                }
                let later = self.fingerprint().await?;
                if later == now {
                    break;
                }
                now = later;
            }
            self.seen = now;
            self.reload().await?;
        }
    }

    async fn fingerprint(&self) -> Result<Fingerprint, tokio::task::JoinError> {
        let config = self.config.clone();
        spawn_blocking(move || Fingerprint::take(&config)).await
    }

    async fn reload(&mut self) -> Result<(), tokio::task::JoinError> {
        let config = self.config.clone();
        let plain_policies = self.sender.borrow().plain_policies.clone();
        let loaded = spawn_blocking(move || snapshot::reload(&config, &plain_policies)).await?;
        match loaded {
            Ok(mut snapshot) => {
                snapshot.generation = self.sender.borrow().generation + 1;
                tracing::info!(
                    generation = snapshot.generation,
                    things = snapshot.things().count(),
                    "Registry, policies and certificates reloaded."
                );
                self.seen = snapshot.fingerprint.clone();
                self.sender.send_replace(Arc::new(snapshot));
                self.metrics.reloads.with_label_values(&["applied"]).inc();
                self.metrics.stale.set(0);
            }
            Err(Refused {
                problems,
                narrowing,
            }) => {
                for problem in &problems {
                    tracing::error!(%problem, "The change has a mistake.");
                }
                tracing::error!(
                    problems = problems.len(),
                    "The change is refused; the last good configuration stays in force."
                );
                self.metrics.reloads.with_label_values(&["refused"]).inc();
                self.metrics.stale.set(1);
                let narrowed = narrowing.and_then(|newer| self.sender.borrow().narrowed(&newer));
                if let Some(narrowed) = narrowed {
                    tracing::warn!(
                        generation = narrowed.generation,
                        "Things and certificates that the registry takes away are refused from now on."
                    );
                    self.sender.send_replace(Arc::new(narrowed));
                }
            }
        }
        self.show();
        Ok(())
    }

    fn show(&self) {
        let snapshot = self.sender.borrow();
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.generation.set(gauge(snapshot.generation));
        let things = snapshot.things().count();
        self.metrics
            .things
            .set(i64::try_from(things).unwrap_or(i64::MAX));
    }
}

/// What changes when a file does, without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<(PathBuf, Option<Stamp>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn take(config: &Config) -> Self {
        let mut files = vec![
            config.registry.clone(),
            config.policies.clone(),
            config.server_certificate.clone(),
            config.server_key.clone(),
        ];
        files.extend(config.ca_certificates.iter().cloned());
        files.extend(json_files(&config.policies).unwrap_or_default());
        let stamped = files.into_iter().map(|file| {
            let stamp = stamp(&file);
            (file, stamp)
        });
        Self(stamped.collect())
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        bytes: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}
