//! The sink for log events: records in order, one call at a time, each call sorted by time and within a
//! day. What is not answered is sent again: a line twice is better than none. What the service takes a
//! call without (`rejectedLogEventsInfo`) is counted and gone.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use portcullis_core::{
    cloudwatch::logs::{CallLimits, Event, Fates, RejectedInfo, first, order, read_time},
    limits::{
        CLOUDWATCH_AGE_MAX, CLOUDWATCH_READ_BYTES_MAX, CLOUDWATCH_READ_RECORDS_MAX,
        CLOUDWATCH_TIMEOUT, DEAD_LETTER_STREAK_MAX, LOG_LINGER, PUT_LOG_EVENTS_BYTES_MAX,
    },
    record::{Kind, Lane, Record},
    timestamp::Timestamp,
};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    LOG_SINK, LogsConfig, Metrics, Part, RecordSource, Tally,
    link::{Failed, Failure, Link},
    put_logs::{Client, InputEvent},
    reason,
    waiting::{Then, more, until_drained, wait},
};
use crate::{clock::now, supervisor::TaskResult, uplink::aws::Http};

/// Ships log records.
#[derive(Debug)]
pub struct LogSink<S> {
    config: LogsConfig,
    stream: String,
    source: S,
    metrics: Metrics,
    timeout: Duration,
    http: Http,
}

impl<S: RecordSource> LogSink<S> {
    /// A sink for the records that `source` has for it, of the gateway `gateway_id`.
    pub fn new(config: LogsConfig, gateway_id: &str, source: S, metrics: Metrics) -> Self {
        Self {
            stream: config.stream_of(gateway_id),
            config,
            source,
            metrics,
            timeout: CLOUDWATCH_TIMEOUT,
            http: Http::new(),
        }
    }

    /// Uses connections that others use, too.
    #[must_use]
    pub(super) fn over(mut self, http: Http) -> Self {
        self.http = http;
        self
    }

    /// Gives one call so much time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Ships until `stop`, then makes one last attempt to ship what is there.
    ///
    /// # Errors
    /// None.
    pub async fn run(self, stop: CancellationToken) -> TaskResult {
        let (group, stream) = (&self.config.group, &self.stream);
        info!(group, stream, "Log events go to CloudWatch Logs.");
        let shipper = Shipper {
            client: Client::new(&self.config, self.stream, &self.http, self.timeout).await,
            source: self.source,
            waiting: VecDeque::new(),
            link: Link::new(LOG_SINK, self.metrics.clone()),
            metrics: self.metrics,
            events_max: CallLimits::SERVICE.events_max,
            invalid_streak: 0,
            is_made: false,
            stop: stop.clone(),
        };
        until_drained(shipper.ship(), &stop).await;
        Ok(())
    }
}

#[derive(Debug)]
struct Waiting {
    place: u64,
    /// `None`: not to be read.
    at: Option<Timestamp>,
    body: Bytes,
}

struct Shipper<S> {
    client: Client,
    source: S,
    waiting: VecDeque<Waiting>,
    link: Link,
    metrics: Metrics,
    /// Events in one call: halved while calls are invalid.
    events_max: usize,
    /// Events dropped as invalid since the service last took one.
    invalid_streak: u32,
    /// Group and stream were made since they were last found missing.
    is_made: bool,
    stop: CancellationToken,
}

impl<S: RecordSource> Shipper<S> {
    async fn ship(mut self) {
        loop {
            if self.waiting.is_empty() && !self.fill().await {
                return;
            }
            let then = self.send().await;
            if !wait(then, &self.stop).await {
                return;
            }
        }
    }

    /// Reads until a call is full, or has waited for company; `false` if there is nothing left to do
    /// for ever.
    async fn fill(&mut self) -> bool {
        let limits = (CLOUDWATCH_READ_RECORDS_MAX, CLOUDWATCH_READ_BYTES_MAX);
        let Some(records) = more(&mut self.source, limits, &self.stop).await else {
            return false;
        };
        self.take(records);
        if self.source.unread(Lane::Bulk, Part::Backlog) == 0 {
            select! {
                () = sleep(LOG_LINGER) => {}
                () = self.stop.cancelled() => {}
            }
        }
        let (lane, part) = (Lane::Bulk, Part::Backlog);
        loop {
            let bytes: usize = self.waiting.iter().map(|waiting| waiting.body.len()).sum();
            let room = PUT_LOG_EVENTS_BYTES_MAX.saturating_sub(bytes);
            if room == 0 || self.waiting.len() >= self.events_max {
                return true;
            }
            match self.source.read(lane, part, limits.0, room).await {
                Ok(records) if !records.is_empty() => self.take(records),
                // What there is goes out first.
                _ => return true,
            }
        }
    }

    fn take(&mut self, records: Vec<Record>) {
        self.waiting
            .extend(records.into_iter().map(|record| Waiting {
                place: record.place,
                at: match record.kind {
                    Kind::Log => read_time(&record.body),
                    _ => None,
                },
                body: record.body,
            }));
    }

    /// Why the event is not sent; `None` if it is.
    fn refusal(waiting: &Waiting, now: Timestamp) -> Option<&'static str> {
        match waiting.text() {
            None => Some(reason::UNREADABLE),
            Some((at, _)) if u128::from(now.millis_since(at)) > CLOUDWATCH_AGE_MAX.as_millis() => {
                Some(reason::EXPIRED)
            }
            Some(_) => None,
        }
    }

    /// Drops the events at the front that are not to be sent.
    async fn drop_refused(&mut self, now: Timestamp) {
        let mut tally = Tally::default();
        let mut upto = None;
        while let Some(front) = self.waiting.front()
            && let Some(why) = Self::refusal(front, now)
        {
            tally.drop(why, 1);
            upto = Some(front.place);
            self.waiting.pop_front();
        }
        if let Some(upto) = upto {
            self.settle(upto, tally).await;
        }
    }

    async fn settle(&mut self, upto: u64, tally: Tally) {
        self.metrics.settled(LOG_SINK, &tally);
        let (lane, part) = (Lane::Bulk, Part::Backlog);
        self.source.settle(lane, part, upto, tally).await;
    }

    async fn send(&mut self) -> Then {
        let now = now();
        self.drop_refused(now).await;
        let sendable = self.waiting.iter();
        let sendable = sendable.take_while(|waiting| Self::refusal(waiting, now).is_none());
        let texts: Vec<_> = sendable.filter_map(Waiting::text).collect();
        let events = texts.iter().map(|(at, message)| Event {
            at: *at,
            message_bytes: message.len(),
        });
        let limits = CallLimits {
            events_max: self.events_max,
            ..CallLimits::SERVICE
        };
        let taken = first(events, limits);
        if taken == 0 {
            return Then::GoOn;
        }
        let times: Vec<_> = texts[..taken].iter().map(|(at, _)| *at).collect();
        let sorted = order(&times).into_iter();
        let sorted: Vec<_> = sorted
            .map(|place| InputEvent::new(texts[place].0, texts[place].1))
            .collect();
        match self.client.put_events(&sorted).await {
            Ok(rejected) => {
                self.link.up();
                self.is_made = false;
                self.invalid_streak = 0;
                self.events_max = (self.events_max * 2).min(CallLimits::SERVICE.events_max);
                self.taken(taken, rejected).await;
                Then::GoOn
            }
            Err(failed) => self.failed(taken, failed).await,
        }
    }

    async fn taken(&mut self, events: usize, rejected: RejectedInfo) {
        let Fates {
            taken,
            too_new,
            too_old,
            expired,
        } = rejected.fates(events);
        if taken < events {
            warn!(
                too_new,
                too_old, expired, "CloudWatch Logs did not take some events."
            );
        }
        let mut tally = Tally {
            delivered: count(taken),
            dropped: Vec::new(),
        };
        let losses = [
            (reason::TOO_NEW, too_new),
            (reason::EXPIRED, too_old + expired),
        ];
        for (why, events) in losses.into_iter().filter(|(_, events)| *events > 0) {
            tally.drop(why, count(events));
        }
        self.done(events, tally).await;
    }

    async fn failed(&mut self, taken: usize, failed: Failed) -> Then {
        match failed.failure {
            Failure::Missing if !self.is_made => {
                self.link.again(Failure::Missing);
                match self.client.create().await {
                    Ok(()) => {
                        info!("The log stream was missing; it was made.");
                        self.is_made = true;
                        Then::GoOn
                    }
                    Err(failed) => Then::Wait(self.link.down(&failed)),
                }
            }
            Failure::Invalid if taken > 1 => {
                self.link.again(Failure::Invalid);
                self.events_max = taken / 2;
                Then::GoOn
            }
            Failure::Invalid => {
                warn!(detail = %failed.detail, "CloudWatch Logs calls an event invalid; it is dropped.");
                let mut tally = Tally::default();
                tally.drop(reason::INVALID, count(taken));
                self.done(taken, tally).await;
                self.invalid_streak += 1;
                if self.invalid_streak <= DEAD_LETTER_STREAK_MAX {
                    self.link.again(Failure::Invalid);
                    return Then::GoOn;
                }
                // Not the events, it seems, but our settings: lose them slowly, and aloud.
                Then::Wait(self.link.down(&failed))
            }
            _ => {
                // It may have been made and removed again meanwhile.
                self.is_made = false;
                Then::Wait(self.link.down(&failed))
            }
        }
    }

    async fn done(&mut self, events: usize, tally: Tally) {
        let done = self.waiting.drain(..events.min(self.waiting.len()));
        if let Some(last) = done.last() {
            self.settle(last.place, tally).await;
        }
    }
}

impl Waiting {
    /// When, and the message: the record as it stands.
    fn text(&self) -> Option<(Timestamp, &str)> {
        Some((self.at?, std::str::from_utf8(&self.body).ok()?))
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
