//! The sink for metrics: records of minutes, oldest first, one call at a time.
//!
//! CloudWatch adds up what it is sent, and knows no duplicates: a call whose outcome is not known is
//! not sent again, its minutes are counted as `ambiguous`. The next call is then one minute small, and
//! grows again when one is taken, so that a link that swallows calls costs a backlog as little as can
//! be. A crash between an answer and the cursor's write may still tell some minutes twice: the buffer is
//! read at least once.

use std::{collections::VecDeque, time::Duration};

use portcullis_core::{
    cloudwatch::metrics::{CallLimits, Datum, Point, Taken, first},
    limits::{
        CLOUDWATCH_AGE_MAX, CLOUDWATCH_AHEAD_MAX, CLOUDWATCH_READ_BYTES_MAX,
        CLOUDWATCH_READ_RECORDS_MAX, CLOUDWATCH_TIMEOUT, DEAD_LETTER_STREAK_MAX,
    },
    record::{Kind, Lane, Record},
    timestamp::Timestamp,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    METRIC_SINK, Metrics, MetricsConfig, Part, RecordSource, Tally,
    link::{Failed, Failure, Link},
    put_metrics::Client,
    reason,
    waiting::{Then, more, until_drained, wait},
};
use crate::{clock::now, supervisor::TaskResult, uplink::aws::Http};

/// Ships metric records.
#[derive(Debug)]
pub struct MetricSink<S> {
    config: MetricsConfig,
    source: S,
    metrics: Metrics,
    timeout: Duration,
    http: Http,
}

impl<S: RecordSource> MetricSink<S> {
    /// A sink for the records that `source` has for it.
    pub fn new(config: MetricsConfig, source: S, metrics: Metrics) -> Self {
        Self {
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
        let (namespace, region) = (&self.config.namespace, &self.config.region);
        info!(namespace, region, "Metrics go to CloudWatch.");
        let shipper = Shipper {
            client: Client::new(&self.config, &self.http, self.timeout).await,
            source: self.source,
            waiting: VecDeque::new(),
            link: Link::new(METRIC_SINK, self.metrics.clone()),
            metrics: self.metrics,
            points_max: usize::MAX,
            invalid_streak: 0,
            heard: false,
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
    point: Option<Point>,
    /// Parts of it were sent without an answer.
    ambiguous: bool,
}

struct Shipper<S> {
    client: Client,
    source: S,
    waiting: VecDeque<Waiting>,
    link: Link,
    metrics: Metrics,
    /// Minutes in one call: halved while calls are invalid, one while they are not answered.
    points_max: usize,
    /// Minutes dropped as invalid since the service last took one.
    invalid_streak: u32,
    /// The service has taken our signature, so our clock is right.
    heard: bool,
    stop: CancellationToken,
}

impl<S: RecordSource> Shipper<S> {
    async fn ship(mut self) {
        loop {
            while self.waiting.is_empty() {
                let limits = (CLOUDWATCH_READ_RECORDS_MAX, CLOUDWATCH_READ_BYTES_MAX);
                let Some(records) = more(&mut self.source, limits, &self.stop).await else {
                    return;
                };
                self.take(records);
            }
            let then = self.send().await;
            if !wait(then, &self.stop).await {
                return;
            }
        }
    }

    fn take(&mut self, records: Vec<Record>) {
        for record in records {
            let is_metric = record.kind == Kind::Metric;
            let mut point = is_metric.then(|| Point::read(&record.body)).flatten();
            if let Some(point) = &mut point {
                let before = point.data.len();
                point.data.retain(Datum::is_fit);
                let unfit = before - point.data.len();
                self.metrics.unfit_data.inc_by(unfit as u64);
            }
            self.waiting.push_back(Waiting {
                place: record.place,
                point,
                ambiguous: false,
            });
        }
    }

    /// Why the minute is not sent; `None` if it is.
    fn refusal(&self, waiting: &Waiting, now: Timestamp) -> Option<&'static str> {
        let Some(point) = &waiting.point else {
            return Some(reason::UNREADABLE);
        };
        let ahead = u128::from(point.at.millis_since(now));
        if u128::from(now.millis_since(point.at)) > CLOUDWATCH_AGE_MAX.as_millis() {
            Some(reason::EXPIRED)
        } else if self.heard && ahead >= CLOUDWATCH_AHEAD_MAX.as_millis() {
            // Before that, our own clock may be behind; the service is to say so.
            Some(reason::TOO_NEW)
        } else if point.data.is_empty() {
            Some(reason::INVALID)
        } else {
            None
        }
    }

    /// Drops the minutes at the front that are not to be sent.
    async fn drop_refused(&mut self, now: Timestamp) {
        let mut tally = Tally::default();
        let mut upto = None;
        while let Some(front) = self.waiting.front()
            && let Some(why) = self.refusal(front, now)
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
        self.metrics.settled(METRIC_SINK, &tally);
        let (lane, part) = (Lane::Bulk, Part::Backlog);
        self.source.settle(lane, part, upto, tally).await;
    }

    async fn send(&mut self) -> Then {
        let now = now();
        self.drop_refused(now).await;
        let limits = CallLimits {
            points_max: self.points_max,
            ..CallLimits::SERVICE
        };
        let sendable = self.waiting.iter();
        let sendable = sendable.take_while(|waiting| self.refusal(waiting, now).is_none());
        let points: Vec<_> = sendable.filter_map(|w| w.point.as_ref()).collect();
        let Some(taken) = first(points.iter().copied(), limits) else {
            return Then::GoOn;
        };
        let namespace = points[0].namespace.clone();
        let data = match taken {
            Taken::Points(count) => points[..count].iter().flat_map(|p| stamped(p)).collect(),
            Taken::Part(count) => stamped(points[0]).take(count).collect(),
        };
        match self.client.put(&namespace, data).await {
            Ok(()) => {
                self.link.up();
                self.heard = true;
                self.invalid_streak = 0;
                self.points_max = self.points_max.saturating_mul(2);
                self.done(taken, None).await;
                Then::GoOn
            }
            Err(failed) => self.failed(taken, failed).await,
        }
    }

    async fn failed(&mut self, taken: Taken, failed: Failed) -> Then {
        self.heard |= matches!(failed.failure, Failure::Invalid | Failure::Throttled);
        match (failed.failure, taken) {
            (Failure::Unanswered, _) => {
                self.points_max = 1;
                self.done(taken, Some(reason::AMBIGUOUS)).await;
                Then::Wait(self.link.down(&failed))
            }
            (Failure::Invalid, Taken::Points(points @ 2..)) => {
                self.link.again(Failure::Invalid);
                self.points_max = points / 2;
                Then::GoOn
            }
            (Failure::Invalid, _) => {
                warn!(detail = %failed.detail, "CloudWatch calls metrics invalid; they are dropped.");
                self.done(taken, Some(reason::INVALID)).await;
                self.invalid_streak += 1;
                if self.invalid_streak <= DEAD_LETTER_STREAK_MAX {
                    self.link.again(Failure::Invalid);
                    return Then::GoOn;
                }
                // Not the minutes, it seems, but our settings: lose them slowly, and aloud.
                Then::Wait(self.link.down(&failed))
            }
            _ => Then::Wait(self.link.down(&failed)),
        }
    }

    /// What was in a call is done with, with or without a loss.
    async fn done(&mut self, taken: Taken, loss: Option<&'static str>) {
        let points = match taken {
            Taken::Points(points) => points,
            Taken::Part(data) => {
                let Some(front) = self.waiting.front_mut() else {
                    return;
                };
                front.ambiguous |= loss.is_some();
                let Some(point) = &mut front.point else {
                    return;
                };
                point.data.drain(..data.min(point.data.len()));
                if !point.data.is_empty() {
                    return;
                }
                1
            }
        };
        let mut tally = Tally::default();
        let mut upto = 0;
        for waiting in self.waiting.drain(..points.min(self.waiting.len())) {
            upto = waiting.place;
            match (loss, waiting.ambiguous) {
                (Some(why), _) => tally.drop(why, 1),
                (None, true) => tally.drop(reason::AMBIGUOUS, 1),
                (None, false) => tally.delivered += 1,
            }
        }
        self.settle(upto, tally).await;
    }
}

fn stamped(point: &Point) -> impl Iterator<Item = (Timestamp, Datum)> {
    point.data.iter().map(|datum| (point.at, datum.clone()))
}
