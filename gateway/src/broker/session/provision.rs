//! What a device under a claim asks on the reserved topics. Neither question nor answer goes anywhere
//! else: the answer may hold a private key.

use portcullis_core::{event::Qos, topic::TopicName};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, Publish};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{End, Session};
use crate::broker::lifecycle::own_message;

impl<S> Session<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Asks the provisioner, and hands on what it answers.
    pub(super) async fn ask(
        &mut self,
        topic: TopicName,
        level: Qos,
        publish: Publish,
    ) -> Result<(), End> {
        self.acknowledge_alone(level, publish.pkid, PubAckReason::Success);
        let provisioner = self.shared.neighbours.provisioner.clone();
        let answer = provisioner.answer(self.admission.principal(), &topic, &publish.payload);
        // What is registered stays registered if nobody waits for the answer; the device asks again.
        let answer = tokio::select! {
            answer = Box::pin(answer) => answer,
            () = self.ticket.taken_over.cancelled() => return Err(End::TakenOver),
            () = self.stop.cancelled() => return Err(End::Stopping),
        };
        self.answer(own_message(answer.topic, answer.payload)).await
    }
}
