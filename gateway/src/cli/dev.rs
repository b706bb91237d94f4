//! `portcullis dev`: what developers and trials need beside a gateway. Nothing of it is in a gateway's
//! way: `dev cloud` is a process of its own, which stands in for AWS on this machine.

use std::{net::SocketAddr, time::Duration};

use portcullis_cloud::{Cloud, Keep, Measured, Observer, Rates, Seen, Settings, ShardLimits};
use portcullis_core::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Failure, Outcome,
    outcome::{say, say_document, say_error},
};

/// A consumer may read this much of the past.
const KEPT_BYTES: u64 = 64 << 20;
const STREAM: &str = "site-events";
const SHARDS_MAX: u32 = 1000;

/// What stands in for something.
#[derive(Debug, clap::Subcommand)]
pub(super) enum DevCommand {
    /// Stand in for Kinesis, CloudWatch and CloudWatch Logs: in memory, with AWS's limits, and with
    /// faults on demand. Ctrl-C ends it with a summary.
    Cloud(CloudArgs),
}

/// Arguments of `dev cloud`.
#[derive(Debug, clap::Args)]
pub(super) struct CloudArgs {
    /// Where it listens; port 0 is any free port. Whoever reaches it may use it: keep it on loopback.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4567")]
    listen: SocketAddr,
    /// A stream that exists from the start; repeat it for more. Without one: `site-events:1`.
    #[arg(long = "stream", value_name = "NAME:SHARDS", value_parser = stream)]
    streams: Vec<(String, u32)>,
    /// Let a shard take what comes, instead of 1000 records and 1 MiB a second as AWS does.
    #[arg(long)]
    unlimited: bool,
    /// Records that fail.
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = share)]
    fail_records: f64,
    /// Calls that are throttled.
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = share)]
    throttle: f64,
    /// Calls that take effect and are never answered.
    #[arg(long, value_name = "PCT", default_value = "0", value_parser = share)]
    lose_replies: f64,
    /// How long every call takes.
    #[arg(long, value_name = "MS", default_value = "0")]
    latency: u64,
    /// The same seed strikes the same requests.
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Print what arrives, a JSON document a line; everything else goes to standard error.
    #[arg(long)]
    show: bool,
}

fn stream(text: &str) -> Result<(String, u32), String> {
    let (name, shards) = text.rsplit_once(':').unwrap_or((text, "1"));
    let shards = shards
        .parse()
        .ok()
        .filter(|shards| (1..=SHARDS_MAX).contains(shards));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    match shards {
        Some(shards) if (1..=128).contains(&name.len()) && name.chars().all(is_allowed) => {
            Ok((name.to_owned(), shards))
        }
        _ => Err(format!(
            "write a name of letters, digits, `_`, `.` and `-`, and a number of shards from 1 to {SHARDS_MAX}: `{STREAM}:2`"
        )),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a number from 0 to 100".to_owned()),
    }
}

pub(super) fn dev(command: DevCommand) -> Result<Outcome, Failure> {
    match command {
        DevCommand::Cloud(args) => cloud(args),
    }
}

fn cloud(args: CloudArgs) -> Result<Outcome, Failure> {
    let tell = if args.show { say_error } else { say };
    let listen = args.listen;
    let settings = settings(args);
    let stream = settings.streams[0].0.clone();
    let cloud = Cloud::start(settings)
        .map_err(|error| Failure::other(format!("failed to listen at {listen}"), error))?;
    hint(&cloud, &stream, tell);
    if !cloud.address().ip().is_loopback() {
        tell("Warning: others reach this address, and nobody is asked who they are.");
    }
    wait_for_signal()?;
    tell(&cloud.counters().to_json().to_string());
    Ok(Outcome::Done)
}

fn settings(args: CloudArgs) -> Settings {
    let mut streams = args.streams;
    if streams.is_empty() {
        streams.push((STREAM.to_owned(), 1));
    }
    let mut settings = Settings {
        listen: args.listen,
        streams,
        seed: args.seed,
        shard_limits: (!args.unlimited).then(ShardLimits::default),
        rates: Rates {
            fail_records: args.fail_records,
            throttle: args.throttle,
            lose_replies: args.lose_replies,
            latency: Duration::from_millis(args.latency),
            ..Rates::default()
        },
        keep: Keep::UpTo { bytes: KEPT_BYTES },
        observer: args
            .show
            .then(|| Observer::new(|seen| say_document(&shown(seen).to_string()))),
        ..Settings::default()
    };
    // Curl may ask, too.
    settings.signatures.required = false;
    settings
}

fn hint(cloud: &Cloud, stream: &str, tell: fn(&str)) {
    let endpoint = cloud.endpoint();
    for line in [
        &format!("A cloud in memory answers at {endpoint}. In gateway.toml:"),
        "",
        "[uplink.kinesis]",
        &format!("stream = \"{stream}\""),
        "region = \"us-east-1\"",
        &format!("endpoint = \"{endpoint}\""),
        "",
        "and the gateway with any credentials:",
        "",
        "AWS_ACCESS_KEY_ID=trial AWS_SECRET_ACCESS_KEY=trial portcullis run",
        "",
        &format!("What it has counted so far: curl {endpoint}"),
    ] {
        tell(line);
    }
}

fn wait_for_signal() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other("failed to start the runtime", error))?;
    runtime
        .block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Ok(())
        })
        .map_err(|error: std::io::Error| Failure::other("failed to watch for Ctrl-C", error))
}

/// What arrived, for people and `jq`.
fn shown(seen: Seen<'_>) -> Value {
    match seen {
        Seen::Record { stream, record } => {
            let mut shown = json!({
                "stream": stream,
                "shard": *record.shard,
                "sequenceNumber": record.sequence_number,
                "request": record.request,
                "at": Timestamp::from_millis(record.at_millis).to_string(),
                "partitionKey": record.partition_key,
            });
            match serde_json::from_slice::<Value>(&record.data) {
                Ok(data) => shown["data"] = data,
                Err(_) => shown["bytes"] = record.data.len().into(),
            }
            shown
        }
        Seen::Datum(datum) => {
            let values = match &datum.measured {
                Measured::Values(values) => json!(values),
                Measured::Statistics {
                    count,
                    sum,
                    minimum,
                    maximum,
                } => {
                    json!({ "count": count, "sum": sum, "minimum": minimum, "maximum": maximum })
                }
            };
            let dimensions: serde_json::Map<_, _> = datum
                .dimensions
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect();
            json!({
                "namespace": datum.namespace,
                "metric": datum.name,
                "dimensions": dimensions,
                "at": Timestamp::from_millis(datum.at_millis).to_string(),
                "values": values,
                "unit": datum.unit,
                "request": datum.request,
            })
        }
        Seen::LogEvent(event) => json!({
            "logGroup": event.group,
            "logStream": event.stream,
            "at": Timestamp::from_millis(event.at_millis.unsigned_abs()).to_string(),
            "message": event.message,
            "request": event.request,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_shares_are_read_with_their_bounds() {
        assert_eq!(stream("a.b-c_1:20"), Ok(("a.b-c_1".to_owned(), 20)));
        assert_eq!(stream("plain"), Ok(("plain".to_owned(), 1)));
        for wrong in ["", ":1", "a:0", "a:1001", "a:b", "a b:1"] {
            assert!(stream(wrong).is_err(), "{wrong}");
        }
        assert_eq!(share("12.5"), Ok(0.125));
        for wrong in ["-1", "101", "NaN", "x"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
