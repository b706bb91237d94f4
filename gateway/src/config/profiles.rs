//! `profiles/*.json`, as far as it is looked at before the profiles themselves are read.

use std::{fs, path::Path};

use portcullis_core::{json::Document, problem::Problem};

use crate::document::read_text;

/// The mistakes of the files in `dir`; no directory means no profiles.
pub(super) fn check(dir: &Path) -> Vec<Problem> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    let mut problems = Vec::new();
    for file in files {
        match read_text(&file) {
            Ok(text) => {
                if let Err(mistake) = Document::parse(&text) {
                    problems.push(mistake.in_file(&file));
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    problems
}
