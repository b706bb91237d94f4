//! The files of the log: which there are, reading them back, beginning a new one, removing old ones.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use portcullis_core::limits::WAL_DAMAGED_FILES_MAX;
use tracing::{error, info};

use super::{
    frame::{self, Next},
    metrics::Metrics,
};

/// What a file begins with.
const MAGIC: &[u8; 8] = b"PCWAL\0\0\x01";
/// The names of files end like this.
const EXTENSION: &str = "wal";

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing} `{path}`")]
pub struct OpenError {
    doing: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

/// The files; the newest one is open.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    /// Numbers of the files before the newest one, ascending, with their sizes.
    old: Vec<(u64, u64)>,
    number: u64,
    file: File,
    bytes: u64,
}

impl Segments {
    /// Reads back what is there and begins a new file.
    pub(super) fn open(
        dir: &Path,
        metrics: &Metrics,
        mut apply: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Self, OpenError> {
        make(dir).map_err(|source| failed("make", dir, source))?;
        let numbers = numbers(dir).map_err(|source| failed("list", dir, source))?;
        let mut old = Vec::new();
        for &number in &numbers {
            let path = path(dir, number);
            let good = replay(&path, metrics, &mut apply)
                .map_err(|source| failed("read", &path, source))?;
            old.push((number, good));
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let path = path(dir, number);
        let file = begin(dir, &path).map_err(|source| failed("begin", &path, source))?;
        Ok(Self {
            dir: dir.to_owned(),
            old,
            number,
            file,
            bytes: header_bytes(),
        })
    }

    /// Writes whole frames. What was written in part is taken back.
    pub(super) fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(frames);
        match written {
            Ok(()) => {
                self.bytes += u64::try_from(frames.len()).unwrap_or(u64::MAX);
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.bytes)?;
                self.file.seek(SeekFrom::Start(self.bytes))?;
                Err(error)
            }
        }
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Begins a new file; what was written is durable before.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let number = self.number + 1;
        let file = begin(&self.dir, &path(&self.dir, number))?;
        self.old.push((self.number, self.bytes));
        self.number = number;
        self.file = file;
        self.bytes = header_bytes();
        Ok(())
    }

    /// The number of the file that is written.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Removes the files before `number`.
    pub(super) fn remove_before(&mut self, number: u64) -> io::Result<()> {
        while let Some(&(oldest, _)) = self.old.first().filter(|(oldest, _)| *oldest < number) {
            fs::remove_file(path(&self.dir, oldest))?;
            self.old.remove(0);
        }
        sync_dir(&self.dir)
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        self.old.len() + 1
    }

    /// What they take.
    pub(super) fn bytes(&self) -> u64 {
        self.old.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.bytes
    }
}

/// Hands the records of a file to `apply`; how much of it was whole.
fn replay(
    path: &Path,
    metrics: &Metrics,
    apply: &mut impl FnMut(&[u8]) -> Result<(), String>,
) -> io::Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut source = BufReader::with_capacity(256 * 1024, file);
    let mut magic = Vec::new();
    source
        .by_ref()
        .take(header_bytes())
        .read_to_end(&mut magic)?;
    if magic != MAGIC {
        set_aside(path, 0, length, metrics)?;
        return Ok(0);
    }
    let mut good = header_bytes();
    loop {
        match frame::read(&mut source)? {
            Next::End => return Ok(good),
            Next::Broken => break,
            Next::Record(record, bytes) => {
                if let Err(why) = apply(&record) {
                    metrics.refused_records.inc();
                    error!(file = %path.display(), at = good, why, "A record of the session log makes no sense and is left out.");
                }
                good += bytes;
            }
        }
    }
    set_aside(path, good, length, metrics)?;
    Ok(good)
}

/// Cuts off what is not whole. Zeros and less than a frame are what a power cut leaves; anything else
/// is kept in a file of its own, for whoever wants to look.
fn set_aside(path: &Path, good: u64, length: u64, metrics: &Metrics) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(good))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    let bytes = length - good;
    if rest.iter().all(|byte| *byte == 0) {
        info!(file = %path.display(), bytes, "An empty end was cut off the session log.");
    } else {
        metrics.damaged_files.inc();
        let kept = path.with_extension("damaged");
        error!(
            file = %path.display(), at = good, bytes, kept = %kept.display(),
            "The session log has an end that cannot be read: what it said is lost. After a power cut that is what was not acknowledged."
        );
        fs::write(&kept, &rest)?;
        forget_damaged(path)?;
    }
    file.set_len(good.max(header_bytes()))?;
    if good == 0 {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(MAGIC)?;
    }
    file.sync_all()
}

/// Keeps the newest of what was set aside.
fn forget_damaged(path: &Path) -> io::Result<()> {
    let Some(dir) = path.parent() else {
        return Ok(());
    };
    let mut damaged = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == "damaged") {
            damaged.push(path);
        }
    }
    damaged.sort();
    let excess = damaged.len().saturating_sub(WAL_DAMAGED_FILES_MAX);
    damaged
        .into_iter()
        .take(excess)
        .try_for_each(fs::remove_file)
}

/// Makes a file that is there after a power cut as well.
fn begin(dir: &Path, path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(MAGIC)?;
    file.sync_all()?;
    sync_dir(dir)?;
    Ok(file)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == EXTENSION)
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
            && let Ok(number) = stem.parse()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.{EXTENSION}"))
}

fn header_bytes() -> u64 {
    u64::try_from(MAGIC.len()).unwrap_or(u64::MAX)
}

/// Makes the directory, durably: what is synced in one that is gone is gone as well.
fn make(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    match dir.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError {
        doing,
        path: path.display().to_string(),
        source,
    }
}
