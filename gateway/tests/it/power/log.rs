//! The log of the recorder (`gateway/tests/power/recorder.c`), and the marks that the test puts into it.
//!
//! Both append whole entries to one file, so the place of a mark among the entries is exact: an
//! acknowledgement that stands before the cut was seen before it.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const MAGIC: u32 = 0x3157_4f50;
const HEADER_BYTES: usize = 32;

/// One entry. Files and directories are named by their inode, which may be given again to another
/// file after the first is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A file was made.
    Create {
        inode: u64,
        name: PathBuf,
    },
    /// A directory was made.
    MakeDir {
        inode: u64,
        name: PathBuf,
    },
    Write {
        inode: u64,
        at: usize,
        data: Vec<u8>,
    },
    /// A file was cut or grew to this size.
    Resize {
        inode: u64,
        bytes: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    /// A file or an empty directory went.
    Remove {
        name: PathBuf,
    },
    /// A sync of a file or directory begins; what it covers stands before this.
    SyncBegins {
        inode: u64,
        number: u64,
    },
    /// It has returned.
    SyncEnds {
        number: u64,
    },
    /// Something changed that the recorder cannot follow.
    Unknown(String),
    /// The test's own word.
    Mark(String),
}

/// Reads a whole log. A process that was killed may have left no torn entry: each is one write.
pub(super) fn read(path: &Path) -> Vec<Entry> {
    let bytes = fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let u32_at = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
        assert_eq!(u32_at(0), MAGIC, "an entry begins here");
        let kind = char::from_u32(u32_at(4)).unwrap();
        let (a, b) = (u64_at(8), u64_at(16));
        let path_bytes = usize::try_from(u32_at(24)).unwrap();
        let data_bytes = usize::try_from(u32_at(28)).unwrap();
        let (_, after) = rest.split_at(HEADER_BYTES);
        let (text, after) = after.split_at(path_bytes);
        let (data, after) = after.split_at(data_bytes);
        let text = String::from_utf8(text.to_vec()).unwrap();
        let name = || PathBuf::from(&text);
        entries.push(match kind {
            'C' => Entry::Create {
                inode: a,
                name: name(),
            },
            'D' => Entry::MakeDir {
                inode: a,
                name: name(),
            },
            'W' => Entry::Write {
                inode: a,
                at: usize::try_from(b).unwrap(),
                data: data.to_vec(),
            },
            'T' => Entry::Resize {
                inode: a,
                bytes: usize::try_from(b).unwrap(),
            },
            'R' => {
                let (from, to) = text.split_once('\0').unwrap();
                Entry::Rename {
                    from: from.into(),
                    to: to.into(),
                }
            }
            'U' => Entry::Remove { name: name() },
            'S' => Entry::SyncBegins {
                inode: a,
                number: b,
            },
            'E' => Entry::SyncEnds { number: b },
            '!' => Entry::Unknown(text),
            'A' => Entry::Mark(text),
            other => panic!("an entry of kind {other:?}"),
        });
        rest = after;
    }
    entries
}

/// Where the test's marks go.
#[derive(Debug)]
pub(super) struct Marks(File);

impl Marks {
    pub(super) fn into_log(path: &Path) -> Self {
        let mut options = File::options();
        Self(options.create(true).append(true).open(path).unwrap())
    }

    /// What is said here is in the log before the next thing happens.
    pub(super) fn note(&self, text: &str) {
        let mut entry = MAGIC.to_le_bytes().to_vec();
        entry.extend(u32::from('A').to_le_bytes());
        entry.extend([0; 16]);
        entry.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        entry.extend([0; 4]);
        entry.extend(text.as_bytes());
        assert_eq!((&self.0).write(&entry).unwrap(), entry.len());
    }
}

/// The recorder, compiled once.
pub(super) fn recorder() -> &'static Path {
    static RECORDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = RECORDER.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("recorder.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/recorder.c");
        let status = Command::new("cc")
            .args(["-O2", "-Wall", "-fPIC", "-shared", "-pthread", "-o"])
            .args([&library, &source])
            .status()
            .expect("a C compiler, `cc`");
        assert!(status.success(), "the recorder does not compile");
        (dir, library)
    });
    library
}
