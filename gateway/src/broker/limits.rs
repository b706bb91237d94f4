//! What one client, one certificate and one address may have of the gateway: the settings.
//!
//! Sizes can be set lower than what the protocol and AWS allow, never higher.

use std::time::Duration;

use portcullis_core::{
    limits::{
        CLIENT_ID_BYTES_MAX, HANDSHAKES_BURST, HANDSHAKES_PER_ADDRESS_MAX, HANDSHAKES_PER_SECOND,
        PROPERTY_BYTES_MAX, SUBSCRIPTIONS_HARD_MAX, SUBSCRIPTIONS_PER_SESSION_MAX, SYS_INTERVAL,
        TOPIC_BYTES_MAX,
    },
    rate::Allowance,
    topic::{Subscribed, TopicName},
};
use serde::Deserialize;

use super::config::BrokerToml;
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
    /// Client ids.
    pub client_id_bytes_max: usize,
    /// User properties and other texts of one publish or will.
    pub property_bytes_max: usize,
    /// How much one client may publish.
    pub publish: PublishLimits,
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
            client_id_bytes_max: CLIENT_ID_BYTES_MAX,
            property_bytes_max: PROPERTY_BYTES_MAX,
            publish: PublishLimits::default(),
            sys_interval: Some(SYS_INTERVAL),
        }
    }
}

impl Limits {
    /// The topic name that a packet holds.
    pub(super) fn topic(&self, bytes: &[u8]) -> Result<TopicName, String> {
        self.check_topic(bytes.len())?;
        TopicName::parse_bytes(bytes).map_err(|error| error.to_string())
    }

    /// What a SUBSCRIBE names.
    pub(super) fn filter(&self, text: &str) -> Result<Subscribed, String> {
        let subscribed = Subscribed::parse(text).map_err(|error| error.to_string())?;
        self.check_topic(subscribed.filter.as_str().len())?;
        Ok(subscribed)
    }

    fn check_topic(&self, bytes: usize) -> Result<(), String> {
        let max = self.topic_bytes_max;
        if bytes > max {
            return Err(format!("a topic has at most {max} bytes here"));
        }
        Ok(())
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
