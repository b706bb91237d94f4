//! Security profiles from their directory: all of them, or everything that is wrong.

use std::path::Path;

use portcullis_core::{
    detect::{Profiles, SecurityProfile, Target, parse, together},
    problem::{Place, Problem, nearest},
};

use crate::document::{json_files, read_text};

/// Reads every `*.json` in `dir`, hidden ones aside, in the order of their names. A directory that
/// is not there is a mistake; an empty one is not. `groups` are those that may be targets; `None`
/// takes any.
pub fn load(dir: &Path, groups: Option<&[&str]>) -> Result<Profiles, Vec<Problem>> {
    let files = json_files(dir).map_err(|error| vec![unreadable(dir, &error.to_string())])?;
    let mut problems = Vec::new();
    let mut profiles = Vec::new();
    for file in files {
        let text = match read_text(&file) {
            Ok(text) => text,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        match parse(&file, &text) {
            Ok(profile) => {
                if let Some(groups) = groups {
                    problems.extend(unknown_groups(&file, &text, &profile, groups));
                }
                profiles.push((file, profile));
            }
            Err(found) => problems.extend(found),
        }
    }
    match together(profiles) {
        Ok(profiles) if problems.is_empty() => Ok(profiles),
        Ok(_) => Err(problems),
        Err(found) => Err([problems, found].concat()),
    }
}

/// A profile of a group that does not exist would watch nobody, and nobody would know.
fn unknown_groups(
    file: &Path,
    text: &str,
    profile: &SecurityProfile,
    groups: &[&str],
) -> Vec<Problem> {
    let targets = profile.targets.iter().filter_map(|target| match target {
        Target::Group(name) if !groups.contains(&name.as_str()) => Some(name.as_str()),
        _ => None,
    });
    targets
        .map(|name| Problem {
            file: file.to_owned(),
            place: text
                .find(&format!("thinggroup/{name}\""))
                .map(|offset| Place::of_offset(text, offset)),
            message: format!("the target group `{name}` does not exist"),
            remedy: match nearest(name, groups.iter().copied()) {
                Some(near) => format!("write `thinggroup/{near}`"),
                None => format!("add `[[group]]` with `name = \"{name}\"` to registry.toml"),
            },
        })
        .collect()
}

fn unreadable(dir: &Path, reason: &str) -> Problem {
    Problem {
        file: dir.into(),
        place: None,
        message: format!("failed to read security profiles: {reason}"),
        remedy: "create the directory, or make it readable for the gateway's user".into(),
    }
}
