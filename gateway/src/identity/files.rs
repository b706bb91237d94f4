//! Files written whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Mode of what everyone may read.
pub const PUBLIC: u32 = 0o644;
/// Mode of private keys.
pub const PRIVATE: u32 = 0o600;

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

/// Replaces `path` by `content`: a power cut leaves the old file or the new one.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), WriteError> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let written = || -> io::Result<()> {
        // Made with mode 0600, so that a key is never open to others.
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(content)?;
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
