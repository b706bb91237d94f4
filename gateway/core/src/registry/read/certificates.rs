//! `[[certificate]]`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;

use super::{Reader, Table, cache::Tables, check_policies, is_file_name};
use crate::{
    document::Section,
    identity::{CertificateId, ThingName},
    limits::{POLICIES_PER_CERTIFICATE_MAX, THINGS_PER_CERTIFICATE_MAX},
    registry::{Origin, RegisteredCertificate, RegisteredThing, Status},
    timestamp::Timestamp,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct CertificateToml {
    id: String,
    thing: Option<String>,
    #[serde(default)]
    things: Vec<String>,
    claim: Option<String>,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    policies: Vec<String>,
    reason: Option<String>,
    until: Option<String>,
}

type Names<'n> = HashMap<&'n str, &'n ThingName>;

impl Table for CertificateToml {
    const NAME: &str = "certificate";

    fn of(tables: &Tables) -> &[Arc<Self>] {
        &tables.certificates
    }
}

impl Reader<'_, '_> {
    pub(super) fn certificates(
        &mut self,
        things: &[RegisteredThing],
    ) -> Vec<RegisteredCertificate> {
        let names: Names<'_> = things
            .iter()
            .map(|registered| &registered.thing.name)
            .map(|name| (name.as_str(), name))
            .collect();
        let policies = self.policies;
        let mut certificates = Vec::new();
        let mut ids = HashSet::new();
        for index in 0..self.count::<CertificateToml>() {
            let (mut section, Some(toml)) = self.table::<CertificateToml>(index) else {
                continue;
            };
            let max = POLICIES_PER_CERTIFICATE_MAX;
            check_policies(&mut section, policies, &toml.policies, max);
            check_attachment(&mut section, &toml);
            let thing = toml.thing.as_ref().and_then(|name| {
                let thing = names.get(name.as_str()).copied().cloned();
                if thing.is_none() {
                    let remedy = absent_remedy(&section, name, &names);
                    section.problem("thing", absent(name), remedy);
                }
                thing
            });
            let things = attached(&mut section, &toml.things, &names);
            let until = toml
                .until
                .as_ref()
                .and_then(|until| moment(&mut section, until));
            let Some(id) = CertificateId::parse(&toml.id) else {
                section.problem(
                    "id",
                    format!("`{}` is no certificate id", toml.id),
                    "write the SHA-256 of the certificate's DER form as 64 hex digits",
                );
                continue;
            };
            if !ids.insert(id) {
                section.problem(
                    "id",
                    "the certificate stands here a second time",
                    "keep one of the two entries",
                );
                continue;
            }
            let toml = Arc::unwrap_or_clone(toml);
            certificates.push(RegisteredCertificate {
                id,
                thing,
                things,
                claim: toml.claim,
                status: toml.status,
                policies: toml.policies,
                reason: toml.reason,
                until,
                origin: Origin::File,
                status_origin: Origin::File,
            });
        }
        certificates
    }
}

fn absent(name: &str) -> String {
    format!("the thing `{name}` does not exist")
}

fn absent_remedy(section: &Section<'_, '_>, name: &str, names: &Names<'_>) -> String {
    // In order, so that of two that are as near it is always the same one.
    let sorted = || {
        let mut sorted: Vec<&str> = names.keys().copied().collect();
        sorted.sort_unstable();
        sorted
    };
    match section.nearest(name, std::iter::once_with(sorted).flatten()) {
        Some(near) => format!("write `{near}`, or add it with `portcullis thing add`"),
        None => "add it with `portcullis thing add`".to_owned(),
    }
}

/// One of `thing`, `things` and `claim` at most.
fn check_attachment(section: &mut Section<'_, '_>, toml: &CertificateToml) {
    if toml.thing.is_some() && !toml.things.is_empty() {
        section.problem(
            "things",
            "the certificate has both `thing` and `things`",
            "keep `thing` if it is that thing whatever the client id, else `things`",
        );
    }
    let Some(claim) = &toml.claim else { return };
    if toml.thing.is_some() || !toml.things.is_empty() {
        section.problem(
            "claim",
            "a claim certificate belongs to no thing",
            "remove `thing` and `things`, or `claim`",
        );
    }
    if !is_file_name(claim) {
        section.problem(
            "claim",
            format!("`{claim}` is no name of a template"),
            "write the name of templates/NAME.json without `.json`",
        );
    }
}

fn attached(section: &mut Section<'_, '_>, things: &[String], names: &Names<'_>) -> Vec<ThingName> {
    if things.len() > THINGS_PER_CERTIFICATE_MAX {
        let message = format!("the certificate belongs to {} things", things.len());
        let remedy = format!("keep at most {THINGS_PER_CERTIFICATE_MAX}");
        section.problem("things", message, remedy);
    }
    let mut attached = Vec::new();
    for (at, name) in things.iter().enumerate() {
        match names.get(name.as_str()) {
            Some(thing) => attached.push((*thing).clone()),
            None => {
                let remedy = absent_remedy(section, name, names);
                section.problem_at("things", at, absent(name), remedy);
            }
        }
    }
    attached
}

fn moment(section: &mut Section<'_, '_>, until: &str) -> Option<Timestamp> {
    let moment = Timestamp::parse_rfc3339(until);
    if moment.is_none() {
        let message = format!("`{until}` is no moment");
        section.problem("until", message, "write it as \"2026-11-22T10:00:00Z\"");
    }
    moment
}
