//! One session: what it is subscribed to, what waits for its client, what is in flight. It is there
//! before its connection and may be there after it.
//!
//! Every change of a session that is kept is appended to the log while its lock is held: the order in
//! the log is the order in which things happened. Nothing waits while it holds the lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use portcullis_core::{
    event::Qos,
    identity::ClientId,
    session::{Acknowledged, Full, Incoming, Outgoing, OutgoingBounds, Transmission, Unexpected},
    timestamp::Timestamp,
    topic::Subscribed,
};
use tokio::sync::Notify;

use super::{
    log::Log,
    loose::{Loose, Offered},
    queued::{DelayedWill, Options, Outbound, Queued},
    record::{Record, Stored},
};
use crate::wal::Durable;

/// A Session Expiry Interval that never ends (MQTT 5.0, 3.1.2.11.2).
pub(in crate::broker) const NEVER: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Session {
    /// Used once.
    pub(in crate::broker) number: u64,
    pub(in crate::broker) client_id: ClientId,
    state: Mutex<State>,
    wake: Notify,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct State {
    pub(super) outgoing: Outgoing<Queued>,
    /// QoS 0 messages for the connection that is there.
    pub(super) loose: Loose,
    pub(super) incoming: Incoming,
    pub(super) subscriptions: BTreeMap<Subscribed, Options>,
    /// Who may take the session up again.
    pub(super) owner: Option<String>,
    pub(super) expiry_secs: u32,
    /// The connection's number; `None` while the client is away.
    pub(super) connection: Option<u64>,
    pub(super) away_since: Option<Timestamp>,
    pub(super) will: Option<DelayedWill>,
    /// It is out of the table, and takes nothing more; a connection may still hold it.
    pub(super) has_ended: bool,
    /// Whether the log knows it.
    pub(super) is_kept: bool,
    /// Places of QoS 2 messages that are not durable yet.
    pub(super) unsettled: BTreeSet<u64>,
}

/// What became of a PUBREL.
#[derive(Debug)]
pub(in crate::broker) struct Released {
    /// There was such a publish.
    pub(in crate::broker) was_there: bool,
    /// What the PUBCOMP waits for; `None`: nothing.
    pub(in crate::broker) durable: Option<Durable>,
}

impl State {
    pub(super) fn new(owner: Option<String>, bounds: OutgoingBounds) -> Self {
        Self {
            outgoing: Outgoing::new(bounds),
            loose: Loose::new(bounds),
            incoming: Incoming::default(),
            subscriptions: BTreeMap::new(),
            owner,
            expiry_secs: 0,
            connection: None,
            away_since: None,
            will: None,
            has_ended: false,
            is_kept: false,
            unsettled: BTreeSet::new(),
        }
    }

    fn settle(&mut self) {
        let first = self.unsettled.first().copied();
        self.outgoing.settle(first.unwrap_or(u64::MAX));
    }

    /// Whether the session is over.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let Some(since) = self.away_since else {
            return false;
        };
        self.expiry_secs != NEVER && since.plus_millis(u64::from(self.expiry_secs) * 1000) <= now
    }
}

impl Session {
    pub(super) fn new(number: u64, client_id: ClientId, state: State) -> Arc<Self> {
        Arc::new(Self {
            number,
            client_id,
            state: Mutex::new(state),
            wake: Notify::new(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when there may be something to send. Cancel-safe; one at a time waits.
    pub(in crate::broker) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(in crate::broker) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether its client is connected.
    pub(super) fn is_connected(&self) -> bool {
        self.lock().connection.is_some()
    }

    /// What to send next over the connection of this number, which may have been taken over: up to `max`
    /// messages are put into `batch`. What is over, or came for a subscription that is gone, leaves the
    /// queue; why is told to `dropped`. How far sending went is noted, so that what goes again after a
    /// restart says so (DUP).
    pub(in crate::broker) fn next_batch(
        &self,
        log: &Log,
        connection: u64,
        now: Timestamp,
        max: usize,
        batch: &mut Vec<Outbound>,
        dropped: impl Fn(&'static str),
    ) {
        let mut state = self.lock();
        if state.connection != Some(connection) {
            return;
        }
        let unsent = state.outgoing.unsent();
        while batch.len() < max {
            let Some(next) = self.next(&mut state, log, now, &dropped) else {
                break;
            };
            batch.push(next);
        }
        if state.is_kept && state.outgoing.unsent() != unsent {
            log.append(&Record::Sent {
                number: self.number,
                unsent: state.outgoing.unsent(),
            });
        }
    }

    fn next(
        &self,
        state: &mut State,
        log: &Log,
        now: Timestamp,
        dropped: &impl Fn(&'static str),
    ) -> Option<Outbound> {
        let State {
            outgoing,
            loose,
            subscriptions,
            is_kept,
            ..
        } = state;
        let why_void = |queued: &Queued| {
            if queued.message.is_expired(now) {
                Some("expired")
            } else if is_taken(subscriptions, queued) {
                None
            } else {
                Some("not-subscribed")
            }
        };
        while let Some(queued) = loose.pop(log) {
            match why_void(&queued) {
                Some(reason) => dropped(reason),
                None => {
                    return Some(Outbound::Publish {
                        pkid: 0,
                        number: 0,
                        dup: false,
                        qos: Qos::AtMostOnce,
                        queued,
                    });
                }
            }
        }
        let number = self.number;
        let gone = |place, queued: Queued| {
            dropped(why_void(&queued).unwrap_or("expired"));
            log.free_bytes(queued.message.bytes());
            if *is_kept {
                log.append(&Record::Gone { number, place });
            }
        };
        match outgoing.next_transmission(|queued| why_void(queued).is_some(), gone)? {
            Transmission::Release { pkid } => Some(Outbound::Release { pkid }),
            Transmission::Publish {
                number,
                pkid,
                dup,
                qos,
                message,
            } => Some(Outbound::Publish {
                pkid,
                number,
                dup,
                qos,
                queued: message.clone(),
            }),
        }
    }

    /// Whether there still is a subscription that a message came for.
    pub(in crate::broker) fn takes(&self, queued: &Queued) -> bool {
        is_taken(&self.lock().subscriptions, queued)
    }

    /// A PUBACK came, or a PUBREC with an error.
    pub(in crate::broker) fn acknowledged(
        &self,
        log: &Log,
        pkid: u16,
        qos: Qos,
    ) -> Result<(), Unexpected> {
        let mut state = self.lock();
        let over = state.outgoing.acknowledged(pkid, qos)?;
        self.gone(log, &state, &over);
        Ok(())
    }

    /// A PUBREC came. The PUBREL goes when the answer is durable; `None`: at once.
    pub(in crate::broker) fn received(
        &self,
        log: &Log,
        pkid: u16,
    ) -> Result<Option<Durable>, Unexpected> {
        let mut state = self.lock();
        let place = state.outgoing.received(pkid)?;
        if !state.is_kept {
            return Ok(None);
        }
        log.append(&Record::Received {
            number: self.number,
            place,
        });
        Ok(log.durable())
    }

    /// A PUBCOMP came.
    pub(in crate::broker) fn completed(&self, log: &Log, pkid: u16) -> Result<(), Unexpected> {
        let mut state = self.lock();
        let over = state.outgoing.completed(pkid)?;
        self.gone(log, &state, &over);
        Ok(())
    }

    /// A delivery that cannot be sent: it is larger than the client takes.
    pub(in crate::broker) fn discard(&self, log: &Log, place: u64) {
        let mut state = self.lock();
        if let Some(message) = state.outgoing.discard(place) {
            let number = place;
            self.gone(log, &state, &Acknowledged { number, message });
        }
    }

    fn gone(&self, log: &Log, state: &State, over: &Acknowledged<Queued>) {
        log.free_bytes(over.message.message.bytes());
        if state.is_kept {
            log.append(&Record::Gone {
                number: self.number,
                place: over.number,
            });
        }
    }

    /// Whether a QoS 2 publish with this id waits for its PUBREL.
    pub(in crate::broker) fn has_incoming(&self, pkid: u16) -> bool {
        self.lock().incoming.contains(pkid)
    }

    /// How many do.
    pub(in crate::broker) fn incoming_len(&self) -> usize {
        self.lock().incoming.len()
    }

    /// Whether nobody has heard that the QoS 2 publish with this id is in the stream: the connection that
    /// handed it in, or the process, ended before.
    pub(in crate::broker) fn is_open(&self, pkid: u16) -> bool {
        self.lock().incoming.is_open(pkid)
    }

    /// The QoS 2 publish with this id is in the stream.
    pub(in crate::broker) fn committed(&self, pkid: u16) {
        self.lock().incoming.committed(pkid);
    }

    /// A QoS 2 publish that goes nowhere, but is answered as if it did.
    pub(in crate::broker) fn take_incoming(&self, log: &Log, pkid: u16) {
        let mut state = self.lock();
        let is_new = state.incoming.publish(pkid);
        state.incoming.committed(pkid);
        if is_new && state.is_kept {
            log.append(&Record::Incoming {
                number: self.number,
                pkid,
            });
        }
    }

    /// A PUBREL came. The PUBCOMP goes when that is durable: the client takes the packet id for another
    /// message then.
    pub(in crate::broker) fn release_incoming(&self, log: &Log, pkid: u16) -> Released {
        let mut state = self.lock();
        let was_there = state.incoming.release(pkid);
        if was_there && state.is_kept {
            log.append(&Record::Released {
                number: self.number,
                pkid,
            });
        }
        Released {
            was_there,
            // Also if it was not: a former connection's may be on its way to the disk.
            durable: state.is_kept.then(|| log.durable()).flatten(),
        }
    }

    /// Resolves when what was noted of the session is durable; `None`: nothing is noted of it.
    pub(in crate::broker) fn durable(&self, log: &Log) -> Option<Durable> {
        let state = self.lock();
        state.is_kept.then(|| log.durable()).flatten()
    }

    /// Puts a message of QoS 1 or 2 into the queue; its place there if that has to become durable.
    pub(super) fn offer(&self, log: &Log, qos: Qos, queued: Queued) -> Result<Option<u64>, Full> {
        let mut state = self.lock();
        let bytes = queued.message.bytes();
        if state.has_ended || !log.take_bytes(bytes) {
            return Err(Full);
        }
        if !state.is_kept {
            let offered = state.outgoing.offer(qos, bytes, queued);
            offered.inspect_err(|_| log.free_bytes(bytes))?;
            self.wake_for_room(state);
            return Ok(None);
        }
        let (id, retain) = (queued.id, queued.retain);
        let (filters, identifiers) = (queued.filters(), queued.identifiers.clone());
        let offered = state.outgoing.offer(qos, bytes, queued);
        let place = offered.inspect_err(|_| log.free_bytes(bytes))?;
        if qos == Qos::ExactlyOnce {
            state.unsettled.insert(place);
            state.settle();
        }
        log.append(&Record::Queue {
            number: self.number,
            place,
            id,
            qos: qos.as_u8(),
            retain,
            filters: filters.iter().map(String::as_str).collect(),
            identifiers,
        });
        self.wake_for_room(state);
        Ok(Some(place))
    }

    /// While the window is full, the answer that makes room has the rest sent.
    fn wake_for_room(&self, state: MutexGuard<'_, State>) {
        let is_awaited = state.connection.is_some() && state.outgoing.has_room();
        drop(state);
        if is_awaited {
            self.wake();
        }
    }

    /// Puts a message of QoS 0 before the connection; `None` if there is none.
    pub(super) fn offer_loose(&self, log: &Log, queued: Queued) -> Option<Offered> {
        let mut state = self.lock();
        state.connection?;
        let offered = state.loose.offer(log, queued);
        drop(state);
        if offered == Offered::First {
            self.wake();
        }
        Some(offered)
    }

    /// The QoS 2 message at `place` is durable, and may go once those before it are. Of two that come at
    /// once the later may be durable before all is said of the earlier.
    pub(super) fn settle(&self, place: u64) {
        let mut state = self.lock();
        state.unsettled.remove(&place);
        state.settle();
        drop(state);
        self.wake();
    }

    /// What it is subscribed to.
    pub(in crate::broker) fn subscriptions(&self) -> Vec<(Subscribed, Options)> {
        let state = self.lock();
        let subscriptions = state.subscriptions.iter();
        subscriptions
            .map(|(subscribed, options)| (subscribed.clone(), *options))
            .collect()
    }

    /// How many subscriptions it has.
    pub(in crate::broker) fn subscriptions_len(&self) -> usize {
        self.lock().subscriptions.len()
    }

    /// Seconds that it lives without a connection; 0: it ends with this one.
    pub(in crate::broker) fn expiry_secs(&self) -> u32 {
        self.lock().expiry_secs
    }

    /// The thing or certificate whose session it is.
    pub(in crate::broker) fn owner(&self) -> Option<String> {
        self.lock().owner.clone()
    }

    /// How it is subscribed to this.
    pub(in crate::broker) fn options(&self, subscribed: &Subscribed) -> Option<Options> {
        self.lock().subscriptions.get(subscribed).copied()
    }

    /// Appends the whole session to the log, as a checkpoint does.
    pub(super) fn write_whole(&self, log: &Log, bodies: &mut impl FnMut(u64) -> bool) {
        let state = self.lock();
        if !state.is_kept {
            return;
        }
        let number = self.number;
        log.append(&Record::Session {
            number,
            client_id: self.client_id.as_str(),
            owner: state.owner.as_deref(),
            expiry_secs: state.expiry_secs,
            away_since: state.away_since.map(Timestamp::as_millis),
            next: state.outgoing.next_number(),
            unsent: state.outgoing.unsent(),
        });
        for (subscribed, options) in &state.subscriptions {
            log.append(&subscription(number, &subscribed.to_string(), *options));
        }
        for (place, qos, stage, queued) in state.outgoing.iter() {
            if bodies(queued.id) {
                let message = Stored::of(&queued.message);
                log.append(&Record::Body {
                    id: queued.id,
                    message,
                });
            }
            log.append(&Record::Queue {
                number,
                place,
                id: queued.id,
                qos: qos.as_u8(),
                retain: queued.retain,
                filters: queued.filters().iter().map(String::as_str).collect(),
                identifiers: queued.identifiers.clone(),
            });
            log.append(&Record::Routed {
                id: queued.id,
                incoming: None,
            });
            if stage == portcullis_core::session::Stage::Received {
                log.append(&Record::Received { number, place });
            }
        }
        for pkid in state.incoming.iter() {
            log.append(&Record::Incoming { number, pkid });
        }
        if let Some(will) = &state.will {
            log.append(&Record::Will {
                number,
                due: will.due.as_millis(),
                message: Stored::of(&will.message),
            });
        }
    }
}

fn is_taken(subscriptions: &BTreeMap<Subscribed, Options>, queued: &Queued) -> bool {
    let mut subscribed = queued.subscribed.iter();
    subscribed.any(|subscribed| subscriptions.contains_key(&**subscribed))
}

pub(super) fn subscription<'a>(number: u64, filter: &'a str, options: Options) -> Record<'a> {
    Record::Subscribe {
        number,
        filter,
        qos: options.qos.as_u8(),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        identifier: options.identifier,
    }
}
