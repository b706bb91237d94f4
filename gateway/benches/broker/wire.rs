//! The few MQTT 3.1.1 packets that the load consists of, as bytes.

use anyhow::{Context, Result, ensure};

/// A PINGREQ: its answer says that everything before it was handled.
pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];

/// Packet types, the upper half of the first byte.
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const PINGRESP: u8 = 13;

/// Where the time of sending stands in a payload, in nanoseconds since the load began.
pub(crate) const STAMP_BYTES: usize = 8;

/// A packet as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) qos: u8,
    pub(crate) body: &'a [u8],
    /// With its header.
    pub(crate) bytes: usize,
}

impl<'a> Frame<'a> {
    /// The first packet in `bytes`, if it is whole.
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let mut remaining = 0;
        for index in 0..4 {
            let byte = *bytes.get(1 + index)?;
            remaining |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let header = index + 2;
                let body = bytes.get(header..header + remaining)?;
                return Some(Self {
                    kind: first >> 4,
                    qos: first >> 1 & 3,
                    body,
                    bytes: header + remaining,
                });
            }
        }
        None
    }

    /// The packet id at `at` of the body.
    pub(crate) fn id(&self, at: usize) -> Result<u16> {
        let id = self.body.get(at..at + 2).context("a packet is too short")?;
        Ok(u16::from_be_bytes([id[0], id[1]]))
    }

    /// Of a PUBLISH: where what comes after the topic begins.
    pub(crate) fn after_topic(&self) -> Result<usize> {
        Ok(2 + usize::from(self.id(0)?))
    }
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    out.extend(u16::try_from(text.len())?.to_be_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

fn packet(first: u8, body: &[u8]) -> Result<Vec<u8>> {
    ensure!(body.len() < 1 << 14, "two bytes of remaining length do");
    let mut out = vec![first];
    let low = u8::try_from(body.len() & 0x7f)?;
    match u8::try_from(body.len() >> 7)? {
        0 => out.push(low),
        high => out.extend([low | 0x80, high]),
    }
    out.extend(body);
    Ok(out)
}

/// A clean session without keep-alive.
pub(crate) fn connect(client_id: &str) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    text(&mut body, "MQTT")?;
    body.extend([4, 0b10, 0, 0]);
    text(&mut body, client_id)?;
    packet(0x10, &body)
}

/// A subscription to `filter`.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Result<Vec<u8>> {
    let mut body = vec![0, 1];
    text(&mut body, filter)?;
    body.push(qos);
    packet(0x82, &body)
}

/// A PUBLISH; `id` counts at QoS 1 only.
pub(crate) fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    text(&mut body, topic)?;
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload);
    packet(0x30 | qos << 1, &body)
}

/// The answer to a delivery.
pub(crate) fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}
