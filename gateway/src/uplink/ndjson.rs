//! Numbered files of lines: the outbox and the dead letters.
//!
//! Files are named `<prefix>-<first number>.ndjson` so that they sort; should numbers start over,
//! a file is named after the one before it, so that the last stays the last. An append is on disk when it
//! returns; what a crash left after the last complete line is cut at opening. At the bound of all
//! files together the oldest is removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    prefix: &'static str,
    file_bytes_max: u64,
    bytes_max: u64,
    /// Names and sizes, oldest first.
    files: Vec<(PathBuf, u64)>,
    /// The newest file, while there is room in it.
    open: Option<File>,
}

impl Files {
    /// Opens or makes the directory and cuts what a crash left half-written.
    pub(super) fn open(
        dir: &Path,
        prefix: &'static str,
        file_bytes_max: u64,
        bytes_max: u64,
    ) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        // Lines that are synced in a directory that is gone are gone as well.
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| {
                name.strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with('-') && rest.ends_with(".ndjson"))
            });
            if ours {
                files.push((entry.path(), entry.metadata()?.len()));
            }
        }
        files.sort();
        let mut this = Self {
            dir: dir.to_owned(),
            prefix,
            file_bytes_max,
            bytes_max,
            files,
            open: None,
        };
        this.cut_torn_tail()?;
        Ok(this)
    }

    fn cut_torn_tail(&mut self) -> io::Result<()> {
        let Some((path, bytes)) = self.files.last_mut() else {
            return Ok(());
        };
        let mut file = OpenOptions::new().read(true).write(true).open(&*path)?;
        let whole = whole_lines_bytes(&mut file)?;
        if whole < *bytes {
            file.set_len(whole)?;
            *bytes = whole;
        }
        // What an earlier process wrote counts from here on: it has to be on disk.
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        file.seek(SeekFrom::Start(whole))?;
        self.open = (whole < self.file_bytes_max).then_some(file);
        Ok(())
    }

    /// The last complete line, if there is any.
    #[cfg(test)]
    pub(super) fn last_line(&self) -> io::Result<Option<Vec<u8>>> {
        for (path, _) in self.files.iter().rev() {
            let mut file = File::open(path)?;
            let end = file.metadata()?.len();
            if end == 0 {
                continue;
            }
            // Most lines are short; look further back only if this one is not.
            let mut tail_bytes = 64 * 1024;
            loop {
                let start = end.saturating_sub(tail_bytes);
                file.seek(SeekFrom::Start(start))?;
                let mut tail = Vec::new();
                Read::by_ref(&mut file)
                    .take(end - start)
                    .read_to_end(&mut tail)?;
                let lines = tail.strip_suffix(b"\n").unwrap_or(&tail);
                match lines.iter().rposition(|byte| *byte == b'\n') {
                    Some(at) => return Ok(Some(lines[at + 1..].to_vec())),
                    None if start == 0 => return Ok(Some(lines.to_vec())),
                    None => tail_bytes *= 8,
                }
            }
        }
        Ok(None)
    }

    /// The files, the one that was written last first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().rev().map(|(path, _)| &**path)
    }

    /// Visits the complete lines of a file, in order.
    pub(super) fn for_each_line(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut file = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            if let Some(line) = line.strip_suffix(b"\n") {
                each(line);
            }
            line.clear();
        }
        Ok(())
    }

    /// The number in a file's name.
    fn number(&self, path: &Path) -> Option<u64> {
        let name = path.file_stem()?.to_str()?;
        name.strip_prefix(self.prefix)?
            .strip_prefix('-')?
            .parse()
            .ok()
    }

    /// Appends lines, durably; how many old files had to go. After an error nothing of it counts:
    /// open again, which cuts what was written.
    pub(super) fn append<'a>(
        &mut self,
        number: u64,
        lines: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<u64> {
        let mut block = Vec::new();
        for line in lines {
            block.extend_from_slice(line);
            block.push(b'\n');
        }
        let before = match self.files.last() {
            Some((_, bytes)) if self.open.is_some() => *bytes,
            _ => 0,
        };
        if let Err(error) = self.write(number, &block) {
            // A part may be there; it must not be found by the next opening as if it were accepted.
            if let (Some(file), Some((_, bytes))) = (&self.open, self.files.last_mut()) {
                file.set_len(before)?;
                *bytes = before;
            }
            self.open = None;
            return Err(error);
        }
        Ok(self.keep_bound())
    }

    fn write(&mut self, number: u64, block: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            let last = self.files.last().and_then(|(path, _)| self.number(path));
            let number = last.map_or(number, |last| number.max(last.saturating_add(1)));
            let path = self
                .dir
                .join(format!("{}-{number:020}.ndjson", self.prefix));
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            File::open(&self.dir)?.sync_all()?;
            let bytes = file.metadata()?.len();
            self.files.retain(|(known, _)| *known != path);
            self.files.push((path, bytes));
            self.open = Some(file);
        }
        let (Some(file), Some((_, bytes))) = (&mut self.open, self.files.last_mut()) else {
            unreachable!("a file was opened above");
        };
        file.write_all(block)?;
        file.sync_data()?;
        *bytes += u64::try_from(block.len()).unwrap_or(u64::MAX);
        if *bytes >= self.file_bytes_max {
            self.open = None;
        }
        Ok(())
    }

    fn keep_bound(&mut self) -> u64 {
        let mut removed = 0;
        while self.files.len() > 1
            && self.files.iter().map(|(_, bytes)| bytes).sum::<u64>() > self.bytes_max
        {
            let (path, _) = self.files.remove(0);
            match fs::remove_file(&path) {
                Ok(()) => {
                    removed += 1;
                    tracing::error!(file = %path.display(), "The oldest file was removed at the bound.");
                }
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "A file could not be removed.");
                }
            }
        }
        removed
    }
}

/// Bytes up to the end of the last complete line. A power cut can leave blocks of NUL, which no
/// line holds: what follows them is cut as well.
fn whole_lines_bytes(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut block = vec![0; 64 * 1024];
    let (mut at, mut whole) = (0, 0);
    loop {
        let n = file.read(&mut block)?;
        let good = block[..n].iter().position(|byte| *byte == 0).unwrap_or(n);
        if let Some(line_end) = block[..good].iter().rposition(|byte| *byte == b'\n') {
            whole = at + u64::try_from(line_end).unwrap_or(0) + 1;
        }
        if n == 0 || good < n {
            return Ok(whole);
        }
        at += u64::try_from(n).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Files {
        Files::open(dir, "x", 30, 100).unwrap()
    }

    fn append(files: &mut Files, number: u64, lines: &[&str]) -> u64 {
        files
            .append(number, lines.iter().map(|line| line.as_bytes()))
            .unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_torn_last_line_is_cut_and_the_line_before_it_is_the_last() {
        let dir = tempfile::tempdir().unwrap();
        append(&mut open(dir.path()), 1, &["one", "two"]);
        let path = dir.path().join(&names(dir.path())[0]);
        for tail in [&b"thr"[..], b"\0\0\0\n", b"x\0\n{}\n"] {
            let mut content = b"one\ntwo\n".to_vec();
            content.extend_from_slice(tail);
            fs::write(&path, content).unwrap();
            let mut files = open(dir.path());
            assert_eq!(files.last_line().unwrap().unwrap(), b"two");
            append(&mut files, 3, &["three"]);
            assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
        }
    }

    #[test]
    fn files_close_at_their_size_and_the_oldest_goes_at_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = open(dir.path());
        let line = "x".repeat(29);
        let removed: u64 = (1..=5).map(|n| append(&mut files, n, &[&line])).sum();
        assert_eq!(removed, 2);
        assert_eq!(
            names(dir.path()),
            [3, 4, 5].map(|n| format!("x-{n:020}.ndjson"))
        );
        assert_eq!(
            open(dir.path()).last_line().unwrap().unwrap(),
            line.as_bytes()
        );
    }

    #[test]
    fn the_last_file_stays_the_last_when_numbers_start_over() {
        let dir = tempfile::tempdir().unwrap();
        let line = "x".repeat(30);
        for number in [8, 9, 1, 2] {
            append(&mut open(dir.path()), number, &[&line]);
        }
        assert_eq!(
            names(dir.path()),
            [9, 10, 11].map(|n| format!("x-{n:020}.ndjson"))
        );
    }

    #[test]
    fn an_empty_directory_has_no_last_line() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path()).last_line().unwrap(), None);
    }
}
