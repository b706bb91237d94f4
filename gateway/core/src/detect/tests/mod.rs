//! Specification B as tests: profiles, then devices under a virtual clock.

mod devices;
mod profiles;
mod records;

use std::path::Path;

use super::{Profiles, SecurityProfile};

/// A profile from the text of its behaviours.
fn profile(targets: &str, behaviors: &str) -> SecurityProfile {
    let text =
        format!(r#"{{"securityProfileName":"p","targets":[{targets}],"behaviors":[{behaviors}]}}"#);
    match super::parse(Path::new("p.json"), &text) {
        Ok(profile) => profile,
        Err(problems) => panic!("{problems:?}\n{text}"),
    }
}

fn profiles(targets: &str, behaviors: &str) -> Profiles {
    Profiles::new(vec![profile(targets, behaviors)])
}
