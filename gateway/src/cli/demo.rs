//! `portcullis demo`.

use std::{net::SocketAddr, time::Duration};

use super::{Failure, Outcome};
use crate::demo::{self, Verdict};

/// Arguments of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// End after this many seconds; without it, at Ctrl-C.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Where the simulated devices connect; port 0 is any free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The address of metrics and health.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub http: SocketAddr,
    /// Print the summary as JSON; set by the global argument.
    #[arg(skip)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a number of seconds from 1".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

pub(super) fn demo(args: DemoArgs) -> Result<Outcome, Failure> {
    match demo::run(args) {
        Ok(Verdict::Passed) => Ok(Outcome::Done),
        Ok(Verdict::Failed) => Ok(Outcome::Failed),
        Err(error) => Err(Failure::other("the demonstration failed", error)),
    }
}
