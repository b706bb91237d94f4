//! A message on its way to local subscribers.

use bytes::Bytes;
use portcullis_core::{event::Qos, timestamp::Timestamp, topic::TopicName};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

/// One accepted publish, as its receivers get it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    pub(super) topic: TopicName,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    /// Whether it was published with RETAIN.
    pub(super) retain: bool,
    /// Number of the session that published it.
    pub(super) publisher: u64,
    pub(super) properties: Option<PublishProperties>,
    /// When its expiry interval is over (MQTT 5.0, 3.3.2.3.3).
    pub(super) expires_at: Option<Timestamp>,
}

impl Message {
    /// When a message that comes `now` with these properties is over.
    pub(super) fn expiry(
        properties: Option<&PublishProperties>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let secs = properties?.message_expiry_interval?;
        Some(now.plus_millis(u64::from(secs) * 1000))
    }

    /// Whether its time is over.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// The properties with what is left of the expiry interval.
    pub(super) fn properties_at(&self, now: Timestamp) -> Option<PublishProperties> {
        let mut properties = self.properties.clone()?;
        if let Some(end) = self.expires_at {
            let left = end.millis_since(now).div_ceil(1000);
            properties.message_expiry_interval = Some(u32::try_from(left).unwrap_or(u32::MAX));
        }
        Some(properties)
    }

    /// What it takes of bounds: payload, topic and texts of the properties.
    pub(super) fn bytes(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, property_bytes);
        self.payload.len() + self.topic.as_str().len() + properties
    }
}

/// What the texts and data of the properties take.
pub(super) fn property_bytes(given: &PublishProperties) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let user = given
        .user_properties
        .iter()
        .map(|(name, value)| name.len() + value.len() + 5);
    user.sum::<usize>()
        + text(&given.response_topic)
        + text(&given.content_type)
        + given.correlation_data.as_ref().map_or(0, |data| data.len())
}
