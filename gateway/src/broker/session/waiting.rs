//! Waiting for something else than the client: room in the socket, the pipeline, the provisioner.
//! However long that takes, the session hears that a newcomer has its client id, that the gateway
//! stops, that its rights changed and that its time is up.

use std::{future::poll_fn, pin::pin};

use futures_util::SinkExt;
use portcullis_core::limits::WRITE_TIMEOUT;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};

use super::{End, Session};
use crate::{broker::codec::EncodeError, identity::SnapshotWatch};

impl<S> Session<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Looks whether the rights changed.
    pub(super) fn look(&mut self) -> Result<(), End> {
        if self.identity.has_changed().unwrap_or(false) {
            self.reauthorize()?;
        }
        Ok(())
    }

    /// Waits until the write buffer takes a packet.
    pub(super) async fn room(&mut self) -> Result<(), End> {
        self.written(Step::Room).await
    }

    /// Writes what is in the buffer.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        self.written(Step::Flush).await
    }

    async fn written(&mut self, step: Step) -> Result<(), End> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        loop {
            // Cancel-safe: what is not written stays in the buffer.
            let write = poll_fn(|cx| match step {
                Step::Room => self.framed.poll_ready_unpin(cx),
                Step::Flush => self.framed.poll_flush_unpin(cx),
            });
            tokio::select! {
                // First, so that what fits into the socket is written even then.
                biased;
                written = write => {
                    let written: Result<(), EncodeError> = written;
                    return written.map_err(|_| End::ConnectionLost);
                }
                () = changed(&mut self.identity) => self.reauthorize()?,
                () = sleep_until(self.validity_check) => self.check_validity()?,
                () = sleep_until(deadline) => return Err(End::NotWritable),
                () = self.ticket.taken_over.cancelled() => return Err(End::TakenOver),
                () = self.stop.cancelled() => return Err(End::Stopping),
            }
        }
    }

    /// Waits for `work`, which is given up if the session must end. A change of rights counts before
    /// work that is done at the same time: who is shut out gives and gets nothing more.
    pub(super) async fn while_it_may<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, End> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = changed(&mut self.identity) => self.reauthorize()?,
                () = sleep_until(self.validity_check) => self.check_validity()?,
                done = &mut work => return Ok(done),
                () = self.ticket.taken_over.cancelled() => return Err(End::TakenOver),
                () = self.stop.cancelled() => return Err(End::Stopping),
            }
        }
    }
}

/// What the socket is asked for.
#[derive(Clone, Copy, Debug)]
enum Step {
    Room,
    Flush,
}

/// Waits for a new snapshot; forever if there will be none, as while the gateway stops.
async fn changed(identity: &mut SnapshotWatch) {
    if identity.changed().await.is_err() {
        std::future::pending().await
    }
}
