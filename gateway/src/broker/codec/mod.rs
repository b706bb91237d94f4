//! MQTT 3.1.1 and 5 on the wire, MQTT 5 inside.
//!
//! The session speaks MQTT 5 only: packets of a 3.1.1 client are lifted to their MQTT 5 form when
//! they are read and lowered when they are written. The version is fixed by the CONNECT. Topic
//! aliases begin and end here (see `aliases`), and user names and passwords, which nobody reads.
//!
//! A packet is checked against the standard first (see `strict`); then it is built, and written, by
//! rumqttc. What that gets wrong for a server is put right here: an empty MQTT 5 DISCONNECT, a
//! password that is no text, a DISCONNECT with a byte too many, the beginning of a packet that turns
//! out not to be writable. Every error ends the connection, with the reason that the standard has
//! for it.

mod aliases;
mod buffers;
mod deliver;
mod publish;
mod reasons;
mod strict;
mod versions;

use std::borrow::Cow;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use portcullis_core::limits::TOPIC_ALIASES_MAX;
use rumqttc::{
    mqttbytes::v4 as v4p,
    v5::mqttbytes::{self as v5, v5 as v5p},
};
use tokio_util::codec::{Decoder, Encoder};

use self::{
    aliases::Choice,
    buffers::Buffers,
    versions::{lift, lower},
};
pub(super) use self::{
    deliver::Delivery,
    reasons::because,
    versions::{qos, wire_qos},
};
pub(super) use v5p::Packet;

/// Which MQTT a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V311,
    V5,
}

/// Why what a client sent is no packet.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("the first packet is not a CONNECT")]
    NotConnect,
    #[error("protocol `{name}` level {level} is not MQTT 3.1.1 or 5")]
    UnsupportedVersion { name: String, level: u8 },
    #[error("a packet of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("malformed packet: {0}")]
    Malformed(Cow<'static, str>),
    #[error("protocol error: {0}")]
    Protocol(Cow<'static, str>),
    #[error("the topic alias {0} is not between 1 and {TOPIC_ALIASES_MAX}")]
    AliasInvalid(u16),
    #[error("an authentication method; there is none besides TLS")]
    AuthenticationMethod,
    #[error("connection failed")]
    Io(#[from] std::io::Error),
}

impl DecodeError {
    /// What the DISCONNECT says (MQTT 5.0, 4.13); `None` if nobody is left to be told.
    pub(super) fn disconnect_reason(&self) -> Option<v5p::DisconnectReasonCode> {
        use v5p::DisconnectReasonCode as Code;
        Some(match self {
            Self::Malformed(_) => Code::MalformedPacket,
            Self::NotConnect
            | Self::UnsupportedVersion { .. }
            | Self::Protocol(_)
            | Self::AuthenticationMethod => Code::ProtocolError,
            Self::TooLarge { .. } => Code::PacketTooLarge,
            Self::AliasInvalid(_) => Code::TopicAliasInvalid,
            Self::Io(_) => return None,
        })
    }

    /// What the CONNACK says if this came instead of a CONNECT that can be served; `None` if there
    /// is none: the peer does not speak MQTT, or is gone.
    pub(super) fn connect_code(&self) -> Option<v5p::ConnectReturnCode> {
        use v5p::ConnectReturnCode as Code;
        Some(match self {
            Self::Malformed(_) => Code::MalformedPacket,
            Self::Protocol(_) | Self::AliasInvalid(_) => Code::ProtocolError,
            Self::UnsupportedVersion { level, .. } if *level > LEVEL_V5 => {
                Code::UnsupportedProtocolVersion
            }
            Self::UnsupportedVersion { .. } => Code::RefusedProtocolVersion,
            Self::TooLarge { .. } => Code::PacketTooLarge,
            Self::AuthenticationMethod => Code::BadAuthenticationMethod,
            Self::NotConnect | Self::Io(_) => return None,
        })
    }
}

/// Reads and writes packets; see the module.
#[derive(Debug)]
pub(super) struct Codec {
    version: Option<Version>,
    /// The CONNECT came, and was right.
    is_connected: bool,
    /// The session expiry interval of the CONNECT.
    session_expiry: u32,
    incoming_bytes_max: usize,
    outgoing_bytes_max: u32,
    /// The client asked for problem information.
    explains: bool,
    incoming_aliases: aliases::Incoming,
    outgoing_aliases: aliases::Outgoing,
    buffers: Buffers,
}

/// Type, remaining length, length of the fixed header itself.
struct FixedHeader {
    first: u8,
    remaining: usize,
    header: usize,
    /// The remaining length has no byte more than it needs.
    is_minimal: bool,
}

impl Codec {
    pub(super) fn new(incoming_bytes_max: usize) -> Self {
        Self {
            version: None,
            is_connected: false,
            session_expiry: 0,
            incoming_bytes_max,
            outgoing_bytes_max: u32::MAX,
            explains: false,
            incoming_aliases: aliases::Incoming::default(),
            outgoing_aliases: aliases::Outgoing::default(),
            buffers: Buffers::default(),
        }
    }

    /// Everything in the write buffer was written; whether a large packet left too large a one.
    pub(super) fn has_outgrown(&mut self) -> bool {
        self.buffers.has_outgrown()
    }

    /// What the CONNECT said; `None` before it came.
    pub(super) fn version(&self) -> Option<Version> {
        self.version
    }

    /// The Topic Alias Maximum of the CONNACK: aliases that a client may use.
    pub(super) const fn aliases_in() -> u16 {
        TOPIC_ALIASES_MAX
    }

    /// The client's Topic Alias Maximum: topics that repeat go out as aliases.
    pub(super) fn alias_outgoing(&mut self, aliases_max: u16) {
        self.outgoing_aliases.allow(aliases_max);
    }

    /// The version that the CONNECT at the start of `frame` names.
    fn read_version(frame: &[u8], header: usize) -> Result<Version, DecodeError> {
        let malformed = || DecodeError::Malformed("a CONNECT without protocol name".into());
        let mut rest = frame.get(header..).ok_or_else(malformed)?;
        if rest.len() < 2 {
            return Err(malformed());
        }
        let length = usize::from(rest.get_u16());
        let (name, level) = (rest.get(..length), rest.get(length));
        match (name, level) {
            (Some(b"MQTT"), Some(4)) => Ok(Version::V311),
            (Some(b"MQTT"), Some(&LEVEL_V5)) => Ok(Version::V5),
            (Some(name), Some(&level)) => Err(DecodeError::UnsupportedVersion {
                name: String::from_utf8_lossy(name).into_owned(),
                level,
            }),
            _ => Err(malformed()),
        }
    }
}

/// The fixed header, once there is enough of it.
fn fixed_header(bytes: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let mut remaining = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(FixedHeader {
                first,
                remaining,
                header: index + 2,
                is_minimal: index == 0 || *byte != 0,
            }));
        }
    }
    if bytes.len() >= 5 {
        return Err(DecodeError::Malformed(
            "the remaining length has over four bytes".into(),
        ));
    }
    Ok(None)
}

/// The protocol level of MQTT 5.
const LEVEL_V5: u8 = 5;
const FIRST_OF_CONNECT: u8 = strict::CONNECT << 4;
/// Where the body of a CONNECT has its flags: after `MQTT` with its length, and the level.
const CONNECT_FLAGS_AT: usize = 7;
const LOGIN_FLAGS: u8 = 0b1100_0000;

impl Decoder for Codec {
    type Item = Packet;
    type Error = DecodeError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(found) = fixed_header(source)? else {
            self.buffers.make_room(source);
            return Ok(None);
        };
        if self.version.is_none() && found.first != FIRST_OF_CONNECT {
            return Err(DecodeError::NotConnect);
        }
        let frame_bytes = found.header + found.remaining;
        if frame_bytes > self.incoming_bytes_max {
            if self.version.is_none() {
                // How the client is told; what it sent of its CONNECT says so, if it is enough.
                self.version = Self::read_version(source, found.header).ok();
            }
            return Err(DecodeError::TooLarge {
                bytes: frame_bytes,
                max: self.incoming_bytes_max,
            });
        }
        if source.len() < frame_bytes {
            self.buffers.make_room_for(source, frame_bytes);
            return Ok(None);
        }
        self.buffers.took(found.first);
        let mut frame = source.split_to(frame_bytes);
        let version = match self.version {
            Some(version) => version,
            None => self.begin(&frame, found.header)?,
        };
        self.check(version, &found, &mut frame)?;
        let mut packet = build(version, &found, frame)?;
        match &mut packet {
            Packet::Publish(publish) => self.incoming_aliases.resolve(publish)?,
            Packet::Connect(connect, ..) => self.heed(connect),
            _ => {}
        }
        Ok(Some(packet))
    }
}

impl Codec {
    /// The version that the first packet names. A client of a later one than there is here can read
    /// the answer of MQTT 5 (MQTT 5.0, 3.1.2.2), as one of an earlier can that of 3.1.1.
    fn begin(&mut self, frame: &[u8], header: usize) -> Result<Version, DecodeError> {
        let read = Self::read_version(frame, header);
        self.version = match &read {
            Ok(version) => Some(*version),
            Err(DecodeError::UnsupportedVersion { level, .. }) if *level > LEVEL_V5 => {
                Some(Version::V5)
            }
            Err(_) => None,
        };
        read
    }

    /// What the client takes: larger packets fail to encode, and reasons are told to who asks.
    fn heed(&mut self, connect: &v5p::Connect) {
        let given = connect.properties.as_ref();
        if let Some(bytes_max) = given.and_then(|given| given.max_packet_size) {
            self.outgoing_bytes_max = bytes_max;
        }
        self.explains = given.and_then(|given| given.request_problem_info) == Some(1);
    }

    /// Refuses what is against the standard, and takes the login out of a CONNECT.
    fn check(
        &mut self,
        version: Version,
        found: &FixedHeader,
        frame: &mut BytesMut,
    ) -> Result<(), DecodeError> {
        if !found.is_minimal && version == Version::V5 {
            return Err(DecodeError::Malformed(
                "a remaining length longer than it need be".into(),
            ));
        }
        if self.is_connected && found.first >> 4 == strict::CONNECT {
            return Err(DecodeError::Protocol("a second CONNECT".into()));
        }
        let body = frame.get(found.header..).unwrap_or_default();
        let checked = strict::check(version, found.first, body)?;
        if !self.is_connected {
            self.is_connected = true;
            self.session_expiry = checked.session_expiry.unwrap_or(0);
            if let Some(login_at) = checked.login_at {
                *frame = without_login(body.get(..login_at).unwrap_or_default());
            }
        } else if self.session_expiry == 0 && checked.session_expiry.is_some_and(|secs| secs > 0) {
            // MQTT 5.0, 3.14.2.2.2.
            return Err(DecodeError::Protocol(
                "a DISCONNECT that keeps a session which the CONNECT did not".into(),
            ));
        }
        Ok(())
    }

    fn write(&self, mut packet: Packet, target: &mut BytesMut) -> Result<(), EncodeError> {
        if !self.explains {
            reasons::drop_reason(&mut packet);
        }
        let start = target.len();
        let written = match self.version {
            Some(Version::V5) => self.write_v5(packet, target),
            // A client whose version is unknown is answered as 3.1.1 says.
            Some(Version::V311) | None => match lower(packet) {
                Some(packet) => packet
                    .write(target, usize::MAX)
                    .map(drop)
                    .map_err(|error| EncodeError::Packet(error.to_string())),
                None => Ok(()),
            },
        };
        // What is there of a packet that failed would be taken for the next one.
        written.inspect_err(|_| target.truncate(start))
    }

    /// A packet that is too large with its reason goes without.
    fn write_v5(&self, mut packet: Packet, target: &mut BytesMut) -> Result<(), EncodeError> {
        let bytes_max = self.outgoing_bytes_max;
        if let Packet::Disconnect(v5p::Disconnect {
            reason_code,
            properties: None,
        }) = packet
        {
            // rumqttc would put a property length after it that the remaining length leaves out.
            let goodbye = [strict::DISCONNECT << 4, 1, reason_code as u8];
            if goodbye.len() > usize::try_from(bytes_max).unwrap_or(usize::MAX) {
                return Err(EncodeError::TooLarge);
            }
            target.extend_from_slice(&goodbye);
            return Ok(());
        }
        let start = target.len();
        match packet.write(target, Some(bytes_max)) {
            Ok(_) => {
                if let Some([0x40 | 0x50 | 0x62 | 0x70, length @ 4, .., 0]) =
                    target.get_mut(start..)
                {
                    // No properties: their length need not be there (MQTT 5.0, 3.4.2.2.1).
                    *length = 3;
                    target.truncate(target.len() - 1);
                }
                Ok(())
            }
            Err(v5::Error::OutgoingPacketTooLarge { .. }) if reasons::drop_reason(&mut packet) => {
                self.write_v5(packet, target)
            }
            Err(v5::Error::OutgoingPacketTooLarge { .. }) => Err(EncodeError::TooLarge),
            Err(other) => Err(EncodeError::Packet(other.to_string())),
        }
    }

    /// Writes a publish, as its alias if its topic has one.
    fn write_publish(
        &mut self,
        mut publish: v5p::Publish,
        target: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        if let Some(given) = &mut publish.properties {
            given.topic_alias = None;
        }
        match self.outgoing_aliases.choose(&publish.topic) {
            Choice::Whole => {}
            Choice::Known(number) => {
                set_alias(&mut publish, number);
                publish.topic = Bytes::new();
            }
            Choice::New(number) => {
                let mut with_alias = publish.clone();
                set_alias(&mut with_alias, number);
                // A packet that is too large with the alias may do without.
                if self.write(Packet::Publish(with_alias), target).is_ok() {
                    self.outgoing_aliases.establish(&publish.topic, number);
                    return Ok(());
                }
            }
        }
        self.write(Packet::Publish(publish), target)
    }
}

fn set_alias(publish: &mut v5p::Publish, number: u16) {
    let properties = publish.properties.get_or_insert_default();
    properties.topic_alias = Some(number);
}

/// The body of a CONNECT up to its login, as a frame that says that there is none: a password may be
/// any bytes, which rumqttc does not take, and nobody reads it.
fn without_login(body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(5 + body.len());
    frame.put_u8(FIRST_OF_CONNECT);
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest & 0x7f).expect("seven bits fit into a byte");
        rest >>= 7;
        frame.put_u8(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    let flags_at = frame.len() + CONNECT_FLAGS_AT;
    frame.extend_from_slice(body);
    if let Some(flags) = frame.get_mut(flags_at) {
        *flags &= !LOGIN_FLAGS;
    }
    frame
}

/// The packet of a frame that has been checked.
fn build(
    version: Version,
    found: &FixedHeader,
    mut frame: BytesMut,
) -> Result<Packet, DecodeError> {
    let malformed = |error: String| DecodeError::Malformed(error.into());
    // rumqttc wants a property length that MQTT 5 (3.14.2.2.1) lets the client leave out.
    if found.first >> 4 == strict::DISCONNECT && found.remaining <= 1 {
        let reason = match (version, frame.get(found.header)) {
            (Version::V5, Some(&code)) => v5p::DisconnectReasonCode::try_from(code)
                .map_err(|error| malformed(error.to_string()))?,
            _ => v5p::DisconnectReasonCode::NormalDisconnection,
        };
        return Ok(Packet::Disconnect(v5p::Disconnect::new(reason)));
    }
    if let Some(publish) = publish::plain(version, found, &mut frame) {
        return Ok(Packet::Publish(publish));
    }
    match version {
        Version::V5 => Packet::read(&mut frame, None).map_err(|error| malformed(error.to_string())),
        Version::V311 => v4p::Packet::read(&mut frame, usize::MAX)
            .map_err(|error| malformed(error.to_string()))
            .and_then(lift),
    }
}

impl Encoder<Packet> for Codec {
    type Error = EncodeError;

    fn encode(&mut self, packet: Packet, target: &mut BytesMut) -> Result<(), EncodeError> {
        let written = match packet {
            Packet::Publish(publish) if self.version == Some(Version::V5) => {
                self.write_publish(publish, target)
            }
            packet => self.write(packet, target),
        };
        self.buffers.wrote(target);
        written
    }
}

/// Why a packet cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("the packet is over the client's maximum packet size")]
    TooLarge,
    #[error("failed to encode packet: {0}")]
    Packet(String),
    #[error("connection failed")]
    Io(#[from] std::io::Error),
}

#[cfg(test)]
mod tests;
