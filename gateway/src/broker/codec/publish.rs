//! Publishes of clients, which are most of what is read: those without properties are taken apart where
//! they are, and nothing of them is copied.

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::{QoS, v5::Publish};

use super::{FixedHeader, Version, strict};

/// The publish that a frame is, once it has been checked; `None` if it is another packet, or one with
/// properties, and the frame is as it was.
pub(super) fn plain(
    version: Version,
    found: &FixedHeader,
    frame: &mut BytesMut,
) -> Option<Publish> {
    if found.first >> 4 != strict::PUBLISH {
        return None;
    }
    let qos = match found.first >> 1 & 0b11 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return None,
    };
    let topic_at = found.header + 2;
    let topic_bytes = frame.get(found.header..topic_at)?;
    let topic_end = topic_at + usize::from(u16::from_be_bytes(topic_bytes.try_into().ok()?));
    let after_id = topic_end + if qos == QoS::AtMostOnce { 0 } else { 2 };
    let payload_at = match version {
        Version::V311 => after_id,
        Version::V5 if frame.get(after_id) == Some(&0) => after_id + 1,
        Version::V5 => return None,
    };
    if frame.len() < payload_at {
        return None;
    }
    let mut rest = std::mem::take(frame).freeze();
    rest.advance(topic_at);
    let topic = rest.split_to(topic_end - topic_at);
    let pkid = match qos {
        QoS::AtMostOnce => 0,
        QoS::AtLeastOnce | QoS::ExactlyOnce => rest.get_u16(),
    };
    rest.advance(payload_at - after_id);
    Some(Publish {
        dup: found.first & 0b1000 != 0,
        qos,
        retain: found.first & 1 != 0,
        topic,
        pkid,
        payload: rest,
        properties: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::codec::{Packet, fixed_header, lift};

    #[test]
    fn a_publish_is_read_as_the_library_reads_it() {
        for version in [Version::V311, Version::V5] {
            for first in [0x30, 0x31, 0x32, 0x33, 0x3a, 0x34, 0x3d] {
                for payload in [0, 1, 130] {
                    let mut body = vec![0, 3, b'a', b'/', b'b'];
                    if first & 0b110 != 0 {
                        body.extend([2, 3]);
                    }
                    if version == Version::V5 {
                        body.push(0);
                    }
                    body.extend(vec![9; payload]);
                    let mut frame = BytesMut::from(&[first][..]);
                    if body.len() > 127 {
                        frame.extend([u8::try_from(body.len() & 0x7f).unwrap() | 0x80, 1]);
                    } else {
                        frame.extend([u8::try_from(body.len()).unwrap()]);
                    }
                    frame.extend(body);
                    let found = fixed_header(&frame).unwrap().unwrap();
                    let mut copy = frame.clone();
                    let expected = match version {
                        Version::V5 => Packet::read(&mut copy, None).unwrap(),
                        Version::V311 => {
                            let read = rumqttc::mqttbytes::v4::Packet::read(&mut copy, usize::MAX);
                            lift(read.unwrap()).unwrap()
                        }
                    };
                    let read = plain(version, &found, &mut frame).unwrap();
                    assert_eq!(Packet::Publish(read), expected, "{version:?} {first:02x}");
                }
            }
        }
    }

    #[test]
    fn a_publish_with_properties_is_left_to_the_library() {
        let whole = BytesMut::from(&[0x30, 7, 0, 1, b'a', 2, 1, 1, b'x'][..]);
        let found = fixed_header(&whole).unwrap().unwrap();
        let mut frame = whole.clone();
        assert_eq!(plain(Version::V5, &found, &mut frame), None);
        assert_eq!(frame, whole);
    }
}
