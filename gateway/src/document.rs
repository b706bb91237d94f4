//! Files of the operator: bounded reading of what `portcullis_core::document` then parses.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use portcullis_core::{limits::CONFIG_FILE_BYTES_MAX, problem::Problem};

pub use portcullis_core::document::{Document, Section};

/// The files `*.json` in `dir`, hidden ones aside, in the order of their names.
pub fn json_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".json") && !name.starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a file of the configuration, whose size is bounded before it is read.
pub fn read_text(file: &Path) -> Result<String, Problem> {
    let problem = |message: String, remedy: &str| Problem {
        file: file.to_owned(),
        place: None,
        message,
        remedy: remedy.to_owned(),
    };
    let text = || -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(file)?
            .take(CONFIG_FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    match text() {
        Ok(text) if text.len() as u64 > CONFIG_FILE_BYTES_MAX => Err(problem(
            format!("the file has more than {CONFIG_FILE_BYTES_MAX} bytes"),
            "make it smaller",
        )),
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(problem(
            "the file does not exist".to_owned(),
            "create it, or correct the path that names it",
        )),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(problem(
            "the file is not UTF-8 text".to_owned(),
            "save it as UTF-8",
        )),
        Err(error) => Err(problem(
            format!("the file cannot be read: {error}"),
            "make it readable for the gateway's user",
        )),
    }
}

/// The mistake that a value of `file` refers to something that is not there or does not fit, at every
/// table `[[list]]` whose `key` is `value`. Without a place if there is none.
pub fn problems_of_value(
    file: &Path,
    (list, key, value): (&str, &str, &str),
    message: &str,
    remedy: &str,
) -> Vec<Problem> {
    let text = read_text(file).unwrap_or_default();
    let mut document = Document::parse(file, &text);
    for index in 0..document.section_count(list) {
        let mut section = document.section_at(list, index);
        let table: Option<toml::Table> = section.read();
        let found = table.as_ref().and_then(|table| table.get(key)?.as_str());
        if found == Some(value) {
            section.problem(key, message, remedy);
        }
    }
    let mut problems = document.into_problems();
    problems.retain(|problem| problem.message == message);
    if problems.is_empty() {
        problems.push(Problem {
            file: file.to_owned(),
            place: None,
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
    problems
}
