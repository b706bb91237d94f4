//! The journal of the registry's run-time state: `data/registry.journal`, append-only, a change a
//! line ([`line`](portcullis_core::registry::line)).
//!
//! The gateway writes to it, and so do commands while the gateway runs: who writes holds a lock on a
//! file beside it, and every change is on disk when [`Journal::append`] returns. Who reads takes no
//! lock: a line without its end is one that is still being written, and counts as not there. The
//! watcher sees the file change as it sees `registry.toml` change.
//!
//! Beside it, `registry.journal.mark` says how long it is at least. A journal that is gone or shorter
//! than that says nothing of who is shut out, and is none: [`JournalError::Lost`].
//!
//! Absent on purpose: sled, which lets one process in, and commands must work beside a running
//! gateway (decision note 0004). Also undo: what holds is what the last line says.
//!
//! How it fails. A power cut in an append leaves some of its lines, in order, and perhaps a torn one,
//! which the next writer cuts off. Compaction writes another file and renames it: a cut in the middle
//! leaves the old journal. A line that is not understood shuts out whom it names; compaction moves it
//! to `registry.journal.damaged`. A journal that cannot be read, or with a damaged line that may have
//! shut somebody out, is a problem of the configuration: a start is refused, a running gateway keeps
//! what it knows, and takes away what the other lines do. Commands still write to a damaged one, devices
//! do not, and it is not compacted until the line is accepted as lost.
//!
//! What devices do cannot keep commands from writing: there is more room for them
//! ([`JOURNAL_COMMAND_BYTES_MAX`]), and still more for what takes access away.

mod damage;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use portcullis_core::{
    limits::{
        JOURNAL_BYTES_MAX, JOURNAL_COMMAND_BYTES_MAX, JOURNAL_HARD_BYTES_MAX,
        JOURNAL_IDLE_LINES_MAX,
    },
    registry::{
        State,
        line::{self, Reading, TooLong},
        state::Change,
    },
};

use damage::doubtful;

/// The journal at one path. Cheap to clone; clones share what they have read.
#[derive(Clone, Debug)]
pub struct Journal {
    path: Arc<Path>,
    read: Arc<Mutex<Option<Known>>>,
}

/// For whom a change is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Command,
    Device,
}

/// What was read of the file, so that only what is new is read the next time.
#[derive(Debug)]
struct Known {
    /// Held open, so that no other file gets its inode number.
    file: File,
    reading: Arc<Reading>,
}

/// Why the journal was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It, or its lock, cannot be opened or read.
    #[error("failed to read the journal `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written; what it says is what it said before, or more.
    #[error("failed to write the journal `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is as long as it may be; there is more room for commands than for devices, and still more
    /// for changes that take access away.
    #[error(
        "the journal `{path}` is full; remove things or certificates that registered themselves and are not needed"
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// One of its lines is damaged, and may have shut somebody out: devices get nothing until that is
    /// decided.
    #[error("line {line} of the journal `{path}` is damaged; see `portcullis check`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first such line.
        line: usize,
    },
    /// It is gone, or shorter than it was: who was shut out is not known any more.
    #[error("the journal `{path}` lacks what it had: it has {bytes} bytes of {known} or more")]
    Lost {
        /// The file.
        path: PathBuf,
        /// Its length; 0 if there is none.
        bytes: u64,
        /// What it had.
        known: u64,
    },
    /// A change does not fit a line.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl Journal {
    /// The journal at `path`, which need not be there yet: then nothing has changed.
    pub fn open(path: &Path) -> Self {
        Self {
            path: path.into(),
            read: Arc::default(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says now.
    pub fn read(&self) -> Result<State, JournalError> {
        self.reading().map(|reading| reading.state.clone())
    }

    /// What it says now, and which of its lines are not understood.
    pub fn reading(&self) -> Result<Arc<Reading>, JournalError> {
        let mut known = self.known();
        Ok(self.refreshed(&mut known)?.0)
    }

    /// Appends `changes`, in order. They are on disk when it returns.
    pub fn append(&self, changes: &[Change]) -> Result<(), JournalError> {
        self.append_if(|_| Ok::<_, JournalError>(((), changes.to_vec())))
    }

    /// Appends what `decide` makes of the present state, which nobody changes meanwhile.
    pub fn append_if<T, E: From<JournalError>>(
        &self,
        decide: impl FnOnce(&State) -> Result<(T, Vec<Change>), E>,
    ) -> Result<T, E> {
        self.append_for(Writer::Command, decide)
    }

    /// Like [`Journal::append_if`], on behalf of a device: within narrower bounds, and not while who is
    /// shut out is in doubt.
    pub fn append_for_device<T, E: From<JournalError>>(
        &self,
        decide: impl FnOnce(&State) -> Result<(T, Vec<Change>), E>,
    ) -> Result<T, E> {
        self.append_for(Writer::Device, decide)
    }

    fn append_for<T, E: From<JournalError>>(
        &self,
        writer: Writer,
        decide: impl FnOnce(&State) -> Result<(T, Vec<Change>), E>,
    ) -> Result<T, E> {
        let _lock = self.lock().map_err(|source| self.unwritten(source))?;
        let mut known = self.known();
        let (mut reading, mut torn) = self.refreshed(&mut known)?;
        if let (Writer::Device, Some(fault)) = (writer, doubtful(&reading).next()) {
            let (path, line) = (self.path.to_path_buf(), fault.line);
            return Err(JournalError::Damaged { path, line }.into());
        }
        let (outcome, changes) = decide(&reading.state)?;
        if changes.is_empty() {
            return Ok(outcome);
        }
        let mut text = String::new();
        for change in &changes {
            text += &line::encode(change).map_err(JournalError::from)?;
        }
        let bytes_max = match writer {
            Writer::Device => JOURNAL_BYTES_MAX,
            Writer::Command => {
                let mut changes = changes.iter();
                match changes.all(|change| change.only_takes_away(&reading.state)) {
                    true => JOURNAL_HARD_BYTES_MAX,
                    false => JOURNAL_COMMAND_BYTES_MAX,
                }
            }
        };
        let is_full = |reading: &Reading| {
            let bytes = reading.bytes + text.len();
            u64::try_from(bytes).is_ok_and(|bytes| bytes > bytes_max)
        };
        if is_full(&reading) && reading.lines > reading.state.len() && !reading.is_doubtful() {
            self.compact(&reading)
                .map_err(|source| self.unwritten(source))?;
            (reading, torn) = self.refreshed(&mut known)?;
        }
        if is_full(&reading) {
            let path = self.path.to_path_buf();
            return Err(JournalError::Full { path }.into());
        }
        if let Err(source) = self.write(reading.bytes as u64, torn, text.as_bytes()) {
            *known = None;
            return Err(self.unwritten(source).into());
        }
        let end = (reading.bytes + text.len()) as u64;
        drop(reading);
        // The changes are on disk: what goes wrong from here on is not theirs.
        if let Err(error) = self.mark(end, false) {
            tracing::warn!(path = %self.path.display(), %error, "The length of the journal could not be noted.");
        }
        if let Ok((reading, _)) = self.refresh(&mut known) {
            let idle = reading.lines.saturating_sub(reading.state.len());
            if idle > reading.state.len() + JOURNAL_IDLE_LINES_MAX
                && !reading.is_doubtful()
                && let Err(error) = self.compact(&reading)
            {
                tracing::warn!(path = %self.path.display(), %error, "The journal could not be compacted.");
            }
        }
        Ok(outcome)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self, source: io::Error) -> JournalError {
        JournalError::Read {
            path: self.path.to_path_buf(),
            source,
        }
    }

    fn unwritten(&self, source: io::Error) -> JournalError {
        JournalError::Write {
            path: self.path.to_path_buf(),
            source,
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    /// Like [`Journal::refresh`], and refuses a journal that lost what it had.
    fn refreshed(&self, known: &mut Option<Known>) -> Result<(Arc<Reading>, bool), JournalError> {
        let unreadable = |source| self.unreadable(source);
        loop {
            // First: a journal only grows behind its mark, unless a compaction comes between.
            let marked = self.marked().map_err(unreadable)?;
            let bytes = match fs::metadata(&*self.path) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(unreadable(error)),
            };
            let had = known.as_ref().map_or(0, |known| known.reading.bytes as u64);
            // A compaction leaves a shorter one with a mark of its own.
            let is_compacted = bytes > 0 && marked > 0 && bytes >= marked;
            let mut bytes = bytes;
            if bytes >= marked.max(had) || is_compacted {
                let (reading, is_torn) = self.refresh(known).map_err(unreadable)?;
                bytes = reading.bytes as u64;
                // A line that was acknowledged has its end, or is damaged.
                if bytes >= marked {
                    return Ok((reading, is_torn));
                }
                *known = None;
            }
            if self.marked().map_err(unreadable)? == marked {
                return Err(JournalError::Lost {
                    path: self.path.to_path_buf(),
                    bytes,
                    known: marked.max(had),
                });
            }
        }
    }

    /// How long the journal is at least; 0 if that is not known.
    fn marked(&self) -> io::Result<u64> {
        match fs::read_to_string(self.beside(".mark")) {
            // A mark that a power cut left empty knows nothing.
            Ok(text) if text.trim_matches(['\0', '\n']).is_empty() => Ok(0),
            Ok(text) => text.trim().parse().map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Notes that the journal has `bytes`. Called under the lock. Always as many digits, so that no
    /// reader sees a half; on disk when it returns if the journal is to get shorter, or is new.
    fn mark(&self, bytes: u64, shorter: bool) -> io::Result<()> {
        let path = self.beside(".mark");
        let is_new = !path.exists();
        let mut options = File::options();
        let mut file = self.open_own(&path, options.write(true).create(true))?;
        file.write_all(format!("{bytes:020}\n").as_bytes())?;
        if is_new || shorter {
            file.sync_all()?;
            self.sync_directory()?;
        }
        Ok(())
    }

    /// Reads what is new. Says also how many bytes of an unfinished line are behind it.
    fn refresh(&self, known: &mut Option<Known>) -> io::Result<(Arc<Reading>, bool)> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *known = None;
                return Ok((Arc::default(), false));
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let same = known.take().filter(|known| {
            let former = known.file.metadata();
            // A damaged line may be corrected where it stands.
            !known.reading.is_doubtful()
                && former.is_ok_and(|former| identity(&former) == identity(&metadata))
                && known.reading.bytes as u64 <= metadata.len()
        });
        let is_known = same.is_some();
        let mut reading = same.map(|known| known.reading).unwrap_or_default();
        file.seek(SeekFrom::Start(reading.bytes as u64))?;
        let mut bytes = Vec::new();
        let rest = JOURNAL_HARD_BYTES_MAX.saturating_sub(reading.bytes as u64);
        (&file).take(rest + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > rest {
            return Err(io::Error::other("the file is larger than a journal can be"));
        }
        let before = reading.bytes;
        if bytes.contains(&b'\n') {
            Arc::make_mut(&mut reading).read_on(&bytes);
        }
        if is_known && reading.is_doubtful() {
            // Somebody may have written into what was read before.
            return self.refresh(known);
        }
        let is_torn = reading.bytes - before < bytes.len();
        *known = Some(Known {
            file,
            reading: Arc::clone(&reading),
        });
        Ok((reading, is_torn))
    }

    /// Held until it is dropped; a killed process lets go of it too.
    fn lock(&self) -> io::Result<File> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let path = self.beside(".lock");
        let lock = match self.open_own(&path, File::options().write(true).create(true)) {
            Ok(lock) => lock,
            // It may be another user's; to lock it, it need not be written.
            Err(error) => File::open(&path).map_err(|_| error)?,
        };
        lock.lock()?;
        Ok(lock)
    }

    /// Opens a file that only the owner of the directory reads and writes, whoever makes it.
    fn open_own(&self, path: &Path, options: &mut fs::OpenOptions) -> io::Result<File> {
        let is_new = !path.exists();
        let file = options.mode(0o600).open(path)?;
        if is_new && let Some(dir) = self.path.parent() {
            let owner = fs::metadata(dir)?;
            // Only root may give it away, and only root has to.
            drop(fchown(&file, Some(owner.uid()), Some(owner.gid())));
        }
        Ok(file)
    }

    /// Writes `text` at `end`, behind the last complete line.
    fn write(&self, end: u64, is_torn: bool, text: &[u8]) -> io::Result<()> {
        let is_new = !self.path.exists();
        let mut options = File::options();
        let mut file = self.open_own(&self.path, options.write(true).create(true))?;
        if is_torn {
            file.set_len(end)?;
        }
        file.seek(SeekFrom::Start(end))?;
        if let Err(error) = file.write_all(text).and_then(|()| file.sync_data()) {
            // Nobody was told that they are there, so they had better not be.
            drop(file.set_len(end));
            return Err(error);
        }
        if is_new {
            self.sync_directory()
        } else {
            Ok(())
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Writes the state anew. Called under the lock.
    fn compact(&self, reading: &Reading) -> io::Result<()> {
        self.set_aside(&reading.faults)?;
        let new = self.beside(".new");
        // What a killed compaction left.
        drop(fs::remove_file(&new));
        let mut file = self.open_own(&new, File::options().write(true).create_new(true))?;
        let mut text = String::new();
        for change in reading.state.changes() {
            text += &line::encode(&change).map_err(io::Error::other)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Before: a cut between the two leaves the longer journal, which has what the mark says.
        self.mark(text.len() as u64, true)?;
        fs::rename(&new, &self.path)?;
        self.sync_directory()
    }
}

#[cfg(test)]
mod tests;
