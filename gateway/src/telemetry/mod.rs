//! How the gateway is seen: log lines, the metrics registry, readiness.
//!
//! Modules register their own metrics on a registry that the app makes; names and labels live beside
//! the code that counts.

pub mod config;
mod logging;
mod readiness;
mod registrar;
mod tap;

pub use config::{Config, Format};
pub use logging::init_logging;

pub use readiness::{Latch, Readiness};
pub use registrar::Registrar;
pub use tap::tap;
