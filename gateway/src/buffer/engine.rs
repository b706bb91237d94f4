//! sled 0.34, and the only file that names it.
//!
//! What evidence.md found is the law here. `flush()` alone ends in `sync_file_range` and loses
//! acknowledged data at a power cut, so [`Database::commit`] also calls `sync_data` on the
//! database's own file. Values past the leaf limit go to blob files that nobody syncs, so callers
//! keep them under `CHUNK_BYTES_MAX`. Damage makes sled panic rather than fail, so it is opened on a
//! thread of its own and every other call stands behind `catch_unwind`: a panic is a value here.

use std::{
    any::Any,
    fs::{self, File},
    io::{self, ErrorKind},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use portcullis_core::limits::{CHUNK_BYTES_MAX, GENERATION_CACHE_BYTES};
use tracing::warn;

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// sled panicked; nothing it says afterwards counts.
    #[error("the storage engine panicked: {0}")]
    Panicked(String),
    /// sled returned an error.
    #[error("the storage engine failed")]
    Engine(#[source] sled::Error),
    /// It opens, but what it was made with is gone, and all else with it.
    #[error("the database is hollow")]
    Hollow,
    /// The file system failed.
    #[error("failed to access the database at `{path}`")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl EngineError {
    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } | Self::Engine(sled::Error::Io(source)) => Some(source),
            Self::Panicked(_) | Self::Hollow | Self::Engine(_) => None,
        }
    }

    /// Whether the data are to blame, for sure. Whatever else went wrong (no memory, no thread, no
    /// descriptor, no space, no permission, a lock, a disk that fails at the moment) may be over at
    /// the next try, and the generation must not be set aside for it.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Panicked(_)
            | Self::Hollow
            | Self::Engine(sled::Error::Corruption { .. } | sled::Error::ReportableBug(_))
            // Settings on disk that are not ours: no try will ever find them different.
            | Self::Engine(sled::Error::Unsupported(_)) => true,
            Self::Io { .. } | Self::Engine(_) => self.io().is_some_and(|error| {
                matches!(
                    error.kind(),
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof
                )
            }),
        }
    }

    /// Whether the disk is full, for us or for everybody. (By kind: sled forgets the system's code.)
    pub(super) fn is_no_space(&self) -> bool {
        self.io().is_some_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
        })
    }
}

/// One generation's database.
#[derive(Debug)]
pub(super) struct Database {
    /// There until it is closed.
    db: Option<sled::Db>,
    file: File,
    path: PathBuf,
}

impl Database {
    /// Opens or makes the database in the directory `dir` and makes what it finds durable: after a
    /// kill, records may be in the page cache that no disk has, and they count from here on.
    pub(super) fn open(dir: &Path) -> Result<Self, EngineError> {
        let path = dir.to_owned();
        let database = thread::Builder::new()
            .name("buffer-open".into())
            .spawn(move || Self::open_here(path))
            .map_err(|source| EngineError::Io {
                path: dir.to_owned(),
                source,
            })?
            .join()
            .unwrap_or_else(|panic| Err(EngineError::Panicked(panic_text(&*panic))))?;
        database.commit()?;
        sync_directory(dir)?;
        Ok(database)
    }

    /// Opens a copy that nobody relies on: nothing of it is made durable.
    pub(super) fn open_copy(dir: &Path) -> Result<Self, EngineError> {
        guarded(|| Self::open_here(dir.to_owned()))
    }

    fn open_here(path: PathBuf) -> Result<Self, EngineError> {
        let mut tries_left = LOCK_TRIES;
        let db = loop {
            let config = sled::Config::new()
                .path(&path)
                .mode(sled::Mode::HighThroughput)
                .cache_capacity(GENERATION_CACHE_BYTES)
                .flush_every_ms(None);
            match config.open() {
                // A database that was just closed holds its lock until its last thread is done.
                Err(sled::Error::Io(error))
                    if tries_left > 0 && error.to_string().contains("acquire lock") =>
                {
                    tries_left -= 1;
                    thread::sleep(LOCK_PAUSE);
                }
                other => break other.map_err(EngineError::Engine)?,
            }
        };
        let file = File::open(path.join("db")).map_err(|source| EngineError::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            db: Some(db),
            file,
            path,
        })
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("only drop closes it")
    }

    /// Adds values one after the other; they are durable after [`Database::commit`] only, and a
    /// crash before it may leave the first ones of them, never a later one alone.
    pub(super) fn put<K: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, Vec<u8>)>,
    ) -> Result<(), EngineError> {
        guarded(|| {
            for (key, value) in entries {
                assert_is_small(&value);
                self.db().insert(key, value).map_err(EngineError::Engine)?;
            }
            Ok(())
        })
    }

    /// As [`Database::put`], but a crash leaves all of them or none. sled pays for that with a write
    /// to disk of its own.
    pub(super) fn put_together<K: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, Vec<u8>)>,
    ) -> Result<(), EngineError> {
        let mut batch = sled::Batch::default();
        for (key, value) in entries {
            assert_is_small(&value);
            batch.insert(key.as_ref(), value);
        }
        guarded(|| self.db().apply_batch(batch).map_err(EngineError::Engine))
    }

    /// Makes everything that was put durable.
    pub(super) fn commit(&self) -> Result<(), EngineError> {
        guarded(|| self.db().flush().map_err(EngineError::Engine))?;
        self.file.sync_data().map_err(|source| EngineError::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// The greatest key that is not above `key`.
    pub(super) fn at_or_before(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        guarded(|| match self.db().range(..=key).next_back() {
            None => Ok(None),
            Some(Err(error)) => Err(EngineError::Engine(error)),
            Some(Ok((found, _))) => Ok(Some(found.to_vec())),
        })
    }

    /// The length of the first key, which all have.
    pub(super) fn key_bytes(&self) -> Result<Option<usize>, EngineError> {
        guarded(|| {
            let first = self.db().first().map_err(EngineError::Engine)?;
            Ok(first.map(|(key, _)| key.len()))
        })
    }

    /// What `look` makes of the value of `key`.
    pub(super) fn get<T>(
        &self,
        key: &[u8],
        look: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, EngineError> {
        guarded(|| {
            let value = self.db().get(key).map_err(EngineError::Engine)?;
            Ok(value.map(|value| look(&value)))
        })
    }

    /// Visits keys and values from the last one back, until told to stop.
    pub(super) fn scan_back(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        guarded(|| {
            for entry in self.db().iter().rev() {
                let (key, value) = entry.map_err(EngineError::Engine)?;
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Visits keys and values from `from` on, in order, until told to stop.
    pub(super) fn scan(
        &self,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        guarded(|| {
            for entry in self.db().range::<&[u8], _>(from..) {
                let (key, value) = entry.map_err(EngineError::Engine)?;
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// What the database's file takes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }
}

impl Drop for Database {
    /// Closes; sled writes what it has left then, and panics if the disk refuses. What matters was
    /// committed before.
    fn drop(&mut self) {
        if let Err(error) = close(self.db.take()) {
            warn!(path = %self.path.display(), %error, "A generation did not close cleanly.");
        }
    }
}

fn assert_is_small(value: &[u8]) {
    assert!(
        value.len() <= CHUNK_BYTES_MAX,
        "chunks are cut to the limit"
    );
}

/// How often a lock that should be free at once is tried, and how long to wait in between.
const LOCK_TRIES: u32 = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Runs a call into sled; a panic becomes an error.
fn guarded<T>(call: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    // Nothing of ours is left half-done by a panic inside sled, and a database that panicked is
    // given up as a whole.
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(EngineError::Panicked(panic_text(&*panic))))
}

/// Drops something of sled's; a panic on the way becomes an error.
fn close<T>(what: T) -> Result<(), EngineError> {
    guarded(move || {
        drop(what);
        Ok(())
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}

/// Makes the entries of the directory and its files durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), EngineError> {
    let sync = || {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // Snapshots come and go beside us.
                match File::open(entry.path()) {
                    Ok(file) => file.sync_all()?,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        File::open(dir)?.sync_all()
    };
    sync().map_err(|source| EngineError::Io {
        path: dir.to_owned(),
        source,
    })
}

/// What all files below `dir` take on disk.
pub(super) fn directory_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => directory_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(source: io::Error) -> EngineError {
        EngineError::Io {
            path: "gen-1".into(),
            source,
        }
    }

    #[test]
    fn a_database_that_panics_at_its_end_takes_nobody_along() {
        struct Refused;
        impl Drop for Refused {
            fn drop(&mut self) {
                panic!("the disk refused");
            }
        }
        let closed = close(Some(Refused));
        assert!(
            matches!(&closed, Err(EngineError::Panicked(why)) if why == "the disk refused"),
            "{closed:?}"
        );
    }

    #[test]
    fn only_what_the_data_are_to_blame_for_is_damage() {
        for code in [
            libc::EAGAIN,
            libc::EIO,
            libc::ENOMEM,
            libc::EMFILE,
            libc::ENOSPC,
            libc::EACCES,
            libc::EROFS,
            libc::EINTR,
        ] {
            let error = || io::Error::from_raw_os_error(code);
            assert!(!io(error()).is_damage(), "{}", error());
            let through_sled = EngineError::Engine(sled::Error::Io(error()));
            assert!(!through_sled.is_damage(), "{through_sled:?}");
            // As sled passes them on between its threads.
            let copied = EngineError::Engine(sled::Error::Io(error()).clone());
            assert!(!copied.is_damage(), "{copied:?}");
        }
        let corruption = sled::Error::Corruption { at: None, bt: () };
        assert!(EngineError::Engine(corruption).is_damage());
        assert!(EngineError::Engine(sled::Error::ReportableBug("bug".into())).is_damage());
        assert!(EngineError::Engine(sled::Error::Unsupported("version".into())).is_damage());
        assert!(EngineError::Panicked("panic".into()).is_damage());
        assert!(EngineError::Hollow.is_damage());
        assert!(io(ErrorKind::InvalidData.into()).is_damage());
        assert!(io(ErrorKind::UnexpectedEof.into()).is_damage());
    }
}
