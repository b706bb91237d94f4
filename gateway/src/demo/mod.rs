//! The whole product on one machine, with a simulated fleet.

use crate::{cli::DemoArgs, supervisor::TaskResult};

/// Runs until the time is up or Ctrl-C.
pub fn run(_args: DemoArgs) -> TaskResult {
    Err("the demonstration is not built yet".into())
}
