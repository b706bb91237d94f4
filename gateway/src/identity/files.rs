//! Files written whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

/// Mode of what everyone may read.
const PUBLIC: u32 = 0o644;
/// Mode of private keys.
const PRIVATE: u32 = 0o600;

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write `{path}`")]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Replaces `path` by `content`: a power cut leaves the old file or the new one. A file that is
/// there keeps its mode and, where we may set it, its owner.
pub fn write(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    replace(path, content, fs::metadata(path).ok(), PUBLIC)
}

/// Like [`write`], for what only its owner may read.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    replace(path, content, None, PRIVATE)
}

fn replace(
    path: &Path,
    content: &[u8],
    old: Option<fs::Metadata>,
    mode: u32,
) -> Result<(), WriteError> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let written = || -> io::Result<()> {
        // Made with mode 0600, so that a key is never open to others.
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(content)?;
        let mode = match old {
            Some(old) => {
                // Only root may give it away; for others the file was theirs already.
                drop(fchown(file.as_file(), Some(old.uid()), Some(old.gid())));
                old.mode() & 0o7777
            }
            None => mode,
        };
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(parent)?.sync_all()
    };
    written().map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_mode_and_a_key_is_always_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        write(&path, b"1").unwrap();
        assert_eq!(mode(), 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, b"2").unwrap();
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o640, b"2".to_vec()));
        write_private(&path, b"3").unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
