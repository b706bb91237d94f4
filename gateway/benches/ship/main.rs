//! The backlog of a buffer on its way into the cloud of tests: events of 512 B, drained by the sink
//! that the gateway has, with the real SDK.
//!
//! `gateway/benches/drain [--events N] [--dir DIRECTORY] [FILTER…]`; a filter is a part of a row's name.
//! The cloud runs in a process of its own and keeps nothing, so that CPU seconds are the gateway's
//! alone: reading the buffer, what is under way, base64, the signature, HTTP, the answers, the cursor.
//! `raw` is a minimal loop on one thread that writes ready-made requests of 500 of the same records
//! over one connection and reads the answers: what the kernel and the cloud leave room for. What counts
//! are the events a second of one core's time, and the ratio to that loop.
#![allow(
    clippy::print_stdout,
    reason = "the table is the product, and what the cloud tells its parent"
)]

mod raw;
mod rows;
mod usage;

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use portcullis_cloud::{Cloud, Keep, Settings};

/// The name of the stream.
const STREAM: &str = "drained";
/// Says that the process is the cloud.
const CLOUD: &str = "--cloud";

struct Arguments {
    events: u64,
    dir: PathBuf,
    filters: Vec<String>,
}

fn arguments() -> Result<Arguments> {
    let mut asked = Arguments {
        // `cargo test --benches` is no time to measure.
        events: 2000,
        dir: std::env::temp_dir(),
        filters: Vec::new(),
    };
    let mut events = None;
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            // Cargo says that.
            "--bench" => asked.events = 400_000,
            "--events" => events = Some(given.next().context("how many?")?.parse()?),
            "--dir" => asked.dir = given.next().context("which directory?")?.into(),
            other if other.starts_with('-') => bail!("there is no {other}"),
            filter => asked.filters.push(filter.to_owned()),
        }
    }
    asked.events = events.unwrap_or(asked.events);
    Ok(asked)
}

/// The cloud in a process of its own.
struct Elsewhere {
    process: Child,
    endpoint: String,
}

impl Elsewhere {
    fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(CLOUD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut endpoint = String::new();
        let out = process.stdout.take().context("the cloud has no output")?;
        BufReader::new(out).read_line(&mut endpoint)?;
        Ok(Self {
            process,
            endpoint: endpoint.trim().to_owned(),
        })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        if let Err(error) = killed {
            eprintln!("the cloud does not end: {error}");
        }
    }
}

/// Until the parent is gone.
fn be_the_cloud() -> Result<()> {
    let mut settings = Settings::default().stream(STREAM, 16).keep(Keep::None);
    settings.signatures.required = false;
    let cloud = Cloud::start(settings)?;
    println!("{}", cloud.endpoint());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(CLOUD) {
        return be_the_cloud();
    }
    // Before there are threads that could read it at the same time: the process starts itself anew.
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
        let status = Command::new(std::env::current_exe()?)
            .args(std::env::args().skip(1))
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .status()?;
        anyhow::ensure!(status.success(), "{status}");
        return Ok(());
    }
    rows::run(&arguments()?)
}
