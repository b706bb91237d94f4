//! `templates/*.json`: the name of a template is the name of its file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use portcullis_core::{
    limits::TEMPLATES_MAX,
    problem::{Mistake, Problem, nearest},
    provisioning::{Template, Way},
};

use super::{Config, Registry};
use crate::document::{json_files, problems_of_value, read_text};

/// The templates by name.
pub type Templates = BTreeMap<Arc<str>, Arc<Template>>;

/// Reads all templates of `config`, whose directory need not be there, and checks what they and `registry` say
/// of each other.
pub(super) fn read(
    config: &Config,
    registry: &Registry,
    policies: &BTreeSet<String>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Templates {
    let (dir, registry_file) = (&config.templates, &config.registry);
    let files = match json_files(dir) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems.push(Problem {
                file: dir.clone(),
                place: None,
                message: format!("the directory of templates cannot be read: {error}"),
                remedy: "make it readable for the gateway's user, or remove it".to_owned(),
            });
            return Templates::new();
        }
    };
    if files.len() > TEMPLATES_MAX {
        problems.push(Problem {
            file: dir.clone(),
            place: None,
            message: format!("there are {} templates", files.len()),
            remedy: format!("keep at most {TEMPLATES_MAX}"),
        });
    }
    let mut templates = Templates::new();
    let mut names = BTreeSet::new();
    for file in files.iter().take(TEMPLATES_MAX) {
        let stem = file.file_stem().unwrap_or_default();
        let name = stem.to_string_lossy().into_owned();
        names.insert(name.clone());
        let text = match read_text(file) {
            Ok(text) => text,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        match Template::parse(&name, &text) {
            Ok(template) => {
                let mistakes = mistakes(&template, registry, policies);
                problems.extend(mistakes.into_iter().map(|mistake| mistake.in_file(file)));
                let looks = template.warnings().into_iter();
                warnings.extend(looks.map(|mistake| mistake.in_file(file)));
                templates.insert(template.name().clone(), Arc::new(template));
            }
            Err(mistakes) => {
                problems.extend(mistakes.into_iter().map(|mistake| mistake.in_file(file)));
            }
        }
    }
    let mut told = BTreeSet::new();
    for (name, way) in users(registry) {
        if !names.contains(name) && told.insert((name, way == Way::Claim)) {
            let remedy = match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("write `{near}`, or create `templates/{name}.json`"),
                None => format!("create `templates/{name}.json`"),
            };
            let (list, key) = match way {
                Way::JustInTime => ("ca", "template"),
                Way::Claim => ("certificate", "claim"),
            };
            let message = format!("the provisioning template `{name}` does not exist");
            let found = problems_of_value(registry_file, (list, key, name), &message, &remedy);
            problems.extend(found);
        }
    }
    problems.dedup();
    templates
}

/// The templates that CAs and claims name, and how they come to them.
fn users(registry: &Registry) -> impl Iterator<Item = (&str, Way)> {
    let cas = registry.cas.iter().filter_map(|ca| ca.template.as_deref());
    let claims = registry.certificates.iter();
    let claims = claims.filter_map(|certificate| certificate.claim.as_deref());
    cas.map(|name| (name, Way::JustInTime))
        .chain(claims.map(|name| (name, Way::Claim)))
}

/// What is wrong with a template beyond its text.
fn mistakes(template: &Template, registry: &Registry, policies: &BTreeSet<String>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (place, name) in template.policy_names() {
        if !policies.contains(name) {
            mistakes.push(Mistake {
                place: Some(place),
                message: format!("the policy `{name}` does not exist"),
                remedy: match nearest(name, policies.iter().map(String::as_str)) {
                    Some(near) => format!("write `{near}`"),
                    None => format!("create `policies/{name}.json`"),
                },
            });
        }
    }
    for (place, name) in template.group_names() {
        if registry.group(name).is_none() {
            let groups = registry.groups.iter().map(|group| group.name.as_str());
            mistakes.push(Mistake {
                place: Some(place),
                message: format!("the group `{name}` does not exist"),
                remedy: match nearest(name, groups) {
                    Some(near) => format!("write `{near}`"),
                    None => format!("add `[[group]]` with `name = \"{name}\"` to registry.toml"),
                },
            });
        }
    }
    for way in [Way::JustInTime, Way::Claim] {
        let is_used = users(registry).any(|user| user == (template.name(), way));
        if is_used {
            mistakes.extend(template.mistakes_for(way));
        }
    }
    mistakes
}
