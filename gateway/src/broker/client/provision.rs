//! What a device under a claim asks on the reserved topics. Neither question nor answer goes anywhere
//! else: the answer may hold a private key.

use portcullis_core::{event::Qos, topic::TopicName};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, Publish};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, End};
use crate::broker::lifecycle::own_message;

impl<S> Client<'_, S>
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
        let asking = self.admission.principal().clone();
        let answer = provisioner.answer(&asking, &topic, &publish.payload);
        // What is registered stays registered if nobody waits for the answer; the device asks again.
        // Nor is a claim answered that was taken away meanwhile.
        let answer = self.while_it_may(Box::pin(answer)).await?;
        self.answer(own_message(answer.topic, answer.payload)).await
    }
}
