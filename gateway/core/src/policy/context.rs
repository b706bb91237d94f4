//! What is known of a request, and the values that variables and keys take from it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt::{self, Write},
    net::IpAddr,
};

use time::{OffsetDateTime, macros::format_description};

use super::{
    Action,
    variable::{Key, NAME_PARTS, NamePart, SERIAL_NUMBER, Variable, Whose},
};
use crate::{
    certificate::{Certificate, Names},
    identity::{ClientId, Thing},
    limits::VARIABLE_CHARACTERS_MAX,
    timestamp::Timestamp,
    topic::TopicName,
};

/// What policy variables stand for in one request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// `iot:ClientId`.
    pub client_id: &'a ClientId,
    /// `iot:Connection.Thing.*`.
    pub thing: Option<&'a Thing>,
    /// `iot:CertificateId` and `iot:Certificate.*`.
    pub certificate: Option<&'a Certificate>,
    /// `aws:SourceIp`.
    pub source: Option<IpAddr>,
    /// `iot:DomainName`.
    pub domain: Option<&'a str>,
    /// `aws:CurrentTime` and `aws:EpochTime`, in whole seconds.
    pub now: Timestamp,
    /// `iot:ConnectAttributes` and `iot:LastWillTopic`, when the action is `iot:Connect`.
    pub connect: Option<ConnectRequest<'a>>,
}

impl<'a> Context<'a> {
    /// A client of which nothing but its id is known.
    pub const fn of(client_id: &'a ClientId) -> Self {
        Self {
            client_id,
            thing: None,
            certificate: None,
            source: None,
            domain: None,
            now: Timestamp::from_millis(0),
            connect: None,
        }
    }
}

/// What a CONNECT asks for besides the connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest<'a> {
    /// Whether the session is to outlive the connection (`PersistentConnect`).
    pub persistent: bool,
    /// The topic of the will (`LastWill`).
    pub will_topic: Option<&'a TopicName>,
}

/// A context that is being asked. Values that it does not hold as text are written out when a policy
/// asks for them, on the stack.
#[derive(Debug)]
pub(super) struct Values<'c> {
    context: &'c Context<'c>,
    /// What is asked for, if anything is.
    action: Option<Action>,
    certificate_id: OnceCell<Short>,
    source: OnceCell<Short>,
    current_time: OnceCell<Short>,
    epoch_time: OnceCell<Short>,
    /// Whether anything was asked that may be different next time.
    volatile: Cell<bool>,
    /// Names that had no value; written down for explanations alone.
    missing: Option<RefCell<Vec<String>>>,
}

impl<'c> Values<'c> {
    pub(super) fn of(context: &'c Context<'c>, action: Option<Action>) -> Self {
        Self {
            context,
            action,
            certificate_id: OnceCell::new(),
            source: OnceCell::new(),
            current_time: OnceCell::new(),
            epoch_time: OnceCell::new(),
            volatile: Cell::new(false),
            missing: None,
        }
    }

    /// Keeps the names of what had no value.
    pub(super) fn recording(context: &'c Context<'c>, action: Action) -> Self {
        Self {
            missing: Some(RefCell::default()),
            ..Self::of(context, Some(action))
        }
    }

    /// The names that had no value since the last call.
    pub(super) fn take_missing(&self) -> Vec<String> {
        let missing = self.missing.as_ref().map(RefCell::take);
        let mut missing = missing.unwrap_or_default();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Whether anything was asked that may be different in the connection's next request.
    pub(super) fn were_volatile(&self) -> bool {
        self.volatile.get()
    }

    fn note_volatile(&self) {
        self.volatile.set(true);
    }

    pub(super) fn note_missing(&self, name: &dyn fmt::Display) {
        if let Some(missing) = &self.missing {
            missing.borrow_mut().push(name.to_string());
        }
    }

    /// The value that may stand in a pattern: what could be taken for a wildcard of policies or of
    /// topic filters may not (specification A.3), nor what is too long or empty.
    pub(super) fn substitute(&self, variable: &Variable) -> Option<&str> {
        let value = self.get(variable).filter(|value| may_be_substituted(value));
        if value.is_none() {
            self.note_missing(variable);
        }
        value
    }

    /// The value as the request has it. An empty value is a value.
    fn get(&self, variable: &Variable) -> Option<&str> {
        let Context {
            thing, certificate, ..
        } = *self.context;
        match variable {
            Variable::ClientId => Some(self.context.client_id.as_str()),
            Variable::SourceIp => {
                let source = self.source()?;
                Some(self.source.get_or_init(|| Short::of(source)).as_str())
            }
            Variable::DomainName => self.context.domain,
            Variable::CertificateId => {
                let id = certificate?.id;
                Some(self.certificate_id.get_or_init(|| Short::of(id)).as_str())
            }
            Variable::ThingName => thing.map(|thing| thing.name.as_str()),
            Variable::ThingTypeName => thing?.thing_type.as_ref().map(|name| name.as_str()),
            Variable::Attribute(name) => thing?.attributes.get(&**name).map(String::as_str),
            // Attachment is a matter of certificates; a plain listener has none.
            Variable::IsAttached if thing.is_some() && certificate.is_some() => Some("true"),
            Variable::IsAttached => Some("false"),
            Variable::CurrentTime => {
                let text = || Short::of(Iso8601(self.now()));
                let text = self.current_time.get_or_init(text).as_str();
                // A time that no calendar has is no value.
                Some(text).filter(|text| !text.is_empty())
            }
            Variable::EpochTime => {
                let text = || Short::of(self.now().as_secs());
                Some(self.epoch_time.get_or_init(text).as_str())
            }
            Variable::SerialNumber => {
                Some(&*certificate?.serial_number).filter(|number| !number.is_empty())
            }
            Variable::Name { part, index } => self.name(*part).get(*index).map(String::as_str),
        }
    }

    fn names_of(&self, whose: Whose) -> Option<&'c Names> {
        let certificate = self.context.certificate?;
        Some(match whose {
            Whose::Issuer => &certificate.issuer,
            Whose::Subject => &certificate.subject,
        })
    }

    fn name(&self, part: NamePart) -> &'c [String] {
        let names = self.names_of(part.whose);
        names.map_or(&[], |names| names.get(part.attribute))
    }

    fn escaped(&self, part: NamePart, index: usize) -> Option<&'c str> {
        self.names_of(part.whose)?.escaped(part.attribute, index)
    }

    /// Whether `key` has values that are not known: the certificate has more than are kept.
    pub(super) fn has_more(&self, key: &Key) -> bool {
        let Key::List(part) = key else {
            return false;
        };
        let names = self.names_of(part.whose);
        names.is_some_and(|names| names.has_more(part.attribute))
    }

    /// The peer. An IPv4 address that came as an IPv6 one is an IPv4 address.
    pub(super) fn source(&self) -> Option<IpAddr> {
        self.context.source.map(|source| source.to_canonical())
    }

    /// The time, in whole seconds as at AWS.
    pub(super) fn now(&self) -> Timestamp {
        self.note_volatile();
        Timestamp::from_millis(self.context.now.as_secs() * 1000)
    }

    /// Other actions do not see it: their conditions on it have no value.
    fn connect(&self) -> Option<ConnectRequest<'c>> {
        if self.action != Some(Action::Connect) {
            return None;
        }
        self.note_volatile();
        self.context.connect
    }

    /// The topic of the will.
    pub(super) fn will_topic(&self) -> Option<&'c TopicName> {
        self.connect()?.will_topic
    }

    /// Calls `each` with every value of `key`, as text, and with the escaped form if it has another.
    pub(super) fn each_text(&self, key: &Key, mut each: impl FnMut(&str, Option<&str>)) {
        match key {
            Key::Variable(variable) => {
                let escaped = match variable {
                    Variable::Name { part, index } => self.escaped(*part, *index),
                    _ => None,
                };
                let value = self.get(variable).into_iter();
                value.for_each(|value| each(value, escaped));
            }
            Key::List(part) => {
                let values = self.name(*part).iter().enumerate();
                values.for_each(|(index, value)| each(value, self.escaped(*part, index)));
            }
            Key::AvailableKeys => {
                let parts = NAME_PARTS.iter();
                if self.get(&Variable::SerialNumber).is_some() {
                    each(SERIAL_NUMBER, None);
                }
                parts
                    .filter(|(_, part)| !self.name(*part).is_empty())
                    .for_each(|(name, _)| each(name, None));
            }
            Key::ConnectAttributes => {
                let connect = self.connect();
                if connect.is_some_and(|connect| connect.persistent) {
                    each("PersistentConnect", None);
                }
                if connect.is_some_and(|connect| connect.will_topic.is_some()) {
                    each("LastWill", None);
                }
            }
            // Compared as an ARN alone; nothing here asks for sockets.
            Key::LastWillTopic | Key::IncludeSocketInformation => {}
        }
    }
}

fn may_be_substituted(value: &str) -> bool {
    let is_special = |byte: u8| matches!(byte, b'*' | b'$' | b'+' | b'?' | b'#');
    !value.is_empty()
        && !value.bytes().any(is_special)
        && (value.len() <= VARIABLE_CHARACTERS_MAX
            || value.chars().count() <= VARIABLE_CHARACTERS_MAX)
}

/// A short text on the stack: an address, an id, a time.
#[derive(Clone, Copy, Debug)]
struct Short {
    bytes: [u8; 64],
    len: usize,
}

impl Short {
    fn of(value: impl fmt::Display) -> Self {
        let mut short = Self {
            bytes: [0; 64],
            len: 0,
        };
        // What does not fit is no value: nothing that is written here is longer.
        if write!(short, "{value}").is_err() {
            short.len = 0;
        }
        short
    }

    fn as_str(&self) -> &str {
        let text = self.bytes.get(..self.len).unwrap_or_default();
        str::from_utf8(text).unwrap_or_default()
    }
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// `2026-11-22T10:00:00Z`.
struct Iso8601(Timestamp);

impl fmt::Display for Iso8601 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        let when = i64::try_from(self.0.as_secs()).ok();
        let when = when.and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok());
        f.write_str(
            &when
                .and_then(|when| when.format(form).ok())
                .unwrap_or_default(),
        )
    }
}
