//! Detection at work: activity from the broker goes in, violations come out.
//!
//! [`Observer`] is what the broker holds; it never blocks. [`Defend`] owns the
//! [`Detector`](portcullis_core::detect::Detector) and is one task: it takes activities from the queue, ticks
//! the windows, and turns each violation into a log line, a metric and a draft for the buffer.
//!
//! Absent on purpose: any reaction. Mitigation and audits come later and stand beside this task.
//!
//! How it fails: a full queue drops activities and counts them
//! (`portcullis_defend_activities_dropped_total`); a buffer that is full makes the task wait, so that
//! the queue fills; devices are served in either case.

mod load;
mod metrics;
mod observer;
mod task;

#[cfg(test)]
mod tests;

pub use load::load;
pub use observer::Observer;
pub use portcullis_core::detect::{Activity, ActivityKind};
pub use task::{Defend, Listener};
