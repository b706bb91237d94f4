//! Portcullis, the edge IoT security gateway: what does. What decides is in `portcullis-core`.
//!
//! Modules stand in layers and use only lower ones; `gateway/core/tests/tidy.rs` holds them to it.

pub mod chain;
pub mod clock;
pub mod descriptors;
pub mod document;
pub mod supervisor;
pub mod telemetry;

pub mod buffer;
pub mod identity;
pub mod plugin;
pub mod uplink;
pub mod wal;

pub mod defend;
pub mod pipeline;
pub mod traffic;

pub mod admin;
pub mod broker;

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
