//! Who is at the other end: things, groups, certificates, principals.

use std::{borrow::Borrow, collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    certificate::Certificate,
    limits::{CLIENT_ID_BYTES_MAX, NAME_BYTES_MAX},
    policy::{Context, PolicySet},
    timestamp::Timestamp,
};

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or over [`NAME_BYTES_MAX`].
    #[error("a name has 1 to {NAME_BYTES_MAX} characters")]
    Length,
    /// A character that AWS refuses.
    #[error("a name consists of letters, digits, `:`, `_` and `-`")]
    Character,
}

/// Why a text is no client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdError {
    /// Empty or over [`CLIENT_ID_BYTES_MAX`].
    #[error("a client id has 1 to {CLIENT_ID_BYTES_MAX} bytes")]
    Length,
    /// A character that means something in a policy or a topic filter.
    #[error("a client id must not contain `+ # * ? $ /` or control characters")]
    Character,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `text`: 1 to 128 of `[a-zA-Z0-9:_-]` (specification A.10).
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_name(text).map(|()| Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// Name of a thing.
    ThingName
}
name! {
    /// Name of a thing group.
    GroupName
}
name! {
    /// Name of a thing type.
    ThingTypeName
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(NameError::Length);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
    if text.chars().all(allowed) {
        Ok(())
    } else {
        Err(NameError::Character)
    }
}

/// An MQTT client id that cannot be mistaken for a pattern (specification A.3, "injection rule").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Checks `text` as it came in a CONNECT.
    pub fn parse(text: &str) -> Result<Self, ClientIdError> {
        if text.is_empty() || text.len() > CLIENT_ID_BYTES_MAX {
            return Err(ClientIdError::Length);
        }
        if text.contains(['+', '#', '*', '?', '$', '/']) || text.chars().any(char::is_control) {
            return Err(ClientIdError::Character);
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of a certificate's DER form; shown as 64 lower-case hex digits (specification A.11).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateId([u8; 32]);

impl CertificateId {
    /// The id of the certificate with this DER form.
    pub fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |c: u8| {
                char::from(c)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A device as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// Its name.
    pub name: ThingName,
    /// Its type, if any.
    pub thing_type: Option<ThingTypeName>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// The static groups that it is in, ancestors included, in the registry's order.
    pub groups: Arc<[GroupName]>,
}

/// What happens to a client that publishes where it may not (specification A.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPublishDenied {
    /// Close the connection, as AWS does.
    #[default]
    Disconnect,
    /// MQTT 5: PUBACK 0x87; MQTT 3.1.1: disconnect.
    PubackError,
    /// Acknowledge and forget.
    DropAndAck,
}

/// Who acts: the outcome of authentication, fixed for a connection until the registry changes.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The thing; `None` for an unregistered device on a plain listener.
    pub thing: Option<Arc<Thing>>,
    /// The client id of the connection.
    pub client_id: ClientId,
    /// The certificate that was presented; `None` on a plain listener.
    pub certificate: Option<Arc<Certificate>>,
    /// The address of the peer.
    pub source: IpAddr,
    /// The host name that the client asked for in TLS (SNI).
    pub domain: Option<Arc<str>>,
    /// Everything that applies: policies of the certificate, of the groups and their ancestors.
    pub policies: PolicySet,
    /// When it ends: with its certificate, or earlier if the registry says so.
    pub valid_until: Option<Timestamp>,
    /// The provisioning template for which its certificate is a claim; it is no thing then.
    pub claim: Option<Arc<str>>,
    /// What its groups ask for instead of the gateway's setting.
    pub on_publish_denied: Option<OnPublishDenied>,
}

impl Principal {
    /// The name under which the device is known upstream: its thing's, else its client id.
    pub fn device(&self) -> &str {
        self.thing
            .as_ref()
            .map_or(self.client_id.as_str(), |thing| thing.name.as_str())
    }

    /// Id of the certificate that was presented.
    pub fn certificate_id(&self) -> Option<CertificateId> {
        self.certificate.as_ref().map(|certificate| certificate.id)
    }

    /// What policy variables stand for when it acts at `now`.
    pub fn context(&self, now: Timestamp) -> Context<'_> {
        Context {
            client_id: &self.client_id,
            thing: self.thing.as_deref(),
            certificate: self.certificate.as_deref(),
            source: Some(self.source),
            domain: self.domain.as_deref(),
            now,
            connect: None,
        }
    }

    /// The groups of the thing.
    pub fn groups(&self) -> Arc<[GroupName]> {
        self.thing
            .as_ref()
            .map_or_else(|| Arc::from([]), |thing| thing.groups.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_aws_takes() {
        assert!(ThingName::parse("sensor-7_a:b").is_ok());
        assert_eq!(ThingName::parse(""), Err(NameError::Length));
        assert_eq!(ThingName::parse(&"a".repeat(129)), Err(NameError::Length));
        assert_eq!(ThingName::parse("a b"), Err(NameError::Character));
        assert_eq!(GroupName::parse("ä"), Err(NameError::Character));
    }

    #[test]
    fn client_ids_that_look_like_patterns_are_refused() {
        for id in ["+", "#", "*", "?", "${iot:ClientId}", "a/b", "a\n"] {
            assert_eq!(ClientId::parse(id), Err(ClientIdError::Character), "{id:?}");
        }
        assert!(ClientId::parse("sensor 7").is_ok());
    }

    #[test]
    fn certificate_ids_are_sha_256_in_hex() {
        let id = CertificateId::of_der(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(id.to_string(), text);
        assert_eq!(CertificateId::parse(text), Some(id));
        assert_eq!(CertificateId::parse("e3"), None);
    }
}
