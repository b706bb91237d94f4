//! What an older release left: it had one lane, directly in `data/buffer`. It becomes the events lane.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use portcullis_core::record::Lane;
use tracing::{info, warn};

const MARKS: [&str; 4] = ["cursor", "sequence", "end", "floor"];

/// Moves an older release's files, each by a rename; a process that ends in between goes on at the
/// next start, before anything is opened.
pub(super) fn move_single_lane(dir: &Path) -> io::Result<()> {
    let target = dir.join(Lane::Events.name());
    let mut moved = 0_usize;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_old = name
            .to_str()
            .is_some_and(|name| MARKS.contains(&name) || name.starts_with("gen-"));
        if !is_old {
            continue;
        }
        fs::create_dir_all(&target)?;
        let to = target.join(&name);
        if to.exists() {
            // An older release ran in between; its numbers would collide.
            warn!(path = %entry.path().display(), "Files of an older release are left as they are.");
            continue;
        }
        fs::rename(entry.path(), to)?;
        moved += 1;
    }
    if moved > 0 {
        File::open(&target)?.sync_all()?;
        File::open(dir)?.sync_all()?;
        info!(
            moved,
            "The buffer of an older release became the events lane."
        );
    }
    Ok(())
}
