//! The connected clients: one connection a client id, the newcomer wins (MQTT 5.0, 3.1.4).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use portcullis_core::identity::ClientId;
use tokio_util::sync::CancellationToken;

/// Who is connected.
#[derive(Debug, Default)]
pub(super) struct Clients {
    live: Mutex<HashMap<ClientId, Entry>>,
    sessions: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    session: u64,
    taken_over: CancellationToken,
    gone: CancellationToken,
}

/// A connection's place among the clients; dropping it leaves.
#[derive(Debug)]
pub(super) struct Ticket {
    clients: Arc<Clients>,
    client_id: ClientId,
    /// Number of the session, unique in this process.
    pub(super) session: u64,
    /// Cancelled when another connection takes the client id.
    pub(super) taken_over: CancellationToken,
    gone: CancellationToken,
}

/// Whether a connection pushed another one out.
#[derive(Debug)]
pub(super) enum Entered {
    Alone,
    /// The token is cancelled once the former connection has ended, its will included.
    TookOver(CancellationToken),
}

impl Clients {
    /// Takes the client id; whoever has it is told to leave.
    pub(super) fn enter(self: &Arc<Self>, client_id: &ClientId) -> (Ticket, Entered) {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let taken_over = CancellationToken::new();
        let gone = CancellationToken::new();
        let entry = Entry {
            session,
            taken_over: taken_over.clone(),
            gone: gone.clone(),
        };
        let former = self.lock().insert(client_id.clone(), entry);
        let entered = match former {
            Some(former) => {
                former.taken_over.cancel();
                Entered::TookOver(former.gone)
            }
            None => Entered::Alone,
        };
        (
            Ticket {
                clients: Arc::clone(self),
                client_id: client_id.clone(),
                session,
                taken_over,
                gone,
            },
            entered,
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ClientId, Entry>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gone.cancel();
        let mut live = self.clients.lock();
        if live
            .get(&self.client_id)
            .is_some_and(|entry| entry.session == self.session)
        {
            live.remove(&self.client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newcomer_wins_and_the_former_does_not_remove_it() {
        let clients = Arc::new(Clients::default());
        let id = ClientId::parse("a").unwrap();
        let (first, entered) = clients.enter(&id);
        assert!(matches!(entered, Entered::Alone));
        let (second, entered) = clients.enter(&id);
        let Entered::TookOver(gone) = entered else {
            panic!("{entered:?}")
        };
        assert!(!gone.is_cancelled());
        assert!(first.taken_over.is_cancelled());
        drop(first);
        assert!(gone.is_cancelled());
        assert!(!second.taken_over.is_cancelled());
        assert!(matches!(clients.enter(&id).1, Entered::TookOver(_)));
    }
}
