//! The gateway from outside: the binary, real files, real clients.

#![allow(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod check;
mod init;
mod site;
