//! Settings of the uplink.

use std::path::PathBuf;

/// Where records go.
#[derive(Clone, Debug)]
pub enum Config {
    /// NDJSON files.
    Outbox(OutboxConfig),
    /// A Kinesis data stream.
    Kinesis(KinesisConfig),
}

/// Validated settings of the outbox.
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// `data/outbox`.
    pub dir: PathBuf,
    /// A file is closed at this size.
    pub file_bytes_max: u64,
    /// All files together; then the oldest is removed and counted.
    pub bytes_max: u64,
}

/// Validated settings of the Kinesis sink.
#[derive(Clone, Debug)]
pub struct KinesisConfig {
    /// Name of the stream.
    pub stream: String,
    /// AWS region.
    pub region: String,
    /// Only for emulators and private endpoints.
    pub endpoint: Option<String>,
}
