//! `policies/*.json`: the name of a policy is the name of its file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use portcullis_core::{policy::Policy, problem::Problem};

use crate::document::{json_files, read_text};

/// The policies that could be read, and the names of all that are there.
#[derive(Debug, Default)]
pub(super) struct Policies {
    pub(super) parsed: BTreeMap<String, Arc<Policy>>,
    pub(super) names: BTreeSet<String>,
}

/// The text and the policy of every name, as they were last read. What has not changed stays the same
/// `Arc`.
#[derive(Debug, Default)]
pub(super) struct Cache(BTreeMap<String, (String, Arc<Policy>)>);

/// Reads all policies in `dir`; problems go to `problems`.
pub(super) fn read(dir: &Path, cache: &mut Cache, problems: &mut Vec<Problem>) -> Policies {
    let mut policies = Policies::default();
    let files = match json_files(dir) {
        Ok(files) => files,
        Err(error) => {
            problems.push(Problem {
                file: dir.to_owned(),
                place: None,
                message: format!("the directory of policies cannot be read: {error}"),
                remedy: "create it; one JSON file a policy".to_owned(),
            });
            return policies;
        }
    };
    let former = std::mem::take(&mut cache.0);
    for file in files {
        let stem = file.file_stem().unwrap_or_default();
        let name = stem.to_string_lossy().into_owned();
        policies.names.insert(name.clone());
        let text = match read_text(&file) {
            Ok(text) => text,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let policy = match former.get(&name) {
            Some((earlier, policy)) if *earlier == text => policy.clone(),
            _ => match Policy::parse(&name, &text) {
                Ok(policy) => Arc::new(policy),
                Err(mistakes) => {
                    let all = mistakes.into_iter();
                    problems.extend(all.map(|mistake| mistake.in_file(&file)));
                    continue;
                }
            },
        };
        cache.0.insert(name.clone(), (text, policy.clone()));
        policies.parsed.insert(name, policy);
    }
    policies
}
