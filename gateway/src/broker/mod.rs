//! TBD

pub mod config;

pub use config::{Config, Listener, OnPublishDenied, PlainIdentity, PlainUnknown};
