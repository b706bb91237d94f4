//! What a registry consists of, wherever it comes from.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::Deserialize;

use super::query::Query;
use crate::{
    identity::{CertificateId, GroupName, OnPublishDenied, Thing, ThingName, ThingTypeName},
    timestamp::Timestamp,
};

/// A thing type. If a registry declares any, its things may have no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThingType {
    /// Its name.
    pub name: ThingTypeName,
    /// For people.
    pub description: Option<String>,
}

/// A static thing group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// The group whose policies it inherits.
    pub parent: Option<GroupName>,
    /// Names of the policies attached to it.
    pub policies: Vec<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// What happens to its things when they publish where they may not; `None`: what the group
    /// above it says, in the end the gateway's setting.
    pub on_publish_denied: Option<OnPublishDenied>,
    /// How much its things may publish.
    pub publish_rates: PublishRates,
}

/// How much the things of a group may publish. 0 is no limit; `None`, for each of its things: what
/// the group above it says, in the end the gateway's setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishRates {
    /// Publishes a second, of each client.
    pub messages: Option<u64>,
    /// Bytes a second, of each client.
    pub bytes: Option<u64>,
    /// Publishes a second, of all clients of the group together.
    pub messages_of_group: Option<u64>,
    /// Bytes a second, of all clients of the group together.
    pub bytes_of_group: Option<u64>,
}

/// A group whose members a query finds. It has no policies and no hierarchy (specification A.10).
#[derive(Clone, Debug)]
pub struct DynamicGroup {
    /// Its name; no static group has it.
    pub name: GroupName,
    /// Who is in it.
    pub query: Query,
}

/// A thing and the groups it was put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredThing {
    /// The thing, whose groups include ancestors and what was decided at run time.
    pub thing: Arc<Thing>,
    /// The groups that its entry names.
    pub direct_groups: Vec<GroupName>,
    /// The groups that it was put into at run time.
    pub memberships: Vec<Membership>,
    /// Whether a device may become it by itself, with a claim or just in time.
    pub provisionable: bool,
    /// Where its entry is.
    pub origin: Origin,
}

/// That a thing was put into a group at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: GroupName,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// Where an entry of the registry comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// `registry.toml`.
    #[default]
    File,
    /// The run-time state.
    RunTime {
        /// Why.
        why: String,
        /// When.
        at: Timestamp,
    },
}

/// A certificate that may connect, or no longer, or not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredCertificate {
    /// SHA-256 of its DER form.
    pub id: CertificateId,
    /// The one thing that it belongs to, whatever the client id (exclusive attachment).
    pub thing: Option<ThingName>,
    /// The things that it may be, each under its own name as client id (non-exclusive attachment);
    /// empty if `thing` is set.
    pub things: Vec<ThingName>,
    /// The provisioning template that it may ask for; it belongs to no thing then.
    pub claim: Option<String>,
    /// Only active ones may connect.
    pub status: Status,
    /// Names of the policies attached to it.
    pub policies: Vec<String>,
    /// Why it is not active.
    pub reason: Option<String>,
    /// From then on it is no longer active.
    pub until: Option<Timestamp>,
    /// Where its entry is.
    pub origin: Origin,
    /// Who decided its status.
    pub status_origin: Origin,
}

impl RegisteredCertificate {
    /// Whether it belongs to `thing`, exclusively or not.
    pub fn is_attached_to(&self, thing: &str) -> bool {
        self.attached().any(|name| name.as_str() == thing)
    }

    /// The things that it belongs to.
    pub fn attached(&self) -> impl Iterator<Item = &ThingName> {
        self.thing.iter().chain(&self.things)
    }
}

/// State of a certificate, in AWS's words. The order is from the loosest to the strictest: of two
/// opinions the stricter one holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// May connect.
    #[default]
    Active,
    /// Waits for somebody's approval.
    PendingActivation,
    /// Was registered and not yet activated: AWS's older word.
    RegisterInactive,
    /// On its way to another account.
    PendingTransfer,
    /// May not connect for now.
    Inactive,
    /// May never connect again.
    Revoked,
}

impl Status {
    /// All of them, from the loosest to the strictest.
    pub const ALL: [Self; 6] = [
        Self::Active,
        Self::PendingActivation,
        Self::RegisterInactive,
        Self::PendingTransfer,
        Self::Inactive,
        Self::Revoked,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::PendingActivation => "PENDING_ACTIVATION",
            Self::RegisterInactive => "REGISTER_INACTIVE",
            Self::PendingTransfer => "PENDING_TRANSFER",
            Self::Inactive => "INACTIVE",
            Self::Revoked => "REVOKED",
        }
    }

    /// The status that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A CA whose certificates may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredCa {
    /// The file of its certificate, and perhaps the chain above it; PEM. As it is written: relative
    /// to the registry's directory.
    pub certificate: PathBuf,
    /// An inactive one registers nobody new.
    pub status: CaStatus,
    /// Whether its certificates register themselves when they first connect.
    pub auto_registration: AutoRegistration,
    /// The provisioning template that they are registered with.
    pub template: Option<String>,
}

/// State of a CA, in AWS's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaStatus {
    /// New certificates of it may be registered.
    #[default]
    Active,
    /// They may not; those that are registered go on.
    Inactive,
}

/// `autoRegistrationStatus` of a CA, in AWS's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AutoRegistration {
    /// Unknown certificates register themselves.
    Enable,
    /// They are refused.
    #[default]
    Disable,
}
