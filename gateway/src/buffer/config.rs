//! Settings of the buffer.

use std::{path::PathBuf, time::Duration};

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of the generations: `data/buffer`.
    pub dir: PathBuf,
    /// How long the first record of a commit waits for company.
    pub linger: Duration,
    /// All generations together; then `append` waits.
    pub bytes_max: u64,
    /// A generation is closed at this size.
    pub generation_bytes_max: u64,
}
