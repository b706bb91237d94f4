//! The example sites under `deploy/examples`, as an operator would copy them.

#![expect(clippy::unwrap_used, reason = "helpers of tests; files are ours")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use portcullis_core::{detect, policy::Policy};

const SITES: [&str; 3] = ["building", "cold-chain", "factory"];

#[test]
fn every_policy_is_understood() {
    for file in files("policies") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let parsed = Policy::parse(name, &fs::read_to_string(&file).unwrap());
        parsed.unwrap_or_else(|mistakes| panic!("{}: {mistakes:#?}", file.display()));
    }
}

#[test]
fn every_profile_is_evaluated_in_full() {
    let parse = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let profile = detect::parse(&file, &text);
        let profile = profile.unwrap_or_else(|problems| panic!("{problems:#?}"));
        (file, profile)
    };
    let profiles: Vec<_> = files("profiles").into_iter().map(parse).collect();
    let count = profiles.len();
    // All of them in one gateway would do, too.
    assert_eq!(detect::together(profiles).unwrap().len(), count);
}

#[test]
fn every_site_has_a_readme_that_names_its_policies_and_profiles() {
    for site in SITES {
        let readme = fs::read_to_string(root().join(site).join("README.md")).unwrap();
        for file in ["policies", "profiles"].into_iter().flat_map(files) {
            if file.starts_with(root().join(site)) {
                let name = file.file_stem().unwrap().to_str().unwrap();
                assert!(
                    readme.contains(name),
                    "{site}/README.md says nothing of {name}"
                );
            }
        }
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../../deploy/examples").canonicalize().unwrap()
}

/// Every file of one kind, of every site; a site has at least one.
fn files(kind: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for site in SITES {
        let dir = root().join(site).join(kind);
        let found = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty(), "nothing in {}", dir.display());
        files.extend(found);
    }
    files.sort();
    files
}
