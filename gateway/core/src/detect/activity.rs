//! What a device did, as the broker tells it. The only input of detection.

use std::{net::IpAddr, sync::Arc};

use crate::{
    identity::{CertificateId, ClientId, GroupName, Principal},
    timestamp::Timestamp,
};

/// One thing that a device did, or that was done to it.
#[derive(Clone, Debug)]
pub struct Activity {
    /// The thing's name, else the client id.
    pub device: Arc<str>,
    /// The thing's groups, ancestors included; empty for an unregistered device.
    pub groups: Arc<[GroupName]>,
    /// Whether `device` is a thing of the registry.
    pub registered: bool,
    /// The client id of the connection.
    pub client_id: ClientId,
    /// The certificate that the device proved to hold.
    pub certificate_id: Option<CertificateId>,
    /// The address of the peer.
    pub source: IpAddr,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: ActivityKind,
    /// How many times at that moment: what comes in runs is told once.
    pub times: u32,
}

/// What a device did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivityKind {
    /// A CONNECT arrived, whatever becomes of it.
    ConnectAttempt,
    /// The CONNECT was accepted.
    Connected,
    /// Admission let a PUBLISH pass.
    Published {
        /// Size of the payload.
        bytes: usize,
    },
    /// A message was sent to the device.
    Delivered {
        /// Size of the payload.
        bytes: usize,
    },
    /// A request was refused: CONNECT, PUBLISH or SUBSCRIBE.
    Denied {
        /// The reason, as in the metrics.
        reason: &'static str,
    },
    /// The connection ended, however.
    Disconnected,
}

impl Activity {
    /// What `principal` did.
    pub fn of(principal: &Principal, at: Timestamp, kind: ActivityKind) -> Self {
        Self {
            device: principal.device().into(),
            groups: principal.groups(),
            registered: principal.thing.is_some(),
            client_id: principal.client_id.clone(),
            certificate_id: principal.certificate_id(),
            source: principal.source,
            at,
            kind,
            times: 1,
        }
    }
}
