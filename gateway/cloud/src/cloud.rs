//! The handle: starting, changing, scripting, asking what arrived.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    counters::{Counters, Request},
    fault::Fault,
    kinesis::{Record, ShardInfo},
    logs::LogEvent,
    metrics::Datum,
    order::Order,
    refusal::Refusal,
    server::Server,
    settings::Settings,
    state::{ANY_PUT, Shared, State},
};

/// A running cloud. Clones are the same one; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Cloud {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// None while the service is absent.
    server: Mutex<Option<Server>>,
}

impl Inner {
    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(server) = self.server().take() {
            server.stop();
        }
    }
}

impl Cloud {
    /// Listens and serves.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let listen = settings.listen;
        let shared = Arc::new(Shared::new(settings));
        let server = Server::start(listen, shared.clone())?;
        Ok(Self {
            inner: Arc::new(Inner {
                address: server.address,
                shared,
                server: Mutex::new(Some(server)),
            }),
        })
    }

    /// With one stream, and without faults and shard limits.
    pub fn with_stream(name: &str, shards: u32) -> io::Result<Self> {
        Self::start(Settings::default().stream(name, shards))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// What an SDK takes as `endpoint_url`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.shared.lock()
    }

    /// Changes how it behaves from the next request on.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.state().settings);
    }

    /// What the next puts meet (`PutRecords`, `PutRecord`, `PutMetricData`, `PutLogEvents`), one each,
    /// after what was scripted before.
    pub fn next_requests(&self, faults: impl IntoIterator<Item = Fault>) {
        self.next_of(ANY_PUT, faults);
    }

    /// What the next requests of one operation meet; it goes before [`Self::next_requests`].
    pub fn next_of(&self, operation: &str, faults: impl IntoIterator<Item = Fault>) {
        let mut state = self.state();
        let script = state.scripts.entry(operation.to_owned()).or_default();
        script.extend(faults);
    }

    /// What puts meet that no script speaks of, instead of what the rates say. [`Fault::None`]: nothing.
    pub fn meanwhile(&self, fault: Fault) {
        self.meanwhile_of(ANY_PUT, fault);
    }

    /// The same for one operation.
    pub fn meanwhile_of(&self, operation: &str, fault: Fault) {
        self.state().standing.insert(operation.to_owned(), fault);
    }

    /// Forgets all scripts and what was said for [`Self::meanwhile`]; the rates hold again.
    pub fn recover(&self) {
        let mut state = self.state();
        state.scripts.clear();
        state.standing.clear();
    }

    /// How many scripted requests are still to come.
    pub fn scripted(&self) -> usize {
        self.state()
            .scripts
            .values()
            .map(|script| script.len())
            .sum()
    }

    /// From now on connections are refused, and those that are open are closed. A request on its way
    /// has taken effect, or never will.
    pub fn go_away(&self) {
        if let Some(server) = self.inner.server().take() {
            server.stop();
        }
    }

    /// Listens at the same address again.
    pub fn come_back(&self) -> io::Result<()> {
        let mut server = self.inner.server();
        if server.is_none() {
            *server = Some(Server::start(
                self.inner.address,
                self.inner.shared.clone(),
            )?);
        }
        Ok(())
    }

    /// Closes the connections that are open.
    pub fn close_connections(&self) {
        if let Some(server) = &*self.inner.server() {
            server.close_connections();
        }
    }

    /// Makes a stream if there is none of this name.
    pub fn create_stream(&self, name: &str, shards: u32) {
        let mut state = self.state();
        let now_micros = state.settings.clock.now_micros();
        state.kinesis.ensure(name, shards, now_micros);
    }

    /// Removes a stream with all that is in it.
    pub fn delete_stream(&self, name: &str) {
        self.state().kinesis.remove(name);
    }

    /// Splits a shard in its middle.
    pub fn split_shard(&self, stream: &str, shard: &str) -> Result<(), Refusal> {
        let shards = self.shards(stream);
        let of = shards.iter().find(|info| *info.id == *shard);
        let middle = of.map_or(0, |info| info.start + (info.end - info.start) / 2 + 1);
        self.control(
            "SplitShard",
            &serde_json::json!({
                "StreamName": stream,
                "ShardToSplit": shard,
                "NewStartingHashKey": middle.to_string(),
            }),
        )
    }

    /// Merges two shards that are next to each other.
    pub fn merge_shards(&self, stream: &str, one: &str, other: &str) -> Result<(), Refusal> {
        self.control(
            "MergeShards",
            &serde_json::json!({
                "StreamName": stream,
                "ShardToMerge": one,
                "AdjacentShardToMerge": other,
            }),
        )
    }

    fn control(&self, operation: &str, input: &serde_json::Value) -> Result<(), Refusal> {
        let mut state = self.state();
        let now_micros = state.settings.clock.now_micros();
        let called = state
            .kinesis
            .call(operation, input, now_micros, Duration::ZERO);
        called.map(|_| ())
    }

    /// What a stream has taken, in this order, duplicates and all.
    pub fn records(&self, stream: &str) -> Vec<Record> {
        self.state().kinesis.records(stream)
    }

    /// Partition keys and data of [`Self::records`].
    pub fn taken(&self, stream: &str) -> Vec<(String, Vec<u8>)> {
        let records = self.records(stream).into_iter();
        records
            .map(|record| (record.partition_key, record.data.to_vec()))
            .collect()
    }

    /// Whether the numbers in a stream's records came in order; needs [`Settings::numbered`].
    pub fn order(&self, stream: &str) -> Order {
        self.state().kinesis.order(stream)
    }

    /// The shards of a stream, closed ones too; none if there is no such stream.
    pub fn shards(&self, stream: &str) -> Vec<ShardInfo> {
        self.state().kinesis.shards(stream)
    }

    /// All data points, in the order in which they came.
    pub fn datums(&self) -> Vec<Datum> {
        self.state().metrics.datums()
    }

    /// What a log stream has taken, in this order.
    pub fn log_events(&self, group: &str, stream: &str) -> Vec<LogEvent> {
        self.state().logs.events(group, stream)
    }

    /// Every request by number, with what it tried and what became of it.
    pub fn requests(&self) -> Vec<Request> {
        let mut requests: Vec<_> = self.state().requests.iter().cloned().collect();
        requests.sort_by_key(|request| request.number);
        requests
    }

    /// The counts.
    pub fn counters(&self) -> Counters {
        self.state().counters.clone()
    }

    /// Blocks until the condition holds for the counts, for so long at most. Whether it does.
    pub fn wait(&self, at_most: Duration, mut condition: impl FnMut(&Counters) -> bool) -> bool {
        let started = Instant::now();
        let mut state = self.state();
        while !condition(&state.counters) {
            let Some(left) = at_most.checked_sub(started.elapsed()) else {
                return false;
            };
            state = self.inner.shared.wait(state, left);
        }
        true
    }
}
