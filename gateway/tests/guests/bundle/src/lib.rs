//! Guests that misbehave, as components, compiled by the build script.

/// `(name, component)` of every test guest.
pub const GUESTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));
