//! What sessions share, and what each of them reports.

use std::sync::Arc;

use portcullis_core::{identity::Principal, policy::Action};
use tokio::sync::Semaphore;

use super::{
    Config, Metrics,
    admission::{Denied, action_name},
    bus::Bus,
    clients::Clients,
    denials::{Denial, Denials},
    lifecycle::Versions,
    retained::Retained,
};
use crate::{
    clock::now,
    defend::{Activity, ActivityKind, Observer},
    identity::SnapshotWatch,
    pipeline,
    traffic::Recorder,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    pub(super) denials: Denials,
    pub(super) identity: SnapshotWatch,
    pub(super) observer: Observer,
    pub(super) recorder: Recorder,
    pub(super) pipeline: pipeline::Handle,
    pub(super) bus: Arc<Bus>,
    pub(super) clients: Arc<Clients>,
    pub(super) versions: Versions,
    pub(super) retained: Retained,
    pub(super) connections: Arc<Semaphore>,
    pub(super) handshakes: Semaphore,
}

impl Shared {
    /// Tells detection what the principal did.
    pub(super) fn observe(&self, principal: &Principal, kind: ActivityKind) {
        self.observer.observe(Activity::of(principal, now(), kind));
    }

    /// Counts what was not allowed, and tells detection.
    pub(super) fn count_denied(&self, principal: &Principal, denied: &Denied) {
        let (action, reason) = (action_name(denied.action), denied.reason());
        let labels = [action, reason];
        self.metrics.denied.with_label_values(&labels).inc();
        // What is held back from a client is not a thing that the client tried.
        if denied.action != Action::Receive {
            self.observe(principal, ActivityKind::Denied { reason });
        }
    }

    /// The same, and logs it.
    pub(super) fn note_denied(&self, principal: &Principal, denied: &Denied) {
        self.count_denied(principal, denied);
        self.denials.note(denial(principal, denied));
    }
}

/// A denial as it is logged.
pub(super) fn denial(principal: &Principal, denied: &Denied) -> Denial {
    Denial {
        client: Some(principal.client_id.to_string()),
        thing: principal.thing.as_ref().map(|thing| thing.name.to_string()),
        certificate: principal.certificate_id().map(|id| id.to_string()),
        resource: Some(denied.resource.clone()),
        decision: denied.decision(),
        statement: denied.statement().cloned(),
        ..Denial::new(
            action_name(denied.action),
            denied.reason(),
            principal.source,
        )
    }
}
