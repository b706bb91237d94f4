//! The end of a session: what was taken is acknowledged, the will is published, everybody is told.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, SinkExt, StreamExt};
use rumqttc::v5::mqttbytes::v5::{Disconnect, Publish};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{unconstrained, yield_now},
    time::{Instant, timeout},
};
use tracing::info;

use super::{Client, End};
use crate::{
    broker::{
        codec::{Packet, Version, because},
        lifecycle::{Happened, Who},
        message::Message,
    },
    clock::now,
    defend::ActivityKind,
};

/// For the DISCONNECT and the end of TLS; who does not read them by then will not.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// For what has arrived before a newcomer took the client id, and for what is under way; the newcomer
/// waits meanwhile.
pub(super) const TAKEOVER_GRACE: Duration = Duration::from_millis(500);

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// A newcomer has the client id. What this connection had received before it counts, a DISCONNECT
    /// above all: who took leave and comes back at once leaves no will.
    pub(super) async fn read_out(&mut self) -> End {
        let until = Instant::now() + TAKEOVER_GRACE;
        // So that what has arrived is seen.
        yield_now().await;
        while Instant::now() < until
            && let Some(packet) = unconstrained(self.framed.next()).now_or_never()
        {
            if let Err(end) = self.handle_packets(packet).await {
                return end;
            }
        }
        End::TakenOver
    }

    /// Publishes the will unless the client took leave, then says goodbye as the end asks for.
    pub(super) async fn finish(&mut self, mut end: End) {
        if matches!(end, End::Stopping | End::Disconnected)
            && let Err(cut @ (End::ShutOut(_) | End::Expired)) = self.await_commits().await
        {
            end = cut;
        }
        // Whatever ended the session, its rights may have ended before.
        let leaves_will = !end.suppresses_will() && self.will.is_some() && self.may_stay().is_ok();
        let label = end.label();
        let disconnected = &self.shared.metrics.disconnected;
        disconnected.with_label_values(&[label]).inc();
        let principal = self.principal();
        info!(
            client = principal.client_id.as_str(),
            device = principal.device(),
            reason = label,
            detail = end.detail(),
            "Client disconnected."
        );
        self.observed.tell(&self.shared, self.admission.principal());
        self.shared
            .observe(self.principal(), ActivityKind::Disconnected);
        if leaves_will {
            self.leave_will().await;
        }
        let (connection, expiry_secs) = (self.ticket.session, self.expiry_secs);
        self.shared
            .sessions
            .detach(&self.held, connection, expiry_secs);
        // After the will, which may find that the thing is another one now.
        if let Some(thing) = &self.principal().thing {
            self.shared.neighbours.fleet.disconnected(&thing.name);
        }
        let gone = Happened::Disconnected {
            connection: self.connection,
            reason: end.disconnect_reason(),
        };
        if end.is_urgent() {
            self.close(&end).await;
        }
        self.shared
            .tell(&Who::of(&self.shared, self.principal()), &gone)
            .await;
        if !end.is_urgent() {
            self.close(&end).await;
        }
    }

    /// Says goodbye to whoever listens.
    async fn close(&mut self, end: &End) {
        if matches!(end, End::NotWritable) {
            return;
        }
        let goodbye = end.goodbye().filter(|_| self.version == Version::V5);
        let close = async {
            if let Some(reason) = goodbye {
                let goodbye = Packet::Disconnect(Disconnect::new(reason));
                let goodbye = match end.words() {
                    Some(words) => because(goodbye, words),
                    None => goodbye,
                };
                self.framed.feed(goodbye).await?;
                self.shared.metrics.packets_sent.inc();
            }
            self.framed.close().await
        };
        // The peer may be gone already, which is what this is about.
        drop(timeout(GOODBYE_TIMEOUT, close).await);
    }

    /// The client went without leave: its will is a publish like any other, and must be allowed
    /// now as well. One with a delay waits for that in the session, if there is one to wait in.
    async fn leave_will(&mut self) {
        let Some(will) = self.will.take() else {
            return;
        };
        let permit = match self.admission.publish(&will.topic, will.retain) {
            Ok(permit) => permit,
            Err(denied) => return self.shared.note_denied(self.principal(), &denied),
        };
        let expiry_secs = self.expiry_secs.unwrap_or_else(|| self.held.expiry_secs());
        if will.delay_secs > 0 && expiry_secs > 0 {
            let due = now().plus_millis(u64::from(will.delay_secs) * 1000);
            let message = Arc::new(Message {
                topic: will.topic,
                payload: will.payload,
                qos: will.qos,
                retain: will.retain,
                publisher: self.held.number,
                // Its expiry interval begins when it is published.
                expires_at: None,
                properties: will.properties,
            });
            return self.shared.sessions.leave_will(&self.held, message, due);
        }
        let publish = Publish {
            retain: will.retain,
            payload: will.payload,
            properties: will.properties,
            ..Publish::default()
        };
        // Decided at this moment, and nobody waits for the stream of one who is gone. A bus
        // that is gone has been reported, and the acknowledgement has no reader.
        drop(self.spread(&permit, &will.topic, will.qos, &publish, None));
        let handed_in = self.hand_in(permit, &will.topic, will.qos, &publish, None);
        drop(handed_in.await);
    }
}
