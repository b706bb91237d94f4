//! The end of a session: what was taken is acknowledged, the will is published, everybody is told.

use std::time::Duration;

use futures_util::SinkExt;
use rumqttc::v5::mqttbytes::v5::Disconnect;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tracing::{debug, info};

use super::{End, Session, next_commit};
use crate::{
    broker::{
        codec::{Packet, Version},
        lifecycle::{Happened, Who},
    },
    defend::ActivityKind,
};

/// For the DISCONNECT and the end of TLS; who does not read them by then will not.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a stopping session waits for the commits of what it took.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

impl<S> Session<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Publishes the will unless the client took leave, then says goodbye as the end asks for.
    pub(super) async fn finish(mut self, end: End) {
        if matches!(end, End::Stopping | End::Disconnected) {
            self.await_commits().await;
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
        self.shared
            .observe(self.principal(), ActivityKind::Disconnected);
        if leaves_will {
            self.publish_will().await;
        }
        // After the will, which may find that the thing is another one now.
        if let Some(thing) = &self.principal().thing {
            self.shared.neighbours.fleet.disconnected(&thing.name);
        }
        let gone = Happened::Disconnected {
            connection: self.connection,
            reason: end.disconnect_reason(),
        };
        self.shared
            .tell(&Who::of(&self.shared, self.principal()), &gone)
            .await;
        if matches!(end, End::NotWritable) {
            return;
        }
        let goodbye = end.goodbye().filter(|_| self.version == Version::V5);
        let close = async {
            if let Some(reason) = goodbye {
                self.framed
                    .feed(Packet::Disconnect(Disconnect::new(reason)))
                    .await?;
            }
            self.framed.close().await
        };
        // The peer may be gone already, which is what this is about.
        drop(timeout(GOODBYE_TIMEOUT, close).await);
    }

    /// What was taken is acknowledged if its commit comes in time.
    pub(super) async fn await_commits(&mut self) {
        let all = async {
            while !self.pending.is_empty() {
                let committed = next_commit(&mut self.pending).await;
                if self.acknowledge(committed).await.is_err() {
                    break;
                }
            }
        };
        if timeout(COMMIT_GRACE, all).await.is_err() {
            debug!(
                client = self.principal().client_id.as_str(),
                "Commits did not come in time."
            );
        }
    }
}
