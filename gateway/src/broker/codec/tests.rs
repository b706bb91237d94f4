use proptest::prelude::*;

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

proptest! {
    #[test]
    fn decoding_never_panics(
        version in prop_oneof![Just(CONNECT_V311), Just(CONNECT_V5)],
        packet in proptest::sample::select(client_packets()),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        tail in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut codec = Codec::new(1024);
        let mut bytes = BytesMut::from(version);
        prop_assert!(codec.decode(&mut bytes).unwrap().is_some());
        packet.write(&mut bytes, None).unwrap();
        for (index, byte) in flips {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend_from_slice(&tail);
        // Every packet takes bytes away, so this ends.
        while let Ok(Some(_)) = codec.decode(&mut bytes) {}
    }

    #[test]
    fn a_mutilated_connect_never_panics(
        version in prop_oneof![Just(CONNECT_V311), Just(CONNECT_V5)],
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = BytesMut::from(version);
        for (index, byte) in flips {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let _packet: Result<_, _> = Codec::new(1024).decode(&mut bytes);
    }
}
