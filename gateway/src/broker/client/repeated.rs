//! A QoS 2 publish that comes again: the client has not seen our PUBREC.
//!
//! Local subscribers have it, and do not get it again. Whether it is in the stream is known to the
//! connection that handed it in: if that one, or the process, ended before, it is handed in again,
//! because the PUBREC promises both. It may be there twice then, as after any other repetition there.

use portcullis_core::{event::Qos, topic::TopicName};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, Publish};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, End, pending::Pending};
use crate::{
    broker::admission::Denied,
    buffer::{Ack, Acked},
};

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn on_repeat(
        &mut self,
        topic: &TopicName,
        publish: &Publish,
    ) -> Result<(), End> {
        let pkid = publish.pkid;
        if self.pending.iter().any(|pending| pending.pkid == pkid) {
            return Ok(());
        }
        let mut acked = None;
        if self.held.is_open(pkid) {
            match self.hand_in_again(topic, publish).await? {
                Ok(again) => acked = Some(again),
                Err(denied) => return self.refuse_repeat(&denied, pkid).await,
            }
        }
        self.pending.push_back(Pending {
            pkid,
            qos: Qos::ExactlyOnce,
            answer: PubAckReason::Success,
            acked,
            // What local sessions have of it may be on its way to the disk.
            durable: self.held.durable(&self.shared.sessions.log),
        });
        Ok(())
    }

    /// Under the rights of this moment. If there is no room upstream, it waits.
    async fn hand_in_again(
        &mut self,
        topic: &TopicName,
        publish: &Publish,
    ) -> Result<Result<Acked, Denied>, End> {
        let permit = match self.admission.publish(topic, publish.retain) {
            Ok(permit) => permit,
            Err(denied) => return Ok(Err(denied)),
        };
        let (ack, acked) = Ack::new();
        let taken = self
            .hand_in(permit, topic, Qos::ExactlyOnce, publish, Some(ack))
            .await?;
        Ok(taken.map(|_| acked))
    }

    /// The exchange ends with the answer, and the packet id is free.
    async fn refuse_repeat(&mut self, denied: &Denied, pkid: u16) -> Result<(), End> {
        let released = self.held.release_incoming(&self.shared.sessions.log, pkid);
        self.refuse_publish(denied, Qos::ExactlyOnce, pkid).await?;
        if let Some(answer) = self.pending.back_mut() {
            answer.durable = released.durable;
        }
        Ok(())
    }
}
