//! The sessions of all clients, connected or not, and who is subscribed to what.
//!
//! ```text
//! publish ─ dispatch ─┬─ QoS 1 and 2: the queue of each subscribed session, and the log if it is kept
//!                     ├─ QoS 0: what waits for each connection; on reserved topics the bus
//!                     └─ shared subscriptions: one member's
//! connection ─ attach ─ next … acknowledged ─ detach
//! ```
//! What has a promise goes straight from the publisher's task into the queues, before the publisher
//! gets its acknowledgement; so does what may be lost, in memory alone. A session whose expiry is not 0 is
//! kept: it is in the [log](crate::wal), and there again after a restart.
//!
//! Locks are taken in this order: table, routes, one session. Nothing waits while it holds one.

mod dispatch;
mod expiry;
mod log;
mod loose;
mod queued;
mod record;
mod replay;
mod retained;
mod session;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use portcullis_core::{
    identity::ClientId,
    routes::Routes,
    session::{Outgoing, OutgoingBounds},
    topic::Subscribed,
};

pub(super) use self::{
    dispatch::{Address, Origin, Routed},
    expiry::DueWill,
    queued::{Options, Outbound, Queued},
    session::Session,
};
use self::{
    log::Log,
    record::Record,
    retained::{Kept, Retained},
    session::State,
};
use super::message::Message;
use crate::clock::now;

/// See the module.
#[derive(Debug)]
pub(super) struct Sessions {
    table: Mutex<HashMap<ClientId, Arc<Session>>>,
    routes: RwLock<Routes<u64, Route>>,
    next_number: AtomicU64,
    pub(super) log: Log,
    pub(super) retained: Retained,
    bounds: Bounds,
}

/// What there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Sessions, those of clients that are away included.
    pub(super) sessions_max: usize,
    /// What one session may queue.
    pub(super) queue: OutgoingBounds,
}

/// A subscription in the tree; its key is the session's number.
#[derive(Clone, Debug)]
struct Route {
    session: Arc<Session>,
    subscribed: Arc<Subscribed>,
    options: Options,
}

/// What a CONNECT asks for (MQTT 5.0, 3.1.2.4).
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) clean_start: bool,
    pub(super) expiry_secs: u32,
    /// Unanswered publishes that the client takes.
    pub(super) window: u16,
    /// Who the client is: nobody else takes up its session.
    pub(super) owner: Option<String>,
    /// The connection's number.
    pub(super) connection: u64,
}

/// The session that a connection has now.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) session: Arc<Session>,
    /// Whether it was there before.
    pub(super) is_present: bool,
    /// The will of the session that ended because this one begins.
    pub(super) will: Option<DueWill>,
}

/// There are as many as there may be, and the client has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway keeps no more sessions")]
pub(super) struct Full;

impl Sessions {
    /// The session of a client that connects: the one that it left, or a new one.
    pub(super) fn attach(&self, client_id: &ClientId, asked: &Asked) -> Result<Attached, Full> {
        let mut table = self.table();
        let former = table.get(client_id).cloned();
        let resumed = former.as_ref().filter(|session| {
            let state = session.lock();
            // One without expiry ends with its connection, which may not have noticed yet.
            !asked.clean_start
                && state.owner == asked.owner
                && state.expiry_secs > 0
                && !state.is_over(now())
        });
        if let Some(session) = resumed {
            let session = Arc::clone(session);
            self.resume(&session, asked);
            return Ok(Attached {
                session,
                is_present: true,
                will: None,
            });
        }
        let mut will = None;
        if let Some(former) = former {
            table.remove(client_id);
            will = self.take_will(&former);
            self.end(&former);
        } else if table.len() >= self.bounds.sessions_max {
            return Err(Full);
        }
        let session = self.begin(client_id, asked);
        table.insert(client_id.clone(), Arc::clone(&session));
        Ok(Attached {
            session,
            is_present: false,
            will,
        })
    }

    fn begin(&self, client_id: &ClientId, asked: &Asked) -> Arc<Session> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let mut state = State::new(asked.owner.clone(), self.bounds.queue);
        state.expiry_secs = asked.expiry_secs;
        state.connection = Some(asked.connection);
        state.outgoing.connect(asked.window);
        state.is_kept = asked.expiry_secs > 0;
        if state.is_kept {
            self.log.append(&Record::Session {
                number,
                client_id: client_id.as_str(),
                owner: asked.owner.as_deref(),
                expiry_secs: asked.expiry_secs,
                away_since: None,
                next: 0,
                unsent: 0,
            });
        }
        Session::new(number, client_id.clone(), state)
    }

    fn resume(&self, session: &Arc<Session>, asked: &Asked) {
        let mut state = session.lock();
        state.connection = Some(asked.connection);
        state.away_since = None;
        state.outgoing.connect(asked.window);
        if state.will.take().is_some() {
            self.log.append(&Record::NoWill {
                number: session.number,
            });
        }
        state.expiry_secs = asked.expiry_secs;
        if !state.is_kept {
            return;
        }
        self.log.append(&Record::Expiry {
            number: session.number,
            expiry_secs: asked.expiry_secs,
            away_since: None,
        });
    }

    /// The connection `connection` of the session is over, and asks for `expiry_secs` if it said so in
    /// its end. Whether the session is over with it.
    pub(super) fn detach(
        &self,
        session: &Arc<Session>,
        connection: u64,
        expiry_secs: Option<u32>,
    ) -> bool {
        let mut table = self.table();
        let mut state = session.lock();
        if state.connection != Some(connection) {
            // Another connection has taken it up.
            return false;
        }
        state.connection = None;
        state.loose.clear(&self.log);
        state.outgoing.disconnect();
        if let Some(secs) = expiry_secs {
            state.expiry_secs = secs;
        }
        if state.expiry_secs == 0 {
            drop(state);
            if table
                .get(&session.client_id)
                .is_some_and(|held| held.number == session.number)
            {
                table.remove(&session.client_id);
            }
            self.end(session);
            return true;
        }
        let since = now();
        state.away_since = Some(since);
        self.log.append(&Record::Expiry {
            number: session.number,
            expiry_secs: state.expiry_secs,
            away_since: Some(since.as_millis()),
        });
        false
    }

    /// Takes a session out of everything but the table. In one step: what is being published
    /// meanwhile finds it whole, or not at all.
    fn end(&self, session: &Arc<Session>) {
        let mut routes = self.routes_mut();
        let mut state = session.lock();
        for subscribed in std::mem::take(&mut state.subscriptions).keys() {
            routes.remove(
                &subscribed.filter,
                subscribed.share.as_ref(),
                &session.number,
            );
        }
        state.has_ended = true;
        state.loose.clear(&self.log);
        self.log.free_bytes(state.outgoing.bytes());
        // What a connection that is still there would send of it is gone, too.
        state.outgoing = Outgoing::new(self.bounds.queue);
        if std::mem::take(&mut state.is_kept) {
            self.log.append(&Record::End {
                number: session.number,
            });
        }
    }

    /// Adds or replaces a subscription; whether it is a new one.
    pub(super) fn subscribe(
        &self,
        session: &Arc<Session>,
        subscribed: &Subscribed,
        options: Options,
    ) -> bool {
        let mut routes = self.routes_mut();
        let mut state = session.lock();
        if state.has_ended {
            return false;
        }
        if state.is_kept {
            let filter = subscribed.to_string();
            self.log
                .append(&session::subscription(session.number, &filter, options));
        }
        let former = state.subscriptions.insert(subscribed.clone(), options);
        let route = Route {
            session: Arc::clone(session),
            subscribed: Arc::new(subscribed.clone()),
            options,
        };
        routes.insert(
            &subscribed.filter,
            subscribed.share.as_ref(),
            session.number,
            route,
        );
        former.is_none()
    }

    /// Removes a subscription; whether there was one.
    pub(super) fn unsubscribe(&self, session: &Arc<Session>, subscribed: &Subscribed) -> bool {
        let mut routes = self.routes_mut();
        let mut state = session.lock();
        if state.subscriptions.remove(subscribed).is_none() {
            return false;
        }
        if state.is_kept {
            self.log.append(&Record::Unsubscribe {
                number: session.number,
                filter: &subscribed.to_string(),
            });
        }
        routes.remove(
            &subscribed.filter,
            subscribed.share.as_ref(),
            &session.number,
        );
        true
    }

    fn retain(&self, message: &Arc<Message>, id: u64) -> Kept {
        let is_empty = message.payload.is_empty();
        self.retained.keep(message, id, |kept| {
            if is_empty {
                self.log.append(&Record::NotRetained {
                    topic: message.topic.as_str(),
                });
            } else if kept == Kept::Kept {
                self.log.append(&Record::Retain { id });
            }
        })
    }

    /// The session of a client id.
    #[cfg(test)]
    pub(super) fn of(&self, client_id: &ClientId) -> Option<Arc<Session>> {
        self.table().get(client_id).cloned()
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions_len(&self) -> usize {
        self.routes().len()
    }

    /// How many of them are shared.
    pub(super) fn shared_subscriptions_len(&self) -> usize {
        self.routes().shared_len()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<ClientId, Arc<Session>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> RwLockReadGuard<'_, Routes<u64, Route>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes_mut(&self) -> RwLockWriteGuard<'_, Routes<u64, Route>> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
