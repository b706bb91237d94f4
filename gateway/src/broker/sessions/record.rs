//! What the session log says: one change of a session or of a retained message.
//!
//! A message is written once, as a [`Record::Body`], whatever the number of its receivers. Those
//! [`Record::Queue`]s count only if the [`Record::Routed`] of the message follows: with a QoS 2
//! publish it says in the same moment that the packet id of the publisher is taken, so that a
//! publisher that comes again after a crash has its message delivered once and not twice.

use bytes::{Bytes, BytesMut};
use portcullis_core::{event::Qos, timestamp::Timestamp, topic::TopicName};
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde::{Deserialize, Serialize};

use crate::broker::message::Message;

/// The first byte of every record: what follows is as this version writes it.
const VERSION: u8 = 1;

/// See the module. Sessions are named by their number, which is used once.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Record<'a> {
    /// A session as it begins, or as it is at a checkpoint: what was said before about its number is
    /// void.
    Session {
        number: u64,
        client_id: &'a str,
        #[serde(borrow)]
        owner: Option<&'a str>,
        expiry_secs: u32,
        /// Milliseconds since the epoch at which its connection ended; `None` while it has one.
        away_since: Option<u64>,
        /// Number of the next message of its queue, and of the first that was never sent.
        next: u64,
        unsent: u64,
    },
    End {
        number: u64,
    },
    /// The connection began or ended, or its end changed what comes then.
    Expiry {
        number: u64,
        expiry_secs: u32,
        away_since: Option<u64>,
    },
    Subscribe {
        number: u64,
        /// As in the SUBSCRIBE, `$share/…` included.
        filter: &'a str,
        qos: u8,
        no_local: bool,
        retain_as_published: bool,
        identifier: Option<u32>,
    },
    Unsubscribe {
        number: u64,
        filter: &'a str,
    },
    Body {
        id: u64,
        #[serde(borrow)]
        message: Stored<'a>,
    },
    Queue {
        number: u64,
        /// Its number in the queue.
        place: u64,
        id: u64,
        qos: u8,
        retain: bool,
        /// The filters that it came for.
        #[serde(borrow)]
        filters: Vec<&'a str>,
        identifiers: Vec<u32>,
    },
    Routed {
        id: u64,
        /// Session and packet id of a QoS 2 publish.
        incoming: Option<(u64, u16)>,
    },
    /// Messages before this one were sent.
    Sent {
        number: u64,
        unsent: u64,
    },
    /// The PUBREC came.
    Received {
        number: u64,
        place: u64,
    },
    /// The exchange is over.
    Gone {
        number: u64,
        place: u64,
    },
    /// A QoS 2 publish, at a checkpoint.
    Incoming {
        number: u64,
        pkid: u16,
    },
    Released {
        number: u64,
        pkid: u16,
    },
    /// What is published when the client stays away.
    Will {
        number: u64,
        due: u64,
        #[serde(borrow)]
        message: Stored<'a>,
    },
    /// It came back in time, or the will was published.
    NoWill {
        number: u64,
    },
    Retain {
        id: u64,
    },
    NotRetained {
        topic: &'a str,
    },
}

/// A message.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    topic: &'a str,
    payload: &'a [u8],
    qos: u8,
    retain: bool,
    publisher: u64,
    /// As they stand in a PUBLISH.
    properties: Vec<u8>,
    expires_at: Option<u64>,
}

impl<'a> Stored<'a> {
    pub(super) fn of(message: &'a Message) -> Self {
        let mut properties = BytesMut::new();
        if let Some(given) = &message.properties {
            // What came in a packet fits into one; what does not is left out.
            let written = given.write(&mut properties);
            if written.is_err() {
                properties.clear();
            }
        }
        Self {
            topic: message.topic.as_str(),
            payload: &message.payload,
            qos: message.qos.as_u8(),
            retain: message.retain,
            publisher: message.publisher,
            properties: properties.to_vec(),
            expires_at: message.expires_at.map(Timestamp::as_millis),
        }
    }

    pub(super) fn message(&self) -> Result<Message, String> {
        let mut properties = Bytes::copy_from_slice(&self.properties);
        let properties = if properties.is_empty() {
            None
        } else {
            PublishProperties::read(&mut properties).map_err(|error| error.to_string())?
        };
        Ok(Message {
            topic: TopicName::parse(self.topic).map_err(|error| error.to_string())?,
            payload: Bytes::copy_from_slice(self.payload),
            qos: Qos::from_u8(self.qos),
            retain: self.retain,
            publisher: self.publisher,
            properties,
            expires_at: self.expires_at.map(Timestamp::from_millis),
        })
    }
}

impl Record<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION])
            .expect("texts, numbers and lists of known length are written to a vector")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Record<'_>, String> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|error| error.to_string()),
            Some((version, _)) => Err(format!("a record of version {version}")),
            None => Err("an empty record".to_owned()),
        }
    }
}
