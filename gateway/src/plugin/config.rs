//! Settings of plugins.

use std::{path::PathBuf, time::Duration};

use portcullis_core::topic::TopicFilter;

/// One plugin file with its limits.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// The name by which chains refer to it.
    pub name: String,
    /// The component.
    pub file: PathBuf,
    /// Linear memory of one instance.
    pub memory_bytes_max: usize,
    /// Time that one call may take.
    pub deadline: Duration,
    /// Topics on which it may emit further messages; none by default.
    pub emit: Vec<TopicFilter>,
}
