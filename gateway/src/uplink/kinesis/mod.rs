//! Kinesis Data Streams: `PutRecords`, one request at a time, every record's outcome honoured.
//!
//! Order per partition key is *relaxed* (specification D.3): records go oldest first, a failed one is
//! tried again before any newer record of its key is sent, but its younger siblings in the same
//! request may have landed before it. `seq` in the body tells the consumer.
//! The cursor moves over the contiguous prefix of what the stream has (or what was set aside); a
//! crash sends the rest of the window again. A request that is refused as invalid is halved until
//! the culprit is alone, and that record goes to the dead letters; so does one that is too large.
//! A request that gets no answer in time is halved as well, in bytes: the link may be slow, and the
//! whole of it again would take as long again.

use std::{path::PathBuf, time::Duration};

use portcullis_core::{
    batch::BatchLimits,
    limits::{
        DEAD_LETTER_STREAK_MAX, PUT_RECORDS_BYTES_MAX, PUT_RECORDS_BYTES_MIN, PUT_RECORDS_MAX,
        RECORD_ATTEMPTS_MAX, RECORD_BYTES_MAX, UPLINK_DRAIN_MAX, UPLINK_LINGER,
    },
};
use tokio::{
    select,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    KinesisConfig, Metrics, RecordSource,
    source::{Next, next},
    state::{Failure, Link},
};
use crate::supervisor::TaskResult;

mod client;
mod dead_letter;
mod window;

use client::{Client, RecordOutcome};
use dead_letter::DeadLetters;
use window::{Window, picked_bytes};

pub(super) async fn run<S: RecordSource>(
    config: KinesisConfig,
    dead_letter_dir: PathBuf,
    source: S,
    metrics: Metrics,
    stop: CancellationToken,
) -> TaskResult {
    info!(
        stream = config.stream,
        region = config.region,
        "Records go to Kinesis."
    );
    let shipper = Shipper {
        client: Client::new(&config).await,
        dead_letters: DeadLetters::new(dead_letter_dir, metrics.clone()),
        source,
        window: Window::default(),
        link: Link::new(metrics.clone()),
        metrics,
        batch_records_max: PUT_RECORDS_MAX,
        batch_bytes_max: PUT_RECORDS_BYTES_MAX,
        invalid_streak: 0,
        partial_failures: 0,
        filled_at: Instant::now(),
        stop: stop.clone(),
    };
    let last_attempt_over = async {
        stop.cancelled().await;
        sleep(UPLINK_DRAIN_MAX).await;
    };
    select! {
        () = shipper.ship() => {}
        () = last_attempt_over => {
            warn!("The last attempt took too long; the rest stays in the buffer.");
        }
    }
    Ok(())
}

/// Records read and not accepted yet: enough that one stuck key does not stop the others at once.
const WINDOW: BatchLimits = BatchLimits {
    records_max: 4 * PUT_RECORDS_MAX,
    bytes_max: 2 * PUT_RECORDS_BYTES_MAX,
};

struct Shipper<S> {
    client: Client,
    dead_letters: DeadLetters,
    source: S,
    window: Window,
    link: Link,
    metrics: Metrics,
    /// Halved while the service calls requests invalid, doubled again while it does not.
    batch_records_max: usize,
    /// Halved while requests get no answer in time. Grows slowly: on a slow link each try that is
    /// too large costs a whole timeout.
    batch_bytes_max: usize,
    /// Records set aside as invalid since the stream last took one.
    invalid_streak: u32,
    /// Answers in a row in which most records failed.
    partial_failures: u32,
    /// When the window was last empty and got a record.
    filled_at: Instant,
    stop: CancellationToken,
}

/// What follows a request.
enum Then {
    /// The next, at once.
    GoOn,
    /// The next, after a while; at stop, the end.
    Wait(Duration),
}

impl<S: RecordSource> Shipper<S> {
    async fn ship(mut self) {
        loop {
            if !self.fill().await {
                return;
            }
            let then = self.send().await;
            if let Some(upto_seq) = self.window.take_prefix() {
                self.source.accept(upto_seq).await;
            }
            match then {
                Then::GoOn => {}
                Then::Wait(_) if self.stop.is_cancelled() => return,
                Then::Wait(delay) => select! {
                    () = sleep(delay) => {}
                    () = self.stop.cancelled() => {}
                },
            }
        }
    }

    /// Reads until a request is full, or has waited for company; `false` if there is nothing left
    /// to do for ever.
    async fn fill(&mut self) -> bool {
        loop {
            let room = self.window.room(WINDOW);
            let picked = self.window.pick(self.batch_limits()).len();
            if picked >= self.batch_records_max || room.records() == 0 || room.bytes() == 0 {
                return true;
            }
            let linger = self.filled_at + UPLINK_LINGER;
            let company = picked > 0
                && self.source.unread() == 0
                && (Instant::now() >= linger || self.stop.is_cancelled());
            if company {
                return true;
            }
            let bytes_max = room.bytes().min(PUT_RECORDS_BYTES_MAX);
            let read = next(&mut self.source, room.records(), bytes_max, &self.stop);
            let read = if picked == 0 {
                read.await
            } else {
                match timeout_at(linger, read).await {
                    Ok(read) => read,
                    Err(_) => return true,
                }
            };
            match read {
                Next::Records(records) => {
                    if picked == 0 {
                        self.filled_at = Instant::now();
                    }
                    for record in records {
                        self.window.push(record);
                    }
                }
                Next::Done => return picked > 0,
            }
        }
    }

    fn batch_limits(&self) -> BatchLimits {
        BatchLimits {
            records_max: self.batch_records_max,
            bytes_max: self.batch_bytes_max,
        }
    }

    async fn send(&mut self) -> Then {
        if let Some(then) = self.set_oversize_aside().await {
            return then;
        }
        let picked = self.window.pick(self.batch_limits());
        if picked.is_empty() {
            return Then::GoOn;
        }
        self.metrics.attempts.inc();
        let batch: Vec<_> = picked.iter().map(|at| self.window.record(*at)).collect();
        let sizes = (batch.len(), picked_bytes(&batch));
        match self.client.put_records(&batch).await {
            Ok(outcomes) => self.take_outcomes(&picked, sizes.1, outcomes).await,
            Err((failure, detail)) => {
                self.metrics.failed(failure.reason(), sizes.0);
                self.take_failure(failure, &detail, &picked, sizes.1).await
            }
        }
    }

    /// Records above the stream's limit never travel.
    async fn set_oversize_aside(&mut self) -> Option<Then> {
        while let Some(at) = self.window.first_above(RECORD_BYTES_MAX) {
            if let Err(then) = self
                .set_aside(at, "oversize", "above the limit of a record")
                .await
            {
                return Some(then);
            }
        }
        None
    }

    async fn take_outcomes(
        &mut self,
        picked: &[usize],
        bytes: usize,
        outcomes: Vec<RecordOutcome>,
    ) -> Then {
        let mut failed = 0;
        let mut worst = None;
        let mut poison = Vec::new();
        for (at, outcome) in picked.iter().zip(outcomes) {
            match outcome {
                RecordOutcome::Accepted => self.window.accept(*at),
                RecordOutcome::Failed { failure, detail } => {
                    failed += 1;
                    self.metrics.failed(failure.reason(), 1);
                    let attempts = self.window.fail(*at);
                    if failure == Failure::Refused && attempts >= RECORD_ATTEMPTS_MAX {
                        poison.push((*at, detail));
                    } else {
                        worst = Some((failure, detail));
                    }
                }
            }
        }
        for (at, detail) in poison {
            if let Err(then) = self.set_aside(at, "refused", &detail).await {
                return then;
            }
        }
        let accepted = picked.len() - failed;
        if accepted > 0 {
            self.link.up();
            self.invalid_streak = 0;
            self.batch_records_max = (self.batch_records_max * 2).min(PUT_RECORDS_MAX);
            self.batch_bytes_max =
                (self.batch_bytes_max + self.batch_bytes_max / 8).min(PUT_RECORDS_BYTES_MAX);
            self.metrics
                .sent(accepted, bytes * accepted / picked.len().max(1));
            let oldest = self.window.record(picked[0]);
            self.metrics.note_lag(Some(&oldest.body));
        }
        let Some((failure, detail)) = worst else {
            self.partial_failures = 0;
            return Then::GoOn;
        };
        if accepted == 0 {
            return Then::Wait(self.link.down(failure, &detail));
        }
        // Wait longer only while most of what is sent fails.
        self.partial_failures = if failed * 2 > picked.len() {
            self.partial_failures.saturating_add(1)
        } else {
            1
        };
        Then::Wait(failure.delay(self.partial_failures))
    }

    async fn take_failure(
        &mut self,
        failure: Failure,
        detail: &str,
        picked: &[usize],
        bytes: usize,
    ) -> Then {
        if failure == Failure::TimedOut {
            // What was sent may be less than was allowed; one record cannot be halved.
            self.batch_bytes_max = (bytes / 2).max(PUT_RECORDS_BYTES_MIN);
        }
        if failure != Failure::Invalid {
            return Then::Wait(self.link.down(failure, detail));
        }
        if picked.len() > 1 {
            self.batch_records_max = picked.len() / 2;
            return Then::GoOn;
        }
        self.invalid_streak += 1;
        if let Err(then) = self.set_aside(picked[0], "invalid", detail).await {
            return then;
        }
        if self.invalid_streak > DEAD_LETTER_STREAK_MAX {
            // Not the records, it seems, but the stream or our settings: lose them slowly, and aloud.
            return Then::Wait(self.link.down(Failure::Refused, detail));
        }
        Then::GoOn
    }

    /// Moves a record to the dead letters; if they cannot be written, it stays where it is.
    async fn set_aside(
        &mut self,
        at: usize,
        reason: &'static str,
        detail: &str,
    ) -> Result<(), Then> {
        let record = self.window.record(at).clone();
        match self.dead_letters.put(record, reason, detail).await {
            Ok(()) => {
                self.window.accept(at);
                Ok(())
            }
            Err(error) => Err(Then::Wait(
                self.link.down(Failure::Disk, &error.to_string()),
            )),
        }
    }
}
