//! A publish that the buffer has no room for.
//!
//! Who speaks MQTT 5 can be told: after a while of waiting its publishes are answered 0x97 (Quota
//! exceeded), in their turn, and it may keep them. They went nowhere. It is answered so about as
//! many at once as it may have open, and waits again before the next: a client that tries again at
//! once does so at that pace. Who speaks MQTT 3.1.1 can only wait, and what is sent at QoS 0 waits
//! too: neither is read on meanwhile.

use portcullis_core::{
    event::Qos,
    limits::{BUFFER_PATIENCE, RECEIVE_MAXIMUM},
    topic::TopicName,
};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, Publish};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{Client, End};
use crate::broker::{admission::Denied, codec::Version, message::is_reserved};

/// How a client was last told that there is no room.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Publishes that are answered without another wait.
    at_once: u16,
}

/// What becomes of a publish.
pub(super) enum Room {
    /// It may go on.
    There,
    /// It is answered that there is none.
    None,
    /// It is not allowed any more.
    Denied(Denied),
}

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Looks whether the buffer takes a publish; waits a while for it if the client can be told.
    pub(super) async fn room_upstream(
        &mut self,
        topic: &TopicName,
        level: Qos,
        publish: &Publish,
    ) -> Result<Room, End> {
        let can_be_told = self.version == Version::V5 && level != Qos::AtMostOnce;
        if !can_be_told || is_reserved(topic) {
            return Ok(Room::There);
        }
        if self.shared.neighbours.pipeline.has_room() {
            self.told_full = Told::default();
            return Ok(Room::There);
        }
        if self.told_full.at_once == 0 {
            let pipeline = self.shared.neighbours.pipeline.clone();
            let waited = timeout(BUFFER_PATIENCE, pipeline.room());
            match self
                .while_it_may_publish(topic, publish.retain, waited)
                .await?
            {
                Err(denied) => return Ok(Room::Denied(denied)),
                Ok(Ok(())) => return Ok(Room::There),
                Ok(Err(_)) => self.told_full.at_once = RECEIVE_MAXIMUM,
            }
        }
        self.told_full.at_once -= 1;
        self.shared.metrics.quota_exceeded.inc();
        self.acknowledge_alone(level, publish.pkid, PubAckReason::QuotaExceeded);
        Ok(Room::None)
    }
}
