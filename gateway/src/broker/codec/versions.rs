//! MQTT 3.1.1 as MQTT 5, and back.

use portcullis_core::event::Qos;
use rumqttc::{
    mqttbytes::{self as v4, v4 as v4p},
    v5::mqttbytes::{QoS, v5 as v5p},
};

use super::{DecodeError, Packet};

/// The quality of service as packets have it.
pub(in crate::broker) fn wire_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// The quality of service of a packet.
pub(in crate::broker) fn qos(wire: QoS) -> Qos {
    match wire {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

fn lift_qos(qos: v4::QoS) -> QoS {
    match qos {
        v4::QoS::AtMostOnce => QoS::AtMostOnce,
        v4::QoS::AtLeastOnce => QoS::AtLeastOnce,
        v4::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

pub(super) fn lower_qos(qos: QoS) -> v4::QoS {
    match qos {
        QoS::AtMostOnce => v4::QoS::AtMostOnce,
        QoS::AtLeastOnce => v4::QoS::AtLeastOnce,
        QoS::ExactlyOnce => v4::QoS::ExactlyOnce,
    }
}

/// The MQTT 5 form of what a 3.1.1 client sent.
pub(super) fn lift(packet: v4p::Packet) -> Result<Packet, DecodeError> {
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
            return Err(DecodeError::Protocol(
                "a packet that only servers send".into(),
            ));
        }
    })
}

/// The 3.1.1 form of what the session says; `None` where 3.1.1 has no such packet and the
/// connection is just closed.
pub(super) fn lower(packet: Packet) -> Option<v4p::Packet> {
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
