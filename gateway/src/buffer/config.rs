//! Settings of the buffer.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use portcullis_core::{
    limits::{
        APPEND_QUEUE_RECORDS_MAX, BUFFER_BYTES_MAX, BUFFER_RESERVE_BYTES_MAX, BUFFER_RESERVE_SHARE,
        COMMIT_LINGER, GENERATION_BYTES_MAX,
    },
    record::Lane,
};
use serde::{Deserialize, de::IgnoredAny};

use crate::document::Section;

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory of the lanes: `data/buffer`.
    pub dir: PathBuf,
    /// How long the first record of a commit waits for company at most.
    pub linger: Duration,
    /// All lanes together, what is kept free for the critical one included.
    pub bytes_max: u64,
    /// A generation is closed at this size.
    pub generation_bytes_max: u64,
    /// Records of one commit: what waits beyond them goes into the next.
    pub batch_records_max: usize,
    /// Highest priority first.
    pub lanes: [LaneConfig; Lane::ALL.len()],
}

/// Settings of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneConfig {
    /// Its generations together.
    pub bytes_max: u64,
    /// What is older is dropped.
    pub max_age: Option<Duration>,
    /// What happens at the bound.
    pub at_bound: AtBound,
}

/// What happens when a lane is at its bound, or the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtBound {
    /// Appenders wait.
    BackPressure,
    /// The oldest generation goes.
    DropOldest,
    /// What comes is not kept.
    DropNewest,
}

/// `[buffer]` as it is written; its tables are read one by one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct BufferToml {
    linger_ms: u64,
    bytes_max: u64,
    generation_bytes_max: u64,
    batch_records_max: u64,
    critical: Option<IgnoredAny>,
    events: Option<IgnoredAny>,
    bulk: Option<IgnoredAny>,
}

impl Default for BufferToml {
    fn default() -> Self {
        Self {
            linger_ms: u64::try_from(COMMIT_LINGER.as_millis()).unwrap_or(u64::MAX),
            bytes_max: BUFFER_BYTES_MAX,
            generation_bytes_max: GENERATION_BYTES_MAX,
            batch_records_max: BATCH_RECORDS_MAX,
            critical: None,
            events: None,
            bulk: None,
        }
    }
}

/// A lane as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct LaneToml {
    bytes_max: Option<u64>,
    max_age_secs: Option<u64>,
    at_bound: Option<AtBound>,
}

const MIB: u64 = 1024 * 1024;
const BATCH_RECORDS_MAX: u64 = APPEND_QUEUE_RECORDS_MAX as u64 / 2;
const MAX_AGE_SECS_MAX: u64 = 10 * 365 * 24 * 3600;

impl LaneConfig {
    /// What a lane has if nothing is said, with `bytes_max` for all lanes.
    fn default_of(lane: Lane, bytes_max: u64) -> Self {
        let (bytes_max, at_bound) = match lane {
            // The reserve: what is below the bound for everybody else.
            Lane::Critical => (
                (bytes_max / BUFFER_RESERVE_SHARE).min(BUFFER_RESERVE_BYTES_MAX),
                AtBound::DropOldest,
            ),
            Lane::Events => (bytes_max, AtBound::BackPressure),
            Lane::Bulk => (bytes_max / 4, AtBound::DropOldest),
        };
        Self {
            bytes_max,
            max_age: None,
            at_bound,
        }
    }

    fn read(section: &mut Section<'_, '_>, lane: Lane, all_bytes_max: u64) -> Self {
        let toml: LaneToml = section.read().unwrap_or_default();
        let default = Self::default_of(lane, all_bytes_max);
        let least = MIB.min(default.bytes_max);
        let bytes_max = toml.bytes_max.map_or(default.bytes_max, |bytes| {
            section.within("bytes-max", bytes, least, 1024 * 1024 * MIB)
        });
        if bytes_max > all_bytes_max {
            section.problem(
                "bytes-max",
                "the lane's `bytes-max` is more than that of the buffer",
                format!("write at most {all_bytes_max}, or a larger `bytes-max` in [buffer]"),
            );
        } else if lane == Lane::Critical && bytes_max > all_bytes_max / 2 {
            section.problem(
                "bytes-max",
                "the critical lane takes more than half of the buffer",
                format!(
                    "write at most {}: it is kept free for it",
                    all_bytes_max / 2
                ),
            );
        }
        Self {
            bytes_max,
            max_age: toml.max_age_secs.map(|secs| {
                Duration::from_secs(section.within("max-age-secs", secs, 60, MAX_AGE_SECS_MAX))
            }),
            at_bound: toml.at_bound.unwrap_or(default.at_bound),
        }
    }
}

impl Config {
    /// The defaults, with the files in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        let toml = BufferToml::default();
        Self {
            dir,
            linger: COMMIT_LINGER,
            bytes_max: toml.bytes_max,
            generation_bytes_max: toml.generation_bytes_max,
            batch_records_max: APPEND_QUEUE_RECORDS_MAX / 2,
            lanes: Lane::ALL.map(|lane| LaneConfig::default_of(lane, toml.bytes_max)),
        }
    }

    /// The same with another bound for all lanes, and theirs as it has them by default.
    #[must_use]
    pub fn bounded(self, bytes_max: u64) -> Self {
        Self {
            bytes_max,
            lanes: Lane::ALL.map(|lane| LaneConfig::default_of(lane, bytes_max)),
            ..self
        }
    }

    /// Settings of a lane.
    pub const fn lane(&self, lane: Lane) -> &LaneConfig {
        &self.lanes[lane as usize]
    }

    /// What the lanes other than the critical one may take together.
    pub(super) fn shared_bytes_max(&self) -> u64 {
        self.bytes_max
            .saturating_sub(self.lane(Lane::Critical).bytes_max)
    }

    /// Reads `[buffer]`; the files are under `data_dir`.
    pub(crate) fn read(section: &mut Section<'_, '_>, data_dir: &Path) -> Self {
        let toml: BufferToml = section.read().unwrap_or_default();
        // More than a second and devices would see their acknowledgements time out.
        let linger_ms = section.within("linger-ms", toml.linger_ms, 0, 1000);
        let generation_bytes_max = section.within(
            "generation-bytes-max",
            toml.generation_bytes_max,
            MIB,
            1024 * MIB,
        );
        let bytes_max = section.within("bytes-max", toml.bytes_max, 4 * MIB, 1024 * 1024 * MIB);
        if bytes_max < 4 * generation_bytes_max {
            section.problem(
                "bytes-max",
                "`bytes-max` is less than four generations",
                format!(
                    "write at least {}, or a smaller `generation-bytes-max`",
                    4 * generation_bytes_max
                ),
            );
        }
        let batch_records_max = section.within(
            "batch-records-max",
            toml.batch_records_max,
            1,
            BATCH_RECORDS_MAX,
        );
        let lanes = Lane::ALL
            .map(|lane| LaneConfig::read(&mut section.section(lane.name()), lane, bytes_max));
        Self {
            dir: data_dir.join("buffer"),
            linger: Duration::from_millis(linger_ms),
            bytes_max,
            generation_bytes_max,
            batch_records_max: usize::try_from(batch_records_max).unwrap_or(usize::MAX),
            lanes,
        }
    }
}
