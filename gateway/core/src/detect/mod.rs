//! Detection in the words of AWS IoT Device Defender: what is normal is written in security
//! profiles, and whoever departs from it raises a [`Violation`].
//!
//! The flow: [`Activity`] (what a device did, told by the broker) → [`Detector::observe`] → windows
//! per device and behaviour → datapoints → alarm state machine → [`Violation`] → a
//! [`Draft`](crate::record::Draft) for the stream.
//!
//! Absent on purpose: clocks and randomness (time comes with each call, ids through a function),
//! statistical and learned criteria, metrics that devices report about themselves, and dimensions.
//! A profile that asks for one of these is refused at load, never half applied.
//!
//! How it fails: it does not. Tables are bounded; at the bound the device that was quiet longest is
//! forgotten and counted ([`Stats`]), and devices from outside the registry cannot displace things.

mod activity;
mod alarm;
mod detector;
mod parse;
mod profile;
mod violation;
mod watch;
mod window;

#[cfg(test)]
mod tests;

pub use activity::{Activity, ActivityKind};
pub use detector::{Detector, Limits, Stats};
pub use parse::parse;
pub use profile::{
    Behavior, Comparison, Criteria, Metric, Profiles, SecurityProfile, Target, together,
};
pub use violation::{Cause, EventType, RuleHit, Severity, Violation, ViolationIds};
pub use watch::NewId;
