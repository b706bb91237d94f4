//! From the log to the sessions as they were.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
};

use portcullis_core::{
    event::Qos,
    identity::ClientId,
    routes::Routes,
    session::{Outgoing, OutgoingBounds, Restored, Stage},
    timestamp::Timestamp,
    topic::{Subscribed, TopicName},
};

use super::{
    Bounds, Route, Sessions,
    log::Log,
    queued::{DelayedWill, Options, Queued},
    record::Record,
    retained::Retained,
    session::{Session, State},
};
use crate::{
    broker::message::Message,
    clock::now,
    wal::{self, OpenError, Wal},
};

/// What the records said so far.
#[derive(Debug)]
struct Replay {
    bounds: Bounds,
    sessions: HashMap<u64, Replayed>,
    bodies: HashMap<u64, Arc<Message>>,
    /// Places that count once their message was routed.
    unrouted: HashMap<u64, Vec<(u64, u64)>>,
    retained: HashMap<TopicName, u64>,
    next_number: u64,
    next_id: u64,
}

/// A session, record by record.
#[derive(Debug)]
struct Replayed {
    client_id: ClientId,
    state: State,
    entries: BTreeMap<u64, Entry>,
    next: u64,
    unsent: u64,
}

#[derive(Debug)]
struct Entry {
    qos: Qos,
    stage: Stage,
    queued: Queued,
    is_routed: bool,
}

impl Sessions {
    /// Sessions without a log: nothing is kept.
    #[cfg(test)]
    pub(in crate::broker) fn unkept() -> Self {
        Replay::new(crate::broker::Limits::default().of_sessions()).finish(None)
    }

    /// Reads the log in `dir` back. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] names the file.
    pub(in crate::broker) fn open(
        dir: &Path,
        bounds: Bounds,
        metrics: wal::Metrics,
    ) -> Result<(Self, wal::Writer), OpenError> {
        let mut replay = Replay::new(bounds);
        let (wal, writer) = Wal::open(dir, metrics, |record| {
            Record::decode(record).and_then(|record| replay.apply(&record))
        })?;
        Ok((replay.finish(Some(wal)), writer))
    }
}

impl Replay {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            sessions: HashMap::new(),
            bodies: HashMap::new(),
            unrouted: HashMap::new(),
            retained: HashMap::new(),
            next_number: 0,
            next_id: 0,
        }
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), String> {
        match *record {
            Record::Session {
                number,
                client_id,
                owner,
                expiry_secs,
                away_since,
                next,
                unsent,
            } => {
                let mut state = State::new(owner.map(str::to_owned), self.bounds.queue);
                state.expiry_secs = expiry_secs;
                state.away_since = away_since.map(Timestamp::from_millis);
                state.is_kept = true;
                let replayed = Replayed {
                    client_id: ClientId::parse(client_id).map_err(|error| error.to_string())?,
                    state,
                    entries: BTreeMap::new(),
                    next,
                    unsent,
                };
                self.next_number = self.next_number.max(number + 1);
                self.sessions.insert(number, replayed);
            }
            Record::End { number } => drop(self.sessions.remove(&number)),
            Record::Expiry {
                number,
                expiry_secs,
                away_since,
            } => self.with(number, |session| {
                session.state.expiry_secs = expiry_secs;
                session.state.away_since = away_since.map(Timestamp::from_millis);
            }),
            Record::Subscribe {
                number,
                filter,
                qos: level,
                no_local,
                retain_as_published,
                identifier,
            } => {
                let subscribed = subscribed(filter)?;
                let options = Options {
                    qos: Qos::from_u8(level),
                    no_local,
                    retain_as_published,
                    identifier,
                };
                self.with(number, |session| {
                    session.state.subscriptions.insert(subscribed, options);
                });
            }
            Record::Unsubscribe { number, filter } => {
                let subscribed = subscribed(filter)?;
                self.with(number, |session| {
                    session.state.subscriptions.remove(&subscribed);
                });
            }
            Record::Will {
                number,
                due,
                ref message,
            } => {
                let will = DelayedWill {
                    message: Arc::new(message.message()?),
                    due: Timestamp::from_millis(due),
                };
                self.with(number, |session| session.state.will = Some(will));
            }
            Record::NoWill { number } => self.with(number, |session| session.state.will = None),
            _ => return self.apply_to_messages(record),
        }
        Ok(())
    }

    /// The same for what is said of messages.
    fn apply_to_messages(&mut self, record: &Record<'_>) -> Result<(), String> {
        match *record {
            Record::Body { id, ref message } => {
                self.next_id = self.next_id.max(id + 1);
                let message = message.message()?;
                // Nobody else is taken for the publisher of what is still there.
                self.next_number = self.next_number.max(message.publisher + 1);
                self.bodies.insert(id, Arc::new(message));
            }
            Record::Queue {
                number,
                place,
                id,
                qos: level,
                retain,
                ref filters,
                ref identifiers,
            } => {
                let message = self.bodies.get(&id).ok_or("a place without its message")?;
                let queued = Queued {
                    message: Arc::clone(message),
                    id,
                    retain,
                    subscribed: filters
                        .iter()
                        .map(|filter| subscribed(filter).map(Arc::new))
                        .collect::<Result<_, _>>()?,
                    identifiers: identifiers.clone(),
                };
                self.with(number, |session| {
                    session.queue(place, Qos::from_u8(level), queued)
                });
                self.unrouted.entry(id).or_default().push((number, place));
            }
            Record::Routed { id, incoming } => {
                self.next_id = self.next_id.max(id + 1);
                for (number, place) in self.unrouted.remove(&id).unwrap_or_default() {
                    self.with(number, |session| {
                        if let Some(entry) = session.entries.get_mut(&place) {
                            entry.is_routed = true;
                        }
                    });
                }
                if let Some((number, pkid)) = incoming {
                    self.with(number, |session| {
                        session.state.incoming.publish(pkid);
                    });
                }
            }
            Record::Sent { number, unsent } => {
                self.with(number, |session| session.unsent = unsent);
            }
            Record::Received { number, place } => self.with(number, |session| {
                if let Some(entry) = session.entries.get_mut(&place) {
                    entry.stage = Stage::Received;
                }
            }),
            Record::Gone { number, place } => self.with(number, |session| {
                session.entries.remove(&place);
            }),
            Record::Incoming { number, pkid } => self.with(number, |session| {
                session.state.incoming.publish(pkid);
            }),
            Record::Released { number, pkid } => self.with(number, |session| {
                session.state.incoming.release(pkid);
            }),
            Record::Retain { id } => {
                let message = self
                    .bodies
                    .get(&id)
                    .ok_or("a retained topic without its message")?;
                self.retained.insert(message.topic.clone(), id);
            }
            Record::NotRetained { topic } => {
                let topic = TopicName::parse(topic).map_err(|error| error.to_string())?;
                self.retained.remove(&topic);
            }
            // Of sessions themselves.
            _ => {}
        }
        Ok(())
    }

    /// What is said of a session that is over is said too late.
    fn with(&mut self, number: u64, change: impl FnOnce(&mut Replayed)) {
        if let Some(session) = self.sessions.get_mut(&number) {
            change(session);
        }
    }

    fn finish(self, wal: Option<Wal>) -> Sessions {
        let mut table: HashMap<ClientId, Arc<Session>> = HashMap::new();
        let mut routes = Routes::default();
        let mut numbered: Vec<_> = self.sessions.into_iter().collect();
        numbered.sort_by_key(|(number, _)| *number);
        let mut cut_off = HashSet::new();
        for (number, replayed) in numbered {
            if replayed.state.away_since.is_none() {
                cut_off.insert(number);
            }
            let session = replayed.finish(number, self.bounds.queue);
            // The newer one of a client id, should there be two.
            table.insert(session.client_id.clone(), session);
        }
        for session in table.values() {
            for (subscribed, options) in session.subscriptions() {
                let route = Route {
                    session: Arc::clone(session),
                    subscribed: Arc::new(subscribed.clone()),
                    options,
                };
                let share = subscribed.share.as_ref();
                routes.insert(&subscribed.filter, share, session.number, route);
            }
        }
        let retained = Retained::default();
        for id in self.retained.into_values() {
            if let Some(message) = self.bodies.get(&id) {
                retained.keep(message, id, |_| {});
            }
        }
        let log = Log::new(wal, self.next_id);
        for session in table.values() {
            let state = session.lock();
            log.count_bytes(state.outgoing.bytes());
            if cut_off.contains(&session.number) {
                // Its time runs from this restart on, and not from the next one.
                log.append(&Record::Expiry {
                    number: session.number,
                    expiry_secs: state.expiry_secs,
                    away_since: state.away_since.map(Timestamp::as_millis),
                });
            }
        }
        Sessions {
            table: Mutex::new(table),
            routes: RwLock::new(routes),
            // 0 is the gateway's own.
            next_number: AtomicU64::new(self.next_number.max(1)),
            log,
            retained,
            bounds: self.bounds,
        }
    }
}

impl Replayed {
    fn queue(&mut self, place: u64, qos: Qos, queued: Queued) {
        self.next = self.next.max(place + 1);
        let entry = Entry {
            qos,
            stage: Stage::Published,
            queued,
            is_routed: false,
        };
        self.entries.insert(place, entry);
    }

    fn finish(mut self, number: u64, bounds: OutgoingBounds) -> Arc<Session> {
        let entries = self
            .entries
            .into_iter()
            .filter(|(_, entry)| entry.is_routed);
        let restored = entries.map(|(number, entry)| Restored {
            number,
            qos: entry.qos,
            bytes: entry.queued.message.bytes(),
            stage: entry.stage,
            message: entry.queued,
        });
        self.state.outgoing = Outgoing::restore(bounds, restored, self.next, self.unsent);
        // Its connection ended with the process.
        self.state.away_since.get_or_insert_with(now);
        Session::new(number, self.client_id, self.state)
    }
}

fn subscribed(filter: &str) -> Result<Subscribed, String> {
    Subscribed::parse(filter).map_err(|error| error.to_string())
}
