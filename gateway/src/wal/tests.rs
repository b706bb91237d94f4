use std::{fs, path::Path, thread::JoinHandle};

use prometheus::Registry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;

/// A log with its writer running.
struct Running {
    wal: Wal,
    writer: JoinHandle<Result<(), WriteError>>,
    metrics: Metrics,
    records: Vec<Vec<u8>>,
}

fn open(dir: &Path) -> Running {
    let metrics = Metrics::register(&Registry::new());
    let mut records = Vec::new();
    let apply = |record: &[u8]| {
        records.push(record.to_vec());
        Ok(())
    };
    let (wal, writer) = Wal::open(dir, metrics.clone(), apply).unwrap();
    let writer = std::thread::spawn(move || writer.run(&CancellationToken::new()));
    Running {
        wal,
        writer,
        metrics,
        records,
    }
}

impl Running {
    fn close(self) -> Vec<Vec<u8>> {
        drop(self.wal);
        self.writer.join().unwrap().unwrap();
        self.records
    }
}

fn files(dir: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_is_durable_is_read_back_in_order() {
    let dir = TempDir::new().unwrap();
    let running = open(dir.path());
    for n in 0..1000_u32 {
        running.wal.append(&n.to_le_bytes()).unwrap();
    }
    running.wal.durable().await.unwrap();
    // As a kill leaves it: nothing is closed.
    let copy = TempDir::new().unwrap();
    for file in files(dir.path(), "wal") {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let expected: Vec<_> = (0..1000_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    assert_eq!(open(copy.path()).close(), expected);
    running.close();
    assert_eq!(open(dir.path()).close(), expected);
}

#[tokio::test]
async fn a_torn_end_is_cut_off_wherever_it_is_torn() {
    let dir = TempDir::new().unwrap();
    let running = open(dir.path());
    for record in ["first", "second", "third"] {
        running.wal.append(record.as_bytes()).unwrap();
    }
    running.wal.durable().await.unwrap();
    running.close();
    let file = files(dir.path(), "wal").remove(0);
    let whole = fs::read(&file).unwrap();
    let before_third = whole.len() - "third".len() - 8;
    for length in before_third..whole.len() {
        for tail in [0, 20] {
            let site = TempDir::new().unwrap();
            let mut torn = whole[..length].to_vec();
            torn.resize(length + tail, 0);
            fs::write(site.path().join("0000000001.wal"), torn).unwrap();
            let running = open(site.path());
            assert_eq!(running.records, [b"first".to_vec(), b"second".to_vec()]);
            running.wal.append(b"new").unwrap();
            running.close();
            let again = open(site.path());
            assert_eq!(again.metrics.damaged_files.get(), 0, "it was cut off");
            assert_eq!(again.close().last().unwrap(), b"new");
        }
    }
}

#[tokio::test]
async fn damage_costs_the_rest_of_its_file_and_is_set_aside() {
    let dir = TempDir::new().unwrap();
    for record in ["a", "b"] {
        let running = open(dir.path());
        running.wal.append(record.as_bytes()).unwrap();
        running.wal.append(record.as_bytes()).unwrap();
        running.close();
    }
    let file = files(dir.path(), "wal").remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let at = 8 + 8;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let running = open(dir.path());
    assert_eq!(running.metrics.damaged_files.get(), 1);
    assert_eq!(files(dir.path(), "damaged").len(), 1);
    assert_eq!(running.close(), [b"b", b"b"]);
    // A file that is none at all.
    fs::write(&file, "what is this?").unwrap();
    assert_eq!(open(dir.path()).close(), [b"b", b"b"]);
}

#[tokio::test]
async fn a_checkpoint_replaces_what_was_written_before_it() {
    let dir = TempDir::new().unwrap();
    let running = open(dir.path());
    running.wal.append(b"old").unwrap();
    running.wal.begin_checkpoint();
    running.wal.append(b"state").unwrap();
    running.wal.append(b"meanwhile").unwrap();
    running.wal.end_checkpoint();
    running.wal.append(b"after").unwrap();
    running.wal.durable().await.unwrap();
    assert_eq!(files(dir.path(), "wal").len(), 1);
    running.close();
    let read = open(dir.path()).close();
    let texts: Vec<_> = read.iter().map(|r| str::from_utf8(r).unwrap()).collect();
    assert_eq!(texts, ["state", "meanwhile", "after"]);
}

#[tokio::test]
async fn a_checkpoint_that_did_not_end_leaves_the_older_files() {
    let dir = TempDir::new().unwrap();
    let running = open(dir.path());
    running.wal.append(b"old").unwrap();
    running.wal.begin_checkpoint();
    running.wal.append(b"half").unwrap();
    running.close();
    assert_eq!(
        open(dir.path()).close(),
        [b"old".to_vec(), b"half".to_vec()]
    );
}

#[tokio::test]
async fn many_starts_and_much_writing_ask_for_a_checkpoint() {
    let dir = TempDir::new().unwrap();
    for _ in 0..portcullis_core::limits::WAL_FILES_MAX {
        open(dir.path()).close();
    }
    let running = open(dir.path());
    running.wal.checkpoint_due().await;
    running.wal.begin_checkpoint();
    running.wal.end_checkpoint();
    running.wal.durable().await.unwrap();
    let record = vec![7; 1024 * 1024];
    for _ in 0..20 {
        running.wal.room().await;
        running.wal.append(&record).unwrap();
    }
    running.wal.checkpoint_due().await;
    assert_eq!(
        running.wal.append(&vec![0; WAL_RECORD_BYTES_MAX + 1]),
        Err(TooLarge(WAL_RECORD_BYTES_MAX + 1))
    );
    running.close();
}
