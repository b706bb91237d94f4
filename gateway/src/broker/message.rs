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

/// Whether a payload is text if its format indicator says so (MQTT 5.0, 3.3.2.3.2).
pub(super) fn is_as_indicated(indicator: Option<u8>, payload: &[u8]) -> bool {
    indicator != Some(1) || std::str::from_utf8(payload).is_ok()
}

/// Topics that start like this are the gateway's own and go to no stream.
pub(super) fn is_reserved(topic: &TopicName) -> bool {
    topic.as_str().starts_with('$')
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

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn what_is_left_of_the_expiry_interval_goes_with_a_message() {
        let properties = Some(PublishProperties {
            message_expiry_interval: Some(10),
            content_type: Some("text/plain".to_owned()),
            ..PublishProperties::default()
        });
        let message = Message {
            topic: TopicName::parse("a").unwrap(),
            payload: Bytes::new(),
            qos: Qos::AtLeastOnce,
            retain: false,
            publisher: 1,
            expires_at: Message::expiry(properties.as_ref(), PUBLISHED),
            properties,
        };
        // Milliseconds that it waited, and the interval that is told then; none if it is over.
        for (waited, left) in [
            (0, Some(10)),
            (1, Some(10)),
            (3000, Some(7)),
            (9999, Some(1)),
            (10_000, None),
            (60_000, None),
        ] {
            let now = PUBLISHED.plus_millis(waited);
            assert_eq!(message.is_expired(now), left.is_none(), "{waited}");
            let told = message.properties_at(now).unwrap();
            if let Some(left) = left {
                assert_eq!(told.message_expiry_interval, Some(left), "{waited}");
            }
            assert_eq!(told.content_type.as_deref(), Some("text/plain"));
        }
    }

    #[test]
    fn a_format_indicator_of_1_takes_utf_8_alone() {
        for (payload, is_text) in [
            (&b""[..], true),
            ("gr\u{fc}n".as_bytes(), true),
            (b"\x00", true),
            (b"\xff", false),
            (b"\xc0\x80", false),
            (b"\xed\xa0\x80", false),
            (b"cut \xc3", false),
        ] {
            assert_eq!(is_as_indicated(Some(1), payload), is_text, "{payload:02x?}");
            assert!(is_as_indicated(Some(0), payload));
            assert!(is_as_indicated(None, payload));
        }
    }
}
