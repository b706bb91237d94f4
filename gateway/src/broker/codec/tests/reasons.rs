//! Reason strings: who hears them, and where they fit.

use super::*;

const WHY: &str = "because of this";

/// The codec of a client whose CONNECT has these properties.
fn client(properties: &[u8]) -> Codec {
    let mut connect = b"\x10\x00\x00\x04MQTT\x05\x02\x00\x00".to_vec();
    connect.push(u8::try_from(properties.len()).unwrap());
    connect.extend(properties);
    connect.extend(b"\x00\x01a");
    connect[1] = u8::try_from(connect.len() - 2).unwrap();
    let mut codec = Codec::new(1024);
    let packet = codec.decode(&mut BytesMut::from(&*connect)).unwrap();
    assert!(matches!(packet, Some(Packet::Connect(..))));
    codec
}

fn written(codec: &mut Codec, packet: Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    codec.encode(packet, &mut bytes).unwrap();
    bytes.to_vec()
}

/// Refusals of every type that has a reason string, and how they are without one.
fn refusals() -> Vec<(Packet, &'static [u8])> {
    let connack = v5p::ConnAck {
        session_present: false,
        code: v5p::ConnectReturnCode::NotAuthorized,
        properties: None,
    };
    let mut puback = v5p::PubAck::new(7, None);
    puback.reason = v5p::PubAckReason::NotAuthorized;
    let mut pubrec = v5p::PubRec::new(7, None);
    pubrec.reason = v5p::PubRecReason::NotAuthorized;
    let mut pubrel = v5p::PubRel::new(7, None);
    pubrel.reason = v5p::PubRelReason::PacketIdentifierNotFound;
    let mut pubcomp = v5p::PubComp::new(7, None);
    pubcomp.reason = v5p::PubCompReason::PacketIdentifierNotFound;
    let suback = v5p::SubAck {
        pkid: 7,
        return_codes: vec![v5p::SubscribeReasonCode::NotAuthorized],
        properties: None,
    };
    let unsuback = v5p::UnsubAck {
        pkid: 7,
        reasons: vec![v5p::UnsubAckReason::TopicFilterInvalid],
        properties: None,
    };
    let goodbye = v5p::Disconnect::new(v5p::DisconnectReasonCode::NotAuthorized);
    vec![
        (Packet::ConnAck(connack), b"\x20\x03\x00\x87\x00"),
        (Packet::PubAck(puback), b"\x40\x03\x00\x07\x87"),
        (Packet::PubRec(pubrec), b"\x50\x03\x00\x07\x87"),
        (Packet::PubRel(pubrel), b"\x62\x03\x00\x07\x92"),
        (Packet::PubComp(pubcomp), b"\x70\x03\x00\x07\x92"),
        (Packet::SubAck(suback), b"\x90\x04\x00\x07\x00\x87"),
        (Packet::UnsubAck(unsuback), b"\xb0\x04\x00\x07\x00\x8f"),
        (Packet::Disconnect(goodbye), b"\xe0\x01\x87"),
    ]
}

#[test]
fn a_reason_is_told_to_who_asks_for_problem_information() {
    let mut said = vec![u8::try_from(WHY.len() + 3).unwrap(), 0x1f, 0];
    said.push(u8::try_from(WHY.len()).unwrap());
    said.extend(WHY.as_bytes());
    for (packet, bare) in refusals() {
        let explained = because(packet, WHY);
        for silent in [&b""[..], b"\x17\x00"] {
            assert_eq!(written(&mut client(silent), explained.clone()), bare);
        }
        let bytes = written(&mut client(b"\x17\x01"), explained);
        assert!(
            bytes.windows(said.len()).any(|found| found == said),
            "{bytes:02x?}"
        );
        assert_eq!(bytes[0], bare[0]);
        assert_eq!(usize::from(bytes[1]), bytes.len() - 2, "{bytes:02x?}");
    }
}

#[test]
fn a_reason_that_does_not_fit_is_left_out() {
    for (packet, bare) in refusals() {
        let explained = because(packet, WHY);
        let whole = written(&mut client(b"\x17\x01"), explained.clone());
        for (bytes_max, expected) in [
            (whole.len(), Some(&*whole)),
            (whole.len() - 1, Some(bare)),
            // rumqttc counts a property length that is left out.
            (bare.len().max(6), Some(bare)),
            (bare.len() - 1, None),
        ] {
            let mut codec = client(&[0x17, 1, 0x27, 0, 0, 0, u8::try_from(bytes_max).unwrap()]);
            let mut bytes = BytesMut::new();
            let result = codec.encode(explained.clone(), &mut bytes);
            match expected {
                Some(expected) => {
                    result.unwrap();
                    assert_eq!(bytes, expected);
                }
                None => {
                    assert!(matches!(result, Err(EncodeError::TooLarge)), "{result:?}");
                    assert_eq!(bytes.len(), 0);
                }
            }
        }
    }
}

#[test]
fn a_reason_is_cut_where_it_would_be_a_story() {
    let story = "\u{fc}".repeat(30_000);
    let mut ack = v5p::PubAck::new(7, None);
    ack.reason = v5p::PubAckReason::NotAuthorized;
    let Packet::PubAck(ack) = because(Packet::PubAck(ack), &story) else {
        panic!("another packet")
    };
    assert_eq!(ack.properties.unwrap().reason_string.unwrap().len(), 512);
}

#[test]
fn the_connack_that_accepts_keeps_its_properties() {
    let accept = v5p::ConnAck {
        session_present: false,
        code: v5p::ConnectReturnCode::Success,
        properties: match because(refusals().remove(0).0, WHY) {
            Packet::ConnAck(v5p::ConnAck {
                properties: Some(given),
                ..
            }) => Some(v5p::ConnAckProperties {
                reason_string: None,
                receive_max: Some(9),
                ..given
            }),
            other => panic!("{other:?}"),
        },
    };
    let bytes = written(&mut client(b""), Packet::ConnAck(accept));
    assert_eq!(bytes, b"\x20\x06\x00\x00\x03\x21\x00\x09");
}

#[test]
fn mqtt_311_has_no_words() {
    let mut codec = Codec::new(1024);
    codec.decode(&mut BytesMut::from(CONNECT_V311)).unwrap();
    let mut ack = v5p::PubAck::new(7, None);
    ack.reason = v5p::PubAckReason::NotAuthorized;
    let bytes = written(&mut codec, because(Packet::PubAck(ack), WHY));
    assert_eq!(bytes, b"\x40\x02\x00\x07");
}
