//! What sessions share, and what each of them reports.

use std::{net::IpAddr, sync::Arc};

use portcullis_core::{
    identity::{GroupName, Principal},
    policy::Action,
};
use tokio::sync::Semaphore;

use super::{
    Config, Metrics, Neighbours,
    admission::{Denied, action_name},
    bus::Bus,
    census::Census,
    clients::Clients,
    denials::Denial,
    handshakes::Handshakes,
    lifecycle::Versions,
    newcomers::Newcomers,
    pace::Paces,
    sessions::Sessions,
    sys::Figures,
};
use crate::{
    clock::now,
    defend::{Activity, ActivityKind},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    pub(super) neighbours: Neighbours,
    pub(super) bus: Arc<Bus>,
    pub(super) clients: Arc<Clients>,
    pub(super) versions: Versions,
    pub(super) sessions: Arc<Sessions>,
    /// How much clients publish.
    pub(super) paces: Paces,
    /// What `$SYS/broker/…` says.
    pub(super) figures: Figures,
    pub(super) connections: Arc<Semaphore>,
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) handshakes: Handshakes,
    /// Connections to TLS listeners.
    pub(super) of_address: Arc<Census<IpAddr>>,
}

impl Shared {
    /// Tells detection what the principal did.
    pub(super) fn observe(&self, principal: &Principal, kind: ActivityKind) {
        self.observe_times(principal, kind, 1);
    }

    /// The same for what happened several times.
    pub(super) fn observe_times(&self, principal: &Principal, kind: ActivityKind, times: u32) {
        let activity = Activity {
            groups: self.groups(principal),
            times,
            ..Activity::of(principal, now(), kind)
        };
        self.neighbours.observer.observe(activity);
    }

    /// The groups of the thing at this moment, dynamic ones included.
    pub(super) fn groups(&self, principal: &Principal) -> Arc<[GroupName]> {
        match &principal.thing {
            Some(thing) => self.neighbours.fleet.groups(thing),
            None => principal.groups(),
        }
    }

    /// Counts messages that a full queue did not take.
    pub(super) fn count_overflow(&self, messages: usize) {
        if messages > 0 {
            let dropped = &self.metrics.delivery_dropped;
            let count = u64::try_from(messages).unwrap_or(u64::MAX);
            dropped.with_label_values(&["queue-full"]).inc_by(count);
        }
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
        self.neighbours.denials.note(denial(principal, denied));
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
