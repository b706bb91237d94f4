//! Connections that come to nothing: counted by reason, logged with who and why, answered.

use futures_util::SinkExt;
use portcullis_core::{
    certificate::{NameAttribute, Names},
    identity::{CertificateId, ClientId, Principal},
    limits::WRITE_TIMEOUT,
    policy::Action,
};
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{error::Elapsed, timeout},
};
use tokio_util::codec::Framed;
use tracing::debug;

use super::Peer;
use crate::{
    broker::{
        admission::action_name,
        codec::{Codec, DecodeError, Packet, Version, because},
        denials::{Denial, Turn},
        lifecycle::{Happened, Who},
        shared::Shared,
    },
    identity::{self, Credential},
};

/// Why a CONNECT is refused: the metric label, what goes into the CONNACK, what goes into the log.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    reason: &'static str,
    /// `None`: the connection is just closed.
    code: Option<ConnectReturnCode>,
    detail: String,
    cause: Cause,
}

#[derive(Clone, Debug)]
enum Cause {
    /// The CONNECT itself.
    Packet,
    /// Authentication.
    Identity(identity::Refusal),
    /// Policies, of somebody who is known.
    Policy(Box<Denied>),
}

/// A CONNECT that its policies, or those of its will, do not allow.
#[derive(Clone, Debug)]
pub(super) struct Denied {
    pub(super) denial: Denial,
    pub(super) principal: Principal,
}

impl Refusal {
    /// A CONNECT that cannot be.
    pub(super) fn new(
        reason: &'static str,
        code: ConnectReturnCode,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            code: Some(code),
            detail: detail.into(),
            cause: Cause::Packet,
        }
    }

    /// The same without a CONNACK.
    pub(super) fn unanswered(self) -> Self {
        Self { code: None, ..self }
    }

    /// A client that is nobody.
    pub(super) fn nobody(refusal: &identity::Refusal) -> Self {
        Self {
            cause: Cause::Identity(*refusal),
            ..Self::new(
                refusal.reason(),
                ConnectReturnCode::NotAuthorized,
                refusal.to_string(),
            )
        }
    }

    /// As many clients with its certificate are connected as there may be.
    pub(super) fn crowded() -> Self {
        Self::new(
            "connected-per-certificate",
            ConnectReturnCode::QuotaExceeded,
            "as many clients with this certificate are connected as there may be",
        )
    }

    /// Why the client is nobody, if it is.
    pub(super) fn identity(&self) -> Option<identity::Refusal> {
        match self.cause {
            Cause::Identity(refusal) => Some(refusal),
            Cause::Packet | Cause::Policy(_) => None,
        }
    }

    /// The CONNACK, if there is one.
    fn answer(&self) -> Option<Packet> {
        let ack = Packet::ConnAck(ConnAck {
            session_present: false,
            code: self.code?,
            properties: None,
        });
        Some(match &self.cause {
            // Somebody unknown learns nothing of what is known here.
            Cause::Identity(_) => ack,
            Cause::Packet | Cause::Policy(_) => because(ack, &self.detail),
        })
    }

    /// The same for a reason that says more.
    pub(super) fn because(self, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            ..self
        }
    }

    /// A client that may not connect, or not with its will.
    pub(super) fn denied(denied: Denied) -> Self {
        let connect = action_name(Action::Connect);
        let (reason, detail) = match (denied.denial.action, denied.denial.reason) {
            (action, _) if action == connect => ("policy", "no policy allows the connection"),
            (_, "reserved") => ("will-reserved", "the will's topic is the gateway's own"),
            _ => ("will-policy", "no policy allows the will"),
        };
        Self {
            cause: Cause::Policy(Box::new(denied)),
            ..Self::new(reason, ConnectReturnCode::NotAuthorized, detail)
        }
    }
}

/// Counts, logs, tells and answers a refused CONNECT. `client_id` is as the client said it if it is
/// none.
pub(super) async fn refuse<S>(
    shared: &Shared,
    framed: &mut Framed<S, Codec>,
    peer: &Peer<'_>,
    client_id: Result<&ClientId, &str>,
    refusal: Refusal,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let refused = &shared.metrics.refused;
    refused.with_label_values(&[refusal.reason]).inc();
    let denial = match &refusal.cause {
        Cause::Policy(denied) => Denial {
            action: "connect",
            reason: refusal.reason,
            ..denied.denial.clone()
        },
        Cause::Packet | Cause::Identity(_) => Denial {
            client: Some(match client_id {
                Ok(client_id) => client_id.to_string(),
                Err(said) => said.to_owned(),
            }),
            ..shown("connect", refusal.reason, peer)
        },
    };
    let ack = refusal.answer();
    let turn = shared.neighbours.denials.note(Denial {
        detail: Some(refusal.detail),
        ..denial
    });
    if let Some(ack) = ack {
        answer(shared, framed, ack).await;
    }
    // Anybody can fail to connect as often as he likes: events have the pace of the log.
    if let (Ok(client_id), Turn::Log { .. }) = (client_id, turn) {
        let who = match &refusal.cause {
            Cause::Packet => return,
            Cause::Identity(_) => Who {
                client_id,
                thing: None,
                groups: [].into(),
                certificate: certificate_id(peer),
            },
            Cause::Policy(denied) => Who::of(shared, &denied.principal),
        };
        shared.tell(&who, &Happened::ConnectFailed).await;
    }
}

/// A connection that ended, or was ended, before there was a CONNECT.
#[derive(Debug)]
pub(super) struct Early {
    reason: &'static str,
    detail: String,
    code: Option<ConnectReturnCode>,
    /// A peer that leaves or says nothing has tried nothing.
    is_harmless: bool,
}

impl Early {
    /// What came instead of a CONNECT.
    pub(super) fn of(first: Result<Option<Result<Packet, DecodeError>>, Elapsed>) -> Self {
        let early = |reason, detail: &str, is_harmless| Self {
            reason,
            detail: detail.to_owned(),
            code: None,
            is_harmless,
        };
        match first {
            Ok(Some(Ok(_))) => early("not-mqtt", "the first packet is no CONNECT", false),
            Ok(Some(Err(error))) => Self::broken(&error),
            Ok(None) => early("closed-before-connect", "the peer closed", true),
            Err(_) => early("connect-timeout", "no CONNECT in time", true),
        }
    }

    fn broken(error: &DecodeError) -> Self {
        let reason = match error {
            DecodeError::UnsupportedVersion { .. } => "unsupported-version",
            DecodeError::TooLarge { .. } => "packet-too-large",
            DecodeError::NotConnect => "not-mqtt",
            DecodeError::Malformed(_) => "malformed",
            DecodeError::Protocol(_) | DecodeError::AliasInvalid(_) => "protocol",
            DecodeError::AuthenticationMethod => "authentication-method",
            DecodeError::Io(_) => "connection",
        };
        Self {
            reason,
            detail: error.to_string(),
            code: error.connect_code(),
            is_harmless: matches!(error, DecodeError::Io(_)),
        }
    }
}

/// Counts and logs a peer that got no further than this.
pub(super) async fn refuse_early<S>(
    shared: &Shared,
    framed: &mut Framed<S, Codec>,
    peer: &Peer<'_>,
    early: &Early,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let refused = &shared.metrics.refused;
    refused.with_label_values(&[early.reason]).inc();
    if early.is_harmless {
        debug!(peer = %peer.address, reason = early.reason, detail = early.detail, "Connection ended before a CONNECT.");
        return;
    }
    shared.neighbours.denials.note(Denial {
        detail: Some(early.detail.clone()),
        ..shown("connect", early.reason, peer)
    });
    // MQTT 3.1.1 has an answer for the wrong version alone.
    let is_told = |code: &ConnectReturnCode| {
        framed.codec().version() == Some(Version::V5)
            || *code == ConnectReturnCode::RefusedProtocolVersion
    };
    if let Some(code) = early.code.filter(is_told) {
        let ack = ConnAck {
            session_present: false,
            code,
            properties: None,
        };
        answer(shared, framed, Packet::ConnAck(ack)).await;
    }
}

/// Says so to the peer, which may be gone.
async fn answer<S>(shared: &Shared, framed: &mut Framed<S, Codec>, ack: Packet)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let sent = timeout(WRITE_TIMEOUT, framed.send(ack)).await;
    if matches!(sent, Ok(Ok(()))) {
        shared.metrics.packets_sent.inc();
    }
}

/// A refusal of `peer`, with the certificate that it showed.
fn shown(action: &'static str, reason: &'static str, peer: &Peer<'_>) -> Denial {
    let names = match &peer.credential {
        Credential::Certificate { certificate, .. } => {
            let name = |names: &Names| names.get(NameAttribute::CommonName).join(", ");
            Some((name(&certificate.subject), name(&certificate.issuer)))
        }
        Credential::Plain { .. } => None,
    };
    Denial {
        certificate: certificate_id(peer).map(|id| id.to_string()),
        names,
        ..Denial::new(action, reason, peer.address.ip().to_canonical())
    }
}

fn certificate_id(peer: &Peer<'_>) -> Option<CertificateId> {
    match &peer.credential {
        Credential::Certificate { certificate, .. } => Some(certificate.id),
        Credential::Plain { .. } => None,
    }
}
