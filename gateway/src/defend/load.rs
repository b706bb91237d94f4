//! Security profiles from their directory: all of them, or everything that is wrong.

use std::{fs, io::Read, path::Path};

use portcullis_core::{
    detect::{Profiles, parse, together},
    limits::CONFIG_FILE_BYTES_MAX,
    problem::Problem,
};

/// Reads every `*.json` in `dir`, in the order of their names. A directory that is not there is a
/// mistake; an empty one is not.
pub fn load(dir: &Path) -> Result<Profiles, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut profiles = Vec::new();
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<_> = match entries {
        Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
        Err(error) => return Err(vec![unreadable(dir, &error.to_string())]),
    };
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    for file in files {
        match read(&file) {
            Err(reason) => problems.push(unreadable(&file, &reason)),
            Ok(text) => match parse(&file, &text) {
                Ok(profile) => profiles.push((file, profile)),
                Err(found) => problems.extend(found),
            },
        }
    }
    match together(profiles) {
        Ok(profiles) if problems.is_empty() => Ok(profiles),
        Ok(_) => Err(problems),
        Err(found) => Err([problems, found].concat()),
    }
}

fn read(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|file| file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(format!("more than {CONFIG_FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".into())
}

fn unreadable(path: &Path, reason: &str) -> Problem {
    Problem {
        file: path.into(),
        place: None,
        message: format!("failed to read security profiles: {reason}"),
        remedy: "make it readable for the gateway's user, or name another place".into(),
    }
}
