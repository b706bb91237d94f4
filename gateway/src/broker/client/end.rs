//! Why a session ends, and what its client is told.

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;

use crate::broker::{bus::BusError, codec::DecodeError, lifecycle::DisconnectReason};

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    Disconnected,
    DisconnectedWithWill,
    ConnectionLost,
    KeepAlive,
    TakenOver,
    /// By an operator, who may have said why.
    Kicked(Option<String>),
    Stopping,
    /// It publishes more than it may.
    TooFast,
    NotAuthorized,
    /// A change of registry or policies shuts the client out: the reason, as for a CONNECT.
    ShutOut(&'static str),
    /// The certificate, or what the registry grants it, is past its time.
    Expired,
    NotWritable,
    /// The client broke the protocol; the code tells it how.
    Broke(DisconnectReasonCode, String),
    /// The buffer did not take what it was given: the client must not believe that it did.
    NotCommitted,
    Bus(BusError),
}

impl End {
    /// The metric label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Disconnected => "client",
            Self::DisconnectedWithWill => "client-with-will",
            Self::ConnectionLost => "connection-lost",
            Self::KeepAlive => "keep-alive",
            Self::TakenOver => "taken-over",
            Self::Kicked(_) => "kicked",
            Self::Stopping => "stopping",
            Self::TooFast => "publish-rate",
            Self::NotAuthorized => "not-authorized",
            Self::ShutOut(_) => "shut-out",
            Self::Expired => "expired",
            Self::NotWritable => "not-reading",
            Self::Broke(..) => "protocol",
            Self::NotCommitted => "not-committed",
            Self::Bus(_) => "bus",
        }
    }

    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Broke(_, detail) => Some(detail.clone()),
            Self::Kicked(reason) => reason.clone(),
            Self::Bus(error) => Some(crate::chain::chain(error)),
            Self::ShutOut(reason) => Some((*reason).to_owned()),
            _ => None,
        }
    }

    /// The reason code of the server's DISCONNECT, where there is one to send.
    pub(super) fn goodbye(&self) -> Option<DisconnectReasonCode> {
        match self {
            Self::Disconnected
            | Self::DisconnectedWithWill
            | Self::ConnectionLost
            | Self::NotWritable => None,
            Self::KeepAlive => Some(DisconnectReasonCode::KeepAliveTimeout),
            Self::TakenOver => Some(DisconnectReasonCode::SessionTakenOver),
            Self::Stopping => Some(DisconnectReasonCode::ServerShuttingDown),
            Self::TooFast => Some(DisconnectReasonCode::MessageRateTooHigh),
            Self::NotAuthorized | Self::Expired => Some(DisconnectReasonCode::NotAuthorized),
            Self::ShutOut(_) | Self::Kicked(_) => Some(DisconnectReasonCode::AdministrativeAction),
            Self::Broke(code, _) => Some(*code),
            Self::NotCommitted | Self::Bus(_) => Some(DisconnectReasonCode::UnspecifiedError),
        }
    }

    /// What the DISCONNECT says besides its code: what the client can mend, and nothing of the gateway.
    pub(super) fn words(&self) -> Option<&str> {
        match self {
            Self::Broke(_, detail) => Some(detail),
            Self::NotAuthorized => Some("a publish that no policy allows"),
            _ => None,
        }
    }

    /// What lifecycle events say (specification A.9).
    pub(super) fn disconnect_reason(&self) -> DisconnectReason {
        match self {
            Self::Disconnected | Self::DisconnectedWithWill => DisconnectReason::ClientInitiated,
            Self::ConnectionLost => DisconnectReason::ConnectionLost,
            Self::KeepAlive => DisconnectReason::KeepAliveTimeout,
            Self::TakenOver => DisconnectReason::DuplicateClientId,
            Self::Stopping | Self::NotWritable | Self::Kicked(_) => {
                DisconnectReason::ServerInitiated
            }
            Self::TooFast => DisconnectReason::Throttled,
            Self::NotAuthorized | Self::Expired => DisconnectReason::AuthError,
            Self::ShutOut(_) => DisconnectReason::ForbiddenAccess,
            Self::Broke(..) => DisconnectReason::ClientError,
            Self::NotCommitted | Self::Bus(_) => DisconnectReason::ServerError,
        }
    }

    /// Whether the client had leave, or its rights are gone: then there is no will.
    pub(super) fn suppresses_will(&self) -> bool {
        matches!(self, Self::Disconnected | Self::ShutOut(_) | Self::Expired)
    }

    /// Whether the connection is closed before anybody is told, which may take a moment.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self, Self::ShutOut(_) | Self::Expired)
    }

    /// What the peer sent is no packet.
    pub(super) fn broken(error: DecodeError) -> Self {
        match error.disconnect_reason() {
            Some(code) => Self::Broke(code, error.to_string()),
            None => Self::ConnectionLost,
        }
    }
}
