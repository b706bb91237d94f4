//! Settings of the uplink.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use portcullis_core::{
    backoff::Backoff,
    identity::GroupName,
    limits,
    record::{Kind, Lane, SinkSet},
    topic::TopicFilter,
    upstream::{Route, Routes},
};
use serde::{Deserialize, de::IgnoredAny};

use crate::document::Section;

mod kinesis;

pub(super) use kinesis::is_endpoint;

/// A file of the outbox.
const OUTBOX_FILE_BYTES_MAX: u64 = 64 * MIB;
/// All files of the outbox.
const OUTBOX_BYTES_MAX: u64 = 1024 * MIB;
const MIB: u64 = 1024 * 1024;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// NDJSON files.
    Outbox(OutboxConfig),
    /// Kinesis data streams.
    Kinesis(Box<KinesisConfig>),
}

/// A sink as the buffer knows it: its cursors live under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    /// Its name, which stays the same however many others there are.
    pub name: String,
    /// What it reads.
    pub lanes: Vec<Lane>,
}

/// Validated settings of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxConfig {
    /// `data/outbox`.
    pub dir: PathBuf,
    /// A file is closed at this size.
    pub file_bytes_max: u64,
    /// All files together; then the oldest is removed and counted.
    pub bytes_max: u64,
}

/// Validated settings of the Kinesis sinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KinesisConfig {
    /// Where goes what no route takes.
    pub default: StreamConfig,
    /// Further streams.
    pub routes: Vec<RouteConfig>,
}

/// A further stream, and what goes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Its name, also of the sink: `kinesis-NAME`.
    pub name: String,
    /// The stream.
    pub stream: StreamConfig,
    /// Kinds of records; none named is all of them.
    pub kinds: Vec<Kind>,
    /// Groups of the thing, of which one is enough.
    pub groups: Vec<GroupName>,
    /// Topic filters, of which one has to match.
    pub topics: Vec<TopicFilter>,
    /// Whether the default stream gets it as well.
    pub also_default: bool,
}

/// One stream with how it is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Name of the stream.
    pub stream: String,
    /// AWS region.
    pub region: String,
    /// Only for emulators and private endpoints.
    pub endpoint: Option<String>,
    /// Whether a request may have several records of a thing.
    pub ordering: Ordering,
    /// What goes first after an outage.
    pub order: Order,
    /// Requests under way at once.
    pub requests_in_flight: usize,
    /// Data and partition keys in one request.
    pub batch_bytes_max: usize,
    /// How long a record waits for company.
    pub linger: Duration,
    /// Whether records travel in the format of the Kinesis Producer Library.
    pub aggregate: bool,
    /// Older records go to the dead letters.
    pub max_age: Option<Duration>,
    /// The part of each shard's limits that is ours, in thousandths.
    pub share_permille: u32,
    /// What is sent at most.
    pub pace: Pace,
    /// What is expected to come, for the check at the start.
    pub expected_records_per_second: Option<u64>,
    /// Time for one request, connection included. Not in the file: what a link does not carry in
    /// it, it gets in smaller requests.
    pub request_timeout: Duration,
    /// How long to wait after failures. Only the longest wait without a link is in the file.
    pub waits: Waits,
}

/// What is sent at most; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Records a second.
    pub records_per_second_max: Option<u64>,
    /// Bytes a second.
    pub bytes_per_second_max: Option<u64>,
    /// Bytes a day (UTC); what is critical goes all the same, and counts.
    pub bytes_per_day_max: Option<u64>,
}

/// Order of the records of a thing (specification D.3).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// Never one after a younger one.
    Strict,
    /// One that failed alone may land after younger ones that were in its request.
    #[default]
    Relaxed,
}

/// What goes first after an outage.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The oldest.
    #[default]
    BacklogFirst,
    /// What comes from now on; the backlog when there is nothing else.
    LiveFirst,
}

/// How long to wait after failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The stream's load, the service's own faults.
    pub throttled: Backoff,
    /// No link.
    pub unreachable: Backoff,
    /// Refused.
    pub refused: Backoff,
    /// There is no such stream: at least so long.
    pub missing: Backoff,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            throttled: Backoff {
                base: limits::THROTTLE_BACKOFF_BASE,
                cap: limits::THROTTLE_BACKOFF_MAX,
            },
            unreachable: Backoff {
                base: limits::CONNECT_BACKOFF_BASE,
                cap: limits::CONNECT_BACKOFF_MAX,
            },
            refused: Backoff {
                base: limits::REFUSED_BACKOFF_BASE,
                cap: limits::REFUSED_BACKOFF_MAX,
            },
            missing: Backoff {
                base: limits::MISSING_WAIT_MIN,
                cap: limits::REFUSED_BACKOFF_MAX,
            },
        }
    }
}

impl StreamConfig {
    /// A stream with the defaults of everything else.
    pub fn new(stream: &str, region: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            region: region.to_owned(),
            endpoint: None,
            ordering: Ordering::default(),
            order: Order::default(),
            requests_in_flight: limits::REQUESTS_IN_FLIGHT,
            batch_bytes_max: limits::PUT_RECORDS_BYTES_MAX,
            linger: limits::UPLINK_LINGER,
            aggregate: false,
            max_age: None,
            share_permille: 1000,
            pace: Pace::default(),
            expected_records_per_second: None,
            request_timeout: limits::PUT_RECORDS_TIMEOUT,
            waits: Waits::default(),
        }
    }
}

/// `[uplink]` as it is written; its tables are read one by one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct UplinkToml {
    outbox: Option<IgnoredAny>,
    kinesis: Option<IgnoredAny>,
    /// See [`super::cloudwatch::Config`].
    cloudwatch: Option<IgnoredAny>,
    cloudwatch_logs: Option<IgnoredAny>,
}

/// `[uplink.outbox]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct OutboxToml {
    file_bytes_max: u64,
    bytes_max: u64,
}

impl Default for OutboxToml {
    fn default() -> Self {
        Self {
            file_bytes_max: OUTBOX_FILE_BYTES_MAX,
            bytes_max: OUTBOX_BYTES_MAX,
        }
    }
}

impl Config {
    /// Reads `[uplink]`; the outbox is under `data_dir`. A Kinesis stream wins: the outbox's keys
    /// may stay beside it, checked and unused. `groups` are the names that exist, if anybody knows.
    pub(crate) fn read(
        section: &mut Section<'_, '_>,
        data_dir: &Path,
        groups: Option<&[&str]>,
    ) -> Option<Self> {
        section.read::<UplinkToml>();
        let outbox = OutboxConfig::read(&mut section.section("outbox"), data_dir);
        let mut kinesis = section.section("kinesis");
        if kinesis.is_present() {
            let config = KinesisConfig::read(&mut kinesis, groups)?;
            Some(Self::Kinesis(Box::new(config)))
        } else {
            Some(Self::Outbox(outbox))
        }
    }

    /// The sinks; the index of each is its bit in a set of sinks.
    pub fn sinks(&self) -> Vec<SinkSpec> {
        let spec = |name: String| SinkSpec {
            name,
            lanes: vec![Lane::Critical, Lane::Events],
        };
        match self {
            Self::Outbox(_) => vec![spec("outbox".to_owned())],
            Self::Kinesis(config) => {
                let routes = config.routes.iter();
                let further = routes.map(|route| spec(format!("kinesis-{}", route.name)));
                std::iter::once(spec("kinesis".to_owned()))
                    .chain(further)
                    .collect()
            }
        }
    }

    /// Which records are for which of [`Self::sinks`].
    pub fn routes(&self) -> Routes {
        let mut routes = Routes::new(SinkSet::single(0));
        if let Self::Kinesis(config) = self {
            for (index, route) in config.routes.iter().enumerate() {
                routes.push(Route {
                    sinks: SinkSet::single(index + 1),
                    kinds: route.kinds.clone(),
                    groups: route.groups.clone(),
                    topics: route.topics.clone(),
                    also_default: route.also_default,
                });
            }
        }
        routes
    }
}

impl OutboxConfig {
    fn read(section: &mut Section<'_, '_>, data_dir: &Path) -> Self {
        let toml: OutboxToml = section.read().unwrap_or_default();
        let file_bytes_max = section.within("file-bytes-max", toml.file_bytes_max, MIB, 1024 * MIB);
        let bytes_max = section.within("bytes-max", toml.bytes_max, MIB, 1024 * 1024 * MIB);
        if bytes_max < file_bytes_max {
            section.problem(
                "bytes-max",
                "`bytes-max` is less than one file",
                format!("write at least {file_bytes_max}, or a smaller `file-bytes-max`"),
            );
        }
        Self {
            dir: data_dir.join("outbox"),
            file_bytes_max,
            bytes_max,
        }
    }
}
