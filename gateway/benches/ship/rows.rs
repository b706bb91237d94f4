//! The rows: a buffer is filled, drained by the sink as the row has it, and looked at.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use portcullis::{
    buffer::{self, Buffer, ReadError, Reader, Stamp},
    uplink::{
        Config, KinesisConfig, Metrics, Ordering, Part, RecordSource, SourceError, StreamConfig,
        Tally, Uplink,
    },
};
use portcullis_core::{
    limits::PUT_RECORDS_MAX,
    record::{Draft, Kind, Lane, Record, SinkSet},
};
use prometheus::Registry;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Arguments, Elsewhere, STREAM, raw, usage::cpu_seconds};

/// Of a device's message.
const PAYLOAD_BYTES: usize = 512;
const THINGS: u64 = 1000;
/// Records of one append.
const APPEND: u64 = 256;
/// How many requests the minimal loop has ready.
const READY: usize = 20;

/// What one row did.
struct Outcome {
    seconds: f64,
    own_cpu: f64,
    cloud_cpu: f64,
}

/// What a row has that is not the default.
type Change = fn(&mut StreamConfig);

/// Runs what was asked for and prints it.
pub(super) fn run(asked: &Arguments) -> Result<()> {
    println!(
        "{:<16} {:>9} {:>9} {:>9} {:>12} {:>10} {:>8}",
        "row", "events", "events/s", "CPU s/M", "ev/CPU s", "cloud s/M", "of raw"
    );
    let rows: [(&str, Change); 4] = [
        ("relaxed", |_| {}),
        ("relaxed/1", |stream| stream.requests_in_flight = 1),
        ("strict", |stream| stream.ordering = Ordering::Strict),
        ("aggregated", |stream| stream.aggregate = true),
    ];
    let is_wanted = |name: &str| {
        asked.filters.is_empty() || asked.filters.iter().any(|filter| name.contains(filter))
    };
    let records = sample(asked)?;
    let raw = row_raw(asked, &records)?;
    print("raw", asked.events, &raw, &raw);
    for (name, change) in rows {
        if is_wanted(name) {
            let outcome = row(asked, change).with_context(|| name.to_owned())?;
            print(name, asked.events, &outcome, &raw);
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "figures for a table")]
fn print(name: &str, events: u64, outcome: &Outcome, raw: &Outcome) {
    let count = events as f64;
    println!(
        "{name:<16} {events:>9} {:>9.0} {:>9.2} {:>12.0} {:>10.2} {:>8.2}",
        count / outcome.seconds,
        outcome.own_cpu * 1e6 / count,
        count / outcome.own_cpu,
        outcome.cloud_cpu * 1e6 / count,
        raw.seconds / outcome.seconds,
    );
}

fn measured(cloud: &Elsewhere, work: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let (own, theirs) = (std::process::id(), cloud.process.id());
    let (own_before, cloud_before) = (cpu_seconds(own)?, cpu_seconds(theirs)?);
    let started = Instant::now();
    work()?;
    Ok(Outcome {
        seconds: started.elapsed().as_secs_f64(),
        own_cpu: cpu_seconds(own)? - own_before,
        cloud_cpu: cpu_seconds(theirs)? - cloud_before,
    })
}

fn row_raw(asked: &Arguments, records: &[Record]) -> Result<Outcome> {
    let cloud = Elsewhere::start()?;
    let requests = raw::requests(records);
    let times = usize::try_from(asked.events)?.div_ceil(PUT_RECORDS_MAX);
    measured(&cloud, || raw::send(&cloud.endpoint, &requests, times))
}

fn row(asked: &Arguments, change: fn(&mut StreamConfig)) -> Result<Outcome> {
    let dir = tempfile::tempdir_in(&asked.dir)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (buffer, writer) = filled(&runtime, dir.path(), asked.events)?;
    let cloud = Elsewhere::start()?;
    let mut stream = StreamConfig::new(STREAM, "eu-central-1");
    stream.endpoint = Some(cloud.endpoint.clone());
    // No shard's limits: what is measured is what the gateway could send.
    stream.share_permille = 1_000_000;
    change(&mut stream);
    let config = Config::Kinesis(Box::new(KinesisConfig {
        default: stream,
        routes: Vec::new(),
    }));
    let source = Counting::new(buffer.reader(0));
    let settled = source.settled.clone();
    let metrics = Metrics::register(&Registry::new());
    let uplink = Uplink::new(config, dir.path().join("dead"), vec![source], metrics);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let outcome = measured(&cloud, || {
        tasks.spawn_on(uplink.run(stop.clone()), runtime.handle());
        runtime.block_on(settled.reach(asked.events))
    })?;
    stop.cancel();
    while let Some(ended) = runtime.block_on(tasks.join_next()) {
        ended?.map_err(|error| anyhow::anyhow!("the uplink failed: {error}"))?;
    }
    drop(buffer);
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    Ok(outcome)
}

/// Records as the gateway sends them, for the minimal loop.
fn sample(asked: &Arguments) -> Result<Vec<Record>> {
    let dir = tempfile::tempdir_in(&asked.dir)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let wanted = READY * PUT_RECORDS_MAX;
    let (buffer, writer) = filled(&runtime, dir.path(), u64::try_from(wanted)?)?;
    let mut reader = buffer.reader(0);
    let records = runtime.block_on(async {
        let mut records = Vec::new();
        while records.len() < wanted {
            let more = reader
                .read(Lane::Events, buffer::Part::Backlog, wanted, usize::MAX)
                .await?;
            anyhow::ensure!(!more.is_empty(), "the buffer ends early");
            records.extend(more);
        }
        Ok(records)
    });
    drop((reader, buffer));
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    records
}

type Writing = JoinHandle<Result<()>>;

/// A buffer with so many events.
fn filled(runtime: &tokio::runtime::Runtime, dir: &Path, events: u64) -> Result<(Buffer, Writing)> {
    let config = buffer::Config::new(dir.join("buffer")).bounded(64 << 30);
    let stamp = Stamp {
        gateway_id: "gw-1".into(),
        boot_id: "0197b6a0-6c1e-7000-8000-000000000000".into(),
    };
    let sinks = [buffer::Sink {
        name: "kinesis".into(),
        lanes: vec![Lane::Critical, Lane::Events],
    }];
    let metrics = buffer::Metrics::register(&Registry::new());
    let (buffer, writer) = Buffer::open(&config, &sinks, stamp, metrics)?;
    let writing = std::thread::spawn(move || {
        writer
            .run(&CancellationToken::new())
            .map_err(|error| anyhow::anyhow!("{error}"))
    });
    runtime.block_on(async {
        let mut random = fastrand::Rng::with_seed(7);
        let mut written = 0;
        while written < events {
            let count = APPEND.min(events - written);
            let drafts = (written..written + count).map(|n| draft(n, &mut random));
            let (ack, acked) = buffer::Ack::new();
            buffer.append(drafts.collect(), Some(ack)).await?;
            acked.await?;
            written += count;
        }
        anyhow::Ok(())
    })?;
    Ok((buffer, writing))
}

fn draft(n: u64, random: &mut fastrand::Rng) -> Draft {
    let thing = format!("sensor-{:04}", n % THINGS);
    let value = random.f64() * 100.0;
    let mut payload = format!("{{\"n\":{n},\"value\":{value},\"state\":\"");
    while payload.len() < PAYLOAD_BYTES - 2 {
        payload.push(random.alphanumeric());
    }
    payload.push_str("\"}");
    let members = format!(
        "\"event_id\":\"{n:032x}\",\"thing\":\"{thing}\",\"topic\":\"dt/{thing}/state\",\"payload\":{payload}"
    );
    Draft {
        kind: Kind::Event,
        partition_key: thing.into(),
        members: members.into(),
        sinks: SinkSet::ALL,
    }
}

/// How many records are settled.
#[derive(Debug, Default)]
struct Settled {
    records: AtomicU64,
    changed: Notify,
}

impl Settled {
    async fn reach(&self, records: u64) -> Result<()> {
        let all = async {
            while self.records.load(Relaxed) < records {
                self.changed.notified().await;
            }
        };
        let settled = || self.records.load(Relaxed);
        tokio::time::timeout(Duration::from_secs(300), all)
            .await
            .with_context(|| format!("{} of {records} settled in five minutes", settled()))
    }
}

/// The buffer's reader as a source, counting.
#[derive(Debug)]
struct Counting {
    reader: Reader,
    settled: Arc<Settled>,
}

impl Counting {
    fn new(reader: Reader) -> Self {
        Self {
            reader,
            settled: Arc::default(),
        }
    }
}

impl RecordSource for Counting {
    async fn read(
        &mut self,
        lane: Lane,
        part: Part,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, SourceError> {
        let read = self.reader.read(lane, part, records_max, bytes_max);
        read.await.map_err(source_error)
    }

    async fn settle(&mut self, lane: Lane, part: Part, upto_place: u64, tally: Tally) {
        self.settled.records.fetch_add(tally.delivered, Relaxed);
        self.reader.settle(lane, part, upto_place, tally).await;
        self.settled.changed.notify_one();
    }

    async fn changed(&mut self) -> Result<(), SourceError> {
        self.reader.changed().await.map_err(source_error)
    }

    fn unread(&self, lane: Lane, part: Part) -> u64 {
        self.reader.unread(lane, part)
    }

    async fn split(&mut self, lane: Lane) {
        self.reader.split(lane).await;
    }
}

fn source_error(error: ReadError) -> SourceError {
    match error {
        ReadError::Closed => SourceError::Closed,
        ReadError::Unavailable(_) => SourceError::Unavailable(error.into()),
    }
}
