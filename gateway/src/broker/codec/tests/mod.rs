//! The codec, byte by byte: here versions, limits and what it writes; in files of their own the rest.

mod aliases;
mod fuzz;
mod mutation;
mod reasons;
mod strict;

use portcullis_core::limits::READ_AHEAD_BYTES;
use rumqttc::v5::mqttbytes::QoS;

use super::*;

fn decode(bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    Codec::new(1024).decode(&mut BytesMut::from(bytes))
}

const CONNECT_V311: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a";

#[test]
fn the_connect_decides_the_version() {
    for (bytes, version) in [(CONNECT_V311, Version::V311), (CONNECT_V5, Version::V5)] {
        let mut codec = Codec::new(1024);
        let packet = codec.decode(&mut BytesMut::from(bytes)).unwrap().unwrap();
        let Packet::Connect(connect, None, None) = packet else {
            panic!("{packet:?}")
        };
        assert_eq!(
            (connect.client_id.as_str(), connect.clean_start),
            ("a", true)
        );
        assert_eq!(codec.version(), Some(version));
    }
}

#[test]
fn other_protocols_and_first_packets_are_refused() {
    assert!(matches!(
        decode(b"\x30\x03\x00\x01a"),
        Err(DecodeError::NotConnect)
    ));
    assert!(matches!(
        decode(b"\x10\x0d\x00\x04MQTT\x03\x02\x00\x00\x00\x01a"),
        Err(DecodeError::UnsupportedVersion { level: 3, .. })
    ));
    // A later one reads what MQTT 5 answers.
    for (level, code, version) in [
        (3, v5p::ConnectReturnCode::RefusedProtocolVersion, None),
        (
            6,
            v5p::ConnectReturnCode::UnsupportedProtocolVersion,
            Some(Version::V5),
        ),
    ] {
        let mut codec = Codec::new(1024);
        let mut connect = CONNECT_V311.to_vec();
        connect[8] = level;
        let error = codec.decode(&mut BytesMut::from(&*connect)).unwrap_err();
        assert_eq!(error.connect_code(), Some(code));
        assert_eq!(codec.version(), version);
    }
    assert!(matches!(
        decode(b"\x10\x01\x00"),
        Err(DecodeError::Malformed(_))
    ));
}

#[test]
fn a_large_packet_is_refused_before_it_is_read() {
    assert!(matches!(
        decode(b"\x10\xff\xff\x7f"),
        Err(DecodeError::TooLarge { max: 1024, .. })
    ));
    assert!(matches!(
        decode(b"\x10\xff\xff\xff\xff"),
        Err(DecodeError::Malformed(_))
    ));
}

#[test]
fn a_disconnect_with_a_reason_alone_has_that_reason() {
    let mut codec = Codec::new(1024);
    let mut bytes = BytesMut::from(CONNECT_V5);
    bytes.extend_from_slice(b"\xe0\x01\x04");
    codec.decode(&mut bytes).unwrap().unwrap();
    let packet = codec.decode(&mut bytes).unwrap().unwrap();
    let Packet::Disconnect(goodbye) = packet else {
        panic!("{packet:?}")
    };
    assert_eq!(
        goodbye.reason_code,
        v5p::DisconnectReasonCode::DisconnectWithWillMessage
    );
}

#[test]
fn an_empty_mqtt_5_disconnect_is_a_normal_one() {
    let mut codec = Codec::new(1024);
    let mut bytes = BytesMut::from(CONNECT_V5);
    bytes.extend_from_slice(b"\xe0\x00");
    codec.decode(&mut bytes).unwrap().unwrap();
    assert!(matches!(
        codec.decode(&mut bytes).unwrap().unwrap(),
        Packet::Disconnect(_)
    ));
    assert!(bytes.is_empty());
}

#[test]
fn every_prefix_of_a_packet_waits_for_more() {
    for end in 0..CONNECT_V5.len() {
        let prefix = CONNECT_V5.get(..end).unwrap();
        assert!(decode(prefix).unwrap().is_none(), "{end}");
    }
}

/// Valid packets of a client after its CONNECT, to be mutilated.
fn client_packets() -> Vec<Packet> {
    let publish = v5p::Publish {
        pkid: 7,
        ..v5p::Publish::new("dt/a/temp", QoS::AtLeastOnce, b"{\"t\":1}".to_vec(), None)
    };
    let properties = v5p::PublishProperties {
        user_properties: vec![("k".to_owned(), "v".to_owned())],
        content_type: Some("application/json".to_owned()),
        message_expiry_interval: Some(60),
        ..v5p::PublishProperties::default()
    };
    let rich = v5p::Publish {
        properties: Some(properties),
        ..publish.clone()
    };
    let filter = v5p::Filter::new("cmd/a/#", QoS::AtLeastOnce);
    vec![
        Packet::Publish(publish),
        Packet::Publish(rich),
        Packet::PubAck(v5p::PubAck::new(7, None)),
        Packet::PubRel(v5p::PubRel::new(7, None)),
        Packet::Subscribe(v5p::Subscribe {
            pkid: 8,
            filters: vec![filter],
            properties: None,
        }),
        Packet::Unsubscribe(v5p::Unsubscribe {
            pkid: 9,
            filters: vec!["cmd/a/#".to_owned()],
            properties: None,
        }),
        Packet::Disconnect(v5p::Disconnect::new(
            v5p::DisconnectReasonCode::DisconnectWithWillMessage,
        )),
    ]
}

/// The codec of a client that asks for problem information.
fn asking() -> Codec {
    let mut codec = connected(Version::V5);
    codec.explains = true;
    codec
}

/// A codec that has read the CONNECT of a client of `version`.
fn connected(version: Version) -> Codec {
    let connect = match version {
        Version::V311 => CONNECT_V311,
        Version::V5 => CONNECT_V5,
    };
    let mut codec = Codec::new(1024);
    codec.decode(&mut BytesMut::from(connect)).unwrap().unwrap();
    codec
}

#[test]
fn a_packet_that_is_only_announced_gets_little_room() {
    let mut codec = Codec::new(16 << 20);
    let mut bytes = BytesMut::from(CONNECT_V5);
    codec.decode(&mut bytes).unwrap().unwrap();
    let mut bytes = BytesMut::from(&b"\x30\xff\xff\x7f\x00\x01a"[..]);
    codec = Codec {
        incoming_bytes_max: 16 << 20,
        ..codec
    };
    assert!(codec.decode(&mut bytes).unwrap().is_none());
    assert!(
        bytes.capacity() < 2 * READ_AHEAD_BYTES,
        "{}",
        bytes.capacity()
    );
}

#[test]
fn a_password_may_be_any_bytes_and_goes_no_further() {
    let v5 = b"\x10\x17\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x01a\x00\x02me\x00\x03\xff\xfe\x00";
    let v311 = b"\x10\x16\x00\x04MQTT\x04\xc2\x00\x00\x00\x01a\x00\x02me\x00\x03\xff\xfe\x00";
    for bytes in [&v5[..], v311] {
        let packet = decode(bytes).unwrap().unwrap();
        let Packet::Connect(connect, None, None) = packet else {
            panic!("{packet:?}")
        };
        assert_eq!(connect.client_id, "a");
    }
}

#[test]
fn nothing_stays_of_a_packet_that_cannot_be_written() {
    for version in [Version::V311, Version::V5] {
        let mut codec = connected(version);
        let mut target = BytesMut::from(&b"before"[..]);
        // QoS 1 without a packet id.
        let publish = v5p::Publish::new("a/b/c/d", QoS::AtLeastOnce, vec![1], None);
        let error = codec.encode(Packet::Publish(publish), &mut target);
        assert!(matches!(error, Err(EncodeError::Packet(_))), "{error:?}");
        assert_eq!(&target[..], b"before");
    }
}

#[test]
fn every_end_has_the_reason_of_the_standard() {
    use v5p::{ConnectReturnCode as Ack, DisconnectReasonCode as Bye};
    let malformed = || DecodeError::Malformed("x".into());
    let protocol = || DecodeError::Protocol("x".into());
    let too_large = || DecodeError::TooLarge { bytes: 2, max: 1 };
    for (error, bye, ack) in [
        (
            malformed(),
            Some(Bye::MalformedPacket),
            Some(Ack::MalformedPacket),
        ),
        (
            protocol(),
            Some(Bye::ProtocolError),
            Some(Ack::ProtocolError),
        ),
        (
            too_large(),
            Some(Bye::PacketTooLarge),
            Some(Ack::PacketTooLarge),
        ),
        (
            DecodeError::AliasInvalid(0),
            Some(Bye::TopicAliasInvalid),
            Some(Ack::ProtocolError),
        ),
        (
            DecodeError::AuthenticationMethod,
            Some(Bye::ProtocolError),
            Some(Ack::BadAuthenticationMethod),
        ),
        (
            DecodeError::Io(std::io::ErrorKind::Other.into()),
            None,
            None,
        ),
        (DecodeError::NotConnect, Some(Bye::ProtocolError), None),
    ] {
        assert_eq!(error.disconnect_reason(), bye, "{error}");
        assert_eq!(error.connect_code(), ack, "{error}");
    }
}

#[test]
fn packets_of_the_server_are_as_long_as_they_say() {
    let reason = Some("because".to_owned());
    let user_properties = vec![("k".to_owned(), "v".repeat(200))];
    let mut packets = vec![Packet::PingResp(v5p::PingResp)];
    for properties in [
        None,
        Some(v5p::PubAckProperties {
            reason_string: reason.clone(),
            user_properties: user_properties.clone(),
        }),
    ] {
        for reason in [
            v5p::PubAckReason::Success,
            v5p::PubAckReason::NoMatchingSubscribers,
            v5p::PubAckReason::QuotaExceeded,
        ] {
            packets.push(Packet::PubAck(v5p::PubAck {
                pkid: 7,
                reason,
                properties: properties.clone(),
            }));
        }
    }
    for reason in [v5p::PubRecReason::Success, v5p::PubRecReason::NotAuthorized] {
        packets.push(Packet::PubRec(v5p::PubRec {
            reason,
            ..v5p::PubRec::new(7, None)
        }));
    }
    for reason in [
        v5p::PubRelReason::Success,
        v5p::PubRelReason::PacketIdentifierNotFound,
    ] {
        packets.push(Packet::PubRel(v5p::PubRel {
            reason,
            ..v5p::PubRel::new(7, None)
        }));
    }
    for reason in [
        v5p::PubCompReason::Success,
        v5p::PubCompReason::PacketIdentifierNotFound,
    ] {
        packets.push(Packet::PubComp(v5p::PubComp {
            reason,
            ..v5p::PubComp::new(7, None)
        }));
    }
    packets.push(Packet::SubAck(v5p::SubAck {
        pkid: 7,
        return_codes: vec![
            v5p::SubscribeReasonCode::Success(QoS::ExactlyOnce),
            v5p::SubscribeReasonCode::NotAuthorized,
        ],
        properties: None,
    }));
    packets.push(Packet::UnsubAck(v5p::UnsubAck {
        pkid: 7,
        reasons: vec![
            v5p::UnsubAckReason::Success,
            v5p::UnsubAckReason::NoSubscriptionExisted,
        ],
        properties: None,
    }));
    packets.push(Packet::ConnAck(v5p::ConnAck {
        session_present: true,
        code: v5p::ConnectReturnCode::Success,
        properties: None,
    }));
    for properties in [
        None,
        Some(v5p::DisconnectProperties {
            session_expiry_interval: None,
            reason_string: reason,
            user_properties,
            server_reference: None,
        }),
    ] {
        packets.push(Packet::Disconnect(v5p::Disconnect {
            reason_code: v5p::DisconnectReasonCode::ServerShuttingDown,
            properties,
        }));
    }
    for packet in packets {
        let mut bytes = BytesMut::new();
        asking().encode(packet.clone(), &mut bytes).unwrap();
        let found = fixed_header(&bytes).unwrap().unwrap();
        let length = found.header + found.remaining;
        assert_eq!(length, bytes.len(), "{packet:?} {bytes:02x?}");
        let again = match &packet {
            // What rumqttc cannot read.
            Packet::Disconnect(goodbye) if goodbye.properties.is_none() => {
                assert_eq!(&bytes[..], b"\xe0\x01\x8b");
                continue;
            }
            _ => Packet::read(&mut bytes, None).unwrap(),
        };
        assert_eq!(again, packet);
    }
}
