//! CloudWatch without a network: what a minute of metrics and a log line look like in the buffer, and
//! how they are packed into calls under all limits of the service (specification E.1, E.3).
//!
//! ```text
//! samples ─ Minute ─ metrics::Point ─ record ─ buffer ─ record ─ Point ─ metrics::first ─ call
//! log event ─ logs::Line ─ record ─ buffer ─ record ─ logs::Event ─ logs::first, logs::order ─ call
//! ```
//! Absent on purpose: clocks, the service, and what the gateway measures. A body that cannot be read
//! is `None`; data that the service would refuse never get into a call.

pub mod logs;
pub mod metrics;
mod minute;

pub use minute::{Minute, Series};

/// The members of a JSON object, without its braces: what a draft takes.
fn members(value: &impl serde::Serialize) -> bytes::Bytes {
    let mut text = serde_json::to_vec(value).expect("texts and numbers are written as JSON");
    debug_assert!(text.starts_with(b"{") && text.ends_with(b"}"));
    text.pop();
    bytes::Bytes::from(text).slice(1..)
}
