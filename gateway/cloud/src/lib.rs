//! The cloud of tests, benches and trials: Kinesis Data Streams, CloudWatch and CloudWatch Logs as a
//! producer meets them, on one port, in memory.
//!
//! It enforces every limit that AWS documents with AWS's errors, and it misbehaves as told: by script
//! for the next requests ([`Cloud::next_requests`]), or by seeded rates ([`Rates`]). What it took is
//! kept in order, with duplicates visible, for assertions ([`Cloud::records`]).
//!
//! It runs on threads of its own, so that tests with and without a runtime use it alike, and so that
//! a connection can be stalled, cut in the middle of an answer or reset. Signatures are not verified;
//! what is looked at is their scope, their date and whose key it is ([`Signatures`]).
//!
//! In reading order: [`Cloud`] is the handle, `server` accepts and serves connections, `service` finds
//! the operation, `kinesis`, `metrics` and `logs` are the three services.

mod clock;
mod cloud;
mod counters;
mod fault;
mod http;
mod kinesis;
mod logs;
mod metrics;
mod order;
mod refusal;
mod server;
mod service;
mod settings;
mod signature;
mod state;

pub use clock::{Clock, VirtualClock};
pub use cloud::Cloud;
pub use counters::{Counters, Outcome, Request};
pub use fault::{Fault, Rates};
pub use kinesis::{Record, ShardInfo};
pub use logs::LogEvent;
pub use metrics::{Datum, Measured};
pub use order::{Order, seq_of};
pub use refusal::Refusal;
pub use settings::{Keep, NumberOf, Observer, Seen, Settings, ShardLimits};
pub use signature::Signatures;

/// The account in every ARN.
pub const ACCOUNT: &str = "000000000000";
