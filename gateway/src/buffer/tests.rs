//! The buffer against a plain list, with restarts in the middle, damage, and full disks.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use portcullis_core::record::{Draft, Kind, Record};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Ack, Acked, Buffer, Config, Metrics, OpenError, ReadError, Reader, Stamp, WriteError};

const GENEROUS: Duration = Duration::from_secs(60);

/// A buffer that can be stopped and started again in the same directory.
struct Bench {
    config: Config,
    open: Option<(Buffer, JoinHandle<Result<(), WriteError>>)>,
    metrics: Metrics,
    _dir: TempDir,
}

impl Bench {
    fn new(generation_bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Self {
            config: Config {
                dir: dir.path().join("buffer"),
                linger: Duration::ZERO,
                bytes_max: 1 << 30,
                generation_bytes_max,
            },
            open: None,
            metrics: Metrics::register(&prometheus::Registry::new()),
            _dir: dir,
        };
        bench.start();
        bench
    }

    fn start(&mut self) {
        let stamp = Stamp {
            gateway_id: "gw".into(),
            boot_id: "boot".into(),
        };
        self.metrics = Metrics::register(&prometheus::Registry::new());
        let (buffer, writer) = Buffer::open(&self.config, stamp, self.metrics.clone()).unwrap();
        let writer = std::thread::spawn(move || writer.run());
        self.open = Some((buffer, writer));
    }

    fn stop(&mut self) {
        let (buffer, writer) = self.open.take().unwrap();
        drop(buffer);
        writer.join().unwrap().unwrap();
    }

    fn buffer(&self) -> &Buffer {
        &self.open.as_ref().unwrap().0
    }

    fn reader(&self) -> Reader {
        self.buffer().reader()
    }

    async fn append(&self, bodies: &[&str]) -> Acked {
        let (ack, acked) = Ack::new();
        let drafts = bodies.iter().map(|body| draft(body)).collect();
        self.buffer().append(drafts, Some(ack)).await.unwrap();
        acked
    }

    async fn store(&self, bodies: &[&str]) {
        durable(self.append(bodies).await).await;
    }

    /// The generations, oldest first, with those set aside.
    fn generations(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(&self.config.dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        paths.sort();
        paths
    }
}

fn draft(text: &str) -> Draft {
    Draft {
        kind: Kind::Event,
        partition_key: "thing".into(),
        members: Bytes::from(format!("\"text\":\"{text}\"")),
    }
}

async fn durable(acked: Acked) {
    timeout(GENEROUS, acked).await.unwrap().unwrap();
}

async fn read(reader: &mut Reader, records_max: usize) -> Vec<Record> {
    timeout(GENEROUS, reader.read(records_max, 1 << 20))
        .await
        .unwrap()
        .unwrap()
}

fn text(record: &Record) -> String {
    let body: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
    assert_eq!(body["seq"], record.seq);
    body["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_was_acknowledged_is_read_in_order_with_numbers_from_1() {
    let bench = Bench::new(1 << 20);
    bench.store(&["a", "b"]).await;
    bench.store(&["c"]).await;
    let mut reader = bench.reader();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(read(&mut reader, 2).await);
    }
    let seen: Vec<_> = seen.iter().map(|r| (r.seq, text(r))).collect();
    assert_eq!(seen, [(1, "a".into()), (2, "b".into()), (3, "c".into())]);
}
