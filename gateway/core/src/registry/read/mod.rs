//! From the text of `registry.toml` to a [`Registry`]: every mistake with its place and a remedy.

mod cache;
mod certificates;
mod groups;
mod things;

pub use cache::Cache;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, de::DeserializeOwned};

use cache::Tables;

use super::{AutoRegistration, CaStatus, RegisteredCa, Registry, ThingType, hierarchy::Hierarchy};
use crate::{
    document::{Document, Section},
    identity::ThingTypeName,
    limits::TYPE_DESCRIPTION_MAX,
    problem::{Mistake, Problem},
};

const NAME_REMEDY: &str = "use 1 to 128 letters, digits, `:`, `_` and `-`";

const SECTIONS: [&str; 6] = [
    "type",
    "group",
    "dynamic-group",
    "thing",
    "certificate",
    "ca",
];

pub(super) fn read(
    file: &Path,
    text: &str,
    policies: Option<&BTreeSet<String>>,
) -> (Registry, Vec<Problem>) {
    let mut document = Document::parse(file, text);
    document.refuse_unknown(&SECTIONS);
    let reader = Reader {
        document,
        tables: None,
        policies,
    };
    reader.read()
}

struct Reader<'r, 't> {
    document: Document<'t>,
    /// The tables, if they are known; the document is empty then.
    tables: Option<Tables>,
    policies: Option<&'r BTreeSet<String>>,
}

/// One of the lists of tables.
trait Table: DeserializeOwned + Clone {
    const NAME: &str;

    fn of(tables: &Tables) -> &[Arc<Self>];
}

impl Table for TypeToml {
    const NAME: &str = "type";

    fn of(tables: &Tables) -> &[Arc<Self>] {
        &tables.types
    }
}

impl Table for CaToml {
    const NAME: &str = "ca";

    fn of(tables: &Tables) -> &[Arc<Self>] {
        &tables.cas
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct TypeToml {
    name: String,
    description: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct CaToml {
    certificate: PathBuf,
    #[serde(default)]
    status: CaStatus,
    #[serde(default)]
    auto_registration: AutoRegistration,
    template: Option<String>,
}

impl<'r> Reader<'r, 'static> {
    /// Of tables that were read before. Mistakes have no place.
    fn of_tables(file: &Path, tables: Tables, policies: Option<&'r BTreeSet<String>>) -> Self {
        Self {
            document: Document::parse(file, ""),
            tables: Some(tables),
            policies,
        }
    }
}

impl<'t> Reader<'_, 't> {
    fn read(mut self) -> (Registry, Vec<Problem>) {
        let types = self.types();
        let groups = self.groups();
        let dynamic_groups = self.dynamic_groups(&groups);
        let things = self.things(&types, &Hierarchy::new(&groups), &dynamic_groups);
        let certificates = self.certificates(&things);
        let cas = self.cas();
        let registry = Registry {
            types,
            groups,
            dynamic_groups,
            things,
            certificates,
            cas,
        };
        (registry, self.document.into_problems())
    }

    fn count<T: Table>(&mut self) -> usize {
        match &self.tables {
            Some(tables) => T::of(tables).len(),
            None => self.document.section_count(T::NAME),
        }
    }

    /// The `index`th table, and where its mistakes go; no table if it cannot be read.
    fn table<T: Table>(&mut self, index: usize) -> (Section<'_, 't>, Option<Arc<T>>) {
        let mut section = self.document.section_at(T::NAME, index);
        let table = match &self.tables {
            Some(tables) => T::of(tables).get(index).cloned(),
            None => section.read().map(Arc::new),
        };
        (section, table)
    }

    fn types(&mut self) -> Vec<ThingType> {
        let mut types = Vec::new();
        let mut names = HashSet::new();
        for index in 0..self.count::<TypeToml>() {
            let (mut section, Some(toml)) = self.table::<TypeToml>(index) else {
                continue;
            };
            let description = toml.description.as_deref().unwrap_or_default();
            if description.chars().count() > TYPE_DESCRIPTION_MAX {
                let message = "the description is too long";
                let remedy = format!("keep at most {TYPE_DESCRIPTION_MAX} characters");
                section.problem("description", message, remedy);
            }
            let parsed = section.parsed("name", &toml.name, ThingTypeName::parse, NAME_REMEDY);
            let Some(name) = parsed else { continue };
            if !names.insert(name.clone()) {
                second_time(&mut section, "type", name.as_str());
                continue;
            }
            types.push(ThingType {
                name,
                description: toml.description.clone(),
            });
        }
        types
    }

    fn cas(&mut self) -> Vec<RegisteredCa> {
        let mut cas: Vec<RegisteredCa> = Vec::new();
        for index in 0..self.count::<CaToml>() {
            let (mut section, Some(toml)) = self.table::<CaToml>(index) else {
                continue;
            };
            let toml = Arc::unwrap_or_clone(toml);
            let certificate = toml.certificate;
            if cas.iter().any(|earlier| earlier.certificate == certificate) {
                let message = format!(
                    "the CA `{}` stands here a second time",
                    certificate.display()
                );
                section.problem("certificate", message, "keep one of the two entries");
                continue;
            }
            if let Some(template) = &toml.template {
                if !is_file_name(template) {
                    section.problem(
                        "template",
                        format!("`{template}` is no name of a template"),
                        "write the name of templates/NAME.json without `.json`",
                    );
                } else if toml.auto_registration == AutoRegistration::Disable {
                    section.problem(
                        "template",
                        "the template is never used, because the CA does not register anybody",
                        "add `auto-registration = \"ENABLE\"`, or remove the template",
                    );
                }
            }
            cas.push(RegisteredCa {
                certificate,
                status: toml.status,
                auto_registration: toml.auto_registration,
                template: toml.template,
            });
        }
        cas
    }
}

/// Whether `name` can be the name of a file in a directory of ours, and nothing else.
fn is_file_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=36).contains(&name.len()) && name.chars().all(allowed)
}

fn second_time(section: &mut Section<'_, '_>, what: &str, name: &str) {
    let message = format!("the {what} `{name}` stands here a second time");
    section.problem("name", message, "remove it, or give it another name");
}

fn check_policies(
    section: &mut Section<'_, '_>,
    known: Option<&BTreeSet<String>>,
    attached: &[String],
    max: usize,
) {
    if attached.len() > max {
        let message = format!("{} policies are attached", attached.len());
        section.problem("policies", message, format!("keep at most {max}"));
    }
    let Some(known) = known else { return };
    for (index, policy) in attached.iter().enumerate() {
        if !known.contains(policy) {
            let message = format!("the policy `{policy}` does not exist");
            let remedy = match section.nearest(policy, known.iter().map(String::as_str)) {
                Some(near) => format!("write `{near}`"),
                None => format!("create `policies/{policy}.json`"),
            };
            section.problem_at("policies", index, message, remedy);
        }
    }
}

fn check_attributes(section: &mut Section<'_, '_>, attributes: &BTreeMap<String, String>) {
    for (name, value) in attributes {
        for mistake in attribute_mistakes(name, value) {
            section.problem("attributes", mistake.message, mistake.remedy);
        }
    }
}

/// What is wrong with name and value of an attribute, as AWS takes them.
pub(super) fn attribute_mistakes(name: &str, value: &str) -> Vec<Mistake> {
    let among = |c: char, others: &str| c.is_ascii_alphanumeric() || others.contains(c);
    let mistake = |message: String, remedy: &str| Mistake {
        place: None,
        message,
        remedy: remedy.to_owned(),
    };
    let mut mistakes = Vec::new();
    if name.is_empty() || name.len() > 128 || !name.chars().all(|c| among(c, "_.,@/:#-")) {
        mistakes.push(mistake(
            format!("`{name}` is no attribute name"),
            "use 1 to 128 letters, digits and `_.,@/:#-`",
        ));
    }
    if value.len() > 800 || !value.chars().all(|c| among(c, "_.,@/:#=[]-")) {
        mistakes.push(mistake(
            format!("the attribute `{name}` has no valid value"),
            "use at most 800 letters, digits and `_.,@/:#=[]-`",
        ));
    }
    mistakes
}
