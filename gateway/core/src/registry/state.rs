//! The part of the registry that changes while the gateway runs: certificates that registered
//! themselves, things that were provisioned, who is in quarantine.
//!
//! A [`State`] is what a sequence of [`Change`]s leads to. It is merged with `registry.toml` into the
//! [`Registry`](super::Registry) in force:
//!
//! - a certificate has the stricter of the two states, and everything else from `registry.toml` if
//!   it stands there;
//! - a thing of `registry.toml` beats one of the same name here;
//! - memberships are united.
//!
//! So nothing here opens what the file closes, and nothing that is closed here is opened by a file
//! that does not know of it.
//!
//! Absent on purpose: files. The gateway keeps the changes in a journal of [lines](super::line).

use std::collections::BTreeMap;

use super::{Membership, Status};
use crate::{
    identity::{CertificateId, GroupName, ThingName, ThingTypeName},
    timestamp::Timestamp,
};

/// One change of the run-time state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on this is what is known of a certificate.
    Certificate(StateCertificate),
    /// From now on this is what is known of a thing.
    Thing(StateThing),
    /// A thing is put into a static group.
    Member {
        /// The thing.
        thing: ThingName,
        /// The group.
        group: GroupName,
        /// Why.
        why: String,
        /// When.
        at: Timestamp,
    },
    /// A thing is taken out of a group that it was put into at run time.
    NotMember {
        /// The thing.
        thing: ThingName,
        /// The group.
        group: GroupName,
        /// When.
        at: Timestamp,
    },
    /// Nothing is known any more of a thing, nor of the groups that it was put into.
    ForgetThing(ThingName),
    /// Nothing is known any more of a certificate.
    ForgetCertificate(CertificateId),
}

impl Change {
    /// Whether it can only take access away from what `state` says. What the state does not know yet,
    /// such as an inactive certificate of a new thing, it does not take away.
    pub fn only_takes_away(&self, state: &State) -> bool {
        match self {
            Self::Certificate(certificate) => match state.certificate(&certificate.id) {
                Some(known) => {
                    let has = |thing| known.things.contains(thing);
                    certificate.status >= known.status.max(Status::Inactive)
                        && certificate.things.iter().all(has)
                        && certificate.claim == known.claim
                }
                // Of one in the file, to which nothing is added here.
                None => {
                    certificate.status >= Status::Inactive
                        && certificate.things.is_empty()
                        && certificate.claim.is_none()
                }
            },
            Self::ForgetThing(_) => true,
            Self::Member { group, .. } => group.as_str() == QUARANTINE,
            Self::Thing(_) | Self::NotMember { .. } | Self::ForgetCertificate(_) => false,
        }
    }
}

/// The static group of things that are shut out; `portcullis init` makes it.
pub const QUARANTINE: &str = "quarantine";

/// A certificate as the run-time state knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateCertificate {
    /// SHA-256 of its DER form.
    pub id: CertificateId,
    /// Whether it may connect.
    pub status: Status,
    /// The things that it belongs to: one is an exclusive attachment, several are not.
    pub things: Vec<ThingName>,
    /// The provisioning template that it may ask for.
    pub claim: Option<String>,
    /// Names of the policies attached to it.
    pub policies: Vec<String>,
    /// The CA that signed it.
    pub ca: Option<CertificateId>,
    /// The claim certificate under which a device asked for it.
    pub under: Option<CertificateId>,
    /// From then on it is no longer active.
    pub until: Option<Timestamp>,
    /// When this was decided.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

impl StateCertificate {
    /// A certificate of no thing and no policy.
    pub fn new(id: CertificateId, status: Status, at: Timestamp, why: impl Into<String>) -> Self {
        Self {
            id,
            status,
            things: Vec::new(),
            claim: None,
            policies: Vec::new(),
            ca: None,
            under: None,
            until: None,
            at,
            why: why.into(),
        }
    }
}

/// A thing as the run-time state knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateThing {
    /// Its name.
    pub name: ThingName,
    /// Its type, if any.
    pub thing_type: Option<ThingTypeName>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// The static groups that it is in.
    pub groups: Vec<GroupName>,
    /// When this was decided.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

/// What the changes so far lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    certificates: BTreeMap<CertificateId, StateCertificate>,
    things: BTreeMap<ThingName, StateThing>,
    memberships: BTreeMap<ThingName, Vec<Membership>>,
}

impl State {
    /// Makes `change`.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Certificate(mut certificate) => {
                // For good, whatever a later line says of it.
                if let Some(known) = self.certificates.get(&certificate.id)
                    && known.status == Status::Revoked
                    && certificate.status != Status::Revoked
                {
                    certificate.status = Status::Revoked;
                    certificate.why.clone_from(&known.why);
                }
                self.certificates.insert(certificate.id, certificate);
            }
            Change::Thing(thing) => {
                self.things.insert(thing.name.clone(), thing);
            }
            Change::Member {
                thing,
                group,
                why,
                at,
            } => {
                let memberships = self.memberships.entry(thing).or_default();
                memberships.retain(|membership| membership.group != group);
                memberships.push(Membership { group, why, at });
            }
            Change::NotMember { thing, group, .. } => {
                if let Some(memberships) = self.memberships.get_mut(&thing) {
                    memberships.retain(|membership| membership.group != group);
                    if memberships.is_empty() {
                        self.memberships.remove(&thing);
                    }
                }
                if let Some(thing) = self.things.get_mut(&thing) {
                    thing.groups.retain(|other| *other != group);
                }
            }
            Change::ForgetThing(thing) => {
                self.things.remove(&thing);
                self.memberships.remove(&thing);
            }
            Change::ForgetCertificate(id) => {
                self.certificates.remove(&id);
            }
        }
    }

    /// What is known of a certificate.
    pub fn certificate(&self, id: &CertificateId) -> Option<&StateCertificate> {
        self.certificates.get(id)
    }

    /// All certificates, by id.
    pub fn certificates(&self) -> impl Iterator<Item = &StateCertificate> {
        self.certificates.values()
    }

    /// What is known of a thing.
    pub fn thing(&self, name: &str) -> Option<&StateThing> {
        self.things.get(name)
    }

    /// All things, by name.
    pub fn things(&self) -> impl Iterator<Item = &StateThing> {
        self.things.values()
    }

    /// The groups that a thing was put into.
    pub fn memberships(&self, thing: &str) -> &[Membership] {
        self.memberships.get(thing).map_or(&[], Vec::as_slice)
    }

    /// All things that were put into groups.
    pub fn members(&self) -> impl Iterator<Item = (&ThingName, &[Membership])> {
        self.memberships
            .iter()
            .map(|(thing, memberships)| (thing, memberships.as_slice()))
    }

    /// How many certificates devices, or commands for their things, have here, those aside that wait
    /// for approval or are revoked; of `claim`, if it is one, those alone that were asked for under it.
    pub fn provisioned(&self, claim: Option<CertificateId>) -> usize {
        let of_claim = |known: &&StateCertificate| claim.is_none() || known.under == claim;
        let counts = |status| !matches!(status, Status::PendingActivation | Status::Revoked);
        let certificates = self.certificates.values();
        certificates
            .filter(|known| counts(known.status))
            .filter(of_claim)
            .count()
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        let memberships: usize = self.memberships.values().map(Vec::len).sum();
        self.certificates.len() + self.things.len() + memberships
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The fewest changes that lead to it.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        let things = self.things.values().cloned().map(Change::Thing);
        let certificates = self.certificates.values().cloned().map(Change::Certificate);
        let members = self.memberships.iter().flat_map(|(thing, memberships)| {
            memberships.iter().map(|membership| Change::Member {
                thing: thing.clone(),
                group: membership.group.clone(),
                why: membership.why.clone(),
                at: membership.at,
            })
        });
        // Who is shut out first: a journal that is cut in the middle opens nothing.
        members.chain(things).chain(certificates)
    }
}
