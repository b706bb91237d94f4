//! What a client answers to deliveries, and the ends of its own QoS 2 publishes.

use portcullis_core::event::Qos;
use rumqttc::v5::mqttbytes::v5::{
    PubAck, PubComp, PubCompReason, PubRec, PubRecReason, PubRel, PubRelReason,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::{End, Session, outbound::Releasing};
use crate::broker::codec::{Packet, because};

/// Why there is no answer but the reason code 0x92.
const UNKNOWN_PKID: &str = "no message is in flight under this packet identifier";

impl<S> Session<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// An answer to nothing is left alone: the client may have lost its state.
    pub(super) async fn on_puback(&mut self, ack: PubAck) -> Result<(), End> {
        let log = &self.shared.sessions.log;
        let known = self.held.acknowledged(log, ack.pkid, Qos::AtLeastOnce);
        self.note_answer(known.is_ok(), ack.pkid);
        self.send_queued().await
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
            return self.send_queued().await;
        }
        match self.held.received(log, pkid) {
            Ok(Some(durable)) => {
                self.releasing.push_back(Releasing { pkid, durable });
                Ok(())
            }
            Ok(None) => self.release(pkid, PubRelReason::Success).await,
            Err(_) => {
                self.release(pkid, PubRelReason::PacketIdentifierNotFound)
                    .await
            }
        }
    }

    pub(super) async fn release(&mut self, pkid: u16, reason: PubRelReason) -> Result<(), End> {
        let mut release = PubRel::new(pkid, None);
        let is_known = reason == PubRelReason::Success;
        release.reason = reason;
        self.send_or_explain(Packet::PubRel(release), is_known)
            .await
    }

    pub(super) async fn on_pubcomp(&mut self, complete: PubComp) -> Result<(), End> {
        let log = &self.shared.sessions.log;
        let known = self.held.completed(log, complete.pkid);
        self.note_answer(known.is_ok(), complete.pkid);
        self.send_queued().await
    }

    fn note_answer(&self, is_known: bool, pkid: u16) {
        if !is_known {
            debug!(
                client = self.principal().client_id.as_str(),
                pkid, "An answer to nothing that is in flight."
            );
        }
    }

    /// A publish of the client is over.
    pub(super) async fn on_pubrel(&mut self, pkid: u16) -> Result<(), End> {
        let was_there = self.held.release_incoming(&self.shared.sessions.log, pkid);
        let mut complete = PubComp::new(pkid, None);
        if !was_there {
            complete.reason = PubCompReason::PacketIdentifierNotFound;
        }
        self.send_or_explain(Packet::PubComp(complete), was_there)
            .await
    }

    async fn send_or_explain(&mut self, answer: Packet, is_known: bool) -> Result<(), End> {
        let answer = match is_known {
            true => answer,
            false => because(answer, UNKNOWN_PKID),
        };
        self.send(answer).await
    }
}
