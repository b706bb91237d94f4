//! Why a session ends, and what its client is told.

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;

use crate::broker::{bus::BusError, codec::DecodeError};

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    Disconnected,
    DisconnectedWithWill,
    ConnectionLost,
    KeepAlive,
    TakenOver,
    Stopping,
    NotAuthorized,
    /// A change of registry or policies shuts the client out.
    ShutOut,
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
            Self::Stopping => "stopping",
            Self::NotAuthorized => "not-authorized",
            Self::ShutOut => "shut-out",
            Self::NotWritable => "not-reading",
            Self::Broke(..) => "protocol",
            Self::NotCommitted => "not-committed",
            Self::Bus(_) => "bus",
        }
    }

    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Broke(_, detail) => Some(detail.clone()),
            Self::Bus(error) => Some(crate::chain::chain(error)),
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
            Self::NotAuthorized => Some(DisconnectReasonCode::NotAuthorized),
            Self::ShutOut => Some(DisconnectReasonCode::AdministrativeAction),
            Self::Broke(code, _) => Some(*code),
            Self::NotCommitted | Self::Bus(_) => Some(DisconnectReasonCode::UnspecifiedError),
        }
    }

    /// What the peer sent is no packet.
    pub(super) fn broken(error: DecodeError) -> Self {
        match error {
            DecodeError::Io(_) => Self::ConnectionLost,
            DecodeError::TooLarge { .. } => {
                Self::Broke(DisconnectReasonCode::PacketTooLarge, error.to_string())
            }
            other => Self::Broke(DisconnectReasonCode::MalformedPacket, other.to_string()),
        }
    }
}
