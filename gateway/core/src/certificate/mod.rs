//! What a device certificate says of its holder: the values behind the policy variables
//! `iot:Certificate.*` (specification A.3).
//!
//! A certificate is parsed once, when its connection proves it. Whether it is to be believed was
//! decided before, by the chain; whether it may connect is decided by the registry.

mod key;
mod names;

pub use key::{KeyError, check_key};
pub use names::{NameAttribute, Names, escaped};

use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer, X509Certificate},
};

use crate::{identity::CertificateId, limits::SERIAL_BYTES_MAX, timestamp::Timestamp};

#[cfg(test)]
mod tests;

/// A parsed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of its DER form.
    pub id: CertificateId,
    /// The serial number in decimal, as policies see it. Empty, which is no value, if it was never
    /// seen or is longer than [`SERIAL_BYTES_MAX`].
    pub serial_number: String,
    /// The same in lower-case hex without separators, as the certificate has it, for people and for
    /// revocation lists.
    pub serial_hex: String,
    /// Subject, and subject alternative names.
    pub subject: Names,
    /// Issuer, and issuer alternative names.
    pub issuer: Names,
    /// First moment of its life.
    pub not_before: Timestamp,
    /// Last moment of its life.
    pub not_after: Timestamp,
}

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
        let mut issuer = Names::of(parsed.issuer());
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    subject.add_alternatives(&names.general_names);
                }
                ParsedExtension::IssuerAlternativeName(names) => {
                    issuer.add_alternatives(&names.general_names);
                }
                _ => {}
            }
        }
        Ok(Self {
            id: CertificateId::of_der(der),
            serial_number: decimal(parsed.raw_serial()),
            serial_hex: parsed
                .raw_serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            subject,
            issuer,
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
            serial_hex: String::new(),
            subject: Names::default(),
            issuer: Names::default(),
            not_before: Timestamp::from_millis(0),
            not_after: Timestamp::from_millis(u64::MAX),
        }
    }
}

/// An unsigned big-endian integer in decimal.
fn decimal(bytes: &[u8]) -> String {
    if bytes.len() > SERIAL_BYTES_MAX {
        return String::new();
    }
    // Last digit first.
    let mut digits = vec![0_u8];
    for byte in bytes {
        let mut carry = u16::from(*byte);
        for digit in &mut digits {
            carry += u16::from(*digit) * 256;
            *digit = u8::try_from(carry % 10).unwrap_or(0);
            carry /= 10;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 10).unwrap_or(0));
            carry /= 10;
        }
    }
    let digits = digits.iter().rev();
    digits.map(|digit| char::from(b'0' + digit)).collect()
}
