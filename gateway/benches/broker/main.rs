//! Portcullis and Debian's mosquitto side by side: the same load, in turn, in one run.
//!
//! `gateway/benches/mosquitto [--quick] [--seconds N] [--json FILE] [--only BROKER] [FILTER…]`; a
//! filter is parts of a row's name with commas between: `rate,tls,qos1`, `latency`, `idle`. Every row
//! is run at one broker, then at the other, and once more (A B A B), so that a machine that is busy
//! elsewhere is busy for both; what counts is the ratio. One thread makes the load of all clients.
//!
//! Only loopback; ends by itself.
#![allow(clippy::print_stdout, reason = "the table is the product")]

mod brokers;
mod client;
mod link;
mod load;
mod process;
mod rows;
mod table;
mod wire;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::{
    brokers::{Broker, Ground, versions},
    load::{Outcome, idle, run},
    rows::Plan,
    table::{LATENCY_HEAD, Measured, RATE_HEAD, together},
};

/// What the command line asks for.
#[derive(Debug, Default)]
struct Arguments {
    is_quick: bool,
    length: Option<Duration>,
    json: Option<PathBuf>,
    /// One broker alone, for a profiler.
    only: Option<String>,
    filters: Vec<String>,
}

fn arguments() -> Result<Arguments> {
    let mut given = std::env::args().skip(1);
    let mut asked = Arguments::default();
    while let Some(argument) = given.next() {
        let mut value = || given.next().with_context(|| format!("{argument} of what?"));
        match argument.as_str() {
            // Cargo says that.
            "--bench" => {}
            "--quick" => asked.is_quick = true,
            "--seconds" => asked.length = Some(Duration::try_from_secs_f64(value()?.parse()?)?),
            "--json" => asked.json = Some(value()?.into()),
            "--only" => asked.only = Some(value()?),
            other if other.starts_with('-') => bail!("there is no {other}"),
            filter => asked.filters.push(filter.to_owned()),
        }
    }
    Ok(asked)
}

fn main() -> Result<()> {
    let asked = arguments()?;
    let plan = Plan::new(&asked.filters, asked.is_quick)?;
    let (own, other) = versions()?;
    println!("{own} and {other}, on {}\n", machine()?);
    let ground = Ground::prepare()?;
    let idle = match plan.idle_connections {
        0 => None,
        connections => Some(idle_connections(&ground, connections)?),
    };
    let length = asked.length.unwrap_or(Duration::from_millis(1250));
    let measured = rows(&ground, &plan, length, asked.only.as_deref())?;
    print_table(RATE_HEAD, &measured, false);
    print_table(LATENCY_HEAD, &measured, true);
    if let Some(file) = asked.json {
        let rows: Vec<Value> = measured.iter().map(Measured::json).collect();
        let all = json!({
            "portcullis": own,
            "mosquitto": other,
            "machine": machine()?,
            "idle": idle,
            "rows": rows,
        });
        fs::write(file, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

fn rows(
    ground: &Ground,
    plan: &Plan,
    length: Duration,
    only: Option<&str>,
) -> Result<Vec<Measured>> {
    let brokers = [
        ("portcullis", ground.portcullis()?),
        ("mosquitto", ground.mosquitto()?),
    ];
    let is_asked = |name: &str| only.is_none_or(|only| only == name);
    let mut measured = Vec::new();
    for row in &plan.rows {
        let mut outcomes: [Vec<Outcome>; 2] = Default::default();
        for _ in 0..plan.rounds {
            for (at, (name, broker)) in brokers.iter().enumerate() {
                if is_asked(name) {
                    let outcome = run(row, broker, &ground.keys, length);
                    let outcome = outcome.with_context(|| format!("{name}, {}", row.name()))?;
                    outcomes[at].push(outcome);
                }
            }
        }
        let [portcullis, mosquitto] = outcomes.map(together);
        let done = Measured {
            row: row.clone(),
            portcullis,
            mosquitto,
        };
        eprintln!("{}", done.line());
        measured.push(done);
    }
    Ok(measured)
}

/// Memory for an idle TLS connection, of brokers that have just started.
fn idle_connections(ground: &Ground, connections: usize) -> Result<Value> {
    let once = |broker: &Broker| idle(broker, &ground.keys, connections);
    let own = once(&ground.portcullis()?)?;
    let other = once(&ground.mosquitto()?)?;
    println!("| {connections} idle TLS connections | Portcullis | mosquitto | ratio |");
    println!("|---|--:|--:|--:|");
    let ratio = own / other;
    println!("| RSS for one, KiB | {own:.1} | {other:.1} | {ratio:.2} |\n");
    Ok(json!({ "connections": connections, "portcullisKib": own, "mosquittoKib": other }))
}

fn print_table(head: &str, measured: &[Measured], is_fixed_rate: bool) {
    let of_kind = |one: &&Measured| one.row.is_fixed_rate == is_fixed_rate;
    let mut lines = measured.iter().filter(of_kind).peekable();
    if lines.peek().is_some() {
        println!("{head}");
        lines.for_each(|one| println!("{}", one.line()));
        println!();
    }
}

fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("CPU", |model| model.trim_start_matches([' ', '\t', ':']));
    let cores = cpus.matches("processor\t").count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{cores} × {model}, Linux {}", kernel.trim()))
}
