//! What one client, one certificate and one address may have of the gateway: the settings.
//!
//! Sizes can be set lower than what the protocol and AWS allow, never higher.

use std::{fmt, time::Duration};

use portcullis_core::{
    limits::{
        CLIENT_ID_BYTES_MAX, HANDSHAKES_BURST, HANDSHAKES_PER_ADDRESS_MAX, HANDSHAKES_PER_SECOND,
        PROPERTY_BYTES_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_MESSAGES_MAX, SESSIONS_MAX,
        SESSIONS_QUEUE_BYTES_MAX, SUBSCRIPTIONS_HARD_MAX, SUBSCRIPTIONS_PER_SESSION_MAX,
        SYS_INTERVAL, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX,
    },
    rate::Allowance,
    session::OutgoingBounds,
    topic::{Subscribed, TopicError, TopicName},
};
use serde::Deserialize;

use super::{config::BrokerToml, sessions::Bounds, shared::Shared};
use crate::document::Section;

/// Rates and counts beyond it are no limits.
const ANY_MAX: usize = 1_000_000_000;
/// The same of rates.
const RATE_MAX: u64 = 1_000_000_000;

/// Validated settings. A maximum of 0 is none where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one address to TLS listeners; 0: any number.
    pub connections_per_address_max: usize,
    /// Connected clients with one certificate; 0: any number.
    pub connections_per_certificate_max: usize,
    /// TLS handshakes of one address under way at once.
    pub handshakes_per_address_max: usize,
    /// TLS handshakes that one address may begin.
    pub handshakes_per_address: Option<Allowance>,
    /// Subscriptions of one client.
    pub subscriptions_per_client_max: usize,
    /// Topic names and filters.
    pub topic_bytes_max: usize,
    /// Levels of topic names and filters.
    pub topic_levels_max: usize,
    /// Client ids.
    pub client_id_bytes_max: usize,
    /// User properties and other texts of one publish or will.
    pub property_bytes_max: usize,
    /// How much one client may publish.
    pub publish: PublishLimits,
    /// Sessions in all.
    pub sessions_max: usize,
    /// Messages of QoS 1 and 2 that wait for one client.
    pub queue_messages_max: usize,
    /// What they take.
    pub queue_bytes_max: usize,
    /// How often `$SYS/broker/…` is told; `None`: never.
    pub sys_interval: Option<Duration>,
}

/// How much one client may publish, unless its groups say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishLimits {
    /// Publishes.
    pub messages: Option<Allowance>,
    /// Topics and payloads.
    pub bytes: Option<Allowance>,
    /// What happens beyond it.
    pub action: OnPublishRate,
}

/// A bound on what clients say, as metrics name it: by its setting, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    PacketBytes,
    PayloadBytes,
    TopicBytes,
    TopicLevels,
    PropertyBytes,
    Subscriptions,
    Filters,
}

/// What a client said is no topic here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadTopic {
    detail: String,
    /// The bound that it is beyond; `None`: it is none anywhere.
    pub(super) bound: Option<Bound>,
}

/// What happens to a client that publishes more than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPublishRate {
    /// Nothing more is read from it until it is its turn.
    #[default]
    Delay,
    /// The publish goes nowhere.
    Drop,
    /// The connection is closed.
    Disconnect,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_address_max: 0,
            connections_per_certificate_max: 0,
            handshakes_per_address_max: HANDSHAKES_PER_ADDRESS_MAX,
            handshakes_per_address: Allowance::new(HANDSHAKES_PER_SECOND, HANDSHAKES_BURST),
            subscriptions_per_client_max: SUBSCRIPTIONS_PER_SESSION_MAX,
            topic_bytes_max: TOPIC_BYTES_MAX,
            topic_levels_max: TOPIC_LEVELS_MAX,
            client_id_bytes_max: CLIENT_ID_BYTES_MAX,
            property_bytes_max: PROPERTY_BYTES_MAX,
            publish: PublishLimits::default(),
            sessions_max: SESSIONS_MAX,
            queue_messages_max: SESSION_QUEUE_MESSAGES_MAX,
            queue_bytes_max: SESSION_QUEUE_BYTES_MAX,
            sys_interval: Some(SYS_INTERVAL),
        }
    }
}

impl Limits {
    /// The topic name that a packet holds.
    pub(super) fn topic(&self, bytes: &[u8]) -> Result<TopicName, BadTopic> {
        let topic = TopicName::parse_bytes(bytes)?;
        self.check_topic(topic.as_str())?;
        Ok(topic)
    }

    /// What a SUBSCRIBE names.
    pub(super) fn filter(&self, text: &str) -> Result<Subscribed, BadTopic> {
        let subscribed = Subscribed::parse(text)?;
        self.check_topic(subscribed.filter.as_str())?;
        Ok(subscribed)
    }

    fn check_topic(&self, topic: &str) -> Result<(), BadTopic> {
        let beyond = |bound, detail| {
            Err(BadTopic {
                detail,
                bound: Some(bound),
            })
        };
        let (bytes, levels) = (self.topic_bytes_max, self.topic_levels_max);
        if topic.len() > bytes {
            let detail = format!("a topic has at most {bytes} bytes here");
            return beyond(Bound::TopicBytes, detail);
        }
        if topic.split('/').count() > levels {
            let detail = format!("a topic has at most {levels} levels here");
            return beyond(Bound::TopicLevels, detail);
        }
        Ok(())
    }

    /// What sessions may keep.
    pub(super) fn of_sessions(&self) -> Bounds {
        Bounds {
            sessions_max: self.sessions_max,
            queue: OutgoingBounds {
                messages_max: self.queue_messages_max,
                bytes_max: self.queue_bytes_max,
            },
        }
    }

    pub(super) fn read(section: &mut Section<'_, '_>, toml: &BrokerToml) -> Self {
        let mut count = |key, value, min, max| section.within(key, value, min, max);
        Self {
            connections_per_address_max: count(
                "connections-per-address-max",
                toml.connections_per_address_max,
                0,
                ANY_MAX,
            ),
            connections_per_certificate_max: count(
                "connections-per-certificate-max",
                toml.connections_per_certificate_max,
                0,
                ANY_MAX,
            ),
            handshakes_per_address_max: count(
                "handshakes-per-address-max",
                toml.handshakes_per_address_max,
                1,
                4096,
            ),
            subscriptions_per_client_max: count(
                "subscriptions-per-client-max",
                toml.subscriptions_per_client_max,
                1,
                SUBSCRIPTIONS_HARD_MAX,
            ),
            topic_bytes_max: count("topic-bytes-max", toml.topic_bytes_max, 1, TOPIC_BYTES_MAX),
            topic_levels_max: count(
                "topic-levels-max",
                toml.topic_levels_max,
                1,
                TOPIC_LEVELS_MAX,
            ),
            client_id_bytes_max: count(
                "client-id-bytes-max",
                toml.client_id_bytes_max,
                1,
                CLIENT_ID_BYTES_MAX,
            ),
            property_bytes_max: count(
                "property-bytes-max",
                toml.property_bytes_max,
                0,
                PROPERTY_BYTES_MAX,
            ),
            sessions_max: count("sessions-max", toml.sessions_max, 1, 1_000_000),
            queue_messages_max: count("queue-messages-max", toml.queue_messages_max, 1, 1_000_000),
            queue_bytes_max: count(
                "queue-bytes-max",
                toml.queue_bytes_max,
                1024,
                SESSIONS_QUEUE_BYTES_MAX,
            ),
            handshakes_per_address: allowance(
                section,
                ("handshakes-per-second", toml.handshakes_per_second),
                ("handshakes-burst", toml.handshakes_burst),
            ),
            publish: PublishLimits {
                messages: allowance(
                    section,
                    ("publish-rate", toml.publish_rate),
                    ("publish-burst", toml.publish_burst),
                ),
                bytes: allowance(
                    section,
                    ("publish-bytes-per-second", toml.publish_bytes_per_second),
                    ("publish-bytes-burst", toml.publish_bytes_burst),
                ),
                action: toml.on_publish_rate,
            },
            sys_interval: match toml.sys_interval_ms {
                0 => None,
                millis => {
                    let millis = section.within("sys-interval-ms", millis, 100, 86_400_000);
                    Some(Duration::from_millis(millis))
                }
            },
        }
    }
}

fn allowance(
    section: &mut Section<'_, '_>,
    (rate_key, rate): (&str, u64),
    (burst_key, burst): (&str, u64),
) -> Option<Allowance> {
    let rate = section.within(rate_key, rate, 0, RATE_MAX);
    Allowance::new(rate, section.within(burst_key, burst, 0, RATE_MAX))
}

impl Bound {
    /// The metric label.
    const fn label(self) -> &'static str {
        match self {
            Self::PacketBytes => "packet-bytes-max",
            Self::PayloadBytes => "payload",
            Self::TopicBytes => "topic-bytes-max",
            Self::TopicLevels => "topic-levels-max",
            Self::PropertyBytes => "property-bytes-max",
            Self::Subscriptions => "subscriptions-per-client-max",
            Self::Filters => "filters-of-one-subscribe",
        }
    }
}

impl fmt::Display for BadTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<TopicError> for BadTopic {
    fn from(error: TopicError) -> Self {
        Self {
            detail: error.to_string(),
            bound: match error {
                TopicError::TooLong => Some(Bound::TopicBytes),
                TopicError::TooDeep => Some(Bound::TopicLevels),
                _ => None,
            },
        }
    }
}

impl Shared {
    /// Counts what a client said beyond a bound.
    pub(super) fn count_beyond(&self, bound: Bound) {
        let beyond = &self.metrics.beyond;
        beyond.with_label_values(&[bound.label()]).inc();
    }
}
