//! A configuration in a temporary directory, and the binary that works on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A configuration made by `portcullis init`; gone when dropped.
#[derive(Debug)]
pub(crate) struct Site {
    dir: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Site {
    /// `portcullis init` with these further arguments.
    pub(crate) fn init(arguments: &[&str]) -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let target = site.path("");
        let mut all = vec!["init", target.to_str().unwrap(), "--name", "gw-test"];
        all.extend(arguments);
        let answer = portcullis(&all);
        assert_eq!(answer.code, 0, "{answer:?}");
        site
    }

    /// A file of the configuration.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("site").join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Replaces `from`, which must be there, in a file.
    pub(crate) fn replace(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from:?}");
        self.write(name, &text.replacen(from, to, 1));
    }

    /// Replaces the last `from`: the comments of a registry hold examples of everything.
    pub(crate) fn replace_last(&self, name: &str, from: &str, to: &str) {
        let mut text = self.read(name);
        let at = text
            .rfind(from)
            .unwrap_or_else(|| panic!("{name} has no {from:?}"));
        text.replace_range(at..at + from.len(), to);
        self.write(name, &text);
    }

    pub(crate) fn append(&self, name: &str, text: &str) {
        self.write(name, &format!("{}{text}", self.read(name)));
    }

    /// The line, from 1, on which the last `needle` stands.
    pub(crate) fn line_of(&self, name: &str, needle: &str) -> usize {
        let text = self.read(name);
        let at = text
            .rfind(needle)
            .unwrap_or_else(|| panic!("{needle:?} in {name}"));
        text[..at].matches('\n').count() + 1
    }

    /// The binary with these arguments and `-c` of this configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        let config = self.path("gateway.toml");
        let mut all = arguments.to_vec();
        all.extend(["-c", config.to_str().unwrap()]);
        portcullis(&all)
    }

    /// Like [`Self::run`]; must end well.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.code, 0, "{arguments:?}: {answer:?}");
        answer.stdout
    }
}

/// The binary with these arguments.
pub(crate) fn portcullis(arguments: &[&str]) -> Answer {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(Path::new(env!("CARGO_BIN_EXE_portcullis")))
        .args(arguments)
        .env_remove("PORTCULLIS_CONFIG")
        .output()
        .unwrap();
    Answer {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}
