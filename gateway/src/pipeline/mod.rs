//! Between admission and the buffer: an event runs through the chain of its thing's groups, and
//! what comes out is appended together with the event's acknowledgement.
//!
//! A chain runs on threads of its own, one for each of its shards, and a device always has the
//! same shard: events of one device stay in order, and a rule that is stuck delays its own groups
//! only. A thing in several groups with chains has the chains' steps in the order of the
//! configuration, on threads of that combination. Events without a chain go to the buffer at once.
//!
//! Queues are bounded; a full one makes the publisher's session wait. So is the number of
//! combinations of chains, each of which has threads: events of a further one are refused, not
//! passed by the rules.

mod chain;
pub mod config;
mod metrics;
mod worker;

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use portcullis_core::{
    event::Event,
    limits::{COMBINATIONS_MAX, SHARD_QUEUE_EVENTS_MAX},
    upstream,
};
use tokio::{runtime, sync::mpsc};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use tracing::error;

use self::worker::{Item, Worker};
use crate::{
    buffer::{Ack, Buffer},
    supervisor::TaskResult,
};

pub use chain::{Chain, ChainError, Step};
pub use config::{ChainConfig, OnFailure, StepConfig};
pub use metrics::Metrics;

/// Chains that can be configured: a thing's combination of chains is a set of bits.
pub const CHAINS_MAX: usize = 64;

/// The pipeline has ended; the event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has ended")]
pub struct Ended;

/// Takes events; every clone keeps the pipeline running.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Routes>);

#[derive(Debug)]
struct Routes {
    chains: Vec<Arc<Chain>>,
    shards: u32,
    workers: Mutex<HashMap<u64, Arc<[mpsc::Sender<Item>]>>>,
    buffer: Buffer,
    upstream: Arc<upstream::Routes>,
    metrics: Metrics,
    threads: TaskTracker,
    runtime: runtime::Handle,
    fault: CancellationToken,
    _ended: DropGuard,
}

/// The pipeline's task: ends when every handle is gone and what was taken is appended.
#[derive(Debug)]
pub struct Pipeline {
    threads: TaskTracker,
    ended: CancellationToken,
    fault: CancellationToken,
}

impl Pipeline {
    /// A pipeline with `shards` threads a chain. Must be called on the runtime.
    ///
    /// # Panics
    /// With more than [`CHAINS_MAX`] chains, which the configuration refuses.
    pub fn new(
        chains: Vec<Chain>,
        shards: u32,
        buffer: Buffer,
        upstream: Arc<upstream::Routes>,
        metrics: Metrics,
    ) -> (Self, Handle) {
        assert!(
            chains.len() <= CHAINS_MAX,
            "the configuration bounds the number of chains"
        );
        let (ended, fault, threads) = (
            CancellationToken::new(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let routes = Routes {
            chains: chains.into_iter().map(Arc::new).collect(),
            shards: shards.max(1),
            workers: Mutex::default(),
            buffer,
            upstream,
            metrics,
            threads: threads.clone(),
            runtime: runtime::Handle::current(),
            fault: fault.clone(),
            _ended: ended.clone().drop_guard(),
        };
        (
            Self {
                threads,
                ended,
                fault,
            },
            Handle(Arc::new(routes)),
        )
    }

    /// Runs until every handle is gone and the threads have appended what they were given.
    pub async fn run(self) -> TaskResult {
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = self.fault.cancelled() => return Err("a chain's thread panicked".into()),
        }
        self.threads.close();
        self.threads.wait().await;
        Ok(())
    }
}

impl Handle {
    /// Takes an event; waits while the queue of its shard is full. `ack` is committed once all
    /// that the event gave rise to is durable, and dropped if that fails.
    ///
    /// # Errors
    /// [`Ended`] if the pipeline or the buffer is gone; `ack` is then dropped.
    pub async fn submit(&self, event: Event, ack: Option<Ack>) -> Result<(), Ended> {
        let routes = &self.0;
        routes.metrics.events.inc();
        let combination = routes.combination(&event);
        if combination == 0 {
            let draft = worker::plain_draft(&event, &routes.upstream);
            return routes
                .buffer
                .append(vec![draft], ack)
                .await
                .map_err(|_| Ended);
        }
        let shard = shard_of(event.device(), routes.shards);
        let queue = routes.queue(combination, shard).ok_or(Ended)?;
        queue.send(Item { event, ack }).await.map_err(|_| Ended)
    }
}

impl Handle {
    /// Whether the buffer takes more than what is on its way to it.
    pub fn has_room(&self) -> bool {
        self.0.buffer.has_room()
    }

    /// Waits until it does. Cancel-safe.
    pub async fn room(&self) {
        self.0.buffer.room().await;
    }
}

impl Routes {
    /// The chains that apply to an event, a bit each.
    fn combination(&self, event: &Event) -> u64 {
        let applies = |chain: &Arc<Chain>| event.groups.contains(chain.group());
        self.chains
            .iter()
            .enumerate()
            .filter(|(_, chain)| applies(chain))
            .fold(0, |bits, (index, _)| bits | 1 << index)
    }

    /// The queue of a shard; starts the combination's threads at its first event.
    fn queue(&self, combination: u64, shard: usize) -> Option<mpsc::Sender<Item>> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if workers.len() >= COMBINATIONS_MAX && !workers.contains_key(&combination) {
            error!(
                combinations = COMBINATIONS_MAX,
                "Things are in too many combinations of groups with chains; events of a further one are not taken."
            );
            return None;
        }
        let queues = workers
            .entry(combination)
            .or_insert_with(|| self.start(combination));
        queues.get(shard).cloned()
    }

    fn start(&self, combination: u64) -> Arc<[mpsc::Sender<Item>]> {
        let chains: Vec<_> = self
            .chains
            .iter()
            .enumerate()
            .filter(|(index, _)| combination & 1 << index != 0)
            .map(|(_, chain)| Arc::clone(chain))
            .collect();
        (0..self.shards)
            .map(|shard| {
                let (sender, receiver) = mpsc::channel(SHARD_QUEUE_EVENTS_MAX);
                let worker = Worker::new(
                    &chains,
                    shard,
                    self.shards,
                    receiver,
                    (self.buffer.clone(), Arc::clone(&self.upstream)),
                    self.metrics.clone(),
                    self.runtime.clone(),
                );
                let fault = self.fault.clone();
                self.threads.spawn_blocking(move || {
                    let fault = fault.drop_guard();
                    worker.run();
                    // Not reached by a panic, which is a fault.
                    fault.disarm();
                });
                sender
            })
            .collect()
    }
}

fn shard_of(device: &str, shards: u32) -> usize {
    let mut hasher = DefaultHasher::new();
    device.hash(&mut hasher);
    usize::try_from(hasher.finish() % u64::from(shards)).expect("a remainder of a u32 fits")
}
