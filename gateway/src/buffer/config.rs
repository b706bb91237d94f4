//! Settings of the buffer.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use portcullis_core::limits::{BUFFER_BYTES_MAX, COMMIT_LINGER, GENERATION_BYTES_MAX};
use serde::Deserialize;

use crate::document::Section;

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory of the generations: `data/buffer`.
    pub dir: PathBuf,
    /// How long the first record of a commit waits for company at most.
    pub linger: Duration,
    /// All generations together; then `append` waits.
    pub bytes_max: u64,
    /// A generation is closed at this size.
    pub generation_bytes_max: u64,
}

/// `[buffer]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct BufferToml {
    linger_ms: u64,
    bytes_max: u64,
    generation_bytes_max: u64,
}

impl Default for BufferToml {
    fn default() -> Self {
        Self {
            linger_ms: u64::try_from(COMMIT_LINGER.as_millis()).unwrap_or(u64::MAX),
            bytes_max: BUFFER_BYTES_MAX,
            generation_bytes_max: GENERATION_BYTES_MAX,
        }
    }
}

const MIB: u64 = 1024 * 1024;

impl Config {
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
        Self {
            dir: data_dir.join("buffer"),
            linger: Duration::from_millis(linger_ms),
            bytes_max,
            generation_bytes_max,
        }
    }
}
