//! Distinguished names and alternative names, as policy variables show them.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use sha2::{Digest, Sha256};
use x509_parser::{
    der_parser::{asn1_rs::Tag, oid::Oid},
    extensions::GeneralName,
    oid_registry as oid,
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::limits::NAME_VALUES_MAX;

/// A part of a distinguished name, or a kind of alternative name, in AWS's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameAttribute {
    /// 2.5.4.46
    DistinguishedNameQualifier,
    /// 2.5.4.6
    Country,
    /// 2.5.4.10
    Organization,
    /// 2.5.4.11
    OrganizationalUnit,
    /// 2.5.4.8, stateOrProvinceName
    State,
    /// 2.5.4.3
    CommonName,
    /// 2.5.4.5, not the serial number of the certificate
    SerialNumber,
    /// 2.5.4.12
    Title,
    /// 2.5.4.4
    Surname,
    /// 2.5.4.42
    GivenName,
    /// 2.5.4.43
    Initials,
    /// 2.5.4.65
    Pseudonym,
    /// 2.5.4.44
    GenerationQualifier,
    /// Alternative name: mail address
    Rfc822Name,
    /// Alternative name: host
    DnsName,
    /// Alternative name: distinguished name
    DirectoryName,
    /// Alternative name: URI
    UniformResourceIdentifier,
    /// Alternative name: address
    IpAddress,
}

/// The values of a distinguished name and its alternative names, at most [`NAME_VALUES_MAX`] of each
/// kind, in the order of the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    values: BTreeMap<NameAttribute, Values>,
    fingerprint: Option<[u8; 32]>,
}

/// The values of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Values {
    kept: Vec<String>,
    /// For each that is kept, its escaped form if that is another. Made once: policies compare often.
    escaped: Vec<Option<Box<str>>>,
    /// Whether the certificate has more.
    more: bool,
}

impl Names {
    /// All values of one kind; empty if there are none.
    pub fn get(&self, attribute: NameAttribute) -> &[String] {
        self.values
            .get(&attribute)
            .map_or(&[], |values| &values.kept)
    }

    /// The value at `index` with the special characters of distinguished names behind a backslash,
    /// as AWS wants it in what a condition compares with (specification A.3); `None` if that is the
    /// value itself. A directory name has them already.
    pub fn escaped(&self, attribute: NameAttribute, index: usize) -> Option<&str> {
        self.values.get(&attribute)?.escaped.get(index)?.as_deref()
    }

    /// Whether the certificate has values of this kind beyond the [`NAME_VALUES_MAX`] that are kept.
    pub fn has_more(&self, attribute: NameAttribute) -> bool {
        let values = self.values.get(&attribute);
        values.is_some_and(|values| values.more)
    }

    /// SHA-256 of the whole distinguished name in DER, also of what has no variable; `None` if the
    /// certificate was never seen. Two names are the same if this is.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        self.fingerprint
    }

    /// See [`Self::fingerprint`].
    pub fn fingerprint_of(name_der: &[u8]) -> [u8; 32] {
        Sha256::digest(name_der).into()
    }

    pub(super) fn of(name: &X509Name<'_>) -> Self {
        let mut names = Self {
            fingerprint: Some(Self::fingerprint_of(name.as_raw())),
            ..Self::default()
        };
        for attribute in name.iter_attributes() {
            if let (Some(kind), Some(value)) = (kind_of(attribute.attr_type()), text_of(attribute))
            {
                names.add(kind, value);
            }
        }
        names
    }

    fn add(&mut self, kind: NameAttribute, value: String) {
        let values = self.values.entry(kind).or_default();
        if values.kept.len() == NAME_VALUES_MAX {
            values.more = true;
            return;
        }
        let written = match escaped(&value) {
            Cow::Owned(written) if kind != NameAttribute::DirectoryName => Some(written.into()),
            _ => None,
        };
        values.escaped.push(written);
        values.kept.push(value);
    }

    pub(super) fn add_alternatives(&mut self, alternatives: &[GeneralName<'_>]) {
        for alternative in alternatives {
            match alternative {
                GeneralName::RFC822Name(mail) => {
                    self.add(NameAttribute::Rfc822Name, (*mail).to_owned());
                }
                GeneralName::DNSName(host) => self.add(NameAttribute::DnsName, (*host).to_owned()),
                GeneralName::DirectoryName(name) => {
                    self.add(NameAttribute::DirectoryName, directory_name(name));
                }
                GeneralName::URI(uri) => {
                    self.add(NameAttribute::UniformResourceIdentifier, (*uri).to_owned());
                }
                GeneralName::IPAddress(bytes) => {
                    let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                    if let Ok(address) = address {
                        self.add(NameAttribute::IpAddress, address.to_string());
                    }
                }
                _ => {}
            }
        }
    }
}

/// The text of one attribute, in any of the kinds of string that X.520 allows.
fn text_of(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    if let Ok(text) = attribute.as_str() {
        return Some(text.to_owned());
    }
    let value = attribute.attr_value();
    match value.tag() {
        Tag::BmpString => {
            let units = value.data.chunks_exact(2);
            let units = units.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        // In practice Latin-1.
        Tag::TeletexString => Some(value.data.iter().copied().map(char::from).collect()),
        _ => None,
    }
}

/// A distinguished name as RFC 4514 writes it: the last part first, special characters escaped.
fn directory_name(name: &X509Name<'_>) -> String {
    let part = |attribute: &AttributeTypeAndValue<'_>| {
        let value = text_of(attribute).unwrap_or_default();
        let id = attribute.attr_type();
        let known = SHORT_NAMES.into_iter().find(|(known, _)| known == id);
        let name = known.map_or_else(|| id.to_id_string(), |(_, name)| name.to_owned());
        format!("{name}={}", escaped(&value))
    };
    let mut parts: Vec<String> = name
        .iter()
        .map(|set| set.iter().map(part).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(",")
}

/// `value` with the characters that mean something in a distinguished name behind a backslash
/// (RFC 4514, 2.4): so AWS wants the values that a condition compares with those of a certificate
/// (specification A.3).
pub fn escaped(value: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=');
    let at_edge = value.starts_with(['#', ' ']) || value.ends_with(' ');
    if !at_edge && !value.contains(special) && !value.contains('\0') {
        return Cow::Borrowed(value);
    }
    let last = value.char_indices().last().map_or(0, |(at, _)| at);
    let mut text = String::with_capacity(value.len() + 8);
    for (at, c) in value.char_indices() {
        let at_edge = at == 0 && matches!(c, '#' | ' ') || at == last && c == ' ';
        if c == '\0' {
            text.push_str("\\00");
            continue;
        }
        if special(c) || at_edge {
            text.push('\\');
        }
        text.push(c);
    }
    Cow::Owned(text)
}

/// How RFC 4514 and its relatives abbreviate.
const SHORT_NAMES: [(Oid<'static>, &str); 9] = [
    (oid::OID_X509_COMMON_NAME, "CN"),
    (oid::OID_X509_COUNTRY_NAME, "C"),
    (oid::OID_X509_LOCALITY_NAME, "L"),
    (oid::OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
    (oid::OID_X509_STREET_ADDRESS, "STREET"),
    (oid::OID_X509_ORGANIZATION_NAME, "O"),
    (oid::OID_X509_ORGANIZATIONAL_UNIT, "OU"),
    (oid::OID_DOMAIN_COMPONENT, "DC"),
    (oid::OID_USERID, "UID"),
];

fn kind_of(id: &Oid<'_>) -> Option<NameAttribute> {
    let known = [
        (oid::OID_X509_COMMON_NAME, NameAttribute::CommonName),
        (oid::OID_X509_COUNTRY_NAME, NameAttribute::Country),
        (oid::OID_X509_STATE_OR_PROVINCE_NAME, NameAttribute::State),
        (oid::OID_X509_ORGANIZATION_NAME, NameAttribute::Organization),
        (
            oid::OID_X509_ORGANIZATIONAL_UNIT,
            NameAttribute::OrganizationalUnit,
        ),
        (oid::OID_X509_SERIALNUMBER, NameAttribute::SerialNumber),
        (oid::OID_X509_TITLE, NameAttribute::Title),
        (oid::OID_X509_SURNAME, NameAttribute::Surname),
        (oid::OID_X509_GIVEN_NAME, NameAttribute::GivenName),
        (oid::OID_X509_INITIALS, NameAttribute::Initials),
        (
            oid::OID_X509_GENERATION_QUALIFIER,
            NameAttribute::GenerationQualifier,
        ),
        (
            oid::OID_X509_DN_QUALIFIER,
            NameAttribute::DistinguishedNameQualifier,
        ),
        (PSEUDONYM, NameAttribute::Pseudonym),
    ];
    known
        .iter()
        .find(|(known, _)| known == id)
        .map(|(_, kind)| *kind)
}

/// 2.5.4.65, which the registry of the parser does not have.
const PSEUDONYM: Oid<'static> = x509_parser::der_parser::oid!(2.5.4.65);
