//! The binary: arguments, logging, dispatch, exit code. The only place that exits.

use std::process::ExitCode;

use clap::Parser;
use portcullis::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run().into()
}
