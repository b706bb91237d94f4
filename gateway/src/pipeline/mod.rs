//! TBD

pub mod config;

pub use config::{ChainConfig, OnFailure, StepConfig};
