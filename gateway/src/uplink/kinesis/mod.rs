//! Kinesis Data Streams: `PutRecords`, several requests under way, every record's outcome honoured.
//!
//! ```text
//! source ─ read ─ Window ─ pick (Pacer admits) ─ request ─ answers ─ Window ─ settle
//! ```
//! One task holds all state; requests are tasks that carry values in and out. What is picked, and
//! why order holds, is told in [`window`]; what is sent when, in [`pace`]; what follows an answer or a
//! failure, in [`answers`]. The cursors move over the contiguous prefix of what the stream has (or what
//! was set aside); a crash sends the rest of the window again.
//!
//! Without a link one request probes at a time, further and further apart; with one, the first success
//! brings the others back.

use std::{error::Error, time::Duration};

use portcullis_core::{
    batch::BatchLimits,
    limits::{
        CONNECT_BACKOFF_BASE, PUT_RECORDS_MAX, SHARDS_INTERVAL, SHARDS_INTERVAL_MIN,
        SPLIT_BACKLOG_MIN, UPLINK_DRAIN_MAX, UPLINK_WINDOW_RECORDS_MAX,
    },
    record::{Lane, Record},
    upstream::{
        health::State,
        shards::{Shard, hash_key},
    },
};
use tokio::{
    select,
    task::{JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Order, Part, RecordSource, SourceError, StreamConfig,
    dead_letter::DeadLetters,
    metrics::SinkMetrics,
    state::{Failure, Link},
};
use crate::{clock, supervisor::TaskResult};

mod answers;
mod check;
mod client;
mod pace;
mod request;
mod window;

use check::Depth;
use client::{Client, RecordOutcome, Refusal, Skew};
use pace::{Now, Pacer};
use request::{Body, Group, aggregated};
use window::{Company, Pick, STRANDS, Window};

pub(super) async fn run<S: RecordSource>(
    config: StreamConfig,
    dead_letters: DeadLetters,
    source: S,
    metrics: SinkMetrics,
    stop: CancellationToken,
) -> TaskResult {
    let (stream, region) = (config.stream.as_str(), config.region.as_str());
    info!(
        sink = metrics.sink(),
        stream, region, "Records go to Kinesis."
    );
    let shipper = Shipper::new(config, dead_letters, source, metrics, stop.clone()).await;
    let last_attempt_over = async {
        stop.cancelled().await;
        sleep(UPLINK_DRAIN_MAX).await;
    };
    select! {
        ended = shipper.ship() => ended,
        () = last_attempt_over => {
            warn!("The last attempt took too long; the rest stays in the buffer.");
            Ok(())
        }
    }
}

struct Shipper<S> {
    config: StreamConfig,
    client: Client,
    dead_letters: DeadLetters,
    source: S,
    window: Window,
    pacer: Pacer,
    link: Link,
    metrics: SinkMetrics,
    requests: JoinSet<Flown>,
    looks: JoinSet<Option<Vec<Shard>>>,
    looked_at: u64,
    /// Nothing is sent before.
    held_until: u64,
    /// When a whole request failed last.
    failed_at: u64,
    /// Adapts to the stream: halved while most of what is sent fails, a tenth more while all is taken.
    batch_records_max: usize,
    /// Halved while requests get no answer in time. Grows slowly: on a slow link each try that is
    /// too large costs a whole timeout.
    batch_bytes_max: usize,
    /// One while the link is not sure.
    requests_max: usize,
    /// Records set aside as invalid since the stream last took one.
    invalid_streak: u32,
    /// Strands that were read to their end; until something is appended.
    is_dry: [bool; STRANDS.len()],
    /// Lanes of which a live part goes before the backlog.
    is_split: [bool; STRANDS.len() / 2],
    /// Nothing more will be appended.
    is_closed: bool,
    /// The source is not asked before.
    unreadable_until: u64,
    skew_told: bool,
    /// The last attempt has failed.
    gave_up: bool,
    stop: CancellationToken,
}

/// A request that is over.
struct Flown {
    pick: Pick,
    /// Which records travelled as one, if they did.
    groups: Option<Vec<Group>>,
    result: Result<Vec<RecordOutcome>, Refusal>,
    started_at: u64,
}

fn now() -> Now {
    Now {
        ticks: clock::ticks(),
        unix_millis: clock::now().as_millis(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<S: RecordSource> Shipper<S> {
    async fn new(
        config: StreamConfig,
        dead_letters: DeadLetters,
        source: S,
        metrics: SinkMetrics,
        stop: CancellationToken,
    ) -> Self {
        let linger = millis(config.linger);
        Self {
            client: Client::new(&config, Skew::default()).await,
            dead_letters,
            source,
            window: Window::new(config.ordering, config.requests_in_flight, linger),
            pacer: Pacer::new(&config, now()),
            link: Link::new(metrics.clone(), config.waits),
            metrics,
            requests: JoinSet::new(),
            looks: JoinSet::new(),
            looked_at: 0,
            held_until: 0,
            failed_at: 0,
            batch_records_max: PUT_RECORDS_MAX,
            batch_bytes_max: config.batch_bytes_max,
            requests_max: config.requests_in_flight,
            invalid_streak: 0,
            is_dry: Default::default(),
            is_split: Default::default(),
            is_closed: false,
            unreadable_until: 0,
            skew_told: false,
            gave_up: false,
            stop,
            config,
        }
    }

    async fn ship(mut self) -> TaskResult {
        self.look(Depth::Whole);
        self.split().await;
        let mut is_last_chance = false;
        loop {
            if self.stop.is_cancelled() && !is_last_chance {
                is_last_chance = true;
                self.held_until = 0;
                self.window.release();
            }
            let has_read = self.fill().await;
            while let Some(flown) = self.requests.try_join_next() {
                self.land(flown).await?;
            }
            self.dispatch().await;
            self.metrics.note_backlog(self.backlog());
            if self.is_over(has_read) {
                return Ok(());
            }
            if !has_read {
                self.wait().await?;
            }
        }
    }

    fn is_over(&self, has_read: bool) -> bool {
        let is_done = self.gave_up || self.window.is_empty() && !has_read;
        self.stop.is_cancelled() && self.requests.is_empty() && is_done
    }

    fn backlog(&self) -> u64 {
        let unread = STRANDS
            .iter()
            .map(|(lane, part)| self.source.unread(*lane, *part));
        unread.sum::<u64>() + u64::try_from(self.window.records()).unwrap_or(0)
    }

    /// Until there may be something to do.
    async fn wait(&mut self) -> TaskResult {
        let wake = self.wakes_in();
        let wants_more = !self.is_closed && self.is_dry.contains(&true);
        let is_stopping = self.stop.is_cancelled();
        select! {
            Some(flown) = self.requests.join_next(), if !self.requests.is_empty() => {
                self.land(flown).await?;
            }
            Some(shards) = self.looks.join_next(), if !self.looks.is_empty() => {
                self.learn(shards.ok().flatten());
            }
            changed = self.source.changed(), if wants_more => match changed {
                Ok(()) => self.is_dry = Default::default(),
                Err(SourceError::Closed) => self.is_closed = true,
                Err(SourceError::Unavailable(error)) => self.is_unreadable(error),
            },
            () = sleep(wake.unwrap_or(SHARDS_INTERVAL)) => {}
            () = self.stop.cancelled(), if !is_stopping => {}
        }
        if clock::ticks() >= self.looked_at + millis(SHARDS_INTERVAL) {
            self.look(Depth::Shards);
        }
        Ok(())
    }

    fn wakes_in(&self) -> Option<Duration> {
        let now = clock::ticks();
        let readable = (self.unreadable_until > now).then_some(self.unreadable_until);
        let sends = self.requests.len() < self.requests_max && !self.gave_up;
        let due = sends.then(|| self.window.wakes_at()).flatten();
        let due = due.map(|at| at.max(self.held_until));
        let at = [readable, due].into_iter().flatten().min()?;
        Some(Duration::from_millis(at.saturating_sub(now).max(1)))
    }

    /// Lets what comes from now on go before the backlog, if the settings say so and there is one.
    async fn split(&mut self) {
        if self.config.order != Order::LiveFirst {
            return;
        }
        for (at, lane) in [Lane::Critical, Lane::Events].into_iter().enumerate() {
            let backlog = self.source.unread(lane, Part::Backlog);
            if !self.is_split[at] && backlog >= SPLIT_BACKLOG_MIN {
                self.source.split(lane).await;
                self.is_split[at] = true;
                info!(
                    sink = self.metrics.sink(),
                    lane = lane.name(),
                    backlog,
                    "New records go before the backlog."
                );
            }
        }
    }

    /// Reads what there is and has room, urgent first; whether anything came.
    async fn fill(&mut self) -> bool {
        if clock::ticks() < self.unreadable_until {
            return false;
        }
        let mut has_read = false;
        for strand in 0..STRANDS.len() {
            has_read |= self.fill_strand(strand).await;
        }
        has_read
    }

    async fn fill_strand(&mut self, strand: usize) -> bool {
        let (lane, part) = STRANDS[strand];
        let room = self.window.room(strand, self.window_limits(lane));
        if self.is_dry[strand] || room.records_max == 0 || room.bytes_max == 0 {
            return false;
        }
        if self.source.unread(lane, part) == 0 || !self.may_read(strand) {
            self.is_dry[strand] = true;
            return false;
        }
        let records_max = room.records_max.min(PUT_RECORDS_MAX);
        let bytes_max = room.bytes_max.min(self.config.batch_bytes_max);
        match self.source.read(lane, part, records_max, bytes_max).await {
            Ok(records) => {
                self.is_dry[strand] = records.is_empty();
                let has_read = !records.is_empty();
                self.push(strand, records);
                has_read
            }
            Err(SourceError::Closed) => {
                self.is_dry[strand] = true;
                false
            }
            Err(SourceError::Unavailable(error)) => {
                self.is_unreadable(error);
                false
            }
        }
    }

    /// The backlog goes on behind a live part only when nothing of that is under way any more: both
    /// have one cursor then.
    fn may_read(&mut self, strand: usize) -> bool {
        let (lane, part) = STRANDS[strand];
        if part == Part::Live {
            return true;
        }
        let is_through = self.source.unread(lane, Part::Backlog) == 0;
        if is_through && self.window.is_strand_empty(strand) {
            self.is_split[strand / 2] = false;
        }
        self.is_split[strand / 2] || self.window.is_strand_empty(strand - 1)
    }

    fn push(&mut self, strand: usize, records: Vec<Record>) {
        let now = clock::ticks();
        // What is read as backlog from where the live part has begun belongs behind it.
        let live = match STRANDS[strand].1 {
            Part::Backlog => self.window.first_place(strand - 1),
            Part::Live => None,
        };
        for record in records {
            let of_live = live.is_some_and(|first| record.place >= first);
            let strand = if of_live { strand - 1 } else { strand };
            let hash_key = hash_key(&record.partition_key);
            self.window.push(strand, record, hash_key, now);
        }
    }

    fn window_limits(&self, lane: Lane) -> BatchLimits {
        let share = if lane == Lane::Critical { 8 } else { 1 };
        BatchLimits {
            records_max: UPLINK_WINDOW_RECORDS_MAX / share,
            bytes_max: 2 * self.config.batch_bytes_max / share,
        }
    }

    fn is_unreadable(&mut self, error: Box<dyn Error + Send + Sync>) {
        warn!(error, "The buffer cannot be read at the moment.");
        self.unreadable_until = clock::ticks() + millis(CONNECT_BACKOFF_BASE);
    }

    /// Sends what it is time for.
    async fn dispatch(&mut self) {
        while self.requests.len() < self.requests_max && !self.gave_up {
            let now = now();
            if now.ticks < self.held_until {
                return;
            }
            let is_full = self.window.records() >= UPLINK_WINDOW_RECORDS_MAX;
            let company = if is_full || self.stop.is_cancelled() {
                Company::Go
            } else {
                Company::Wait
            };
            let limits = BatchLimits {
                records_max: self.batch_records_max,
                bytes_max: self.batch_bytes_max,
            };
            let pacer = &mut self.pacer;
            let admit = |record: &Record, key| pacer.admit(record, key, now);
            let picked = self.window.pick(limits, company, now.ticks, admit);
            let Some(pick) = picked else {
                self.note_budget(now);
                return;
            };
            self.set_aside(&pick.dropped, "by the settings or the limits")
                .await;
            if pick.ids.is_empty() {
                self.window.finish(&pick.queues);
                self.settle().await;
            } else {
                self.send(pick, now.ticks);
            }
        }
    }

    fn note_budget(&mut self, now: Now) {
        let is_new = self.link.state() != State::Paused;
        if is_new && !self.window.is_empty() && self.pacer.is_spent(now) {
            let detail = "`bytes-per-day-max` is reached";
            self.link.down(Failure::Budget, detail, now.ticks);
        }
    }

    fn send(&mut self, pick: Pick, started_at: u64) {
        self.metrics.attempts.inc();
        let batch: Vec<Record> = pick
            .ids
            .iter()
            .filter_map(|id| self.window.record(*id).cloned())
            .collect();
        let shards: Option<Vec<_>> = self.config.aggregate.then(|| {
            let keys = pick.ids.iter().map(|id| self.window.hash_key(*id));
            keys.map(|key| self.pacer.shards.of(key)).collect()
        });
        let client = self.client.clone();
        self.requests.spawn(async move {
            let (body, groups) = match shards {
                Some(shards) => {
                    let of = |at: usize| shards.get(at).copied().flatten();
                    let (body, groups) = aggregated(&batch, of);
                    (body, Some(groups))
                }
                None => (Body::plain(&batch), None),
            };
            drop(batch);
            Flown {
                pick,
                groups,
                result: client.put_records(body).await,
                started_at,
            }
        });
    }

    async fn land(&mut self, flown: Result<Flown, JoinError>) -> TaskResult {
        self.take(flown?).await;
        self.note_skew();
        Ok(())
    }

    /// Moves the cursors over what is done with.
    async fn settle(&mut self) {
        for (strand, (lane, part)) in STRANDS.into_iter().enumerate() {
            if let Some((upto_place, tally)) = self.window.take_prefix(strand) {
                self.source.settle(lane, part, upto_place, tally).await;
                // The backlog may wait behind a live part.
                self.is_dry[strand | 1] = false;
            }
        }
    }

    /// Asks for the shards, if they were not asked for a moment ago.
    fn look(&mut self, depth: Depth) {
        let now = clock::ticks();
        let was_asked = now < self.looked_at + millis(SHARDS_INTERVAL_MIN);
        if !self.looks.is_empty() || (was_asked && depth == Depth::Shards) {
            return;
        }
        self.looked_at = now;
        let (client, config) = (self.client.clone(), self.config.clone());
        let sink = self.metrics.sink().to_owned();
        self.looks.spawn(check::look(client, config, sink, depth));
    }

    fn learn(&mut self, shards: Option<Vec<Shard>>) {
        if let Some(shards) = shards {
            let count = u32::try_from(shards.len()).unwrap_or(u32::MAX);
            self.metrics.shards.set(f64::from(count));
            self.pacer.learn(shards, now());
        }
    }
}
