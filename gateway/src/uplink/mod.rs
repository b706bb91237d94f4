//! TBD

pub mod config;

pub use config::{Config, KinesisConfig, OutboxConfig};
