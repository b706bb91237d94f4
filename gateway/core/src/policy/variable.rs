//! The names of what a policy may ask about: policy variables and condition keys (specification A.3,
//! A.4).

use std::fmt;

use super::Fault;
use crate::{certificate::NameAttribute, limits::NAME_VALUES_MAX, problem::nearest};

/// A policy variable: a name that has at most one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    ClientId,
    SourceIp,
    DomainName,
    CertificateId,
    ThingName,
    ThingTypeName,
    IsAttached,
    CurrentTime,
    EpochTime,
    /// `iot:Certificate.SerialNumber`
    SerialNumber,
    Attribute(Box<str>),
    /// The value at `index` of a part of a name.
    Name {
        part: NamePart,
        index: usize,
    },
}

/// What a condition compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Variable(Variable),
    /// `….List`: all values.
    List(NamePart),
    AvailableKeys,
    ConnectAttributes,
    LastWillTopic,
    IncludeSocketInformation,
}

/// What the values of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Text,
    Address,
    Bool,
    /// `aws:CurrentTime`
    Date,
    /// `aws:EpochTime`
    Epoch,
    Arn,
    /// Any number of texts.
    Texts,
}

/// A part of one of the names in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamePart {
    pub(super) whose: Whose,
    pub(super) attribute: NameAttribute,
}

/// Whose name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Issuer,
    Subject,
}

const VARIABLES: [(&str, Variable); 10] = [
    ("iot:ClientId", Variable::ClientId),
    ("aws:SourceIp", Variable::SourceIp),
    ("iot:DomainName", Variable::DomainName),
    ("iot:CertificateId", Variable::CertificateId),
    ("iot:Connection.Thing.ThingName", Variable::ThingName),
    (
        "iot:Connection.Thing.ThingTypeName",
        Variable::ThingTypeName,
    ),
    ("iot:Connection.Thing.IsAttached", Variable::IsAttached),
    ("aws:CurrentTime", Variable::CurrentTime),
    ("aws:EpochTime", Variable::EpochTime),
    (SERIAL_NUMBER, Variable::SerialNumber),
];
const KEYS: [(&str, Key); 4] = [
    ("iot:Certificate.AvailableKeys", Key::AvailableKeys),
    ("iot:ConnectAttributes", Key::ConnectAttributes),
    ("iot:LastWillTopic", Key::LastWillTopic),
    (
        "iot:IncludeSocketInformation",
        Key::IncludeSocketInformation,
    ),
];
const ATTRIBUTES: &str = "iot:Connection.Thing.Attributes[";
/// `iot:Certificate.SerialNumber`
pub(super) const SERIAL_NUMBER: &str = "iot:Certificate.SerialNumber";

macro_rules! name_parts {
    ($($name:literal $attribute:ident)*) => {
        /// What a certificate may say of its subject and its issuer.
        pub(super) const NAME_PARTS: &[(&str, NamePart)] = &[
            $((
                concat!("iot:Certificate.Subject.", $name),
                NamePart { whose: Whose::Subject, attribute: NameAttribute::$attribute },
            ),)*
            $((
                concat!("iot:Certificate.Issuer.", $name),
                NamePart { whose: Whose::Issuer, attribute: NameAttribute::$attribute },
            ),)*
        ];
    };
}

name_parts! {
    "DistinguishedNameQualifier" DistinguishedNameQualifier
    "Country" Country
    "Organization" Organization
    "OrganizationalUnit" OrganizationalUnit
    "State" State
    "CommonName" CommonName
    "SerialNumber" SerialNumber
    "Title" Title
    "Surname" Surname
    "GivenName" GivenName
    "Initials" Initials
    "Pseudonym" Pseudonym
    "GenerationQualifier" GenerationQualifier
    "AlternativeName.RFC822Name" Rfc822Name
    "AlternativeName.DNSName" DnsName
    "AlternativeName.DirectoryName" DirectoryName
    "AlternativeName.UniformResourceIdentifier" UniformResourceIdentifier
    "AlternativeName.IPAddress" IpAddress
}

impl Variable {
    /// The variable of this name; the error is message and remedy.
    pub(super) fn parse(name: &str) -> Result<Self, Fault> {
        match Key::find(name) {
            Some(Key::Variable(variable)) => Ok(variable),
            Some(_) => Err((
                format!("`{name}` is a condition key, no policy variable"),
                "use it on the left side of a condition; only what has one value can be put into \
                 a text"
                    .to_owned(),
            )),
            None if name.contains([',', '\'']) => Err((
                format!("policy variable `${{{name}}}` has a default value"),
                "remove the default: IAM knows it, AWS IoT does not".to_owned(),
            )),
            None => {
                let written = |name: &str| format!("${{{name}}}");
                Err(unknown(name, "policy variable", &[], &written))
            }
        }
    }
}

impl Key {
    /// The key of this name; the error is message and remedy.
    pub(super) fn parse(name: &str) -> Result<Self, Fault> {
        Self::find(name).ok_or_else(|| unknown(name, "condition key", &KEYS, &str::to_owned))
    }

    /// Whatever the case of its letters; the names of attributes are as they are.
    fn find(name: &str) -> Option<Self> {
        let is_name = |known: &str| known.eq_ignore_ascii_case(name);
        if let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| is_name(known)) {
            return Some(Self::Variable(variable.clone()));
        }
        if let Some((_, key)) = KEYS.iter().find(|(known, _)| is_name(known)) {
            return Some(key.clone());
        }
        let start = name.split_at_checked(ATTRIBUTES.len());
        if let Some((start, attribute)) = start
            && start.eq_ignore_ascii_case(ATTRIBUTES)
        {
            let attribute = attribute.strip_suffix(']')?;
            let is_name = !attribute.is_empty() && !attribute.contains(['[', ']']);
            return is_name.then(|| Self::Variable(Variable::Attribute(attribute.into())));
        }
        let part_of = |name: &str| {
            let mut parts = NAME_PARTS.iter();
            let found = parts.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, part)| *part)
        };
        if let Some(part) = part_of(name) {
            return Some(Self::Variable(Variable::Name { part, index: 0 }));
        }
        let (name, suffix) = name.rsplit_once('.')?;
        let part = part_of(name)?;
        if suffix.eq_ignore_ascii_case("List") {
            return Some(Self::List(part));
        }
        // `.1` is the second value; the first has no number, and none is written `.01`. What is not
        // kept never has a value.
        let index: usize = suffix.parse().ok()?;
        if index == 0 || index >= NAME_VALUES_MAX {
            return None;
        }
        (suffix == index.to_string()).then_some(Self::Variable(Variable::Name { part, index }))
    }

    /// What its values are.
    pub(super) const fn kind(&self) -> KeyKind {
        match self {
            Self::Variable(Variable::SourceIp) => KeyKind::Address,
            Self::Variable(Variable::IsAttached) | Self::IncludeSocketInformation => KeyKind::Bool,
            Self::Variable(Variable::CurrentTime) => KeyKind::Date,
            Self::Variable(Variable::EpochTime) => KeyKind::Epoch,
            Self::Variable(_) => KeyKind::Text,
            Self::List(_) | Self::AvailableKeys | Self::ConnectAttributes => KeyKind::Texts,
            Self::LastWillTopic => KeyKind::Arn,
        }
    }

    /// Whether it may differ between two requests of one connection.
    pub(super) const fn is_volatile(&self) -> bool {
        matches!(
            self,
            Self::Variable(Variable::CurrentTime | Variable::EpochTime)
                | Self::ConnectAttributes
                | Self::LastWillTopic
        )
    }
}

fn unknown(
    name: &str,
    what: &str,
    keys: &[(&'static str, Key)],
    written: &dyn Fn(&str) -> String,
) -> Fault {
    let fixed = VARIABLES.iter().map(|(known, _)| *known);
    let keys = keys.iter().map(|(known, _)| *known);
    let parts = NAME_PARTS.iter().map(|(known, _)| *known);
    let fixed = fixed.chain(keys);
    if let Some(part) = indexed_part(name) {
        let last = NAME_VALUES_MAX - 1;
        let remedy = format!(
            "write `{}` for the first value, and `.1` to `.{last}` for the second to the last that is \
             kept",
            written(part)
        );
        return (format!("unknown {what} `{}`", written(name)), remedy);
    }
    let remedy = match nearest(name, fixed.clone().chain(parts)) {
        Some(near) => format!("write `{}`", written(near)),
        None => format!(
            "use one of {}, {ATTRIBUTES}NAME], iot:Certificate.Subject.CommonName and its like \
             (`.1` for the second value)",
            fixed.collect::<Vec<_>>().join(", ")
        ),
    };
    (format!("unknown {what} `{}`", written(name)), remedy)
}

/// The part of a name that stands before a number.
fn indexed_part(name: &str) -> Option<&'static str> {
    let (start, index) = name.rsplit_once('.')?;
    let mut parts = NAME_PARTS.iter().map(|(known, _)| *known);
    let part = parts.find(|known| known.eq_ignore_ascii_case(start))?;
    index.bytes().all(|c| c.is_ascii_digit()).then_some(part)
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => write!(f, "{ATTRIBUTES}{name}]"),
            Self::Name { part, index: 0 } => f.write_str(part.name()),
            Self::Name { part, index } => write!(f, "{}.{index}", part.name()),
            fixed => {
                let known = VARIABLES.iter().find(|(_, variable)| variable == fixed);
                f.write_str(known.map_or("", |(name, _)| name))
            }
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(variable) => variable.fmt(f),
            Self::List(part) => write!(f, "{}.List", part.name()),
            fixed => {
                let known = KEYS.iter().find(|(_, key)| key == fixed);
                f.write_str(known.map_or("", |(name, _)| name))
            }
        }
    }
}

impl NamePart {
    fn name(self) -> &'static str {
        let known = NAME_PARTS.iter().find(|(_, part)| *part == self);
        known.map_or("", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Specification A.3.
    #[test]
    fn every_name_is_read_and_written_alike() {
        let fixed = VARIABLES.iter().map(|(name, _)| *name);
        let keys = KEYS.iter().map(|(name, _)| *name);
        let parts = NAME_PARTS.iter().map(|(name, _)| *name);
        let others = [
            "iot:Connection.Thing.Attributes[a:b]",
            "iot:Certificate.Subject.OrganizationalUnit.1",
            "iot:Certificate.Issuer.AlternativeName.DNSName.4",
            "iot:Certificate.Subject.AlternativeName.IPAddress.List",
        ];
        for name in fixed.chain(keys).chain(parts).chain(others) {
            assert_eq!(Key::parse(name).unwrap().to_string(), name);
        }
        assert_eq!(NAME_PARTS.len(), 2 * 18);
    }

    #[test]
    fn the_case_of_a_name_does_not_matter_but_in_the_names_of_attributes() {
        for (name, canonical) in [
            ("aws:sourceIp", "aws:SourceIp"),
            ("IOT:clientid", "iot:ClientId"),
            ("iot:connectattributes", "iot:ConnectAttributes"),
            (
                "iot:certificate.subject.commonname.LIST",
                "iot:Certificate.Subject.CommonName.List",
            ),
            (
                "iot:certificate.issuer.ALTERNATIVENAME.dnsname.4",
                "iot:Certificate.Issuer.AlternativeName.DNSName.4",
            ),
            (
                "iot:connection.thing.attributes[Zone]",
                "iot:Connection.Thing.Attributes[Zone]",
            ),
        ] {
            assert_eq!(Key::parse(name).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_refused_with_the_nearest() {
        for (name, remedy) in [
            ("iot:ClientI", "write `${iot:ClientId}`"),
            (
                "iot:Certificate.Subject.CommonName.5",
                "write `${iot:Certificate.Subject.CommonName}` for the first value, and `.1` to `.4`",
            ),
            (
                "iot:Certificate.Issuer.CommonName.99999999999999999999",
                "`.4`",
            ),
            (
                "iot:Certificate.Subject.CommonNam",
                "write `${iot:Certificate.Subject.CommonName}`",
            ),
            ("iot:Certificate.Subject.Locality", "use one of"),
            ("iot:Certificate.Subject.CommonName.0", "write"),
            ("iot:Certificate.Subject.CommonName.01", "write"),
            ("iot:Connection.Thing.Attributes[]", "use one of"),
            ("iot:Connection.Thing.Attributes[a", "use one of"),
            ("iot:ConnectAttributes", "left side of a condition"),
            ("iot:Certificate.Subject.Country.List", "left side"),
            ("iot:ClientId, 'default'", "remove the default"),
            ("aws:username", "use one of"),
            ("", "use one of"),
        ] {
            let (message, hint) = Variable::parse(name).unwrap_err();
            assert!(message.contains(name), "{message}");
            assert!(hint.contains(remedy), "{name}: {hint}");
        }
        let (_, hint) = Key::parse("iot:ConnectAttribute").unwrap_err();
        assert_eq!(hint, "write `iot:ConnectAttributes`");
    }
}
