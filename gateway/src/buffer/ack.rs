//! The acknowledgement that travels with an event: dropping it nacks, so that "acknowledged after
//! the commit" cannot be forgotten (promise 1).

use tokio::sync::oneshot;

/// Held by whoever has the event; [`Ack::commit`] is called by the buffer alone.
#[derive(Debug)]
pub struct Ack(oneshot::Sender<()>);

/// The session's end: resolves to `Ok` after the commit, to `Err` if the event was lost.
pub type Acked = oneshot::Receiver<()>;

impl Ack {
    /// A fresh pair.
    pub fn new() -> (Self, Acked) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Nothing is to be made durable: the event goes to no stream.
    pub fn not_routed(self) {
        self.commit();
    }

    /// Everything that the event gave rise to is durable.
    pub(crate) fn commit(self) {
        // The session may be gone; then nobody waits.
        let _gone: Result<(), ()> = self.0.send(());
    }
}
