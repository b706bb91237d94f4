//! The broker's end: a handle that counts and never waits for a disk.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use portcullis_core::{
    identity::{ClientId, Principal, Thing},
    learn::Ground,
    limits::TRAFFIC_RECENT_MAX,
    policy::{Action, Permit},
    timestamp::Timestamp,
};

use super::metrics::Metrics;
use crate::clock::now;

/// Things are spread over so many tables, each with its own lock and its own bound: a thing that
/// floods one takes from few others.
const SHARDS: usize = 16;

/// Tells [`Traffic`](super::Traffic) what was allowed.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    shards: [Mutex<HashMap<u64, Recent>>; SHARDS],
    hasher: RandomState,
    metrics: Metrics,
}

/// Something that was allowed since the last time that anybody asked.
#[derive(Debug)]
pub(super) struct Recent {
    pub(super) thing: Arc<Thing>,
    pub(super) client_id: ClientId,
    pub(super) action: Action,
    pub(super) resource: Box<str>,
    pub(super) times: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) ground: Arc<Ground>,
}

impl Recorder {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Tables {
            shards: Default::default(),
            hasher: RandomState::new(),
            metrics,
        }))
    }

    /// Notes what `permit` allowed `principal` on `resource`: a bare client id, topic name or
    /// topic filter. What is known already costs a look-up; what is new beyond the bound is lost
    /// and counted.
    pub fn allowed(&self, principal: &Principal, permit: &Permit, resource: &str) {
        self.note(principal, permit, resource, 1);
    }

    /// The same for what was allowed several times just now.
    pub fn allowed_times(
        &self,
        principal: &Principal,
        permit: &Permit,
        resource: &str,
        times: u64,
    ) {
        self.note(principal, permit, resource, times);
    }

    /// Notes that what was allowed before still holds: a connection, a subscription. It is nothing
    /// that happened, but whoever learns from the last hours must not miss it.
    pub fn stands(&self, principal: &Principal, permit: &Permit, resource: &str) {
        self.note(principal, permit, resource, 0);
    }

    fn note(&self, principal: &Principal, permit: &Permit, resource: &str, times: u64) {
        let Some(thing) = &principal.thing else {
            return;
        };
        let tables = &*self.0;
        let client_id = principal.client_id.as_str();
        let name = tables.hasher.hash_one(thing.name.as_str());
        // Of 64 bits under a key that nobody knows: two that fall together are not worth a
        // comparison.
        let (action, statement) = (permit.action(), permit.statement());
        let by = (&*statement.policy, statement.index);
        let key = (name, client_id, action, resource, by);
        let key = tables.hasher.hash_one(key);
        let at = now();
        let shard = usize::try_from(name % SHARDS as u64).unwrap_or_default();
        let mut recent = tables.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_full = recent.len() >= TRAFFIC_RECENT_MAX / SHARDS;
        match recent.entry(key) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.times += times;
                known.last = at;
            }
            Entry::Vacant(_) if is_full => tables.metrics.lost.inc(),
            Entry::Vacant(new) => {
                new.insert(Recent {
                    thing: thing.clone(),
                    client_id: principal.client_id.clone(),
                    action,
                    resource: resource.into(),
                    times,
                    first: at,
                    last: at,
                    ground: Arc::new(Ground::of(statement, &principal.policies)),
                });
            }
        }
    }

    /// Everything since the last call.
    pub(super) fn take(&self) -> Vec<Recent> {
        let mut taken = Vec::new();
        for shard in &self.0.shards {
            let recent = mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            taken.extend(recent.into_values());
        }
        taken
    }
}
