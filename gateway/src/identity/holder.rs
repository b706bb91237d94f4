//! Whose a certificate is when a command lists it: a thing's, or a claim's, with which devices ask for
//! certificates of their own.

use portcullis_core::{
    identity::{CertificateId, ThingName},
    limits::POLICIES_PER_CERTIFICATE_MAX,
    problem::{Problem, nearest},
};

use super::{
    Config, Registry,
    edit::{self, EditError},
    lifecycle::{self, LifecycleError},
};
use crate::document::json_files;

/// Whose a certificate is.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// Of a thing, which must be there.
    Thing(&'a ThingName),
    /// Of nobody: it may ask for another one.
    Claim(Claim<'a>),
}

/// What a claim certificate may do.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The provisioning template under which it asks.
    pub template: &'a str,
    /// Its policies; a claim has no others.
    pub policies: &'a [String],
}

impl Holder<'_> {
    /// What its certificate calls it, unless somebody says otherwise.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Thing(name) => name.as_str(),
            Self::Claim(claim) => claim.template,
        }
    }

    /// Whether it can have a certificate: asked before anything is written.
    pub(super) fn check(&self, config: &Config, merged: &Registry) -> Result<(), EditError> {
        match self {
            Self::Thing(name) if merged.thing(name.as_str()).is_none() => {
                Err(EditError::Absent(format!("thing `{name}`")))
            }
            Self::Thing(_) => Ok(()),
            Self::Claim(claim) => match claim.mistakes(config) {
                mistakes if mistakes.is_empty() => Ok(()),
                mistakes => Err(EditError::Mistakes(mistakes)),
            },
        }
    }

    /// Lists its certificate.
    pub(super) fn list(
        &self,
        config: &Config,
        id: CertificateId,
        ca: CertificateId,
        why: &str,
    ) -> Result<(), LifecycleError> {
        match self {
            Self::Thing(name) => lifecycle::attach(config, id, name, Some(ca), why),
            Self::Claim(claim) => Ok(edit::add_claim(&config.registry, id, claim)?),
        }
    }
}

impl Claim<'_> {
    fn mistakes(&self, config: &Config) -> Vec<Problem> {
        let names = |dir| -> Vec<String> {
            let files = json_files(dir).unwrap_or_default();
            let stems = files.iter().filter_map(|file| file.file_stem());
            stems
                .map(|stem| stem.to_string_lossy().into_owned())
                .collect()
        };
        let template = ("provisioning template", &config.templates, self.template);
        let policies = self.policies.iter();
        let policies = policies.map(|name| ("policy", &config.policies, name.as_str()));
        let mut mistakes = Vec::new();
        for (kind, dir, name) in std::iter::once(template).chain(policies) {
            let known = names(dir);
            if known.iter().any(|known| known == name) {
                continue;
            }
            let file = dir.join(format!("{name}.json"));
            mistakes.push(Problem {
                message: format!("the {kind} `{name}` does not exist"),
                remedy: match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("write `{near}`, or create the file"),
                    None => "create the file".to_owned(),
                },
                file,
                place: None,
            });
        }
        if self.policies.len() > POLICIES_PER_CERTIFICATE_MAX {
            mistakes.push(Problem {
                file: config.registry.clone(),
                place: None,
                message: format!(
                    "a certificate has at most {POLICIES_PER_CERTIFICATE_MAX} policies"
                ),
                remedy: "name fewer".to_owned(),
            });
        }
        mistakes
    }
}
