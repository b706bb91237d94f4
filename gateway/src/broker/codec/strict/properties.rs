//! The properties of MQTT 5 that a client may send (MQTT 5.0, 2.2.2.2): which, where, how often.

use super::{
    super::DecodeError,
    reader::{Reader, malformed, protocol},
};

/// What has properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Connect,
    Will,
    Publish,
    /// PUBACK, PUBREC, PUBREL and PUBCOMP.
    Acknowledgement,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

/// What there was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Given {
    pub(super) session_expiry: Option<u32>,
    pub(super) topic_alias: bool,
    pub(super) authentication_method: bool,
    pub(super) authentication_data: bool,
}

/// The form of a value.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// A byte, 0 or 1.
    Flag,
    Two,
    /// Two bytes, not 0.
    TwoPositive,
    Four,
    /// Four bytes, not 0.
    FourPositive,
    /// A variable byte integer, not 0.
    VariablePositive,
    Text,
    /// A topic name: neither empty nor with wildcards.
    Topic,
    Binary,
    /// Two texts, as often as one likes.
    Pair,
}

const SUBSCRIPTION_IDENTIFIER: u8 = 11;
const SESSION_EXPIRY_INTERVAL: u8 = 17;
const AUTHENTICATION_METHOD: u8 = 21;
const AUTHENTICATION_DATA: u8 = 22;
const SERVER_REFERENCE: u8 = 28;
const TOPIC_ALIAS: u8 = 35;

/// The form of a property and who has it; `None` for what no client sends.
fn form(id: u8) -> Option<(Form, &'static [Holder])> {
    use Holder::{Acknowledgement, Connect, Disconnect, Publish, Subscribe, Unsubscribe, Will};
    Some(match id {
        1 => (Form::Flag, &[Publish, Will]),
        2 => (Form::Four, &[Publish, Will]),
        3 => (Form::Text, &[Publish, Will]),
        8 => (Form::Topic, &[Publish, Will]),
        9 => (Form::Binary, &[Publish, Will]),
        SUBSCRIPTION_IDENTIFIER => (Form::VariablePositive, &[Subscribe]),
        SESSION_EXPIRY_INTERVAL => (Form::Four, &[Connect, Disconnect]),
        AUTHENTICATION_METHOD => (Form::Text, &[Connect]),
        AUTHENTICATION_DATA => (Form::Binary, &[Connect]),
        23 | 25 => (Form::Flag, &[Connect]),
        24 => (Form::Four, &[Will]),
        31 => (Form::Text, &[Acknowledgement, Disconnect]),
        33 => (Form::TwoPositive, &[Connect]),
        34 => (Form::Two, &[Connect]),
        TOPIC_ALIAS => (Form::Two, &[Publish]),
        38 => (
            Form::Pair,
            &[
                Connect,
                Will,
                Publish,
                Acknowledgement,
                Subscribe,
                Unsubscribe,
                Disconnect,
            ],
        ),
        39 => (Form::FourPositive, &[Connect]),
        _ => return None,
    })
}

/// Reads the length of the properties and them all.
pub(super) fn read(reader: &mut Reader<'_>, holder: Holder) -> Result<Given, DecodeError> {
    let length = usize::try_from(reader.variable()?).unwrap_or(usize::MAX);
    let mut properties = Reader::new(reader.take(length)?);
    let mut given = Given::default();
    let mut seen = 0_u64;
    while !properties.is_empty() {
        // An identifier is a variable byte integer, and all that there are take one byte.
        let id = properties.u8()?;
        let (form, holders) = form(id).ok_or_else(|| not_here(id, holder))?;
        if !holders.contains(&holder) {
            return Err(not_here(id, holder));
        }
        let bit = 1 << id;
        if seen & bit != 0 && !matches!(form, Form::Pair) {
            return Err(protocol("a property given twice"));
        }
        seen |= bit;
        let number = value(&mut properties, form)?;
        match id {
            SESSION_EXPIRY_INTERVAL => given.session_expiry = Some(number),
            TOPIC_ALIAS => given.topic_alias = true,
            AUTHENTICATION_METHOD => given.authentication_method = true,
            AUTHENTICATION_DATA => given.authentication_data = true,
            _ => {}
        }
    }
    Ok(given)
}

/// A property that the packet cannot have is malformed; one that only the server's packet of the
/// kind has is an error of the protocol.
fn not_here(id: u8, holder: Holder) -> DecodeError {
    match (id, holder) {
        (SUBSCRIPTION_IDENTIFIER, Holder::Publish) => {
            protocol("a subscription identifier in a client's publish")
        }
        (SERVER_REFERENCE, Holder::Disconnect) => protocol("a server reference from a client"),
        _ => malformed("a property that the packet cannot have"),
    }
}

/// Reads a value; if it is no number, the result says nothing.
fn value(properties: &mut Reader<'_>, form: Form) -> Result<u32, DecodeError> {
    let positive = |number| match number {
        0 => Err(protocol("a property of 0 that must not be 0")),
        number => Ok(number),
    };
    match form {
        Form::Flag => match properties.u8()? {
            flag @ (0 | 1) => Ok(flag.into()),
            _ => Err(protocol("a property that is neither 0 nor 1")),
        },
        Form::Two => properties.u16().map(u32::from),
        Form::TwoPositive => properties.u16().map(u32::from).and_then(positive),
        Form::Four => properties.u32(),
        Form::FourPositive => properties.u32().and_then(positive),
        Form::VariablePositive => properties.variable().and_then(positive),
        Form::Text => properties.text().map(|_| 0),
        Form::Topic => {
            let topic = properties.text()?;
            if topic.is_empty() || topic.contains(['+', '#']) {
                return Err(protocol("a response topic that is no topic name"));
            }
            Ok(0)
        }
        Form::Binary => properties.binary().map(|_| 0),
        Form::Pair => {
            properties.text()?;
            properties.text().map(|_| 0)
        }
    }
}
