//! Disk that is set aside for the critical lane: a file that is there to be removed when the disk is
//! full, whoever filled it, and made again when there is space.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use portcullis_core::limits::RESERVE_FILE_BYTES;
use tracing::{info, warn};

/// See the module.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_there: bool,
    tried: Option<Instant>,
}

/// How often a reserve that is gone is tried again.
const PAUSE: Duration = Duration::from_secs(5);

impl Reserve {
    /// The reserve at `path`, of at most `bytes_max`; made now if there is space.
    pub(super) fn open(path: PathBuf, bytes_max: u64) -> Self {
        let bytes = RESERVE_FILE_BYTES.min(bytes_max);
        let is_there = fs::metadata(&path).is_ok_and(|meta| meta.len() == bytes);
        let mut this = Self {
            path,
            bytes,
            is_there,
            tried: None,
        };
        this.make();
        this
    }

    /// Whether it is there.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Gives its disk back; `false` if there was none.
    pub(super) fn release(&mut self) -> bool {
        if !std::mem::take(&mut self.is_there) {
            return false;
        }
        self.tried = Some(Instant::now());
        match fs::remove_file(&self.path) {
            Ok(()) => {
                warn!("The disk is full; the reserve of the critical lane is in use.");
                true
            }
            Err(error) => {
                warn!(%error, "The reserve of the critical lane could not be given back.");
                false
            }
        }
    }

    /// Makes it again now and then while it is gone.
    pub(super) fn make(&mut self) {
        let is_early = self.tried.is_some_and(|tried| tried.elapsed() < PAUSE);
        if self.is_there || is_early {
            return;
        }
        let was_released = self.tried.replace(Instant::now()).is_some();
        match self.write() {
            Ok(()) => {
                self.is_there = true;
                if was_released {
                    info!("There is space again; the reserve of the critical lane is back.");
                }
            }
            Err(_) => drop(fs::remove_file(&self.path)),
        }
    }

    /// Writes it out, with bytes that no file system makes less of.
    fn write(&self) -> io::Result<()> {
        let mut random = fastrand::Rng::with_seed(self.bytes);
        let mut block = vec![0; 64 * 1024];
        let mut file = File::create(&self.path)?;
        let mut left = self.bytes;
        while left > 0 {
            random.fill(&mut block);
            let bytes = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
            file.write_all(&block[..bytes])?;
            left -= u64::try_from(bytes).unwrap_or(left);
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_gives_its_disk_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let mut reserve = Reserve::open(path.clone(), 300_000);
        assert_eq!(fs::metadata(&path).unwrap().len(), 300_000);
        assert!(reserve.release());
        assert!(!path.exists());
        assert!(!reserve.release());
        reserve.make();
        assert!(!reserve.is_there(), "not at once: the space is wanted");
        reserve.tried = Instant::now().checked_sub(PAUSE);
        reserve.make();
        assert!(reserve.is_there() && path.exists());
        let again = Reserve::open(path, 300_000);
        assert!(again.is_there());
    }
}
