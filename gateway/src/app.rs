//! Binds and wires; the only file that names every module.

use crate::{config::Loaded, supervisor::TaskResult};

/// Serves until a signal or a fault.
pub fn run(_loaded: Loaded) -> TaskResult {
    Err("serving is not built yet".into())
}
