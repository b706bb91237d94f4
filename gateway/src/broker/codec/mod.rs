//! MQTT 3.1.1 and 5 on the wire, MQTT 5 inside.
//!
//! The session speaks MQTT 5 only: packets of a 3.1.1 client are lifted to their MQTT 5 form when
//! they are read and lowered when they are written. The version is fixed by the CONNECT. Encoding
//! and decoding themselves are rumqttc's; what it gets wrong for a server (an empty MQTT 5
//! DISCONNECT, the version of a CONNECT) is put right here.

use bytes::{Buf, BytesMut};
use portcullis_core::event::Qos;
use rumqttc::{
    mqttbytes::{self as v4, v4 as v4p},
    v5::mqttbytes::{self as v5, QoS, v5 as v5p},
};
use tokio_util::codec::{Decoder, Encoder};

pub(super) use v5p::Packet;

/// Which MQTT a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V311,
    V5,
}

/// Why what a client sent is no packet.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("the first packet is not a CONNECT")]
    NotConnect,
    #[error("protocol `{name}` level {level} is not MQTT 3.1.1 or 5")]
    UnsupportedVersion { name: String, level: u8 },
    #[error("a packet of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("malformed packet: {0}")]
    Malformed(String),
    #[error("connection failed")]
    Io(#[from] std::io::Error),
}

/// Reads and writes packets; see the module.
#[derive(Debug)]
pub(super) struct Codec {
    version: Option<Version>,
    incoming_bytes_max: usize,
    outgoing_bytes_max: u32,
}

/// Type, remaining length, length of the fixed header itself.
struct FixedHeader {
    first: u8,
    remaining: usize,
    header: usize,
}

impl Codec {
    pub(super) fn new(incoming_bytes_max: usize) -> Self {
        Self {
            version: None,
            incoming_bytes_max,
            outgoing_bytes_max: u32::MAX,
        }
    }

    /// What the CONNECT said; `None` before it came.
    pub(super) fn version(&self) -> Option<Version> {
        self.version
    }

    /// The client's Maximum Packet Size: larger packets fail to encode.
    pub(super) fn limit_outgoing(&mut self, bytes_max: u32) {
        self.outgoing_bytes_max = bytes_max;
    }

    /// The version that the CONNECT at the start of `frame` names.
    fn read_version(frame: &[u8], header: usize) -> Result<Version, DecodeError> {
        let malformed = || DecodeError::Malformed("a CONNECT without protocol name".to_owned());
        let mut rest = frame.get(header..).ok_or_else(malformed)?;
        if rest.len() < 2 {
            return Err(malformed());
        }
        let length = usize::from(rest.get_u16());
        let (name, level) = (rest.get(..length), rest.get(length));
        match (name, level) {
            (Some(b"MQTT"), Some(4)) => Ok(Version::V311),
            (Some(b"MQTT"), Some(5)) => Ok(Version::V5),
            (Some(name), Some(&level)) => Err(DecodeError::UnsupportedVersion {
                name: String::from_utf8_lossy(name).into_owned(),
                level,
            }),
            _ => Err(malformed()),
        }
    }
}

/// The fixed header, once there is enough of it.
fn fixed_header(bytes: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let mut remaining = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(FixedHeader {
                first,
                remaining,
                header: index + 2,
            }));
        }
    }
    if bytes.len() >= 5 {
        return Err(DecodeError::Malformed(
            "the remaining length has over four bytes".to_owned(),
        ));
    }
    Ok(None)
}

const CONNECT: u8 = 0x10;
const DISCONNECT: u8 = 0xe0;

impl Decoder for Codec {
    type Item = Packet;
    type Error = DecodeError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(FixedHeader {
            first,
            remaining,
            header,
        }) = fixed_header(source)?
        else {
            return Ok(None);
        };
        if self.version.is_none() && first != CONNECT {
            return Err(DecodeError::NotConnect);
        }
        let frame_bytes = header + remaining;
        if frame_bytes > self.incoming_bytes_max {
            return Err(DecodeError::TooLarge {
                bytes: frame_bytes,
                max: self.incoming_bytes_max,
            });
        }
        if source.len() < frame_bytes {
            source.reserve(frame_bytes - source.len());
            return Ok(None);
        }
        let version = match self.version {
            Some(version) => version,
            None => *self.version.insert(Self::read_version(source, header)?),
        };
        // rumqttc wants a property length that MQTT 5 (3.14.2.2.1) lets the client leave out.
        if first == DISCONNECT && remaining <= 1 {
            let frame = source.split_to(frame_bytes);
            let reason = match (version, frame.get(header)) {
                (Version::V5, Some(&code)) => v5p::DisconnectReasonCode::try_from(code)
                    .map_err(|error| DecodeError::Malformed(error.to_string()))?,
                _ => v5p::DisconnectReasonCode::NormalDisconnection,
            };
            return Ok(Some(Packet::Disconnect(v5p::Disconnect::new(reason))));
        }
        match version {
            Version::V5 => Packet::read(source, None)
                .map_err(|error| DecodeError::Malformed(error.to_string())),
            Version::V311 => v4p::Packet::read(source, self.incoming_bytes_max)
                .map_err(|error| DecodeError::Malformed(error.to_string()))
                .and_then(lift),
        }
        .map(Some)
    }
}

impl Encoder<Packet> for Codec {
    type Error = EncodeError;

    fn encode(&mut self, packet: Packet, target: &mut BytesMut) -> Result<(), EncodeError> {
        let written = match self.version {
            Some(Version::V5) => packet
                .write(target, Some(self.outgoing_bytes_max))
                .map_err(|e| match e {
                    v5::Error::OutgoingPacketTooLarge { .. } => EncodeError::TooLarge,
                    other => EncodeError::Packet(other.to_string()),
                }),
            // A client whose version is unknown is answered as 3.1.1 says.
            Some(Version::V311) | None => match lower(packet) {
                Some(packet) => packet
                    .write(target, usize::MAX)
                    .map_err(|error| EncodeError::Packet(error.to_string())),
                None => Ok(0),
            },
        };
        written.map(drop)
    }
}

/// Why a packet cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("the packet is over the client's maximum packet size")]
    TooLarge,
    #[error("failed to encode packet: {0}")]
    Packet(String),
    #[error("connection failed")]
    Io(#[from] std::io::Error),
}

/// The quality of service as packets have it.
pub(super) fn wire_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn lift_qos(qos: v4::QoS) -> QoS {
    match qos {
        v4::QoS::AtMostOnce => QoS::AtMostOnce,
        v4::QoS::AtLeastOnce => QoS::AtLeastOnce,
        v4::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn lower_qos(qos: QoS) -> v4::QoS {
    match qos {
        QoS::AtMostOnce => v4::QoS::AtMostOnce,
        QoS::AtLeastOnce => v4::QoS::AtLeastOnce,
        QoS::ExactlyOnce => v4::QoS::ExactlyOnce,
    }
}

/// The MQTT 5 form of what a 3.1.1 client sent.
fn lift(packet: v4p::Packet) -> Result<Packet, DecodeError> {
    Ok(match packet {
        v4p::Packet::Connect(connect) => Packet::Connect(
            v5p::Connect {
                keep_alive: connect.keep_alive,
                client_id: connect.client_id,
                clean_start: connect.clean_session,
                properties: None,
            },
            connect.last_will.map(|will| v5p::LastWill {
                topic: will.topic.into(),
                message: will.message,
                qos: lift_qos(will.qos),
                retain: will.retain,
                properties: None,
            }),
            None,
        ),
        v4p::Packet::Publish(publish) => Packet::Publish(v5p::Publish {
            dup: publish.dup,
            qos: lift_qos(publish.qos),
            retain: publish.retain,
            topic: publish.topic.into(),
            pkid: publish.pkid,
            payload: publish.payload,
            properties: None,
        }),
        v4p::Packet::PubAck(ack) => Packet::PubAck(v5p::PubAck::new(ack.pkid, None)),
        v4p::Packet::PubRec(ack) => Packet::PubRec(v5p::PubRec::new(ack.pkid, None)),
        v4p::Packet::PubRel(ack) => Packet::PubRel(v5p::PubRel::new(ack.pkid, None)),
        v4p::Packet::PubComp(ack) => Packet::PubComp(v5p::PubComp::new(ack.pkid, None)),
        v4p::Packet::Subscribe(subscribe) => Packet::Subscribe(v5p::Subscribe {
            pkid: subscribe.pkid,
            filters: subscribe
                .filters
                .into_iter()
                .map(|filter| v5p::Filter::new(filter.path, lift_qos(filter.qos)))
                .collect(),
            properties: None,
        }),
        v4p::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(v5p::Unsubscribe {
            pkid: unsubscribe.pkid,
            filters: unsubscribe.topics,
            properties: None,
        }),
        v4p::Packet::PingReq => Packet::PingReq(v5p::PingReq),
        v4p::Packet::Disconnect => Packet::Disconnect(v5p::Disconnect::new(
            v5p::DisconnectReasonCode::NormalDisconnection,
        )),
        v4p::Packet::ConnAck(_)
        | v4p::Packet::SubAck(_)
        | v4p::Packet::UnsubAck(_)
        | v4p::Packet::PingResp => {
            return Err(DecodeError::Malformed(
                "a packet that only servers send".to_owned(),
            ));
        }
    })
}

/// The 3.1.1 form of what the session says; `None` where 3.1.1 has no such packet and the
/// connection is just closed.
fn lower(packet: Packet) -> Option<v4p::Packet> {
    Some(match packet {
        Packet::ConnAck(ack) => v4p::Packet::ConnAck(v4p::ConnAck {
            session_present: ack.session_present,
            code: lower_connect_code(ack.code),
        }),
        Packet::Publish(publish) => v4p::Packet::Publish(v4p::Publish {
            dup: publish.dup,
            qos: lower_qos(publish.qos),
            retain: publish.retain,
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            pkid: publish.pkid,
            payload: publish.payload,
        }),
        Packet::PubAck(ack) => v4p::Packet::PubAck(v4p::PubAck { pkid: ack.pkid }),
        Packet::PubRec(ack) => v4p::Packet::PubRec(v4p::PubRec { pkid: ack.pkid }),
        Packet::PubRel(ack) => v4p::Packet::PubRel(v4p::PubRel { pkid: ack.pkid }),
        Packet::PubComp(ack) => v4p::Packet::PubComp(v4p::PubComp { pkid: ack.pkid }),
        Packet::SubAck(ack) => v4p::Packet::SubAck(v4p::SubAck {
            pkid: ack.pkid,
            return_codes: ack
                .return_codes
                .into_iter()
                .map(|code| match code {
                    v5p::SubscribeReasonCode::Success(qos) => {
                        v4p::SubscribeReasonCode::Success(lower_qos(qos))
                    }
                    _ => v4p::SubscribeReasonCode::Failure,
                })
                .collect(),
        }),
        Packet::UnsubAck(ack) => v4p::Packet::UnsubAck(v4p::UnsubAck { pkid: ack.pkid }),
        Packet::PingResp(_) => v4p::Packet::PingResp,
        Packet::Disconnect(_) | Packet::Auth(_) => return None,
        Packet::Connect(..)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq(_) => return None,
    })
}

fn lower_connect_code(code: v5p::ConnectReturnCode) -> v4p::ConnectReturnCode {
    use v5p::ConnectReturnCode as V5;
    match code {
        V5::Success => v4p::ConnectReturnCode::Success,
        V5::RefusedProtocolVersion | V5::UnsupportedProtocolVersion => {
            v4p::ConnectReturnCode::RefusedProtocolVersion
        }
        V5::BadClientId | V5::ClientIdentifierNotValid => v4p::ConnectReturnCode::BadClientId,
        V5::BadUserNamePassword => v4p::ConnectReturnCode::BadUserNamePassword,
        V5::NotAuthorized | V5::Banned => v4p::ConnectReturnCode::NotAuthorized,
        _ => v4p::ConnectReturnCode::ServiceUnavailable,
    }
}

#[cfg(test)]
mod tests;
