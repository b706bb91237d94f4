//! The value that flows: one accepted publish.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    identity::{ClientId, GroupName, ThingName},
    timestamp::Timestamp,
    topic::TopicName,
};

/// MQTT quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

impl Qos {
    /// 0, 1 or 2.
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// What [`Self::as_u8`] gave; a number out of range is the highest.
    pub const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            _ => Self::ExactlyOnce,
        }
    }
}

/// One publish that admission let pass. Lives in memory; its durable form is a
/// [`Record`](crate::record::Record).
#[derive(Clone, Debug)]
pub struct Event {
    /// The thing that published; `None` for an unregistered device.
    pub thing: Option<ThingName>,
    /// The thing's groups at that moment.
    pub groups: Arc<[GroupName]>,
    /// The client id of the connection.
    pub client_id: ClientId,
    /// When the gateway received it.
    pub received_at: Timestamp,
    /// Where it was published.
    pub topic: TopicName,
    /// What was published.
    pub payload: Bytes,
    /// With which quality of service.
    pub qos: Qos,
    /// Whether as a retained message.
    pub retain: bool,
    /// MQTT 5 user properties, in order.
    pub user_properties: Vec<(String, String)>,
}

impl Event {
    /// The name that decides shard, lane and partition key: the thing's, else the client id.
    pub fn device(&self) -> &str {
        self.thing
            .as_ref()
            .map_or(self.client_id.as_str(), ThingName::as_str)
    }
}
