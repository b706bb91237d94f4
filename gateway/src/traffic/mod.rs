//! What devices were allowed to do, so that policies can be learned from it.
//!
//! The broker tells a [`Recorder`] of every allowed action. It only counts, under a short lock of
//! one of many shards; twice a second the [`Traffic`] task takes what was counted, makes facts of
//! it (`portcullis_core::learn`) and keeps them in a file an hour, `YYYY-MM-DDTHH.json`, written
//! whole or not at all. New facts are on disk within a second, mere counts within a minute. A week
//! is kept, and no more than [`TRAFFIC_BYTES_MAX`](portcullis_core::limits::TRAFFIC_BYTES_MAX).
//!
//! Absent on purpose: payloads, denials (they are no basis for leave to do anything), and clients
//! that are no thing (a policy is learned for a group of things).
//!
//! When it fails, nothing else does: what does not fit a bound is lost and counted, a file that
//! cannot be written is tried again, a file that cannot be read is told and left out.

mod files;
mod metrics;
mod recorder;
mod task;

pub use files::{Recorded, read_since};
pub use metrics::Metrics;
pub use recorder::Recorder;
pub use task::Traffic;

#[cfg(test)]
mod tests;
