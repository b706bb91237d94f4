//! `registry.toml` and what changed at run time: things, types, groups, certificates, CAs
//! (specification A.10, A.11).
//!
//! [`Registry::parse`] reads the file and finds every mistake in it; [`State`] is what happened
//! since, and [`State::merge_into`] says what holds. [`Registry::provenance`] tells where each
//! membership of a thing comes from.
//!
//! A thing is in at most one group of a hierarchy, as at AWS: who is to inherit from two groups is put
//! into both, and each stands at the top of its own hierarchy.

mod hierarchy;
pub mod line;
mod merge;
mod model;
pub mod query;
mod read;
pub mod state;

pub use hierarchy::Provenance;
pub use model::{
    AutoRegistration, CaStatus, DynamicGroup, Group, Membership, Origin, PublishRates,
    RegisteredCa, RegisteredCertificate, RegisteredThing, Status, ThingType,
};
pub use query::Query;
pub use read::Cache;
pub use state::{Change, QUARANTINE, State, StateCertificate, StateThing};

use std::{collections::BTreeSet, path::Path};

use crate::{
    identity::CertificateId,
    problem::{Mistake, Problem},
};

/// What is wrong with an attribute of a thing, wherever it is written.
pub fn attribute_mistakes(name: &str, value: &str) -> Vec<Mistake> {
    read::attribute_mistakes(name, value)
}

/// The content of a registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// In the order of the file.
    pub types: Vec<ThingType>,
    /// In the order of the file.
    pub groups: Vec<Group>,
    /// In the order of the file: the older ones first.
    pub dynamic_groups: Vec<DynamicGroup>,
    /// In the order of the file, those of the run-time state behind.
    pub things: Vec<RegisteredThing>,
    /// In the order of the file, those of the run-time state behind.
    pub certificates: Vec<RegisteredCertificate>,
    /// In the order of the file.
    pub cas: Vec<RegisteredCa>,
}

impl Registry {
    /// Reads `text`, the content of `file`. `policies` are the names that may be attached; `None`
    /// takes any. What is in order is in the registry even if there are problems elsewhere.
    pub fn parse(
        file: &Path,
        text: &str,
        policies: Option<&BTreeSet<String>>,
    ) -> (Self, Vec<Problem>) {
        read::read(file, text, policies)
    }

    /// The group `name`. Looks through all of them, as its siblings here do.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name.as_str() == name)
    }

    /// The thing `name`.
    pub fn thing(&self, name: &str) -> Option<&RegisteredThing> {
        self.things
            .iter()
            .find(|registered| registered.thing.name.as_str() == name)
    }

    /// The certificate `id`.
    pub fn certificate(&self, id: &CertificateId) -> Option<&RegisteredCertificate> {
        self.certificates
            .iter()
            .find(|certificate| certificate.id == *id)
    }

    /// The names of all groups, dynamic ones included.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter().map(|group| group.name.as_str());
        let dynamic = self.dynamic_groups.iter().map(|group| group.name.as_str());
        groups.chain(dynamic)
    }
}

#[cfg(test)]
mod tests;
