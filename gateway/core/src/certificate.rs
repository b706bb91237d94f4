//! What a device certificate says of its holder: the values behind the policy variables
//! `iot:Certificate.*` (specification A.3).
//!
//! A certificate is parsed once, when its connection proves it. Whether it is to be believed was
//! decided before, by the chain; whether it may connect is decided by the registry.

use std::{collections::BTreeMap, net::IpAddr};

use x509_parser::{
    der_parser::oid::Oid,
    extensions::GeneralName,
    oid_registry as oid,
    prelude::{FromDer, X509Certificate, X509Name},
};

use crate::{identity::CertificateId, limits::NAME_VALUES_MAX, timestamp::Timestamp};

/// A parsed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of its DER form.
    pub id: CertificateId,
    /// Lower-case hex without separators.
    pub serial_number: String,
    /// Subject, and subject alternative names.
    pub subject: Names,
    /// Issuer, and issuer alternative names.
    pub issuer: Names,
    /// First moment of its life.
    pub not_before: Timestamp,
    /// Last moment of its life.
    pub not_after: Timestamp,
}

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
pub struct Names(BTreeMap<NameAttribute, Vec<String>>);

/// The bytes are no X.509 certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate in DER")]
pub struct NoCertificate;

impl Certificate {
    /// Reads the DER form.
    pub fn parse(der: &[u8]) -> Result<Self, NoCertificate> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| NoCertificate)?;
        // Before 1970 is as good as 1970.
        let moment = |time: x509_parser::time::ASN1Time| {
            let secs = u64::try_from(time.timestamp()).unwrap_or(0);
            Timestamp::from_millis(secs.saturating_mul(1000))
        };
        let mut subject = Names::of(parsed.subject());
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            subject.add_alternatives(&names.value.general_names);
        }
        Ok(Self {
            id: CertificateId::of_der(der),
            serial_number: parsed
                .raw_serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            subject,
            issuer: Names::of(parsed.issuer()),
            not_before: moment(parsed.validity().not_before),
            not_after: moment(parsed.validity().not_after),
        })
    }
}

impl Certificate {
    /// One of which nothing but the id is known: its certificate variables have no value.
    pub fn unseen(id: CertificateId) -> Self {
        Self {
            id,
            serial_number: String::new(),
            subject: Names::default(),
            issuer: Names::default(),
            not_before: Timestamp::from_millis(0),
            not_after: Timestamp::from_millis(u64::MAX),
        }
    }
}

impl Names {
    /// All values of one kind; empty if there are none.
    pub fn get(&self, attribute: NameAttribute) -> &[String] {
        self.0.get(&attribute).map_or(&[], Vec::as_slice)
    }

    fn of(name: &X509Name<'_>) -> Self {
        let mut names = Self::default();
        for attribute in name.iter_attributes() {
            if let (Some(kind), Ok(value)) = (kind_of(attribute.attr_type()), attribute.as_str()) {
                names.add(kind, value.to_owned());
            }
        }
        names
    }

    fn add(&mut self, kind: NameAttribute, value: String) {
        let values = self.0.entry(kind).or_default();
        if values.len() < NAME_VALUES_MAX {
            values.push(value);
        }
    }

    fn add_alternatives(&mut self, alternatives: &[GeneralName<'_>]) {
        for alternative in alternatives {
            match alternative {
                GeneralName::RFC822Name(mail) => {
                    self.add(NameAttribute::Rfc822Name, (*mail).to_owned());
                }
                GeneralName::DNSName(host) => self.add(NameAttribute::DnsName, (*host).to_owned()),
                GeneralName::DirectoryName(name) => {
                    self.add(NameAttribute::DirectoryName, name.to_string());
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
