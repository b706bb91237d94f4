//! A directory as a value: the gateway's data are read, put somewhere else, damaged and compared.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What stands below a directory: names from there on, sorted, so that a directory comes before what is
/// in it; `None` is a directory, else the contents of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(pub(crate) BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Tree {
    /// Reads all that is below `dir`; nothing if it is not there.
    pub(crate) fn read(dir: &Path) -> Self {
        let mut tree = Self::default();
        if dir.exists() {
            tree.read_below(dir, Path::new(""));
        }
        tree
    }

    fn read_below(&mut self, root: &Path, below: &Path) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let name = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                self.0.insert(name.clone(), None);
                self.read_below(root, &name);
            } else {
                let contents = fs::read(entry.path()).unwrap();
                self.0.insert(name, Some(contents));
            }
        }
    }

    /// Makes `dir` what this is, and nothing else.
    pub(crate) fn write(&self, dir: &Path) {
        if dir.exists() {
            fs::remove_dir_all(dir).unwrap();
        }
        fs::create_dir_all(dir).unwrap();
        for (name, contents) in &self.0 {
            match contents {
                None => fs::create_dir(dir.join(name)).unwrap(),
                Some(contents) => fs::write(dir.join(name), contents).unwrap(),
            }
        }
    }

    /// What the files below `dir` take, of a directory that may change meanwhile.
    pub(crate) fn bytes_of(dir: &Path) -> u64 {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(meta) if meta.is_dir() => Self::bytes_of(&entry.path()),
                Ok(meta) => meta.len(),
                Err(_) => 0,
            })
            .sum()
    }

    /// What its files take.
    pub(crate) fn bytes(&self) -> usize {
        self.0.values().flatten().map(Vec::len).sum()
    }

    /// What is below these names.
    pub(crate) fn only(mut self, names: &[&str]) -> Self {
        let is_below = |path: &PathBuf| names.iter().any(|name| path.starts_with(name));
        self.0.retain(|path, _| is_below(path));
        self
    }

    /// The first name where two trees differ, for a message.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let names = self.0.keys().chain(other.0.keys());
        names
            .into_iter()
            .find(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| {
                let told = |tree: &Self| match tree.0.get(name) {
                    None => "absent".to_owned(),
                    Some(None) => "a directory".to_owned(),
                    Some(Some(contents)) => format!("{} bytes", contents.len()),
                };
                format!("{}: {} and {}", name.display(), told(self), told(other))
            })
    }
}
