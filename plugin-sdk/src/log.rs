//! Log lines, which the gateway tags with plugin, group and shard.
//!
//! At most 20 lines a call are kept, and 1024 bytes of each. Outside WebAssembly they go to
//! standard error.

use std::fmt::Display;

/// For the author.
pub fn debug(message: impl Display) {
    write(Level::Debug, &message.to_string());
}

/// Worth knowing.
pub fn info(message: impl Display) {
    write(Level::Info, &message.to_string());
}

/// Something is wrong, and the rule goes on.
pub fn warn(message: impl Display) {
    write(Level::Warn, &message.to_string());
}

/// A human is needed.
pub fn error(message: impl Display) {
    write(Level::Error, &message.to_string());
}

use crate::bindings::portcullis::plugin::log::Level;

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    crate::bindings::portcullis::plugin::log::write(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
