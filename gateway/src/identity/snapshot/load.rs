//! Reading all files of a configuration that identity is about, and telling all that is wrong.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use portcullis_core::{problem::Problem, registry::line::Reading};
use rustls::pki_types::CertificateDer;

use super::{Snapshot, Sources};
use crate::{
    chain::chain,
    document::{problems_of_value, read_text},
    identity::{
        Config, Journal, JournalError, Registry, Trust,
        policies::{self, Policies},
        templates,
        trust::{self, Expiry, Lists},
        watcher::Fingerprint,
    },
};

/// All that can be said about the files of a configuration, mistakes or not.
#[derive(Debug)]
pub struct Inspection {
    /// The snapshot, if there is no problem.
    pub snapshot: Option<Snapshot>,
    /// What could be read of the registry, with what changed at run time.
    pub registry: Arc<Registry>,
    /// `registry.toml`, if it has no mistake, policies aside that it names and that do not exist.
    file: Option<Arc<Registry>>,
    /// The journal, if it can be read; what its damaged lines said is not in it.
    journal: Option<Arc<Reading>>,
    /// Revocation lists, as far as they can be read.
    lists: Lists,
    /// The names of all policies that are there.
    pub policies: BTreeSet<String>,
    /// Mistakes.
    pub problems: Vec<Problem>,
    /// What works but should be looked at.
    pub warnings: Vec<Problem>,
}

/// A reload that found mistakes.
#[derive(Debug)]
pub(in crate::identity) struct Refused {
    /// All of them.
    pub(in crate::identity) problems: Vec<Problem>,
    /// See [`Snapshot::narrowed`].
    pub(in crate::identity) file: Option<Arc<Registry>>,
    /// See [`Snapshot::narrowed`].
    pub(in crate::identity) journal: Option<Arc<Reading>>,
    /// See [`Snapshot::narrowed`].
    pub(in crate::identity) lists: Lists,
}

/// Loads the files that `config` names. `plain_policies` are the policies of plain listeners, which
/// must exist.
pub fn load(config: &Config, plain_policies: &[String]) -> Result<Snapshot, Vec<Problem>> {
    let inspection = inspect(config, plain_policies);
    for warning in &inspection.warnings {
        tracing::warn!(%warning, "The configuration needs a look.");
    }
    inspection.snapshot.ok_or(inspection.problems)
}

/// Reads everything and tells everything.
pub fn inspect(config: &Config, plain_policies: &[String]) -> Inspection {
    Loader::new(config.clone()).read(plain_policies, Expiry::Problem)
}

/// Like [`inspect`], as a running gateway does it.
pub fn inspect_change(config: &Config, plain_policies: &[String]) -> Inspection {
    Loader::new(config.clone()).read(plain_policies, Expiry::Warning)
}

/// Reads the files again and again, and of what has not changed only that.
#[derive(Debug)]
pub(in crate::identity) struct Loader {
    config: Config,
    journal: Journal,
    policies: policies::Cache,
    registry: portcullis_core::registry::Cache,
    /// Directories of revocation lists that were there.
    crl_directories: Vec<PathBuf>,
    /// Certificates that were CAs.
    cas: Vec<CertificateDer<'static>>,
    /// Told already.
    warnings: Vec<Problem>,
}

impl Loader {
    pub(in crate::identity) fn new(config: Config) -> Self {
        Self {
            journal: Journal::open(&config.journal),
            policies: policies::Cache::default(),
            registry: portcullis_core::registry::Cache::default(),
            crl_directories: trust::crl_directories(&config.crls),
            cas: Vec::new(),
            warnings: Vec::new(),
            config,
        }
    }

    /// Goes on from what `trust` was made of.
    pub(in crate::identity) fn after(config: Config, trust: &Trust) -> Self {
        Self {
            cas: trust.ca.clone(),
            ..Self::new(config)
        }
    }

    /// Like [`load`] while the gateway runs; see [`Expiry::Warning`]. A warning is logged once.
    pub(in crate::identity) fn reload(
        &mut self,
        plain_policies: &[String],
    ) -> Result<Snapshot, Box<Refused>> {
        let inspection = self.read(plain_policies, Expiry::Warning);
        for warning in &inspection.warnings {
            if !self.warnings.contains(warning) {
                tracing::warn!(%warning, "The configuration needs a look.");
            }
        }
        self.warnings = inspection.warnings;
        inspection.snapshot.ok_or_else(|| {
            Box::new(Refused {
                problems: inspection.problems,
                file: inspection.file,
                journal: inspection.journal,
                lists: inspection.lists,
            })
        })
    }

    fn read(&mut self, plain_policies: &[String], expiry: Expiry) -> Inspection {
        let config = &self.config;
        // Before the files are read: a change from here on is seen as one.
        let mut fingerprint = Fingerprint::take(config);
        let mut problems = Vec::new();
        let Policies { parsed, names } =
            policies::read(&config.policies, &mut self.policies, &mut problems);
        for policy in plain_policies {
            if !names.contains(policy) {
                problems.push(Problem {
                    file: config.policies.join(format!("{policy}.json")),
                    place: None,
                    message: "the policy of a plain listener does not exist".to_owned(),
                    remedy: "create it, or change `plain-policy` in gateway.toml".to_owned(),
                });
            }
        }
        let (found, file) = self.registry(&names, &mut problems);
        let config = &self.config;
        fingerprint.add_cas(config, &found.cas);
        let mut warnings = Vec::new();
        let journal = self.journal(&mut problems, &mut warnings);
        let registry = match &journal {
            Some(journal) => {
                let (registry, notes) = journal.state.merge_into(&found, Some(&names));
                let notes = notes.into_iter();
                warnings.extend(notes.map(|note| note.in_file(&config.journal)));
                Arc::new(registry)
            }
            None => Arc::clone(&found),
        };
        // Those that came meanwhile may not go either.
        for dir in trust::crl_directories(&config.crls) {
            if !self.crl_directories.contains(&dir) {
                self.crl_directories.push(dir);
            }
        }
        let (trust, lists, mut of_trust, mut worth_a_look) = trust::read(
            config,
            &found.cas,
            (&self.crl_directories, &self.cas),
            expiry,
        );
        for ca in trust.iter().flat_map(|trust| &trust.ca) {
            if !self.cas.contains(ca) {
                self.cas.push(ca.clone());
            }
        }
        for problem in of_trust.drain(..) {
            match ca_of_registry(config, &found, &problem) {
                Some(written) => problems.extend(problem_at_ca(config, written, &problem)),
                None => problems.push(problem),
            }
        }
        warnings.append(&mut worth_a_look);
        if let Some(trust) = &trust {
            warnings.extend(trust::server_names::warning(config, trust));
        }
        let trust: Option<Arc<Trust>> = trust.map(Arc::new);
        let templates = templates::read(config, &registry, &names, &mut problems, &mut warnings);
        let snapshot = match (&trust, &journal) {
            (Some(trust), Some(journal)) if problems.is_empty() && !trust.ca.is_empty() => {
                let rules = config.rules.clone();
                let sources = Sources {
                    file: found,
                    journal: journal.clone(),
                };
                Some(Snapshot {
                    fingerprint,
                    plain_policies: plain_policies.to_vec(),
                    require_thing: config.require_thing,
                    templates,
                    ..Snapshot::new(registry.clone(), parsed, rules, sources, trust.clone())
                })
            }
            _ => None,
        };
        Inspection {
            snapshot,
            registry,
            file,
            journal,
            lists,
            policies: names,
            problems,
            warnings,
        }
    }

    /// What could be read of `registry.toml`, and the same again if that is all of it.
    fn registry(
        &mut self,
        policies: &BTreeSet<String>,
        problems: &mut Vec<Problem>,
    ) -> (Arc<Registry>, Option<Arc<Registry>>) {
        let file = &self.config.registry;
        let text = match read_text(file) {
            Ok(text) => text,
            Err(problem) => {
                problems.push(problem);
                return (Arc::default(), None);
            }
        };
        if text.trim().is_empty() {
            problems.push(Problem {
                file: file.clone(),
                place: None,
                message: "the registry is empty, as one is that is still being written".to_owned(),
                remedy:
                    "write its content; a registry without things is a comment, such as `# none`"
                        .to_owned(),
            });
            return (Arc::default(), None);
        }
        let (registry, mut found) = self.registry.parse(file, &text, Some(policies));
        let is_whole = found.is_empty() || Registry::parse(file, &text, None).1.is_empty();
        problems.append(&mut found);
        let whole = is_whole.then(|| registry.clone());
        (registry, whole)
    }

    fn journal(
        &self,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) -> Option<Arc<Reading>> {
        match self.journal.reading() {
            Ok(reading) => {
                problems.extend(self.journal.mistakes(&reading));
                warnings.extend(self.journal.warnings(&reading));
                Some(reading)
            }
            Err(error) => {
                problems.push(Problem {
                    file: self.config.journal.clone(),
                    place: None,
                    message: chain(&error),
                    remedy: match error {
                        JournalError::Lost { .. } => {
                            "put it back from a copy: it says who is shut out; or accept that they are \
                             not any more: delete the file of the same name with `.mark`, and start again"
                        }
                        _ => "make it readable for the gateway's user; it says who is shut out",
                    }
                    .to_owned(),
                });
                None
            }
        }
    }
}

/// The path as `[[ca]]` writes it, if that alone is why the file was read in which `problem` is.
fn ca_of_registry<'r>(
    config: &Config,
    registry: &'r Registry,
    problem: &Problem,
) -> Option<&'r str> {
    if config.ca_certificates.contains(&problem.file) {
        return None;
    }
    let mut cas = registry.cas.iter();
    let ca = cas.find(|ca| config.of_registry(&ca.certificate) == problem.file)?;
    ca.certificate.to_str()
}

/// What is wrong with a file, told where the file is named.
fn problem_at_ca(config: &Config, written: &str, problem: &Problem) -> Vec<Problem> {
    let named = ("ca", "certificate", written);
    let message = format!("`{written}`: {}", problem.message);
    problems_of_value(&config.registry, named, &message, &problem.remedy)
}
