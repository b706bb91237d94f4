//! What a client hears later: answers that wait for a commit or for the session log, in their order.

use std::collections::VecDeque;

use portcullis_core::event::Qos;
use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::{broker::codec::Packet, buffer::Acked, wal::Durable};

/// A publish that waits for its commit, or a refused one that waits for its turn: answers go in the
/// order of the publishes (MQTT 5.0, 4.6).
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) pkid: u16,
    pub(super) qos: Qos,
    /// What the client is told after the commit.
    pub(super) answer: PubAckReason,
    /// `None`: it is in the stream.
    pub(super) acked: Option<Acked>,
    /// What local sessions are to have of it; `None`: nothing, or it is durable.
    pub(super) durable: Option<Durable>,
}

/// A pending publish whose commit is decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decided {
    pub(super) pkid: u16,
    pub(super) qos: Qos,
    pub(super) answer: PubAckReason,
    pub(super) committed: bool,
}

/// A packet that promises what has to become durable first: the PUBREL that the PUBREC came, the PUBCOMP
/// that the PUBREL did, and so on.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) answer: Packet,
    pub(super) durable: Durable,
}

/// The oldest pending publish, once its commit is decided; never if nothing is pending.
pub(super) async fn next_commit(pending: &mut VecDeque<Pending>) -> Decided {
    let Some(front) = pending.front_mut() else {
        return std::future::pending().await;
    };
    // A receiver that has resolved must not be asked again, should this be dropped in between.
    let mut committed = true;
    if let Some(acked) = &mut front.acked {
        committed = acked.await.is_ok();
        front.acked = None;
    }
    if let Some(durable) = front.durable.as_mut().filter(|_| committed) {
        committed = durable.await.is_ok();
        front.durable = None;
    }
    let decided = Decided {
        pkid: front.pkid,
        qos: front.qos,
        answer: front.answer,
        committed,
    };
    pending.pop_front();
    decided
}

/// The answer that may go; `None` if the log has failed; never if none waits.
pub(super) async fn next_answer(answering: &mut VecDeque<Answering>) -> Option<Packet> {
    let Some(front) = answering.front_mut() else {
        return std::future::pending().await;
    };
    let is_durable = (&mut front.durable).await.is_ok();
    let Answering { answer, .. } = answering.pop_front()?;
    is_durable.then_some(answer)
}
