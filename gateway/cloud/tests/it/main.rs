//! The cloud over its port, by requests made by hand.
#![allow(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "test code may panic"
)]

mod client;
mod faults;
mod kinesis;
mod logs;
mod metrics;
mod signatures;
