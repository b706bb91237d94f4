//! What the standards call malformed or an error of the protocol, of every packet that a client may
//! send, refused before rumqttc's decoder sees it: that one takes wrong flags, bytes that are left
//! over, doubled properties, texts that are none, and more (MQTT 3.1.1 and MQTT 5.0, 2 and 3).
//!
//! What a packet says is not looked at here, so nothing is built: a reader walks over the bytes.
//! Topic names and filters, client ids and the limits of this gateway are the session's.

mod properties;
mod reader;

use self::{
    properties::Holder,
    reader::{Reader, malformed, protocol},
};
use super::{DecodeError, Version};

/// What the decoder wants to know of a packet that is right.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checked {
    /// Of a CONNECT: where in the body user name and password start, if there are any.
    pub(super) login_at: Option<usize>,
    /// Of a CONNECT or DISCONNECT.
    pub(super) session_expiry: Option<u32>,
}

/// Types of packets: the upper half of the first byte.
pub(super) const CONNECT: u8 = 1;
pub(super) const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;
pub(super) const PINGREQ: u8 = 12;
pub(super) const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

/// Checks a packet: its first byte, and what comes after the fixed header.
pub(super) fn check(version: Version, first: u8, body: &[u8]) -> Result<Checked, DecodeError> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    let due = match kind {
        PUBLISH => flags,
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    if flags != due {
        return Err(malformed("reserved flags that are not as they must be"));
    }
    let mut reader = Reader::new(body);
    let mut checked = Checked::default();
    match kind {
        CONNECT => checked = connect(&mut reader, version, body.len())?,
        PUBLISH => publish(&mut reader, version, flags)?,
        PUBACK | PUBREC | PUBREL | PUBCOMP => acknowledgement(&mut reader, version, kind)?,
        SUBSCRIBE => subscribe(&mut reader, version)?,
        UNSUBSCRIBE => unsubscribe(&mut reader, version)?,
        PINGREQ => {}
        DISCONNECT => checked.session_expiry = disconnect(&mut reader, version)?,
        AUTH if version == Version::V5 => {
            return Err(protocol("an AUTH, and no authentication is under way"));
        }
        0 | AUTH.. => return Err(malformed("a reserved type of packet")),
        _ => return Err(protocol("a packet that only servers send")),
    }
    reader.end()?;
    Ok(checked)
}

fn connect(
    reader: &mut Reader<'_>,
    version: Version,
    body_bytes: usize,
) -> Result<Checked, DecodeError> {
    // The decoder chose the version by name and level.
    reader.text()?;
    reader.u8()?;
    let flags = reader.u8()?;
    let is_set = |bit: u8| flags & bit != 0;
    let (will, will_qos) = (is_set(0x04), flags >> 3 & 0b11);
    let (password, user_name) = (is_set(0x40), is_set(0x80));
    if is_set(0x01) {
        return Err(malformed("the reserved flag of a CONNECT"));
    }
    if !will && (will_qos != 0 || is_set(0x20)) {
        return Err(malformed("a will's QoS or retain flag without a will"));
    }
    if will_qos == 3 {
        return Err(malformed("a will with QoS 3"));
    }
    if version == Version::V311 && password && !user_name {
        return Err(malformed("a password without a user name"));
    }
    reader.u16()?;
    let mut given = properties::Given::default();
    if version == Version::V5 {
        given = properties::read(reader, Holder::Connect)?;
    }
    reader.text()?;
    if will {
        if version == Version::V5 {
            properties::read(reader, Holder::Will)?;
        }
        reader.text()?;
        reader.binary()?;
    }
    let login_at = (user_name || password).then(|| body_bytes - reader.len());
    if user_name {
        reader.text()?;
    }
    if password {
        reader.binary()?;
    }
    if given.authentication_data && !given.authentication_method {
        return Err(protocol("authentication data without a method"));
    }
    if given.authentication_method {
        reader.end()?;
        return Err(DecodeError::AuthenticationMethod);
    }
    Ok(Checked {
        login_at,
        session_expiry: given.session_expiry,
    })
}

fn publish(reader: &mut Reader<'_>, version: Version, flags: u8) -> Result<(), DecodeError> {
    let qos = flags >> 1 & 0b11;
    if qos == 3 {
        return Err(malformed("a publish with QoS 3"));
    }
    if qos == 0 && flags & 0b1000 != 0 {
        return Err(malformed("a publish with QoS 0 that is sent again"));
    }
    let topic = reader.text()?;
    if qos > 0 {
        reader.packet_id()?;
    }
    let mut has_alias = false;
    if version == Version::V5 {
        has_alias = properties::read(reader, Holder::Publish)?.topic_alias;
    }
    if topic.is_empty() && !has_alias {
        return Err(protocol("a publish without topic and without topic alias"));
    }
    // The rest is the payload.
    reader.take(reader.len())?;
    Ok(())
}

fn acknowledgement(reader: &mut Reader<'_>, version: Version, kind: u8) -> Result<(), DecodeError> {
    reader.packet_id()?;
    if version == Version::V311 || reader.is_empty() {
        return Ok(());
    }
    let is_known = match (kind, reader.u8()?) {
        (_, 0x00) => true,
        (PUBACK | PUBREC, code) => {
            matches!(code, 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        (_, code) => code == 0x92,
    };
    if !is_known {
        return Err(malformed("a reason code that the packet cannot have"));
    }
    if !reader.is_empty() {
        properties::read(reader, Holder::Acknowledgement)?;
    }
    Ok(())
}

fn subscribe(reader: &mut Reader<'_>, version: Version) -> Result<(), DecodeError> {
    reader.packet_id()?;
    if version == Version::V5 {
        properties::read(reader, Holder::Subscribe)?;
    }
    if reader.is_empty() {
        return Err(protocol("a SUBSCRIBE to nothing"));
    }
    while !reader.is_empty() {
        let filter = reader.text()?;
        let options = reader.u8()?;
        let reserved = match version {
            Version::V311 => 0b1111_1100,
            Version::V5 => 0b1100_0000,
        };
        if options & reserved != 0 {
            return Err(malformed("reserved bits of a subscription's options"));
        }
        if options & 0b11 == 0b11 {
            return Err(protocol("a subscription with QoS 3"));
        }
        if options & 0b0011_0000 == 0b0011_0000 {
            return Err(protocol("a subscription with a retain handling of 3"));
        }
        if options & 0b0100 != 0 && filter.starts_with("$share/") {
            return Err(protocol("a shared subscription with no local"));
        }
    }
    Ok(())
}

fn unsubscribe(reader: &mut Reader<'_>, version: Version) -> Result<(), DecodeError> {
    reader.packet_id()?;
    if version == Version::V5 {
        properties::read(reader, Holder::Unsubscribe)?;
    }
    if reader.is_empty() {
        return Err(protocol("an UNSUBSCRIBE of nothing"));
    }
    while !reader.is_empty() {
        reader.text()?;
    }
    Ok(())
}

/// The session expiry interval that it sets.
fn disconnect(reader: &mut Reader<'_>, version: Version) -> Result<Option<u32>, DecodeError> {
    if version == Version::V311 || reader.is_empty() {
        return Ok(None);
    }
    match reader.u8()? {
        0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99 => {}
        0x87 | 0x89 | 0x8b | 0x8d..=0x8f | 0x9a..=0xa2 => {
            return Err(protocol("a DISCONNECT with a reason of servers"));
        }
        _ => return Err(malformed("a reason code that the packet cannot have")),
    }
    if reader.is_empty() {
        return Ok(None);
    }
    Ok(properties::read(reader, Holder::Disconnect)?.session_expiry)
}
