//! Rules as WebAssembly components: the only place that knows wasmtime.
//!
//! The pipeline hands an [`Instance`] a batch of [`PluginEvent`]s and gets back an [`Outcome`] or
//! a [`CallError`]. Calls block and belong on the pipeline's own threads, never on the runtime's.
//! The contract with the guest is `wit/plugin.wit`; here its promises are enforced:
//!
//! - every call has a deadline, a memory limit and an output limit;
//! - everything that a guest returns is checked before anybody else sees it;
//! - a guest reaches no file, socket, environment, clock or sleep;
//! - whatever a guest does ends in a value: a trap costs the instance, which is replaced before
//!   the next call, and a plugin that keeps failing is paused instead of costing its deadline
//!   again and again.
//!
//! Absent on purpose: what happens to the events of a failed call (the pipeline's policy), state
//! that outlives an instance, and a cache of compiled code (compiling takes a fraction of a
//! second, and loading foreign machine code is what an attacker would like).

mod bindings;
mod breaker;
mod columns;
pub mod config;
mod error;
mod event;
mod guest;
mod host;
mod instance;
mod metrics;
mod outcome;
mod projection;
mod verify;
mod wasi;

pub use config::PluginConfig;
pub use error::{CallError, LoadError, PluginError, Reason};
pub use event::PluginEvent;
pub use host::{Host, Plugin};
pub use instance::Instance;
pub use metrics::Metrics;
pub use portcullis_core::detect::Severity;

pub use outcome::{Changes, Emission, Outcome, Verdict, Violation};
pub use projection::Projection;
