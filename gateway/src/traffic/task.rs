//! The task that owns this hour's facts.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use portcullis_core::{
    learn::{Actor, Noted, Observations},
    timestamp::Timestamp,
};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Metrics, Recorder,
    files::{self, Hour},
};
use crate::{chain::chain, clock::now, supervisor::TaskResult};

/// How often what was counted is looked at.
const TICK: Duration = Duration::from_millis(500);
/// A file with new facts is written at most this often; with [`TICK`], they are there within a second.
const NEW_FACTS_INTERVAL: Duration = Duration::from_millis(500);
/// However often there are new facts, writing takes no more than this part of the time.
const SHARE_OF_TIME: u32 = 20;
/// A file with nothing new but counts is written this often.
const COUNTS_INTERVAL: Duration = Duration::from_secs(60);

/// Keeps what the [`Recorder`] counts.
#[derive(Debug)]
pub struct Traffic {
    dir: PathBuf,
    recorder: Recorder,
    metrics: Metrics,
    hour: Hour,
    facts: Observations,
    unwritten: Unwritten,
    written: Option<Instant>,
    /// How long that took.
    took: Duration,
    is_failing: bool,
}

/// What the file does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unwritten {
    Nothing,
    Counts,
    Facts,
}

impl Traffic {
    /// Facts are kept in `dir`, which is made when there is something to write.
    pub fn new(dir: PathBuf, metrics: Metrics) -> (Self, Recorder) {
        let recorder = Recorder::new(metrics.clone());
        let traffic = Self {
            dir,
            recorder: recorder.clone(),
            metrics,
            hour: Hour::of(now()),
            facts: Observations::new(files::BOUNDS),
            unwritten: Unwritten::Nothing,
            written: None,
            took: Duration::ZERO,
            is_failing: false,
        };
        (traffic, recorder)
    }

    /// Runs until `stop`; then keeps what was counted and ends.
    ///
    /// # Errors
    /// If a thread panicked.
    pub async fn run(mut self, stop: CancellationToken) -> TaskResult {
        self = self.on_a_thread(|traffic| traffic.begin(now())).await?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Both branches are cancel-safe: `tick` says so, a token keeps its state.
            tokio::select! {
                _ = ticks.tick() => {
                    self = self.on_a_thread(|traffic| traffic.keep(now())).await?;
                }
                () = stop.cancelled() => break,
            }
        }
        self.on_a_thread(Self::end).await?;
        Ok(())
    }

    async fn on_a_thread(
        mut self,
        work: impl FnOnce(&mut Self) + Send + 'static,
    ) -> Result<Self, tokio::task::JoinError> {
        spawn_blocking(move || {
            work(&mut self);
            self
        })
        .await
    }

    /// Goes on with the file of this hour, if there is one.
    pub(super) fn begin(&mut self, at: Timestamp) {
        self.hour = Hour::of(at);
        match files::read(&self.dir, self.hour) {
            Ok(facts) => self.facts = facts,
            Err(error) => {
                let error = chain(&error);
                warn!(%error, "The traffic of this hour starts afresh.");
                self.facts = Observations::new(files::BOUNDS);
            }
        }
        if let Err(error) = files::prune(&self.dir, at) {
            warn!(%error, dir = %self.dir.display(), "Old traffic cannot be removed.");
        }
    }

    /// Makes facts of what was counted, and writes them when it is time.
    pub(super) fn keep(&mut self, at: Timestamp) {
        self.take();
        if Hour::of(at) != self.hour {
            self.write();
            self.unwritten = Unwritten::Nothing;
            self.begin(at);
        }
        let wait = match self.unwritten {
            Unwritten::Nothing => return,
            Unwritten::Counts => COUNTS_INTERVAL,
            Unwritten::Facts => NEW_FACTS_INTERVAL.max(self.took * SHARE_OF_TIME),
        };
        if self.written.is_none_or(|written| written.elapsed() >= wait) {
            self.write();
        }
    }

    pub(super) fn end(&mut self) {
        self.take();
        self.write();
    }

    fn take(&mut self) {
        for recent in self.recorder.take() {
            let actor = Actor {
                thing: &recent.thing,
                client_id: recent.client_id.as_str(),
            };
            let span = (recent.first, recent.last);
            let noted = self.facts.note(
                &actor,
                recent.action,
                &recent.resource,
                recent.times,
                span,
                &recent.ground,
            );
            let (counter, unwritten) = match noted {
                Noted::New => (&self.metrics.observed, Unwritten::Facts),
                Noted::Known => (&self.metrics.observed, Unwritten::Counts),
                Noted::Lost => (&self.metrics.lost, Unwritten::Counts),
            };
            counter.inc_by(recent.times);
            self.unwritten = self.unwritten.max(unwritten);
        }
        self.metrics
            .facts
            .set(i64::try_from(self.facts.len()).unwrap_or(i64::MAX));
    }

    fn write(&mut self) {
        if self.unwritten == Unwritten::Nothing {
            return;
        }
        let started = Instant::now();
        let outcome = files::write(&self.dir, self.hour, &self.facts);
        self.written = Some(started);
        self.took = started.elapsed();
        match outcome {
            Ok(()) => {
                self.unwritten = Unwritten::Nothing;
                self.is_failing = false;
            }
            Err(error) => {
                self.metrics.write_failures.inc();
                if !self.is_failing {
                    let error = chain(&error);
                    warn!(%error, "Traffic cannot be kept; policies cannot be learned from it.");
                }
                self.is_failing = true;
            }
        }
    }
}
