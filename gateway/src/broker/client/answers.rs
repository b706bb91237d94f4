//! What a client answers to deliveries, and the ends of its own QoS 2 publishes.

use portcullis_core::event::Qos;
use rumqttc::v5::mqttbytes::v5::{
    PubAck, PubComp, PubCompReason, PubRec, PubRecReason, PubRel, PubRelReason,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::{Client, End, pending::Answering};
use crate::{
    broker::codec::{Packet, because},
    wal::Durable,
};

/// Why there is no answer but the reason code 0x92.
const UNKNOWN_PKID: &str = "no message is in flight under this packet identifier";

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// An answer to nothing is left alone: the client may have lost its state.
    pub(super) fn on_puback(&mut self, ack: &PubAck) -> Result<(), End> {
        let log = &self.shared.sessions.log;
        let known = self.held.acknowledged(log, ack.pkid, Qos::AtLeastOnce);
        self.note_answer(known.is_ok(), ack.pkid);
        // With what other answers make room for, at the end of the turn.
        self.has_queued = true;
        Ok(())
    }

    /// The PUBREL goes once it is durable that the message is the client's: a gateway that forgot
    /// would send it again to a client that has forgotten its id.
    pub(super) async fn on_pubrec(&mut self, received: PubRec) -> Result<(), End> {
        let log = &self.shared.sessions.log;
        let pkid = received.pkid;
        let is_error = !matches!(
            received.reason,
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers
        );
        if is_error {
            let known = self.held.acknowledged(log, pkid, Qos::ExactlyOnce);
            self.note_answer(known.is_ok(), pkid);
            self.has_queued = true;
            return Ok(());
        }
        let mut release = PubRel::new(pkid, None);
        match self.held.received(log, pkid) {
            Ok(durable) => {
                self.answer_when_durable(Packet::PubRel(release), durable)
                    .await
            }
            Err(_) => {
                release.reason = PubRelReason::PacketIdentifierNotFound;
                let release = because(Packet::PubRel(release), UNKNOWN_PKID);
                self.send(release).await
            }
        }
    }

    /// Answers after what the answer promises is durable; at once if there is nothing to wait for.
    pub(super) async fn answer_when_durable(
        &mut self,
        answer: Packet,
        durable: Option<Durable>,
    ) -> Result<(), End> {
        match durable {
            None => self.send(answer).await,
            Some(durable) => {
                self.answering.push_back(Answering { answer, durable });
                Ok(())
            }
        }
    }

    pub(super) fn on_pubcomp(&mut self, complete: &PubComp) -> Result<(), End> {
        let log = &self.shared.sessions.log;
        let known = self.held.completed(log, complete.pkid);
        self.note_answer(known.is_ok(), complete.pkid);
        self.has_queued = true;
        Ok(())
    }

    fn note_answer(&self, is_known: bool, pkid: u16) {
        if !is_known {
            debug!(
                client = self.principal().client_id.as_str(),
                pkid, "An answer to nothing that is in flight."
            );
        }
    }

    /// A publish of the client is over. The PUBCOMP goes once that is durable: a gateway that forgot
    /// would take the next publish with this id for the same one, and lose it.
    pub(super) async fn on_pubrel(&mut self, pkid: u16) -> Result<(), End> {
        let released = self.held.release_incoming(&self.shared.sessions.log, pkid);
        let mut complete = PubComp::new(pkid, None);
        if !released.was_there {
            complete.reason = PubCompReason::PacketIdentifierNotFound;
        }
        let complete = match released.was_there {
            true => Packet::PubComp(complete),
            false => because(Packet::PubComp(complete), UNKNOWN_PKID),
        };
        self.answer_when_durable(complete, released.durable).await
    }
}
