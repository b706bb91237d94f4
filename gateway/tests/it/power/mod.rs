//! Power cuts: whatever a client saw acknowledged is there after one, at any moment, whatever the disk
//! made of the writes that nobody had synced.
//!
//! ```text
//! gateway + recorder ── log of changes, syncs, acknowledgements ── a moment ── Disk: what may be there
//!        ▲                                                                        │
//!        └───────────────── the next round goes on from one of them ◄─────────────┤
//!                                        the real gateway starts on each, and ships ◄┘
//! ```
//! In each round clients publish while the gateway's changes of its data directory are recorded
//! (`gateway/tests/power/recorder.c`), its start on what the last cut left included. Cuts at random
//! moments are then tried: the gateway starts on what the disk may hold ([`disk`]), and what the sink
//! has in the end is compared with what was acknowledged before the cut. Nothing is missing, each
//! client's messages are in order once duplicates are removed, no number names two records, nothing is
//! damaged, and sessions and retained messages that were acknowledged are there.
//!
//! `PORTCULLIS_POWER_CUTS` sets the number of cuts, `PORTCULLIS_POWER_SEED` repeats a run's choices;
//! `gateway/tests/power.sh` runs it in full.

mod disk;
mod log;
pub(crate) mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use disk::{Disk, Keep, Names};
use log::{Entry, Marks};
use serde_json::Value;
use traffic::{CLIENTS, KEEPERS, Promised, Traffic, keep_session, read_payload};

use crate::{
    fake_kinesis::{FakeKinesis, Step},
    served::{Served, eventually, is_lifecycle},
    support::CREDENTIALS,
    tree::Tree,
};

const ANYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;
/// Cuts that are tried of one recording.
const CUTS_PER_ROUND: usize = 4;
/// Messages of a round, at least.
const MESSAGES: u64 = 400;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap())
}

/// Where records go.
#[derive(Clone, Debug)]
enum Sink {
    /// A stream elsewhere, which has what it took, whatever happens to the gateway.
    Stream(FakeKinesis),
    /// Files in the data directory, which lose their power as well.
    Outbox,
}

impl Sink {
    fn set_reachable(&self, is_reachable: bool) {
        if let Self::Stream(stream) = self {
            stream.afterwards(if is_reachable {
                Step::Take
            } else {
                Step::Refuse(503, "ServiceUnavailable")
            });
        }
    }

    /// All that arrived, in order.
    fn bodies(&self, served: &Served) -> Vec<Value> {
        match self {
            Self::Stream(stream) => stream
                .taken()
                .iter()
                .map(|(_, data)| serde_json::from_slice(data).unwrap())
                .collect(),
            Self::Outbox => served.stream(),
        }
    }
}

/// The course of cuts, one after the other on the same data.
struct Course {
    served: Served,
    sink: Sink,
    random: fastrand::Rng,
    /// Where the next round begins.
    data: Tree,
    promised: Promised,
    /// What the stream has taken before that.
    taken: Vec<Value>,
    next: Vec<u64>,
    cuts: BTreeMap<(Keep, Names), usize>,
    duplicates: usize,
    slowest_start: Duration,
}

impl Course {
    fn new(sink: Sink, seed: u64) -> Self {
        let served = Served::new();
        if let Sink::Stream(stream) = &sink {
            served.ship_in_order_to(&stream.endpoint);
        }
        served.site.write("policies/device.json", ANYTHING);
        for thing in CLIENTS.iter().chain(&KEEPERS).chain(&["watcher"]) {
            let add = ["thing", "add", thing, "--group", "cut-off"];
            served.site.done(&add);
        }
        served.site.replace(
            "gateway.toml",
            "generation-bytes-max = 8388608",
            "generation-bytes-max = 1048576",
        );
        Self {
            data: Tree::read(&served.site.path("data")),
            served,
            sink,
            random: fastrand::Rng::with_seed(seed),
            promised: Promised::default(),
            taken: Vec::new(),
            next: vec![1; CLIENTS.len()],
            cuts: BTreeMap::new(),
            duplicates: 0,
            slowest_start: Duration::ZERO,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.served.site.path("data")
    }

    /// Records a round; its log, what the disk was at its beginning, and what the stream took.
    fn record(&mut self, round: usize) -> (Vec<Entry>, Disk, Vec<Value>) {
        self.data.write(&self.data_dir());
        let disk = Disk::load(&self.data_dir(), Names::Strict);
        let log = self.served.site.path("power.log");
        std::fs::remove_file(&log).ok();
        let marks = Arc::new(Marks::into_log(&log));
        let before = match &self.sink {
            Sink::Stream(stream) => {
                let (marks, before) = (marks.clone(), stream.taken().len());
                stream.witnessed_by(move |count| marks.note(&format!("taken {}", count - before)));
                before
            }
            Sink::Outbox => 0,
        };
        self.sink.set_reachable(self.random.bool());
        let data = self.data_dir();
        let mut environment = CREDENTIALS.to_vec();
        environment.extend([
            ("LD_PRELOAD", log::recorder().to_str().unwrap()),
            ("PORTCULLIS_POWER_DIR", data.to_str().unwrap()),
            ("PORTCULLIS_POWER_LOG", log.to_str().unwrap()),
        ]);
        self.served.start_with(&environment);
        keep_session(self.served.plain, KEEPERS[round % KEEPERS.len()], &marks);
        let traffic = Traffic::start(self.served.plain, &self.next, &marks);
        for part in 1..=4 {
            eventually("messages are acknowledged", || {
                traffic.acked.load(Ordering::Relaxed) >= part * MESSAGES / 4
            });
            self.sink.set_reachable(self.random.bool());
        }
        let is_orderly = self.random.bool();
        if is_orderly {
            self.sink.set_reachable(true);
            self.next = traffic.end();
            self.served.stop();
        } else {
            self.served.kill();
            self.next = traffic.end();
        }
        let entries = log::read(&log);
        if is_orderly {
            // What the recorder saw is all there was.
            let mut whole = disk.clone();
            entries.iter().for_each(|entry| whole.apply(entry));
            let replayed = whole.after_cut(Keep::All, &mut self.random);
            // Small files beside these are renamed by a library that asks the kernel directly, which
            // no preloaded recorder sees.
            let [replayed, found] = [replayed, Tree::read(&self.data_dir())]
                .map(|tree| tree.only(&["buffer", "outbox", "sessions"]));
            let difference = replayed.difference(&found);
            assert_eq!(difference, None, "the recorder missed something");
        }
        let taken = match &self.sink {
            Sink::Stream(_) => self.sink.bodies(&self.served).split_off(before),
            Sink::Outbox => Vec::new(),
        };
        (entries, disk, taken)
    }

    /// A round, and `cuts` cuts of its recording; the next one goes on after one of them.
    fn round(&mut self, round: usize, cuts: usize) {
        let (entries, disk, taken) = self.record(round);
        let goes_on = self.random.usize(0..cuts);
        let mut next = None;
        for cut in 0..cuts {
            let moment = self.random.usize(0..=entries.len());
            let keeps = [
                Keep::Nothing,
                Keep::All,
                Keep::Torn,
                Keep::Pages,
                Keep::Pages,
            ];
            let keep = *self.random.choice(&keeps).unwrap();
            let names = if self.random.bool() {
                Names::Strict
            } else {
                Names::Journal
            };
            let mut cut_disk = disk.with_names(names);
            entries[..moment]
                .iter()
                .for_each(|entry| cut_disk.apply(entry));
            let mut data_random = self.random.fork();
            let data = cut_disk.after_cut(keep, &mut data_random);
            let mut promised = self.promised.clone();
            promised.taken = 0;
            promised.note(&entries[..moment]);
            let mut had = self.taken.clone();
            had.extend_from_slice(&taken[..promised.taken]);
            println!(
                "round {round}, cut {cut}: {keep:?}, names {names:?}, at {moment} of {}, {} promised, \
                 {} taken before, {} bytes on the disk",
                entries.len(),
                promised.count(),
                had.len(),
                data.bytes(),
            );
            self.try_cut(&data, &promised, &had);
            *self.cuts.entry((keep, names)).or_default() += 1;
            if cut == goes_on {
                next = Some((data, promised, had));
            }
        }
        (self.data, self.promised, self.taken) = next.unwrap();
    }

    /// The gateway starts on what the cut left, and ships it.
    fn try_cut(&mut self, data: &Tree, promised: &Promised, had: &[Value]) {
        data.write(&self.data_dir());
        let before = match &self.sink {
            Sink::Stream(stream) => {
                stream.witnessed_by(|_| {});
                stream.taken().len()
            }
            Sink::Outbox => 0,
        };
        self.sink.set_reachable(true);
        let started = Instant::now();
        self.served.start_with(CREDENTIALS);
        self.slowest_start = self.slowest_start.max(started.elapsed());
        promised.check_sessions(self.served.plain);
        let sink = &self.sink;
        let served = &self.served;
        let arrived = || {
            let mut bodies = had.to_vec();
            bodies.extend(sink.bodies(served).split_off(before));
            bodies
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let missing = missing(promised, &arrived());
            if missing.is_empty() {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "acknowledged and not there: {missing:?}; lost by its own account: {}",
                served.metric("portcullis_buffer_lost_records_total", &[])
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.served.stop();
        for account in self.served.accounts() {
            let received = account["received"].as_u64().unwrap();
            assert!(received >= promised.count() as u64, "{account}");
            assert_eq!(account["dropped"], serde_json::json!({}), "{account}");
        }
        let sink = &self.sink;
        let mut bodies = had.to_vec();
        bodies.extend(sink.bodies(&self.served).split_off(before));
        self.duplicates += check_order(&bodies);
    }
}

/// What was promised and did not arrive.
fn missing(promised: &Promised, bodies: &[Value]) -> Vec<(String, u64)> {
    let there: BTreeSet<_> = bodies.iter().filter_map(message).collect();
    let promised = promised.messages.iter();
    promised
        .flat_map(|(client, messages)| messages.iter().map(move |n| (client.clone(), *n)))
        .filter(|message| !there.contains(message))
        .collect()
}

/// Whose message a record is, and which; `None` if it is none of the clients'.
pub(crate) fn message(body: &Value) -> Option<(String, u64)> {
    let is_message = body["schema"] == "portcullis.event/1" && !is_lifecycle(body);
    is_message.then(|| read_payload(&body["payload"]))
}

/// Each client's messages are in order once duplicates are removed, and no number names two records;
/// how many duplicates there were.
pub(crate) fn check_order(bodies: &[Value]) -> usize {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut by_number: HashMap<u64, &Value> = HashMap::new();
    let mut duplicates = 0;
    for body in bodies {
        let seq = body["seq"].as_u64().unwrap();
        let named = by_number.insert(seq, body);
        assert!(
            named.is_none_or(|other| other == body),
            "number {seq} names two records: {named:?} and {body}"
        );
        let Some((client, n)) = message(body) else {
            continue;
        };
        if !seen.insert((client.clone(), n)) {
            duplicates += 1;
            continue;
        }
        let before = last.insert(client.clone(), n);
        assert!(before < Some(n), "{client}: {n} came after {before:?}");
    }
    duplicates
}

fn run(sink: Sink) {
    let seed = variable("PORTCULLIS_POWER_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("seed {seed}");
    let cuts = usize::try_from(variable("PORTCULLIS_POWER_CUTS").unwrap_or(5)).unwrap();
    let mut course = Course::new(sink, seed);
    let mut left = cuts;
    for round in 0.. {
        if left == 0 {
            break;
        }
        let now = left.min(CUTS_PER_ROUND);
        course.round(round, now);
        left -= now;
    }
    println!(
        "{cuts} power cuts ({:?}); {} messages promised in the end, none missing, each client's in \
         order, {} duplicates; the slowest start took {:?}",
        course.cuts,
        course.promised.count(),
        course.duplicates,
        course.slowest_start,
    );
}

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut_on_its_way_to_a_stream() {
    run(Sink::Stream(FakeKinesis::start([])));
}

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut_on_its_way_to_the_outbox() {
    run(Sink::Outbox);
}
