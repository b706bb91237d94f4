//! What goes wrong in the demo: four attacks, each by or on one thing.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use rumqttc::QoS;
use tokio::time::sleep;

use super::{fleet::Device, thief};

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    /// A thing sends far too much.
    Flood,
    /// A thing publishes where only others may.
    ForeignTopic,
    /// A reading that no cold room should have.
    OutOfRange,
    /// Certificate and key of a thing are used from another address.
    StolenCertificate,
}

/// Twice what the profile calls normal for 300 seconds, at once.
const FLOOD_MESSAGES: usize = 800;
/// Twice what the profile forgives.
const FOREIGN_TRIES: usize = 6;

impl Attack {
    /// In the order in which they are played.
    pub(super) const ALL: [Self; 4] = [
        Self::Flood,
        Self::ForeignTopic,
        Self::OutOfRange,
        Self::StolenCertificate,
    ];

    /// In the summary.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::ForeignTopic => "foreign-topic",
            Self::OutOfRange => "out-of-range",
            Self::StolenCertificate => "stolen-certificate",
        }
    }

    /// The thing that does it, or that it is done to.
    pub(super) const fn thing(self) -> &'static str {
        match self {
            Self::Flood => "machine-3",
            Self::ForeignTopic => "room-2",
            Self::OutOfRange => "fridge-4",
            Self::StolenCertificate => "machine-5",
        }
    }

    /// Profile and behaviour of the alert that it has to raise.
    pub(super) const fn expected(self) -> (&'static str, &'static str) {
        match self {
            Self::Flood => ("demo", "flood"),
            Self::ForeignTopic => ("demo", "refused"),
            Self::OutOfRange => ("plugin/threshold", "over-temperature"),
            Self::StolenCertificate => ("demo", "one-holder"),
        }
    }

    /// What the terminal says.
    pub(super) fn story(self) -> String {
        let thing = self.thing();
        match self {
            Self::Flood => format!("{thing} sends {FLOOD_MESSAGES} messages as fast as it can"),
            Self::ForeignTopic => format!("{thing} publishes commands to a machine"),
            Self::OutOfRange => format!("{thing} reports 19.5 °C where 8 is the limit"),
            Self::StolenCertificate => {
                format!("somebody with the key of {thing} connects from another address")
            }
        }
    }

    /// Plays it to its end.
    pub(super) async fn play(self, device: &Device, mqtt: SocketAddr) -> Result<()> {
        match self {
            Self::Flood => {
                for _ in 0..FLOOD_MESSAGES {
                    publish(device, device.topic(), device.reading()).await?;
                }
            }
            Self::ForeignTopic => {
                for _ in 0..FOREIGN_TRIES {
                    let order = "{\"order\":\"stop\"}";
                    // QoS 0: the gateway closes the connection, and the client shall not try this
                    // very message again for ever.
                    let topic = "cmd/machine-1/order";
                    device
                        .client
                        .publish(topic, QoS::AtMostOnce, false, order)
                        .await?;
                    sleep(Duration::from_millis(300)).await;
                }
            }
            Self::OutOfRange => {
                for _ in 0..3 {
                    publish(device, device.topic(), "{\"t\":19.5}".to_owned()).await?;
                }
            }
            Self::StolenCertificate => thief::impersonate(device, mqtt).await?,
        }
        Ok(())
    }
}

async fn publish(device: &Device, topic: String, payload: String) -> Result<()> {
    let client = &device.client;
    client
        .publish(topic, QoS::AtLeastOnce, false, payload)
        .await?;
    Ok(())
}
