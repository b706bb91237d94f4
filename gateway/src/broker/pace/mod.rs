//! How much a client may publish: a bucket of publishes and one of bytes for itself, and those that it
//! shares with the other clients of its groups.
//!
//! A session asks before each publish; see [`Verdict`] for what it does then. A group's rate is that of
//! the nearest group of a hierarchy, the lowest of several hierarchies, and stands in place of the
//! gateway's. Buckets are found by the client id and by the group's name, so that they outlive changes of
//! the registry, and connections: who comes back has no more than who stayed. They are forgotten once
//! they are full again and nobody has them; of too many that nobody has, all are. While clients are delayed, what is promised to those of a
//! group is bounded by `GROUP_RATE_DEBT_MAX`: a client that comes and goes cannot use up the future of
//! the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portcullis_core::{
    identity::{ClientId, GroupName, Principal},
    limits::{GROUP_RATE_DEBT_MAX, PACED_CLIENTS_AWAY_MAX},
    rate::{Allowance, Bucket},
};
use prometheus::IntCounterVec;

use super::{
    denials::Denial,
    limits::{OnPublishRate, PublishLimits},
    shared::Shared,
};
use crate::identity::Snapshot;

/// The label of publishes beyond the rate.
const PUBLISH_RATE: &str = "publish-rate";
/// Buckets that may be forgotten are looked for at most this often, in milliseconds.
const SWEEP_MS: u64 = 1000;

/// What becomes of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is handled.
    Go,
    /// It is handled after this time, in which nothing more is read from the client. It counts already.
    Wait(Duration),
    /// It goes nowhere. QoS 0 is forgotten; QoS 1 and 2 are answered 0x97 (Quota exceeded) in MQTT 5,
    /// and end the connection in MQTT 3.1.1, which has no answer for that.
    Drop,
    /// The connection ends, in MQTT 5 with DISCONNECT 0x96 (Message rate too high).
    Disconnect,
}

/// The buckets of all clients and groups.
#[derive(Debug, Default)]
pub(super) struct Paces {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    clients: HashMap<ClientId, Arc<Mutex<Buckets>>>,
    groups: HashMap<GroupName, Arc<Mutex<Buckets>>>,
    swept_at: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    own: Arc<Mutex<Buckets>>,
    shared: Vec<Arc<Mutex<Buckets>>>,
    action: OnPublishRate,
}

#[derive(Debug, Default)]
struct Buckets {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Paces {
    /// The pace of a client that has just connected. `now` is in milliseconds, as [`Pace::publish`]
    /// gets it.
    pub(super) fn of(
        &self,
        principal: &Principal,
        limits: &PublishLimits,
        snapshot: &Snapshot,
        now: u64,
    ) -> Pace {
        let mut all = lock(&self.all);
        all.sweep(now);
        let own = all.clients.entry(principal.client_id.clone());
        let mut pace = Pace {
            own: Arc::clone(own.or_default()),
            shared: Vec::new(),
            action: limits.action,
        };
        drop(all);
        self.renew(&mut pace, principal, limits, snapshot, now);
        pace
    }

    /// The registry changed: what it says now holds from the next publish on. Where a rate is as it
    /// was, what was used of it stays used.
    pub(super) fn renew(
        &self,
        pace: &mut Pace,
        principal: &Principal,
        limits: &PublishLimits,
        snapshot: &Snapshot,
        now: u64,
    ) {
        let thing = principal.thing.as_deref();
        let rates = thing.and_then(|thing| snapshot.publish_rates(thing));
        let of_groups = |rate: Option<u64>, limit: Option<Allowance>| match rate {
            Some(rate) => Allowance::new(rate, 0),
            None => limit,
        };
        let messages = of_groups(rates.and_then(|rates| rates.messages), limits.messages);
        let bytes = of_groups(rates.and_then(|rates| rates.bytes), limits.bytes);
        lock(&pace.own).set(messages, bytes, now);
        let mut all = lock(&self.all);
        let shared = rates.iter().flat_map(|rates| &rates.shared).map(|rates| {
            let buckets = all.groups.entry(rates.group.clone()).or_default();
            let messages = Allowance::new(rates.messages, 0);
            lock(buckets).set(messages, Allowance::new(rates.bytes, 0), now);
            Arc::clone(buckets)
        });
        pace.shared = shared.collect();
    }
}

impl All {
    fn sweep(&mut self, now: u64) {
        if now < self.swept_at.saturating_add(SWEEP_MS) {
            return;
        }
        self.swept_at = now;
        let is_held = |buckets: &Arc<Mutex<Buckets>>| Arc::strong_count(buckets) > 1;
        let is_needed = |b: &Arc<Mutex<Buckets>>| is_held(b) || !lock(b).are_full(now);
        self.clients.retain(|_, buckets| is_needed(buckets));
        self.groups.retain(|_, buckets| is_needed(buckets));
        let away = self.clients.values().filter(|buckets| !is_held(buckets));
        if away.count() > PACED_CLIENTS_AWAY_MAX {
            self.clients.retain(|_, buckets| is_held(buckets));
        }
    }
}

impl Pace {
    /// What becomes of a publish whose topic and payload have so many bytes.
    pub(super) fn publish(&mut self, bytes: usize, now: u64) -> Verdict {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let beyond = match self.action {
            OnPublishRate::Delay => return self.reserve(bytes, now),
            OnPublishRate::Drop => Verdict::Drop,
            OnPublishRate::Disconnect => Verdict::Disconnect,
        };
        if self.take(bytes, now) {
            Verdict::Go
        } else {
            beyond
        }
    }

    fn reserve(&mut self, bytes: u64, now: u64) -> Verdict {
        let debt_max = millis(GROUP_RATE_DEBT_MAX);
        if self.shared.iter().any(|b| lock(b).owes(now) > debt_max) {
            return Verdict::Drop;
        }
        let own = lock(&self.own).reserve(bytes, now);
        let shared = self.shared.iter().map(|b| lock(b).reserve(bytes, now));
        match shared.fold(own, u64::max) {
            0 => Verdict::Go,
            wait => Verdict::Wait(Duration::from_millis(wait)),
        }
    }

    /// From all or from none.
    fn take(&mut self, bytes: u64, now: u64) -> bool {
        if !lock(&self.own).take(bytes, now) {
            return false;
        }
        let refusing = self.shared.iter().position(|b| !lock(b).take(bytes, now));
        if let Some(refusing) = refusing {
            lock(&self.own).give_back(bytes);
            for buckets in self.shared.iter().take(refusing) {
                lock(buckets).give_back(bytes);
            }
        }
        refusing.is_none()
    }
}

impl Buckets {
    fn set(&mut self, messages: Option<Allowance>, bytes: Option<Allowance>, now: u64) {
        for (bucket, allowance) in [(&mut self.messages, messages), (&mut self.bytes, bytes)] {
            if bucket.as_ref().map(Bucket::allowance) != allowance {
                *bucket = allowance.map(|allowance| Bucket::new(allowance, now));
            }
        }
    }

    /// Each bucket with what a publish of so many bytes costs there.
    fn costs(&mut self, bytes: u64) -> impl Iterator<Item = (&mut Bucket, u64)> {
        let messages = self.messages.as_mut().map(|bucket| (bucket, 1));
        messages
            .into_iter()
            .chain(self.bytes.as_mut().map(|bucket| (bucket, bytes)))
    }

    fn take(&mut self, bytes: u64, now: u64) -> bool {
        let has_room = |(bucket, cost): (&mut Bucket, u64)| bucket.has(cost, now);
        let may = self.costs(bytes).all(has_room);
        if may {
            for (bucket, cost) in self.costs(bytes) {
                bucket.reserve(cost, now);
            }
        }
        may
    }

    fn give_back(&mut self, bytes: u64) {
        for (bucket, cost) in self.costs(bytes) {
            bucket.give_back(cost);
        }
    }

    fn reserve(&mut self, bytes: u64, now: u64) -> u64 {
        let waits = self
            .costs(bytes)
            .map(|(bucket, cost)| bucket.reserve(cost, now));
        waits.max().unwrap_or(0)
    }

    fn are_full(&mut self, now: u64) -> bool {
        self.costs(0).all(|(bucket, _)| bucket.is_full(now))
    }

    fn owes(&mut self, now: u64) -> u64 {
        let waits = self.costs(0).map(|(bucket, _)| bucket.owes(now));
        waits.max().unwrap_or(0)
    }
}

impl Shared {
    /// Counts a publish that does not go at once, and logs at a pace one that does not go at all.
    pub(super) fn note_pace(&self, principal: &Principal, topic: &str, verdict: Verdict) {
        count(&self.metrics.publish_paced, verdict);
        if matches!(verdict, Verdict::Drop | Verdict::Disconnect) {
            self.neighbours.denials.note(Denial {
                client: Some(principal.client_id.to_string()),
                thing: principal.thing.as_ref().map(|thing| thing.name.to_string()),
                certificate: principal.certificate_id().map(|id| id.to_string()),
                resource: Some(topic.to_owned()),
                ..Denial::new("publish", PUBLISH_RATE, principal.source)
            });
        }
    }
}

fn count(paced: &IntCounterVec, verdict: Verdict) {
    let fate = match verdict {
        Verdict::Go => return,
        Verdict::Wait(_) => "delayed",
        Verdict::Drop => "dropped",
        Verdict::Disconnect => "disconnected",
    };
    paced.with_label_values(&[fate]).inc();
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
