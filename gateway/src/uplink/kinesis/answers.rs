//! What follows a request: for each record, and for the next request (specification D.2).
//!
//! A request that is refused as invalid is halved until the culprit is alone, and that record goes to
//! the dead letters. One that gets no answer in time is halved as well, in bytes: the link may be slow,
//! and the whole of it again would take as long again.

use portcullis_core::limits::{
    CLOCK_SKEW_MAX, DEAD_LETTER_STREAK_MAX, PUT_RECORDS_BYTES_MIN, PUT_RECORDS_MAX,
    RECORD_ATTEMPTS_MAX,
};
use portcullis_core::upstream::shards::Shards;
use tracing::{info, warn};

use super::{
    Flown, Shipper,
    check::Depth,
    client::{Client, RecordOutcome},
    millis,
    request::Group,
    window::{Id, Pick},
};
use crate::{
    clock,
    uplink::{RecordSource, dead_letter::Why, state::Failure},
};

/// What became of the records of a request.
#[derive(Default)]
struct Count {
    accepted: usize,
    accepted_bytes: usize,
    failed: usize,
    worst: Option<(Failure, String)>,
    poison: Vec<(Id, &'static str)>,
    poison_detail: String,
}

impl<S: RecordSource> Shipper<S> {
    /// Takes note of what became of a request.
    pub(super) async fn take(&mut self, flown: Flown) {
        let Flown {
            pick,
            groups,
            result,
            started_at,
        } = flown;
        match result {
            Ok(outcomes) => self.take_outcomes(&pick, groups, outcomes).await,
            Err((failure, detail)) => {
                self.metrics.failed(failure.reason(), pick.ids.len());
                self.take_failure(failure, &detail, &pick, started_at).await;
            }
        }
        self.window.finish(&pick.queues);
        self.settle().await;
    }

    async fn take_outcomes(
        &mut self,
        pick: &Pick,
        groups: Option<Vec<Group>>,
        outcomes: Vec<RecordOutcome>,
    ) {
        let oldest = pick
            .ids
            .first()
            .and_then(|id| self.window.record(*id))
            .cloned();
        let mut count = Count::default();
        for (at, outcome) in outcomes.into_iter().enumerate() {
            match groups.as_ref().and_then(|groups| groups.get(at)) {
                Some(group) => {
                    let ids: Vec<Id> = group.members.iter().map(|at| pick.ids[*at]).collect();
                    let outcome = self.of_group(group, outcome);
                    self.take_outcome(&ids, outcome, &mut count);
                }
                None => {
                    let ids = pick.ids.get(at..=at).unwrap_or_default();
                    self.take_outcome(ids, outcome, &mut count);
                }
            }
        }
        let detail = std::mem::take(&mut count.poison_detail);
        self.set_aside(&count.poison, &detail).await;
        let share = share(count.failed, pick.ids.len());
        if count.accepted > 0 {
            self.metrics.sent(count.accepted, count.accepted_bytes);
            self.metrics.note_lag(oldest.as_ref());
            self.is_taken(pick, share).await;
        }
        self.pause_after(pick, share, count);
    }

    /// Records that were put together for one shard are lost to some consumers if they are in another.
    fn of_group(&mut self, group: &Group, outcome: RecordOutcome) -> RecordOutcome {
        let RecordOutcome::Accepted { shard } = &outcome else {
            return outcome;
        };
        let expected = group.shard.and_then(|at| self.pacer.shards.id(at));
        if group.members.len() == 1 || expected.is_none_or(|expected| expected == shard) {
            return outcome;
        }
        let detail = format!("the record went to {shard}");
        RecordOutcome::Failed {
            failure: Failure::Resharded,
            detail,
        }
    }

    fn take_outcome(&mut self, ids: &[Id], outcome: RecordOutcome, count: &mut Count) {
        match outcome {
            RecordOutcome::Accepted { shard } => {
                if !self.pacer.shards.knows(&shard) {
                    self.look(Depth::Shards);
                }
                for id in ids {
                    let bytes = self
                        .window
                        .record(*id)
                        .map_or(0, |record| record.wire_bytes());
                    count.accepted_bytes += bytes;
                    self.window.accept(*id);
                }
                count.accepted += ids.len();
            }
            RecordOutcome::Failed { failure, detail } => {
                count.failed += ids.len();
                self.metrics.failed(failure.reason(), ids.len());
                for id in ids {
                    let attempts = self.window.fail(*id);
                    if failure == Failure::Refused && attempts >= RECORD_ATTEMPTS_MAX {
                        count.poison.push((*id, "refused"));
                        count.poison_detail.clone_from(&detail);
                    }
                }
                if count.poison.len() < count.failed {
                    count.worst = Some((failure, detail));
                }
            }
        }
    }

    /// The stream has taken something of a request.
    async fn is_taken(&mut self, pick: &Pick, share: f64) {
        let came_back = self.link.up(share, clock::ticks());
        self.invalid_streak = 0;
        self.held_until = 0;
        self.requests_max = (self.requests_max + 1).min(self.config.requests_in_flight);
        self.batch_bytes_max =
            (self.batch_bytes_max + self.batch_bytes_max / 8).min(self.config.batch_bytes_max);
        if share == 0.0 {
            let more = self.batch_records_max + self.batch_records_max.div_ceil(10);
            self.batch_records_max = more.min(PUT_RECORDS_MAX);
        }
        self.window.trust(&pick.queues, self.batch_records_max);
        if came_back {
            self.split().await;
            if self.pacer.shards.count() == 0 {
                self.look(Depth::Shards);
            }
        }
    }

    /// The queues of a request of which a part failed wait, longer only while most of it fails.
    fn pause_after(&mut self, pick: &Pick, share: f64, count: Count) {
        if share > 0.5 {
            self.batch_records_max = (self.batch_records_max / 2).max(1);
        } else {
            self.window.calm(&pick.queues);
        }
        let Some((failure, detail)) = count.worst else {
            return;
        };
        if failure == Failure::Resharded {
            // Nobody knows them until the answer comes.
            self.pacer.shards = Shards::default();
            self.looked_at = 0;
            self.look(Depth::Shards);
        }
        let now = clock::ticks();
        if count.accepted == 0 {
            self.link.down(failure, &detail, now);
            self.gave_up |= self.stop.is_cancelled();
        } else {
            self.link.partly(failure, &detail);
        }
        let waits = self.config.waits;
        let wait = |failures| millis(failure.delay(&waits, failures));
        self.window.hold(&pick.queues, wait, now);
    }

    async fn take_failure(&mut self, failure: Failure, detail: &str, pick: &Pick, started_at: u64) {
        match failure {
            Failure::Invalid => return self.find_culprit(detail, pick).await,
            Failure::TimedOut => {
                // What was sent may be less than was allowed; one record cannot be halved.
                self.batch_bytes_max = (pick.bytes / 2).max(PUT_RECORDS_BYTES_MIN);
                self.requests_max = 1;
            }
            Failure::Connectivity => self.requests_max = 1,
            Failure::Throttled => {
                self.batch_records_max = (self.batch_records_max / 2).max(1);
            }
            // A client that knows by how much the clock is off signs by the service's next time.
            Failure::Credentials if is_skewed(self.client.skew().secs()) => {}
            Failure::Credentials => {
                // A new client asks for new ones.
                let skew = self.client.skew().clone();
                self.client = Client::new(&self.config, skew).await;
            }
            _ => {}
        }
        let now = clock::ticks();
        if started_at < self.failed_at && self.link.failures() > 0 {
            // It was under way when another failed: the same failure.
            return;
        }
        let skew = self.client.skew().secs();
        let delay = if failure == Failure::Credentials && is_skewed(skew) {
            let detail = format!("{detail}; this machine's clock is {}", off(skew));
            self.link.down(failure, &detail, now)
        } else {
            self.link.down(failure, detail, now)
        };
        self.failed_at = now;
        self.held_until = now + millis(delay);
        self.gave_up |= self.stop.is_cancelled();
    }

    async fn find_culprit(&mut self, detail: &str, pick: &Pick) {
        if pick.ids.len() > 1 {
            self.window.suspect(&pick.queues, pick.ids.len());
            return;
        }
        self.invalid_streak += 1;
        let culprits: Vec<_> = pick.ids.iter().map(|id| (*id, "invalid")).collect();
        self.set_aside(&culprits, detail).await;
        self.window.trust(&pick.queues, self.batch_records_max);
        if self.invalid_streak > DEAD_LETTER_STREAK_MAX {
            // Not the records, it seems, but the stream or our settings: lose them slowly, and aloud.
            let now = clock::ticks();
            self.held_until = now + millis(self.link.down(Failure::Refused, detail, now));
            self.gave_up |= self.stop.is_cancelled();
        }
    }

    /// Moves records to the dead letters; if those cannot be written, they stay where they are.
    pub(super) async fn set_aside(&mut self, dropped: &[(Id, &'static str)], detail: &str) {
        let mut reasons: Vec<_> = dropped.iter().map(|(_, reason)| *reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            let of_reason = dropped.iter().filter(|(_, of)| *of == reason);
            let ids: Vec<Id> = of_reason.map(|(id, _)| *id).collect();
            let records = ids.iter().filter_map(|id| self.window.record(*id).cloned());
            let records: Vec<_> = records.collect();
            let why = Why { reason, detail };
            match self.dead_letters.put(&self.metrics, records, why).await {
                Ok(()) => ids.iter().for_each(|id| self.window.drop(*id, reason)),
                Err(error) => {
                    let now = clock::ticks();
                    let delay = self.link.down(Failure::Disk, &error.to_string(), now);
                    self.held_until = now + millis(delay);
                    self.gave_up |= self.stop.is_cancelled();
                }
            }
        }
    }

    /// Says when this machine's clock is wrong, and when it is right again.
    pub(super) fn note_skew(&mut self) {
        let skew = self.client.skew().secs();
        let bounded = i32::try_from(skew).unwrap_or(i32::MAX);
        self.metrics.all.clock_skew.set(f64::from(bounded));
        let is_skewed = is_skewed(skew);
        if is_skewed && !self.skew_told {
            let advice = "set it, or let NTP do so: beyond five minutes requests are refused";
            warn!(
                skew_secs = skew,
                advice,
                "This machine's clock is {}.",
                off(skew)
            );
        } else if self.skew_told && !is_skewed {
            info!("This machine's clock is right again.");
        }
        self.skew_told = is_skewed;
    }
}

fn is_skewed(secs: i64) -> bool {
    secs.unsigned_abs() > CLOCK_SKEW_MAX.as_secs()
}

fn off(secs: i64) -> String {
    let way = if secs > 0 { "behind" } else { "ahead" };
    format!("{} s {way}", secs.unsigned_abs())
}

fn share(failed: usize, of: usize) -> f64 {
    let float = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    float(failed) / float(of.max(1))
}
