//! What Portcullis decides, without doing it.
//!
//! No tokio, no files, no clock (functions take `now`), no AWS, no wasmtime. Everything here is a
//! pure function or a plain value, so that its tests run in a second and its parsers can be fuzzed.

pub mod backoff;
pub mod batch;
pub mod certificate;
pub mod cloudwatch;
pub mod detect;
pub mod document;
pub mod event;
pub mod identity;
pub mod json;
pub mod learn;
pub mod limits;
pub mod policy;
pub mod problem;
pub mod provisioning;
pub mod rate;
pub mod record;
pub mod registry;
pub mod reserved;
pub mod routes;
pub mod session;
pub mod timestamp;
pub mod topic;
pub mod upstream;
