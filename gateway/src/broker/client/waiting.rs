//! Waiting for something else than the client: room in the socket, the pipeline, the provisioner,
//! commits, the stream that takes lifecycle events.
//! However long that takes, the session hears that a newcomer has its client id, that an operator
//! wants it to go, that the gateway stops, that its rights changed and that its time is up.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::SinkExt;
use portcullis_core::{
    limits::{BUFFER_BYTES_MIN, WRITE_TIMEOUT},
    topic::TopicName,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Client, End,
    farewell::TAKEOVER_GRACE,
    pending::{Decided, next_commit},
};
use crate::{
    broker::{admission::Denied, codec::EncodeError},
    identity::SnapshotWatch,
};

/// How long a session waits for the commits of what it took before it stops, or before its device
/// goes on under other groups.
const COMMIT_GRACE: Duration = Duration::from_secs(5);
/// The write buffer goes to the socket when it has so much, and at the end of each turn.
const WRITE_AT_BYTES: usize = 32 * 1024;

impl<S> Client<'_, S>
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
        if self.framed.write_buffer().len() < WRITE_AT_BYTES {
            return Ok(());
        }
        self.flush().await
    }

    /// Writes what is in the buffer.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        // Most writes fit into the socket, and need no timers.
        match poll_fn(|cx| Poll::Ready(self.framed.poll_flush_unpin(cx))).await {
            Poll::Ready(written) => written.map_err(|_| End::ConnectionLost)?,
            Poll::Pending => self.written().await?,
        }
        if self.framed.codec_mut().has_outgrown() {
            *self.framed.write_buffer_mut() = BytesMut::with_capacity(BUFFER_BYTES_MIN);
        }
        Ok(())
    }

    async fn written(&mut self) -> Result<(), End> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        loop {
            // Cancel-safe: what is not written stays in the buffer.
            let write = poll_fn(|cx| self.framed.poll_flush_unpin(cx));
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
                () = self.ticket.kicked.cancelled() => return Err(self.kicked()),
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
            if let Some(done) = self.done_or_looked(work.as_mut()).await? {
                return Ok(done);
            }
        }
    }

    /// The same for a publish: `work` is also given up if the client may not publish that any more.
    pub(super) async fn while_it_may_publish<T>(
        &mut self,
        topic: &TopicName,
        retain: bool,
        work: impl Future<Output = T>,
    ) -> Result<Result<T, Denied>, End> {
        let mut work = pin!(work);
        loop {
            if let Some(done) = self.done_or_looked(work.as_mut()).await? {
                return Ok(Ok(done));
            }
            if let Err(denied) = self.admission.still_publish(topic, retain) {
                return Ok(Err(denied));
            }
        }
    }

    /// What was taken is acknowledged if its commit comes in time.
    pub(super) async fn await_commits(&mut self) -> Result<(), End> {
        let all = async {
            while !self.pending.is_empty() {
                let committed = self.next_commit_or_end().await?;
                self.acknowledge(committed).await?;
            }
            Ok(())
        };
        if let Ok(done) = timeout(COMMIT_GRACE, all).await {
            return done;
        }
        debug!(
            client = self.principal().client_id.as_str(),
            "Commits did not come in time."
        );
        Ok(())
    }

    /// Neither a newcomer nor the stop ends this: both wait for it.
    async fn next_commit_or_end(&mut self) -> Result<Decided, End> {
        loop {
            tokio::select! {
                biased;
                () = changed(&mut self.identity) => self.reauthorize()?,
                () = sleep_until(self.validity_check) => self.check_validity()?,
                // Cancel-safe: the receiver stays in the queue.
                committed = next_commit(&mut self.pending) => return Ok(committed),
            }
        }
    }

    /// `None` if the client still may be here after a change.
    async fn done_or_looked<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<Option<T>, End> {
        // Most work is done at once; to wait for all that follows takes locks that sessions share.
        if self.identity.has_changed().unwrap_or(false) {
            return self.reauthorize().map(|()| None);
        }
        if self.validity_check <= Instant::now() {
            return self.check_validity().map(|()| None);
        }
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            return Ok(Some(done));
        }
        tokio::select! {
            biased;
            () = changed(&mut self.identity) => self.reauthorize().map(|()| None),
            () = sleep_until(self.validity_check) => self.check_validity().map(|()| None),
            done = work => Ok(Some(done)),
            () = grace(&self.ticket.taken_over) => Err(End::TakenOver),
            () = self.ticket.kicked.cancelled() => Err(self.kicked()),
            () = self.stop.cancelled() => Err(End::Stopping),
        }
    }
}

/// A newcomer has the client id, and what is under way has had its time.
async fn grace(taken_over: &CancellationToken) {
    taken_over.cancelled().await;
    sleep(TAKEOVER_GRACE).await;
}

/// Waits for a new snapshot; forever if there will be none, as while the gateway stops.
async fn changed(identity: &mut SnapshotWatch) {
    if identity.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Resolves with `identity` when there is a new snapshot, or never will be one. It is kept from turn
/// to turn: to begin to wait costs a lock that all sessions share.
pub(super) async fn next_change(mut identity: SnapshotWatch) -> SnapshotWatch {
    // The session looks at its own receiver.
    drop(identity.changed().await);
    identity
}

/// A timer that is kept from turn to turn: a moment that is put off costs nothing until the timer goes
/// off for nothing.
#[derive(Debug)]
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(super) fn new(due: Instant) -> Self {
        Self(Box::pin(sleep_until(due)))
    }

    /// Waits until `due`. Cancel-safe.
    pub(super) async fn at(&mut self, due: Instant) {
        if due < self.0.deadline() {
            self.0.as_mut().reset(due);
        }
        loop {
            self.0.as_mut().await;
            if self.0.deadline() >= due {
                return;
            }
            self.0.as_mut().reset(due);
        }
    }
}
