//! Integration tests of the gateway: one binary, real parts, faults.

mod plugins;
//! The gateway's modules together: real clients, real processes killed, real emulators.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::let_underscore_must_use,
    reason = "test code may panic and print"
)]

mod buffer;
mod emulators;
mod fake_kinesis;
mod kinesis;
mod outbox;
mod support;
