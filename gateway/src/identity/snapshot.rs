//! Everything that authentication needs, at one moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use portcullis_core::{
    certificate::Certificate,
    identity::{CertificateId, ClientId, Principal, Thing, ThingName},
    policy::{Policy, PolicySet},
    problem::Problem,
};

use super::{
    Config, Registry, Trust,
    policies::{self, Policies},
    registry::{RegisteredCertificate, Status},
    trust::{self, Expiry},
    watcher::Fingerprint,
};
use crate::document::read_text;

/// Registry, policies and certificates of one successful load. Immutable; shared as `Arc`.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) generation: u64,
    pub(super) fingerprint: Fingerprint,
    pub(super) plain_policies: Vec<String>,
    require_thing: bool,
    registry: Registry,
    things: BTreeMap<ThingName, Entry>,
    certificates: HashMap<CertificateId, (RegisteredCertificate, Vec<Arc<Policy>>)>,
    policies: BTreeMap<String, Arc<Policy>>,
    trust: Arc<Trust>,
}

/// A thing with the policies of its groups and their ancestors.
#[derive(Debug)]
struct Entry {
    thing: Arc<Thing>,
    policies: Vec<Arc<Policy>>,
}

/// What a client shows.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// A certificate that TLS has verified.
    Certificate {
        /// It.
        certificate: &'a Arc<Certificate>,
        /// The host name that the client asked for (SNI).
        domain: Option<&'a Arc<str>>,
    },
    /// Nothing: a plain listener.
    Plain {
        /// Every client is this thing; `None`: the one named like the client id.
        thing: Option<&'a ThingName>,
        /// The policy of clients that are no thing; `None`: they are refused.
        unknown_policy: Option<&'a str>,
    },
}

impl<'a> Credential<'a> {
    /// A certificate, without the host name that the client asked for.
    pub const fn certificate(certificate: &'a Arc<Certificate>) -> Self {
        Self::Certificate {
            certificate,
            domain: None,
        }
    }
}

/// Why a client is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The registry does not list the certificate.
    CertificateUnknown,
    /// It is listed as inactive or revoked.
    CertificateNotActive,
    /// The certificate belongs to no thing, or the thing of a plain listener is gone.
    NoThing,
    /// No thing is named like the client id.
    UnknownClientId,
    /// The policy of unknown clients is gone.
    NoPolicy,
}

impl Refusal {
    /// The label in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CertificateUnknown => "certificate-unknown",
            Self::CertificateNotActive => "certificate-not-active",
            Self::NoThing => "no-thing",
            Self::UnknownClientId => "unknown-client-id",
            Self::NoPolicy => "no-policy",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertificateUnknown => "the registry does not list the certificate",
            Self::CertificateNotActive => "the certificate is not active",
            Self::NoThing => "the connection belongs to no registered thing",
            Self::UnknownClientId => "no thing is named like the client id",
            Self::NoPolicy => "the policy of unknown clients does not exist",
        })
    }
}

/// All that can be said about the files of a configuration, mistakes or not.
#[derive(Debug)]
pub struct Inspection {
    /// The snapshot, if there is no problem.
    pub snapshot: Option<Snapshot>,
    /// What could be read of the registry.
    pub registry: Registry,
    /// Whether that is all of it: policies that it names and that do not exist aside, it has no
    /// mistake.
    pub(super) registry_is_whole: bool,
    /// The names of all policies that are there.
    pub policies: BTreeSet<String>,
    /// Mistakes.
    pub problems: Vec<Problem>,
    /// What works but should be looked at.
    pub warnings: Vec<Problem>,
}

/// Loads the files that `config` names. `plain_policies` are the policies of plain listeners, which
/// must exist.
pub fn load(config: &Config, plain_policies: &[String]) -> Result<Snapshot, Vec<Problem>> {
    log_warnings(inspect(config, plain_policies))
}

/// Like [`load`] while the gateway runs; see [`Expiry::Warning`].
pub(super) fn reload(config: &Config, plain_policies: &[String]) -> Result<Snapshot, Refused> {
    let inspection = inspect_change(config, plain_policies);
    let narrowing = inspection
        .registry_is_whole
        .then(|| Box::new(inspection.registry.clone()));
    log_warnings(inspection).map_err(|problems| Refused {
        problems,
        narrowing,
    })
}

/// A reload that found mistakes.
#[derive(Debug)]
pub(super) struct Refused {
    /// All of them.
    pub(super) problems: Vec<Problem>,
    /// The registry, if the mistakes are elsewhere; see [`Snapshot::narrowed`].
    pub(super) narrowing: Option<Box<Registry>>,
}

/// Like [`inspect`], as a running gateway does it.
pub fn inspect_change(config: &Config, plain_policies: &[String]) -> Inspection {
    read(config, plain_policies, Expiry::Warning)
}

/// Reads everything and tells everything.
pub fn inspect(config: &Config, plain_policies: &[String]) -> Inspection {
    read(config, plain_policies, Expiry::Problem)
}

fn log_warnings(inspection: Inspection) -> Result<Snapshot, Vec<Problem>> {
    for warning in &inspection.warnings {
        tracing::warn!(%warning, "The configuration needs a look.");
    }
    inspection.snapshot.ok_or(inspection.problems)
}

fn read(config: &Config, plain_policies: &[String], expiry: Expiry) -> Inspection {
    // Before the files are read: a change from here on is seen as one.
    let fingerprint = Fingerprint::take(config);
    let mut problems = Vec::new();
    let Policies { parsed, names } = policies::read(&config.policies, &mut problems);
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
    let (registry, registry_is_whole) = match read_text(&config.registry) {
        Ok(text) => {
            let (registry, mut found) = Registry::parse(&config.registry, &text, Some(&names));
            let is_whole =
                found.is_empty() || Registry::parse(&config.registry, &text, None).1.is_empty();
            problems.append(&mut found);
            (registry, is_whole)
        }
        Err(problem) => {
            problems.push(problem);
            (Registry::default(), false)
        }
    };
    let (trust, mut found, warnings) = trust::read(config, expiry);
    problems.append(&mut found);
    let snapshot = trust
        .filter(|trust| problems.is_empty() && !trust.ca.is_empty())
        .map(|trust| Snapshot {
            generation: 1,
            fingerprint,
            plain_policies: plain_policies.to_vec(),
            require_thing: config.require_thing,
            things: things(&registry, &parsed),
            certificates: certificates(&registry, &parsed),
            registry: registry.clone(),
            policies: parsed,
            trust: Arc::new(trust),
        });
    Inspection {
        snapshot,
        registry,
        registry_is_whole,
        policies: names,
        problems,
        warnings,
    }
}

fn things(
    registry: &Registry,
    policies: &BTreeMap<String, Arc<Policy>>,
) -> BTreeMap<ThingName, Entry> {
    let attached: HashMap<&str, &Vec<String>> = registry
        .groups
        .iter()
        .map(|group| (group.name.as_str(), &group.policies))
        .collect();
    let entry = |thing: &Arc<Thing>| {
        let names = thing
            .groups
            .iter()
            .filter_map(|group| attached.get(group.as_str()))
            .flat_map(|names| names.iter());
        Entry {
            thing: thing.clone(),
            policies: named(names, policies),
        }
    };
    registry
        .things
        .iter()
        .map(|registered| (registered.thing.name.clone(), entry(&registered.thing)))
        .collect()
}

fn certificates(
    registry: &Registry,
    policies: &BTreeMap<String, Arc<Policy>>,
) -> HashMap<CertificateId, (RegisteredCertificate, Vec<Arc<Policy>>)> {
    registry
        .certificates
        .iter()
        .map(|certificate| {
            let policies = named(certificate.policies.iter(), policies);
            (certificate.id, (certificate.clone(), policies))
        })
        .collect()
}

/// The policies of these names, each once.
fn named<'a>(
    names: impl Iterator<Item = &'a String>,
    policies: &BTreeMap<String, Arc<Policy>>,
) -> Vec<Arc<Policy>> {
    let mut found: Vec<Arc<Policy>> = Vec::new();
    for policy in names.filter_map(|name| policies.get(name)) {
        if !found.iter().any(|earlier| Arc::ptr_eq(earlier, policy)) {
            found.push(policy.clone());
        }
    }
    found
}

impl Snapshot {
    /// The same with other policies of plain listeners, which the caller has checked.
    pub(crate) fn with_plain_policies(self, plain_policies: Vec<String>) -> Self {
        Self {
            plain_policies,
            ..self
        }
    }

    /// The same without what `registry`, a newer one, takes away: things that are gone, certificates
    /// that are gone, no longer active or of a thing that is gone. What `registry` adds is left
    /// out. `None` if it takes nothing away.
    pub(super) fn narrowed(&self, registry: &Registry) -> Option<Self> {
        let things: HashSet<&ThingName> = registry
            .things
            .iter()
            .map(|registered| &registered.thing.name)
            .collect();
        let certificates: HashMap<CertificateId, &RegisteredCertificate> = registry
            .certificates
            .iter()
            .map(|certificate| (certificate.id, certificate))
            .collect();
        let mut narrowed = self.registry.clone();
        narrowed
            .things
            .retain(|registered| things.contains(&registered.thing.name));
        narrowed.certificates.retain_mut(|certificate| {
            let Some(newer) = certificates.get(&certificate.id) else {
                return false;
            };
            if certificate.status == Status::Active && newer.status != Status::Active {
                certificate.status = newer.status;
                certificate.reason.clone_from(&newer.reason);
            }
            let thing = certificate.thing.as_ref();
            thing.is_none_or(|thing| things.contains(thing))
        });
        let is_same = narrowed.things == self.registry.things
            && narrowed.certificates == self.registry.certificates;
        (!is_same).then(|| Self {
            generation: self.generation + 1,
            fingerprint: self.fingerprint.clone(),
            plain_policies: self.plain_policies.clone(),
            require_thing: self.require_thing,
            things: self::things(&narrowed, &self.policies),
            certificates: self::certificates(&narrowed, &self.policies),
            registry: narrowed,
            policies: self.policies.clone(),
            trust: self.trust.clone(),
        })
    }

    /// Grows with every load.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Who a client with `credential` and `client_id` is (specification A.3, A.5).
    pub fn authenticate(
        &self,
        credential: &Credential<'_>,
        client_id: &ClientId,
        source: IpAddr,
    ) -> Result<Principal, Refusal> {
        let principal = |thing, certificate, domain, policies| Principal {
            thing,
            client_id: client_id.clone(),
            certificate,
            source,
            domain,
            policies: PolicySet::new(policies),
            valid_until: None,
            claim: None,
            on_publish_denied: None,
        };
        match credential {
            Credential::Certificate {
                certificate: shown,
                domain,
            } => {
                let (certificate, policies) = self
                    .certificates
                    .get(&shown.id)
                    .ok_or(Refusal::CertificateUnknown)?;
                if certificate.status != Status::Active {
                    return Err(Refusal::CertificateNotActive);
                }
                let entry = certificate.thing.as_ref().and_then(|t| self.things.get(t));
                match entry {
                    Some(entry) => {
                        let mut all = policies.clone();
                        all.extend(entry.policies.iter().cloned());
                        Ok(principal(
                            Some(entry.thing.clone()),
                            Some((*shown).clone()),
                            domain.cloned(),
                            all,
                        ))
                    }
                    None if self.require_thing => Err(Refusal::NoThing),
                    None => Ok(principal(
                        None,
                        Some((*shown).clone()),
                        domain.cloned(),
                        policies.clone(),
                    )),
                }
            }
            Credential::Plain {
                thing,
                unknown_policy,
            } => {
                let name = thing.map_or(client_id.as_str(), ThingName::as_str);
                match (self.things.get(name), unknown_policy) {
                    (Some(entry), _) => Ok(principal(
                        Some(entry.thing.clone()),
                        None,
                        None,
                        entry.policies.clone(),
                    )),
                    (None, _) if thing.is_some() => Err(Refusal::NoThing),
                    (None, None) => Err(Refusal::UnknownClientId),
                    (None, Some(policy)) => {
                        let policy = self.policies.get(*policy).ok_or(Refusal::NoPolicy)?;
                        Ok(principal(None, None, None, vec![policy.clone()]))
                    }
                }
            }
        }
    }

    /// Certificates and key of the TLS listener.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// All things, by name.
    pub fn things(&self) -> impl Iterator<Item = &Arc<Thing>> {
        self.things.values().map(|entry| &entry.thing)
    }

    /// The thing `name`.
    pub fn thing(&self, name: &str) -> Option<&Arc<Thing>> {
        self.things.get(name).map(|entry| &entry.thing)
    }

    /// The registry that it was made from.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}
