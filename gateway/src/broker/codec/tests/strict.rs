//! What the standards call malformed or an error of the protocol, byte by byte.

use v5p::DisconnectReasonCode as Code;

use super::*;

const FINE: Option<Code> = None;
const MALFORMED: Option<Code> = Some(Code::MalformedPacket);
const PROTOCOL: Option<Code> = Some(Code::ProtocolError);

/// One packet: its first byte, and the body, whose length is put before it.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(body);
    bytes
}

/// Reads the packet with `codec`.
fn read(codec: &mut Codec, bytes: &[u8]) -> Result<Packet, DecodeError> {
    let packet = codec.decode(&mut BytesMut::from(bytes))?;
    Ok(packet.expect("the packet is whole"))
}

/// Checks rows of a first byte, a body and what comes of it.
fn check(version: Version, rows: &[(u8, &[u8], Option<Code>)]) {
    for (first, body, due) in rows {
        let read = read(&mut connected(version), &frame(*first, body));
        let is = read.as_ref().err().and_then(DecodeError::disconnect_reason);
        assert_eq!(is, *due, "{version:?} {first:#04x} {body:02x?}: {read:?}");
    }
}

#[test]
fn flags_of_the_fixed_header() {
    for version in [Version::V311, Version::V5] {
        for (kind, flags, body) in [
            (4, 0, &b"\x00\x01"[..]),
            (5, 0, b"\x00\x01"),
            (6, 2, b"\x00\x01"),
            (7, 0, b"\x00\x01"),
            (12, 0, b""),
            (14, 0, b""),
        ] {
            for wrong in 0..16 {
                let due = if wrong == flags { FINE } else { MALFORMED };
                check(version, &[(kind << 4 | wrong, body, due)]);
            }
        }
        for kind in [8, 10] {
            for wrong in (0..16).filter(|flags| *flags != 2) {
                check(
                    version,
                    &[(kind << 4 | wrong, b"\x00\x01\x00\x00\x01a\x00", MALFORMED)],
                );
            }
        }
    }
}

#[test]
fn types_that_a_client_does_not_send() {
    for version in [Version::V311, Version::V5] {
        check(version, &[(0x00, b"\x00", MALFORMED)]);
        for kind in [0x20, 0x90, 0xb0, 0xd0] {
            check(version, &[(kind, b"\x00\x00\x00", PROTOCOL)]);
        }
    }
    check(
        Version::V5,
        &[(0xf0, b"", PROTOCOL), (0xf0, b"\x18\x00", PROTOCOL)],
    );
    check(Version::V311, &[(0xf0, b"", MALFORMED)]);
}

#[test]
fn publishes() {
    check(
        Version::V5,
        &[
            (0x30, b"\x00\x01a\x00", FINE),
            (0x31, b"\x00\x01a\x00\xff\x00", FINE),
            (0x3d, b"\x00\x01a\x00\x07\x00", FINE),
            (0x36, b"\x00\x01a\x00\x07\x00", MALFORMED), // QoS 3
            (0x38, b"\x00\x01a\x00", MALFORMED),         // sent again, with QoS 0
            (0x32, b"\x00\x01a\x00\x00\x00", PROTOCOL),  // packet id 0
            (0x30, b"\x00\x00\x00", PROTOCOL),           // no topic
            (0x30, b"\x00\x05a\x00", MALFORMED),         // the topic goes over the end
            (0x30, b"\x00\x01", MALFORMED),
            (0x30, b"\x00", MALFORMED),
            (0x30, b"", MALFORMED),
            (0x32, b"\x00\x01a\x00", MALFORMED), // no packet id
            (0x30, b"\x00\x01a", MALFORMED),     // no properties
            (0x30, b"\x00\x01a\x05\x01\x00", MALFORMED), // properties go over the end
            (0x30, b"\x00\x01\xff\x00", MALFORMED), // no UTF-8
            (0x30, b"\x00\x03\xed\xa0\x80\x00", MALFORMED), // a surrogate
            (0x30, b"\x00\x02\xc0\x80\x00", MALFORMED), // an overlong U+0000
            (0x30, b"\x00\x01\x00\x00", MALFORMED), // U+0000
        ],
    );
    check(
        Version::V311,
        &[
            (0x30, b"\x00\x01a", FINE),
            (0x3b, b"\x00\x01a\x00\x07payload", FINE),
            (0x36, b"\x00\x01a\x00\x07", MALFORMED),
            (0x38, b"\x00\x01a", MALFORMED),
            (0x32, b"\x00\x01a\x00\x00", PROTOCOL),
            (0x30, b"\x00\x00", PROTOCOL),
            (0x30, b"\x00\x03\xed\xa0\x80", MALFORMED),
            (0x30, b"\x00\x03a\x00b", MALFORMED),
        ],
    );
}

#[test]
fn properties_of_publishes() {
    /// A publish with the properties.
    fn row(properties: &[u8], due: Option<Code>) {
        let mut body = b"\x00\x01a".to_vec();
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend_from_slice(properties);
        check(Version::V5, &[(0x30, &body, due)]);
    }
    row(
        b"\x01\x01\x02\x00\x00\x00\x09\x03\x00\x01t\x08\x00\x01r\x09\x00\x02\xff\x00",
        FINE,
    );
    row(b"\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x01v", FINE);
    row(b"\x23\x00\x01", FINE);
    row(b"\x01\x02", PROTOCOL); // payload format 2
    row(b"\x01\x01\x01\x01", PROTOCOL); // twice
    row(b"\x02\x00\x00\x00\x09\x02\x00\x00\x00\x09", PROTOCOL);
    row(b"\x03\x00\x01t\x03\x00\x01t", PROTOCOL);
    row(b"\x23\x00\x01\x23\x00\x01", PROTOCOL);
    row(b"\x08\x00\x01#", PROTOCOL); // a response topic with a wildcard
    row(b"\x08\x00\x00", PROTOCOL);
    row(b"\x0b\x01", PROTOCOL); // a subscription identifier from a client
    row(b"\x11\x00\x00\x00\x01", MALFORMED); // session expiry in a publish
    row(b"\x18\x00\x00\x00\x01", MALFORMED); // will delay
    row(b"\x1f\x00\x01r", MALFORMED); // reason string
    row(b"\x00", MALFORMED); // no property
    row(b"\x2b\x00", MALFORMED);
    row(b"\x80\x01", MALFORMED);
    row(b"\xff", MALFORMED);
    row(b"\x03\x00\x09t", MALFORMED); // over the end of the properties
    row(b"\x03\x00\x01\xff", MALFORMED);
    row(b"\x26\x00\x01k\x00\x01\x00", MALFORMED);
    row(b"\x26\x00\x01k", MALFORMED);
    row(b"\x02\x00\x00\x00", MALFORMED);
}

#[test]
fn acknowledgements() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        let reason = if first < 0x60 { b'\x10' } else { b'\x92' };
        check(
            Version::V5,
            &[
                (first, b"\x00\x07", FINE),
                (first, &[0, 7, reason], FINE),
                (first, &[0, 7, reason, 0], FINE),
                (first, b"\x00\x07\x00\x04\x1f\x00\x01r", FINE),
                (first, b"\x00\x00", PROTOCOL),
                (first, b"", MALFORMED),
                (first, b"\x07", MALFORMED),
                (first, b"\x00\x07\x01", MALFORMED), // no such reason
                (first, b"\x00\x07\xa2", MALFORMED),
                (first, b"\x00\x07\x00\x00\x00", MALFORMED), // over its end
                (first, b"\x00\x07\x00\x01", MALFORMED),
                (
                    first,
                    b"\x00\x07\x00\x08\x1f\x00\x01r\x1f\x00\x01r",
                    PROTOCOL,
                ),
                (first, b"\x00\x07\x00\x02\x01\x00", MALFORMED),
                (first, b"\x00\x07\x00\x80\x00", MALFORMED), // a length longer than it need be
            ],
        );
        check(
            Version::V311,
            &[
                (first, b"\x00\x07", FINE),
                (first, b"\x00\x00", PROTOCOL),
                (first, b"\x00\x07\x00", MALFORMED),
                (first, b"\x00", MALFORMED),
            ],
        );
    }
    // Each has its own reasons.
    check(
        Version::V5,
        &[
            (0x40, b"\x00\x07\x92", MALFORMED),
            (0x70, b"\x00\x07\x10", MALFORMED),
        ],
    );
}

#[test]
fn subscriptions() {
    check(
        Version::V5,
        &[
            (0x82, b"\x00\x01\x00\x00\x01a\x2e", FINE),
            (
                0x82,
                b"\x00\x01\x02\x0b\x01\x00\x01a\x00\x00\x01b\x02",
                FINE,
            ),
            (0x82, b"\x00\x01\x05\x0b\xff\xff\xff\x7f\x00\x01a\x00", FINE),
            (0x82, b"\x00\x00\x00\x00\x01a\x00", PROTOCOL), // packet id 0
            (0x82, b"\x00\x01\x00", PROTOCOL),              // no filter
            (0x82, b"\x00\x01\x02\x0b\x00\x00\x01a\x00", PROTOCOL), // subscription identifier 0
            (0x82, b"\x00\x01\x04\x0b\x01\x0b\x01\x00\x01a\x00", PROTOCOL), // two of them
            (0x82, b"\x00\x01\x03\x0b\x80\x00\x00\x01a\x00", MALFORMED), // overlong
            (
                0x82,
                b"\x00\x01\x06\x0b\xff\xff\xff\xff\x7f\x00\x01a\x00",
                MALFORMED,
            ),
            (0x82, b"\x00\x01\x02\x01\x00\x00\x01a\x00", MALFORMED), // not of a SUBSCRIBE
            (0x82, b"\x00\x01\x00\x00\x01a\x03", PROTOCOL),          // QoS 3
            (0x82, b"\x00\x01\x00\x00\x01a\x30", PROTOCOL),          // retain handling 3
            (0x82, b"\x00\x01\x00\x00\x01a\x40", MALFORMED),         // reserved bits
            (0x82, b"\x00\x01\x00\x00\x01a\x80", MALFORMED),
            (0x82, b"\x00\x01\x00\x00\x0a$share/g/a\x04", PROTOCOL), // shared, no local
            (0x82, b"\x00\x01\x00\x00\x0a$share/g/a\x01", FINE),
            (0x82, b"\x00\x01\x00\x00\x01a", MALFORMED), // no options
            (0x82, b"\x00\x01\x00\x00\x01\xff\x00", MALFORMED),
            (0x82, b"\x00\x01\x00\x00\x01\x00\x00", MALFORMED),
        ],
    );
    check(
        Version::V311,
        &[
            (0x82, b"\x00\x01\x00\x01a\x02", FINE),
            (0x82, b"\x00\x00\x00\x01a\x00", PROTOCOL),
            (0x82, b"\x00\x01", PROTOCOL),
            (0x82, b"\x00\x01\x00\x01a\x03", PROTOCOL),
            (0x82, b"\x00\x01\x00\x01a\x04", MALFORMED),
            (0x82, b"\x00\x01\x00\x01a\x80", MALFORMED),
            (0x82, b"\x00\x01\x00\x01a", MALFORMED),
        ],
    );
}

#[test]
fn unsubscriptions() {
    check(
        Version::V5,
        &[
            (0xa2, b"\x00\x01\x00\x00\x01a\x00\x01b", FINE),
            (0xa2, b"\x00\x01\x07\x26\x00\x01k\x00\x01v\x00\x01a", FINE),
            (0xa2, b"\x00\x00\x00\x00\x01a", PROTOCOL),
            (0xa2, b"\x00\x01\x00", PROTOCOL),
            (0xa2, b"\x00\x01\x02\x0b\x01\x00\x01a", MALFORMED),
            (0xa2, b"\x00\x01\x00\x00\x05a", MALFORMED),
        ],
    );
    check(
        Version::V311,
        &[
            (0xa2, b"\x00\x01\x00\x01a", FINE),
            (0xa2, b"\x00\x00\x00\x01a", PROTOCOL),
            (0xa2, b"\x00\x01", PROTOCOL),
            (0xa2, b"\x00", MALFORMED),
            (0xa2, b"\x00\x01\x00\x01\xff", MALFORMED),
        ],
    );
}

#[test]
fn pings_and_goodbyes() {
    check(
        Version::V5,
        &[
            (0xc0, b"", FINE),
            (0xc0, b"\x00", MALFORMED),
            (0xe0, b"", FINE),
            (0xe0, b"\x00", FINE),
            (0xe0, b"\x04\x00", FINE),
            (0xe0, b"\x00\x05\x11\x00\x00\x00\x00", FINE),
            (0xe0, b"\x01", MALFORMED),
            (0xe0, b"\x8b", PROTOCOL), // only a server shuts down
            (0xe0, b"\x8b\x00", PROTOCOL),
            (0xe0, b"\x00\x00\x00", MALFORMED),
            (0xe0, b"\x00\x04\x1c\x00\x01s", PROTOCOL), // a server reference
            (0xe0, b"\x00\x05\x11\x00\x00\x00\x01", PROTOCOL), // a session that was to end
            (0xe0, b"\x00\x03\x21\x00\x01", MALFORMED),
        ],
    );
    check(
        Version::V311,
        &[
            (0xc0, b"", FINE),
            (0xc0, b"\x00", MALFORMED),
            (0xe0, b"", FINE),
            (0xe0, b"\x00", MALFORMED),
        ],
    );
}

#[test]
fn a_remaining_length_longer_than_it_need_be() {
    // MQTT 5.0, 1.5.5; MQTT 3.1.1 does not forbid it.
    let ping = b"\xc0\x80\x00";
    let error = read(&mut connected(Version::V5), ping).unwrap_err();
    assert_eq!(error.disconnect_reason(), MALFORMED);
    let packet = read(&mut connected(Version::V311), ping).unwrap();
    assert!(matches!(packet, Packet::PingReq(_)));
}

#[test]
fn a_second_connect() {
    for (version, connect) in [(Version::V311, CONNECT_V311), (Version::V5, CONNECT_V5)] {
        let error = read(&mut connected(version), connect).unwrap_err();
        assert_eq!(error.disconnect_reason(), PROTOCOL, "{error}");
    }
}

/// What comes of a CONNECT: its flags, and what is before and after the client id `a`.
fn connect(
    version: Version,
    flags: u8,
    properties: &[u8],
    rest: &[u8],
) -> Result<Packet, DecodeError> {
    let level = if version == Version::V5 { 5 } else { 4 };
    let mut body = b"\x00\x04MQTT".to_vec();
    body.extend([level, flags, 0, 0]);
    if version == Version::V5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend_from_slice(properties);
    }
    body.extend_from_slice(b"\x00\x01a");
    body.extend_from_slice(rest);
    read(&mut Codec::new(1024), &frame(0x10, &body))
}

#[test]
fn flags_of_connects() {
    const V5_WILL: &[u8] = b"\x00\x00\x01w\x00\x02\xff\x00";
    const V311_WILL: &[u8] = b"\x00\x01w\x00\x02\xff\x00";
    for (version, will) in [(Version::V311, V311_WILL), (Version::V5, V5_WILL)] {
        let login = b"\x00\x01u\x00\x01p";
        let rows: &[(u8, &[u8], Option<Code>)] = &[
            (0x00, b"", FINE),
            (0x02, b"", FINE),
            (0x36, will, FINE),
            (0xc2, login, FINE),
            (0x82, b"\x00\x01u", FINE),
            (0x03, b"", MALFORMED),  // reserved
            (0x3e, will, MALFORMED), // will with QoS 3
            (0x0a, b"", MALFORMED),  // a QoS without a will
            (0x22, b"", MALFORMED),  // retain without a will
            (0x06, b"", MALFORMED),  // no will
            (0x82, b"", MALFORMED),  // no user name
            (0xc2, b"\x00\x01u", MALFORMED),
            (0x02, b"\x00", MALFORMED), // over its end
            (0x82, b"\x00\x01\xff", MALFORMED),
            (0x82, b"\x00\x01\x00", MALFORMED),
        ];
        for (flags, rest, due) in rows {
            let read = connect(version, *flags, b"", rest);
            let is = read.as_ref().err().and_then(DecodeError::disconnect_reason);
            assert_eq!(is, *due, "{version:?} {flags:#04x} {rest:02x?}: {read:?}");
        }
        // A will with a topic that is no text.
        let rest = if version == Version::V5 {
            &b"\x00\x00\x01\xff\x00\x00"[..]
        } else {
            b"\x00\x01\xff\x00\x00"
        };
        connect(version, 0x06, b"", rest).unwrap_err();
    }
    // MQTT 5 allows a password alone (3.1.2.9); MQTT 3.1.1 does not (3.1.2.9).
    connect(Version::V5, 0x42, b"", b"\x00\x01p").unwrap();
    connect(Version::V311, 0x42, b"", b"\x00\x01p").unwrap_err();
}

#[test]
fn properties_of_connects() {
    let all = b"\x11\x00\x00\x00\x01\x21\x00\x01\x27\x00\x00\x01\x00\x22\x00\x09\x17\x01\x19\x01\x26\x00\x01k\x00\x01v";
    let rows: &[(&[u8], Option<Code>)] = &[
        (all, FINE),
        (b"\x21\x00\x00", PROTOCOL),         // receive maximum 0
        (b"\x27\x00\x00\x00\x00", PROTOCOL), // maximum packet size 0
        (b"\x17\x02", PROTOCOL),
        (b"\x19\x02", PROTOCOL),
        (b"\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01", PROTOCOL),
        (b"\x16\x00\x01d", PROTOCOL),         // data without a method
        (b"\x23\x00\x01", MALFORMED),         // topic alias
        (b"\x18\x00\x00\x00\x01", MALFORMED), // will delay outside of a will
        (b"\x12\x00\x01c", MALFORMED),        // what only servers say
    ];
    for (properties, due) in rows {
        let read = connect(Version::V5, 0x02, properties, b"");
        let is = read.as_ref().err().and_then(DecodeError::disconnect_reason);
        assert_eq!(is, *due, "{properties:02x?}: {read:?}");
    }
    // Of the will.
    let will = |properties: &[u8]| {
        let mut rest = vec![u8::try_from(properties.len()).unwrap()];
        rest.extend_from_slice(properties);
        rest.extend_from_slice(b"\x00\x01w\x00\x00");
        connect(Version::V5, 0x06, b"", &rest)
    };
    will(b"\x18\x00\x00\x00\x01\x01\x01\x02\x00\x00\x00\x01\x26\x00\x01k\x00\x01v").unwrap();
    for wrong in [
        &b"\x18\x00\x00\x00\x01\x18\x00\x00\x00\x01"[..],
        b"\x11\x00\x00\x00\x01",
        b"\x23\x00\x01",
    ] {
        will(wrong).unwrap_err();
    }
}

#[test]
fn enhanced_authentication() {
    for properties in [&b"\x15\x00\x01m"[..], b"\x15\x00\x01m\x16\x00\x02\xff\x00"] {
        let error = connect(Version::V5, 0x02, properties, b"").unwrap_err();
        let code = error.connect_code();
        assert_eq!(code, Some(v5p::ConnectReturnCode::BadAuthenticationMethod));
    }
}

#[test]
fn a_session_that_the_connect_keeps_may_be_kept_longer() {
    let connect = b"\x10\x13\x00\x04MQTT\x05\x02\x00\x00\x05\x11\x00\x00\x00\x01\x00\x01a";
    let mut codec = Codec::new(1024);
    read(&mut codec, connect).unwrap();
    read(&mut codec, b"\xe0\x07\x00\x05\x11\x00\x00\x00\x09").unwrap();
}

#[test]
fn the_version_is_known_of_a_connect_that_is_refused() {
    let mut codec = Codec::new(1024);
    read(
        &mut codec,
        b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x01a",
    )
    .unwrap_err();
    assert_eq!(codec.version(), Some(Version::V5));
    let mut codec = Codec::new(10);
    read(&mut codec, CONNECT_V5).unwrap_err();
    assert_eq!(codec.version(), Some(Version::V5), "too large");
}
