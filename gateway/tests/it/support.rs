//! What several tests need.

use std::{
    collections::VecDeque,
    future::Future,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use portcullis::{
    buffer::{ReadError, Reader},
    uplink::{Part, RecordSource, SourceError, Tally},
};
use portcullis_core::record::{Draft, Kind, Lane, Record, SinkSet};
use tokio::sync::Notify;

/// A bound for things that take milliseconds on an idle machine.
pub(crate) const GENEROUS: Duration = Duration::from_secs(120);

const CHILD: &str = "PORTCULLIS_TEST_CHILD";

/// Runs the test `name` in a process of its own with these variables, as a user would set them:
/// the environment of this process is shared with other tests. `true` in the child.
pub(crate) fn in_child(name: &str, variables: &[(&str, &str)]) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut command = this_test(name);
    command.envs(variables.iter().copied());
    let status = command.status().unwrap();
    assert!(status.success(), "{name} failed in its own process");
    false
}

/// This test binary, told to run the one test `name`.
pub(crate) fn this_test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env(CHILD, "1")
        .env_remove("AWS_PROFILE")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/nonexistent")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        .stdin(Stdio::null());
    command
}

/// Credentials as an emulator's user sets them.
pub(crate) const CREDENTIALS: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
];

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < GENEROUS, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs `work` on a runtime of its own.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A file system of a few megabytes over a directory; gone when dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and said so, where the test may not mount.
    pub(crate) fn mount(dir: &Path, mebibytes: usize) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]);
        let mounted = mount.arg(dir).stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir.to_owned()));
        }
        eprintln!("\n*** SKIPPED, NOTHING WAS TESTED: mounting a small file system needs root\n");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _ = unmount.args(["-l".as_ref(), self.0.as_os_str()]).status();
    }
}

pub(crate) fn draft(key: &str, members: String) -> Draft {
    Draft {
        kind: Kind::Event,
        partition_key: key.into(),
        members: members.into(),
        sinks: SinkSet::ALL,
    }
}

/// A source with everything in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed {
    records: Arc<std::sync::Mutex<VecDeque<Record>>>,
    more: Arc<Notify>,
    accepted: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

impl Feed {
    /// Records numbered from 1, `(key, body)`.
    pub(crate) fn new(records: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let feed = Self::default();
        for (seq, (key, body)) in (1..).zip(records) {
            feed.records.lock().unwrap().push_back(Record {
                seq,
                place: seq,
                kind: Kind::Event,
                sinks: SinkSet::ALL,
                at_millis: 0,
                partition_key: key.into(),
                body: body.into(),
            });
        }
        feed
    }

    /// How many records the uplink has settled as dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// Up to which number the uplink has accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }
}

impl RecordSource for Feed {
    async fn read(
        &mut self,
        lane: Lane,
        part: Part,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, SourceError> {
        if self.unread(lane, part) == 0 {
            return Ok(Vec::new());
        }
        let mut records = self.records.lock().unwrap();
        let mut taken: Vec<Record> = Vec::new();
        let mut bytes = 0;
        while taken.len() < records_max
            && let Some(record) = records.front()
        {
            bytes += record.wire_bytes();
            if bytes > bytes_max && !taken.is_empty() {
                break;
            }
            taken.extend(records.pop_front());
        }
        Ok(taken)
    }

    async fn settle(&mut self, _: Lane, _: Part, upto_place: u64, tally: Tally) {
        let before = self.accepted.swap(upto_place, Ordering::AcqRel);
        assert!(before < upto_place, "the cursor only moves forward");
        let dropped: u64 = tally.dropped.iter().map(|(_, count)| count).sum();
        let settled = tally.delivered + dropped;
        assert_eq!(settled, upto_place - before, "each is told once");
        self.dropped.fetch_add(dropped, Ordering::AcqRel);
    }

    async fn changed(&mut self) -> Result<(), SourceError> {
        self.more.notified().await;
        Ok(())
    }

    fn unread(&self, lane: Lane, part: Part) -> u64 {
        if (lane, part) != (Lane::Events, Part::Backlog) {
            return 0;
        }
        u64::try_from(self.records.lock().unwrap().len()).unwrap()
    }

    async fn split(&mut self, _: Lane) {}
}

/// The buffer's reader as a source, as the gateway wires it.
#[derive(Debug)]
pub(crate) struct FromBuffer(pub(crate) Reader);

impl RecordSource for FromBuffer {
    async fn read(
        &mut self,
        lane: Lane,
        part: Part,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, SourceError> {
        let read = self.0.read(lane, part, records_max, bytes_max).await;
        read.map_err(source_error)
    }

    async fn settle(&mut self, lane: Lane, part: Part, upto_place: u64, tally: Tally) {
        self.0.settle(lane, part, upto_place, tally).await;
    }

    async fn changed(&mut self) -> Result<(), SourceError> {
        self.0.changed().await.map_err(source_error)
    }

    fn unread(&self, lane: Lane, part: Part) -> u64 {
        self.0.unread(lane, part)
    }

    async fn split(&mut self, lane: Lane) {
        self.0.split(lane).await;
    }
}

fn source_error(error: ReadError) -> SourceError {
    match error {
        ReadError::Closed => SourceError::Closed,
        ReadError::Unavailable(_) => SourceError::Unavailable(error.into()),
    }
}

/// The sink of a buffer that has one, reading what the gateway sends upstream.
pub(crate) fn one_sink() -> [portcullis::buffer::Sink; 1] {
    [portcullis::buffer::Sink {
        name: "sink".into(),
        lanes: vec![Lane::Critical, Lane::Events],
    }]
}
