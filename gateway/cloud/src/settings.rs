//! What a cloud is started with, and what of it may change while it runs.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    clock::Clock, fault::Rates, kinesis::Record, logs::LogEvent, metrics::Datum,
    signature::Signatures,
};

/// Finds the number in a record's data.
pub type NumberOf = fn(&[u8]) -> Option<u64>;

/// How the cloud behaves. [`crate::Cloud::set`] changes all but `listen` and `streams` at any time.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 is any free port.
    pub listen: SocketAddr,
    /// Streams that exist from the start, with their shards.
    pub streams: Vec<(String, u32)>,
    /// What decides where rates strike: the same seed strikes the same requests, by their number.
    pub seed: u64,
    /// What time it is.
    pub clock: Clock,
    /// Faults of puts that no script speaks of.
    pub rates: Rates,
    /// What a shard takes. None: anything.
    pub shard_limits: Option<ShardLimits>,
    /// Which signatures pass.
    pub signatures: Signatures,
    /// How long a new stream is `CREATING`, by the clock.
    pub creation_takes: Duration,
    /// Log events older than this are expired (`expiredLogEventEndIndex`). None: they never are.
    pub log_retention: Option<Duration>,
    /// What is remembered.
    pub keep: Keep,
    /// Finds the number in a record's data, for [`crate::Cloud::order`]; [`crate::seq_of`] does for
    /// records of the gateway.
    pub numbered: Option<NumberOf>,
    /// Told of everything that is accepted, in order.
    pub observer: Option<Observer>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            streams: Vec::new(),
            seed: 1,
            clock: Clock::Real,
            rates: Rates::default(),
            shard_limits: None,
            signatures: Signatures::default(),
            creation_takes: Duration::ZERO,
            log_retention: None,
            keep: Keep::All,
            numbered: None,
            observer: None,
        }
    }
}

impl Settings {
    /// With this stream.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>, shards: u32) -> Self {
        self.streams.push((name.into(), shards));
        self
    }

    /// With AWS's limits of a shard.
    #[must_use]
    pub fn with_shard_limits(mut self) -> Self {
        self.shard_limits = Some(ShardLimits::default());
        self
    }

    /// With faults at these rates.
    #[must_use]
    pub fn rates(mut self, rates: Rates) -> Self {
        self.rates = rates;
        self
    }

    /// With this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Remembering this.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// By this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checking the order of the numbers that this finds in records.
    #[must_use]
    pub fn numbered(mut self, number: NumberOf) -> Self {
        self.numbered = Some(number);
        self
    }

    /// Whether records are looked into at all.
    pub(crate) fn reads_data(&self) -> bool {
        self.keep != Keep::None || self.numbered.is_some() || self.observer.is_some()
    }
}

/// What is remembered of what was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything, and what every request tried.
    All,
    /// About the latest so many bytes of each stream, metrics and log stream, and the latest requests.
    UpTo {
        /// Data, keys and messages; what stands around them comes on top.
        bytes: u64,
    },
    /// Counts, and the order of numbers if asked for. Data are not even decoded otherwise.
    None,
}

impl Keep {
    /// Whether more than this must go.
    pub(crate) fn is_over(self, bytes: u64) -> bool {
        match self {
            Self::All => false,
            Self::UpTo { bytes: most } => bytes > most,
            Self::None => true,
        }
    }
}

/// What a shard takes; a second's worth may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardLimits {
    /// AWS: 1000.
    pub records_per_second: u32,
    /// Data and keys. AWS: 1 MiB.
    pub bytes_per_second: u32,
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self {
            records_per_second: 1000,
            bytes_per_second: 1 << 20,
        }
    }
}

/// Something that was accepted.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Into a stream.
    Record {
        /// Its name.
        stream: &'a str,
        /// What.
        record: &'a Record,
    },
    /// Of a metric.
    Datum(&'a Datum),
    /// Into a log.
    LogEvent(&'a LogEvent),
}

/// Told of everything that is accepted, before the client is answered. It must not call the cloud.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Seen<'_>) + Send + Sync>);

impl Observer {
    /// Calls this.
    pub fn new(told: impl Fn(Seen<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    pub(crate) fn tell(&self, seen: Seen<'_>) {
        (self.0)(seen);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
