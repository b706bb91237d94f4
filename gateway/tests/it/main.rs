//! The gateway's modules together: real clients, real processes killed, real emulators.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::let_underscore_must_use,
    reason = "test code may panic and print"
)]

mod buffer;
mod demo;
mod device;
mod emulators;
mod fake_kinesis;
mod kill;
mod kinesis;
mod mosquitto;
mod outbox;
mod plugins;
mod runaway;
mod site;
mod stream;
mod support;
