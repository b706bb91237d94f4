//! Who may connect as what: registry, certificates, policies, as one immutable [`Snapshot`].
//!
//! `registry.toml`, `policies/*.json` and the PEM files are read together, checked together and
//! published together through a `watch` channel; the broker asks the newest snapshot. A change with
//! any mistake is refused whole and the last good snapshot stays in force (invariant 8), less what
//! the registry, if the mistake is elsewhere, takes away: a revocation never waits.
//! Certificates that a CA signed but the registry does not list are refused; [`provision`] is how
//! they list themselves.
//!
//! Also here: the local CA and the edits of the registry that the command line makes. They write
//! files; a running gateway finds the change by itself.

pub mod authority;
mod ca_key;
pub mod config;
pub mod edit;
pub mod effective;
pub mod enrol;
pub mod files;
pub mod fleet;
mod holder;
pub mod import;
pub mod issued;
pub mod journal;
pub mod lifecycle;
mod metrics;
mod policies;
pub mod provision;
pub mod runtime;
mod snapshot;
mod templates;
mod trust;
mod watcher;

pub use ca_key::{CaKeyError, unusable as unusable_ca_keys};
pub use config::Config;
pub use fleet::{Fleet, SeenThing};
pub use holder::{Claim, Holder};
pub use journal::{Journal, JournalError};
pub use metrics::Metrics;
pub use portcullis_core::registry;
pub use provision::{Announcement, Introduction, Provisioner};
pub use registry::Registry;
pub use snapshot::{
    AttachedTo, Credential, Inspection, Refusal, SharedRates, Snapshot, ThingRates, inspect,
    inspect_change, load,
};
pub use templates::Templates;
pub use trust::{Chain, CrlError, Trust, TrustedCa, Unfit, VerifiedCrl};
pub use watcher::{SnapshotWatch, Watcher};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
