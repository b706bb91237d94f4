//! Messages for subscribers, which are most of what is written: where nothing goes with them but the
//! topic, they are written from where they are, without a packet in between.

use bytes::{BufMut, Bytes, BytesMut};
use portcullis_core::event::Qos;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use tokio_util::codec::Encoder;

use super::{Codec, EncodeError, Version, strict, wire_qos};

/// One message for this client.
#[derive(Debug)]
pub(in crate::broker) struct Delivery<'a> {
    pub(in crate::broker) dup: bool,
    pub(in crate::broker) qos: Qos,
    pub(in crate::broker) retain: bool,
    /// Of no meaning at QoS 0.
    pub(in crate::broker) pkid: u16,
    pub(in crate::broker) topic: &'a str,
    pub(in crate::broker) payload: &'a Bytes,
    pub(in crate::broker) properties: Option<PublishProperties>,
}

/// The largest remaining length (MQTT 5.0, 1.5.5).
const REMAINING_MAX: usize = 268_435_455;

impl Codec {
    /// Writes a message; nothing of it if that fails.
    pub(in crate::broker) fn deliver(
        &mut self,
        delivery: &Delivery<'_>,
        target: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let is_v5 = self.version == Some(Version::V5);
        if is_v5 && (delivery.properties.is_some() || self.outgoing_aliases.is_in_use()) {
            return self.encode(Packet::Publish(delivery.to_packet()), target);
        }
        let (topic, payload) = (delivery.topic.as_bytes(), delivery.payload);
        let topic_bytes = u16::try_from(topic.len())
            .map_err(|_| EncodeError::Packet("a topic of over 65535 bytes".to_owned()))?;
        let pkid = (delivery.qos != Qos::AtMostOnce).then_some(delivery.pkid);
        let remaining = 2
            + topic.len()
            + pkid.map_or(0, |_| 2)
            // The length of no properties.
            + usize::from(is_v5)
            + payload.len();
        if remaining > REMAINING_MAX {
            return Err(EncodeError::TooLarge);
        }
        let header = 1 + length_bytes(remaining);
        let bytes_max = usize::try_from(self.outgoing_bytes_max).unwrap_or(usize::MAX);
        if is_v5 && header + remaining > bytes_max {
            return Err(EncodeError::TooLarge);
        }
        target.reserve(header + remaining);
        let flags =
            u8::from(delivery.dup) << 3 | delivery.qos.as_u8() << 1 | u8::from(delivery.retain);
        target.put_u8(strict::PUBLISH << 4 | flags);
        put_length(target, remaining);
        target.put_u16(topic_bytes);
        target.put_slice(topic);
        if let Some(pkid) = pkid {
            target.put_u16(pkid);
        }
        if is_v5 {
            target.put_u8(0);
        }
        target.put_slice(payload);
        self.buffers.wrote(target);
        Ok(())
    }
}

impl Delivery<'_> {
    fn to_packet(&self) -> Publish {
        Publish {
            dup: self.dup,
            qos: wire_qos(self.qos),
            retain: self.retain,
            topic: Bytes::copy_from_slice(self.topic.as_bytes()),
            pkid: self.pkid,
            payload: self.payload.clone(),
            properties: self.properties.clone(),
        }
    }
}

/// How many bytes a remaining length takes.
fn length_bytes(remaining: usize) -> usize {
    match remaining {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn put_length(target: &mut BytesMut, mut rest: usize) {
    loop {
        let low = u8::try_from(rest & 0x7f).expect("seven bits fit into a byte");
        rest >>= 7;
        target.put_u8(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of a message: its flags, and what its topic and payload take.
    type Shape = (bool, Qos, bool, usize, usize);

    fn written(version: Version, shape: Shape, by_packet: bool) -> Result<BytesMut, EncodeError> {
        let (dup, qos, retain, topic, payload) = shape;
        let (topic, payload) = ("t".repeat(topic), Bytes::from(vec![7; payload]));
        let delivery = Delivery {
            dup,
            qos,
            retain,
            pkid: if qos == Qos::AtMostOnce { 0 } else { 515 },
            topic: &topic,
            payload: &payload,
            properties: None,
        };
        let mut codec = Codec::new(1 << 20);
        codec.version = Some(version);
        codec.outgoing_bytes_max = 20_000;
        let mut target = BytesMut::from(&b"before"[..]);
        if by_packet {
            codec.encode(Packet::Publish(delivery.to_packet()), &mut target)?;
        } else {
            codec.deliver(&delivery, &mut target)?;
        }
        Ok(target)
    }

    #[test]
    fn a_message_is_the_same_on_the_wire_as_its_packet() {
        for version in [Version::V311, Version::V5] {
            for (dup, qos) in [
                (false, Qos::AtMostOnce),
                (false, Qos::AtLeastOnce),
                (true, Qos::AtLeastOnce),
                (true, Qos::ExactlyOnce),
            ] {
                // Payloads around the lengths at which the remaining length grows.
                for payload in [0, 1, 100, 120, 121, 122, 123, 16_370, 16_374, 16_380] {
                    for (retain, topic) in [(false, 3), (true, 5), (false, 60)] {
                        let shape = (dup, qos, retain, topic, payload);
                        let packet = written(version, shape, true).unwrap();
                        assert_eq!(written(version, shape, false).unwrap(), packet, "{shape:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_message_over_the_maximum_of_the_client_is_not_written() {
        let shape = |payload| (false, Qos::AtMostOnce, false, 3, payload);
        for payload in 19_980..20_010 {
            let packet = written(Version::V5, shape(payload), true).ok();
            assert_eq!(written(Version::V5, shape(payload), false).ok(), packet);
            assert_eq!(packet.is_some(), payload <= 19_990, "{payload}");
        }
    }
}
