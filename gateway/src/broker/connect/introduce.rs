//! A certificate that the registry does not list, or not yet as active: it may register itself
//! (specification A.11). The connection is refused in any case; the device comes again.

use portcullis_core::identity::ClientId;

use super::{Peer, refuse::Refusal};
use crate::{
    broker::{lifecycle::Who, shared::Shared},
    identity::{self, Credential, Introduction},
};

/// The refusal that the client gets after its certificate was shown to the provisioner.
pub(super) async fn introduce(
    shared: &Shared,
    peer: &Peer<'_>,
    client_id: &ClientId,
    refusal: Refusal,
) -> Refusal {
    let Credential::Certificate { certificate, .. } = peer.credential else {
        return refusal;
    };
    match refusal.identity() {
        Some(identity::Refusal::CertificateUnknown | identity::Refusal::CertificatePending) => {}
        _ => return refusal,
    }
    let provisioner = &shared.neighbours.provisioner;
    let (refusal, announcements) = match provisioner.introduce(certificate, peer.chain).await {
        Introduction::NotRegistered => return refusal,
        Introduction::Pending(announcements) => {
            let detail = "the certificate waits for approval";
            (
                refusal.because("certificate-pending", detail),
                announcements,
            )
        }
        Introduction::Provisioned(announcements) => {
            let detail = "the certificate is registered now; the device has to come again";
            (
                refusal.because("certificate-provisioned", detail),
                announcements,
            )
        }
        Introduction::Failed { reason, error } => {
            let detail = format!("the certificate could not be registered: {reason}: {error}");
            return refusal.because("provisioning-failed", detail);
        }
    };
    let who = Who {
        client_id,
        thing: None,
        groups: [].into(),
        certificate: Some(certificate.id),
    };
    for announcement in announcements {
        shared
            .announce(
                &who,
                "certificate",
                announcement.topic,
                announcement.payload,
            )
            .await;
    }
    refusal
}
