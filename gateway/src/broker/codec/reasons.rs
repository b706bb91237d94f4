//! Why something was refused, in words (the Reason String of MQTT 5).
//!
//! The session says why with whatever it refuses; whether that goes on the wire is decided here. A
//! client hears it if its CONNECT asks for problem information (MQTT 5.0, 3.1.2.11.7), on any packet
//! that has room for it within the client's maximum packet size (3.4.2.2.2 and the like). One that
//! does not ask is spared the bytes: the reason code says what a program can act upon.

use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectReturnCode, DisconnectProperties, PubAckProperties,
    PubCompProperties, PubRecProperties, PubRelProperties, SubAckProperties, UnsubAckProperties,
};

use super::Packet;
use crate::broker::cut;

/// No refusal needs more words.
const REASON_BYTES_MAX: usize = 512;

/// The refusal with its reason. Other packets than acknowledgements and DISCONNECT have none.
pub(in crate::broker) fn because(mut packet: Packet, why: &str) -> Packet {
    let reason_string = Some(cut(why, REASON_BYTES_MAX).to_owned());
    let user_properties = Vec::new();
    match &mut packet {
        Packet::ConnAck(ack) => {
            ack.properties = Some(ConnAckProperties {
                reason_string,
                ..nothing_granted()
            });
        }
        Packet::PubAck(ack) => {
            ack.properties = Some(PubAckProperties {
                reason_string,
                user_properties,
            });
        }
        Packet::PubRec(ack) => {
            ack.properties = Some(PubRecProperties {
                reason_string,
                user_properties,
            });
        }
        Packet::PubRel(ack) => {
            ack.properties = Some(PubRelProperties {
                reason_string,
                user_properties,
            });
        }
        Packet::PubComp(ack) => {
            ack.properties = Some(PubCompProperties {
                reason_string,
                user_properties,
            });
        }
        Packet::SubAck(ack) => {
            ack.properties = Some(SubAckProperties {
                reason_string,
                user_properties,
            });
        }
        Packet::UnsubAck(ack) => {
            ack.properties = Some(UnsubAckProperties {
                reason_string,
                user_properties,
            });
        }
        Packet::Disconnect(goodbye) => {
            goodbye.properties = Some(DisconnectProperties {
                session_expiry_interval: None,
                reason_string,
                user_properties,
                server_reference: None,
            });
        }
        _ => {}
    }
    packet
}

/// Takes the reason away, which is all that these packets have of properties; `false` if there is none.
pub(super) fn drop_reason(packet: &mut Packet) -> bool {
    match packet {
        // The one that accepts has other properties.
        Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => false,
        Packet::ConnAck(ack) => ack.properties.take().is_some(),
        Packet::PubAck(ack) => ack.properties.take().is_some(),
        Packet::PubRec(ack) => ack.properties.take().is_some(),
        Packet::PubRel(ack) => ack.properties.take().is_some(),
        Packet::PubComp(ack) => ack.properties.take().is_some(),
        Packet::SubAck(ack) => ack.properties.take().is_some(),
        Packet::UnsubAck(ack) => ack.properties.take().is_some(),
        Packet::Disconnect(goodbye) => goodbye.properties.take().is_some(),
        _ => false,
    }
}

fn nothing_granted() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}
