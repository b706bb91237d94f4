//! Looks at the files and publishes a new snapshot when they change.
//!
//! Polling metadata needs no kernel interface that a container or a network file system might not
//! have, and a dozen `stat` calls ten times a second cost nothing. A change with any mistake is
//! refused whole: every problem is logged and noted in `/readyz`, the last good snapshot stays. One thing does not wait
//! for the correction: what a registry without mistakes takes away, such as a revoked certificate,
//! and what a new revocation list names, is taken from the last good snapshot at once, and `/readyz`
//! says how much that is.
//!
//! A registry that lacks things, certificates or groups may be one that is still being copied. They
//! stay until it has been unchanged for a moment ([`RELOAD_SETTLE_LOSS`]), unless it replaced the
//! former file in one step, as the commands do; a worse state of a certificate does not wait.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use portcullis_core::{
    limits::{RELOAD_POLL, RELOAD_SETTLE, RELOAD_SETTLE_LOSS},
    problem::Problem,
};
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Metrics, Registry, Snapshot,
    registry::{RegisteredCa, line::Reading},
    snapshot::{Loader, Refused, Taken},
    trust::{Lists, server_names},
};
use crate::{supervisor::TaskResult, telemetry::Readiness};

/// The newest good snapshot.
pub type SnapshotWatch = watch::Receiver<Arc<Snapshot>>;

/// The task that keeps the snapshot new.
#[derive(Debug)]
pub struct Watcher {
    config: Config,
    metrics: Metrics,
    readiness: Readiness,
    /// `None` while it reads.
    loader: Option<Loader>,
    sender: watch::Sender<Arc<Snapshot>>,
    /// Of the files that were last loaded, or refused.
    seen: Fingerprint,
    /// Since when the registry is as it is in `seen`.
    unchanged_since: Instant,
    /// Whether it replaced the former one in one step.
    is_replaced: bool,
    /// It lacks something, and is to be read again once it has been unchanged for longer.
    is_held: bool,
    /// Since the last good change.
    taken: Taken,
}

impl Watcher {
    /// Starts from `initial`, which was loaded from `config`.
    pub fn new(config: Config, initial: Snapshot, metrics: Metrics) -> (Self, SnapshotWatch) {
        let seen = initial.fingerprint.clone();
        let loader = Loader::after(config.clone(), initial.trust());
        let (sender, receiver) = watch::channel(Arc::new(initial));
        let watcher = Self {
            loader: Some(loader),
            config,
            metrics,
            readiness: Readiness::default(),
            sender,
            seen,
            unchanged_since: Instant::now(),
            is_replaced: false,
            is_held: false,
            taken: Taken::default(),
        };
        watcher.show();
        (watcher, receiver)
    }

    /// Says in `readiness` what is refused.
    #[must_use]
    pub fn noting(self, readiness: Readiness) -> Self {
        Self { readiness, ..self }
    }

    /// Runs until `stop`; `reload` forces a look.
    pub async fn run(mut self, reload: Arc<Notify>, stop: CancellationToken) -> TaskResult {
        self.keep_names(true).await?;
        loop {
            let forced = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = reload.notified() => true,
                () = sleep(RELOAD_POLL) => false,
            };
            let mut now = self.fingerprint().await?;
            if now == self.seen && !forced && !(self.is_held && self.is_settled()) {
                continue;
            }
            // Better not read a file that is still being written.
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
            if now.registry() != self.seen.registry() {
                self.is_replaced = now.is_replacement_of(&self.seen);
                self.unchanged_since = Instant::now();
            }
            self.seen = now;
            self.reload().await?;
        }
    }

    async fn fingerprint(&self) -> Result<Fingerprint, JoinError> {
        let (config, seen) = (self.config.clone(), self.seen.clone());
        spawn_blocking(move || seen.again(&config)).await
    }

    /// See [`server_names`].
    async fn keep_names(&self, at_start: bool) -> Result<(), JoinError> {
        let (config, snapshot) = (self.config.clone(), self.sender.borrow().clone());
        spawn_blocking(move || server_names::keep(&config, snapshot.trust(), at_start)).await
    }

    async fn reload(&mut self) -> Result<(), JoinError> {
        let started = Instant::now();
        let loader = self.loader.take();
        let mut loader = loader
            .unwrap_or_else(|| Loader::after(self.config.clone(), self.sender.borrow().trust()));
        let plain_policies = self.sender.borrow().plain_policies.clone();
        let (loader, loaded) = spawn_blocking(move || {
            let loaded = loader.reload(&plain_policies);
            (loader, loaded)
        })
        .await?;
        self.loader = Some(loader);
        let former = Arc::clone(&self.sender.borrow());
        let newer = match &loaded {
            Ok(snapshot) => Some(snapshot.file()),
            Err(refused) => refused.file.as_ref(),
        };
        let whole = newer.filter(|_| !self.is_settled());
        let whole = whole
            .and_then(|newer| former.with_lost(newer))
            .map(Arc::new);
        self.is_held = whole.is_some();
        let is_taken = loaded.is_ok() && whole.is_none();
        match (loaded, whole) {
            (Ok(snapshot), None) => self.take(snapshot, started.elapsed()),
            (Ok(snapshot), Some(whole)) => {
                tracing::info!(
                    "The registry lacks what it had; it is read again once it has been unchanged for a moment."
                );
                let lists = snapshot.trust().lists();
                self.narrow(Some(&whole), Some(snapshot.journal()), &lists);
            }
            (Err(refused), whole) => self.refuse(*refused, whole),
        }
        self.show();
        if is_taken {
            self.keep_names(false).await?;
        }
        Ok(())
    }

    /// Whether what the registry lacks may be taken away.
    fn is_settled(&self) -> bool {
        self.is_replaced || self.unchanged_since.elapsed() >= RELOAD_SETTLE_LOSS
    }

    fn take(&mut self, mut snapshot: Snapshot, took: Duration) {
        snapshot.generation = self.sender.borrow().generation + 1;
        tracing::info!(
            generation = snapshot.generation,
            things = snapshot.things().count(),
            took_ms = took.as_millis(),
            "Registry, policies and certificates reloaded."
        );
        self.seen = snapshot.fingerprint.clone();
        self.sender.send_replace(Arc::new(snapshot));
        self.metrics.reloads.with_label_values(&["applied"]).inc();
        self.metrics.stale.set(0);
        self.taken = Taken::default();
        self.readiness.note(NOTE, None);
    }

    /// `whole` is the registry with what it lacks, if that is not to be taken away yet.
    fn refuse(&mut self, refused: Refused, whole: Option<Arc<Registry>>) {
        let Refused {
            problems,
            file,
            journal,
            lists,
        } = refused;
        for problem in &problems {
            tracing::error!(%problem, "The change has a mistake.");
        }
        tracing::error!(
            problems = problems.len(),
            "The change is refused; the last good configuration stays in force."
        );
        self.metrics.reloads.with_label_values(&["refused"]).inc();
        self.metrics.stale.set(1);
        let file = whole.or(file);
        self.narrow(file.as_deref(), journal.as_ref(), &lists);
        self.readiness.note(NOTE, Some(note(&problems, self.taken)));
    }

    fn narrow(&mut self, file: Option<&Registry>, journal: Option<&Arc<Reading>>, lists: &Lists) {
        let former = Arc::clone(&self.sender.borrow());
        if let Some((narrowed, taken)) = former.narrowed(file, journal, lists) {
            self.taken.things += taken.things;
            self.taken.certificates += taken.certificates;
            tracing::warn!(
                generation = narrowed.generation,
                things = taken.things,
                certificates = taken.certificates,
                "Things and certificates that the registry takes away are refused from now on."
            );
            self.sender.send_replace(Arc::new(narrowed));
        }
    }

    fn show(&self) {
        let snapshot = self.sender.borrow();
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.generation.set(gauge(snapshot.generation));
        let things = snapshot.things().count();
        self.metrics
            .things
            .set(i64::try_from(things).unwrap_or(i64::MAX));
        let taken = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (things, certificates) = (self.taken.things, self.taken.certificates);
        self.metrics.narrowed_things.set(taken(things));
        self.metrics.narrowed_certificates.set(taken(certificates));
    }
}

/// Of the line in `/readyz`.
const NOTE: &str = "registry";

/// `refused: 2 mistakes in registry.toml:3 registry.toml:7; the last good …`.
fn note(problems: &[Problem], taken: Taken) -> String {
    const SHOWN: usize = 5;
    let mut places: Vec<String> = problems
        .iter()
        .take(SHOWN)
        .map(|problem| match problem.place {
            Some(place) => format!("{}:{}", problem.file.display(), place.line),
            None => problem.file.display().to_string(),
        })
        .collect();
    places.dedup();
    if problems.len() > SHOWN {
        places.push("…".to_owned());
    }
    let count = match problems.len() {
        1 => "1 mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    let places = places.join(" ");
    let narrowed = if taken == Taken::default() {
        String::new()
    } else {
        let Taken {
            things,
            certificates,
        } = taken;
        format!(", narrowed: {things} things, {certificates} certificates taken away")
    };
    format!("refused: {count} in {places}; the last good configuration is in force{narrowed}")
}

/// What changes when a file does, without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// Files that the registry names; they come last.
    cas: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn take(config: &Config) -> Self {
        let stamps = config.watched().into_iter().map(stamped).collect();
        Self {
            stamps,
            cas: Vec::new(),
        }
    }

    /// Watches the files of `cas`, too. Before they are read.
    pub(super) fn add_cas(&mut self, config: &Config, cas: &[RegisteredCa]) {
        let dir = config.registry.parent().unwrap_or(Path::new(""));
        self.cas = cas.iter().map(|ca| dir.join(&ca.certificate)).collect();
        self.stamps.extend(self.cas.iter().cloned().map(stamped));
    }

    /// The registry comes first.
    fn registry(&self) -> Option<Stamp> {
        self.stamps.first().and_then(|(_, stamp)| *stamp)
    }

    /// Whether the registry is another file than in `former`, renamed after it was written.
    fn is_replacement_of(&self, former: &Self) -> bool {
        match (self.registry(), former.registry()) {
            (Some(new), Some(old)) => new.inode != old.inode && new.changed > new.modified,
            _ => false,
        }
    }

    /// Of the same files now.
    fn again(&self, config: &Config) -> Self {
        let mut now = Self::take(config);
        now.cas.clone_from(&self.cas);
        now.stamps.extend(self.cas.iter().cloned().map(stamped));
        now
    }
}

fn stamped(file: PathBuf) -> (PathBuf, Option<Stamp>) {
    let stamp = stamp(&file);
    (file, stamp)
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
