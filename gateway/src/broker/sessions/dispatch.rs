//! From a publish to the queues of its receivers.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use portcullis_core::{
    event::Qos,
    policy::{Action, Permit},
    routes::Match,
    topic::{Subscribed, TopicName},
};

use super::{
    Route, Sessions,
    loose::Offered,
    queued::{Options, Queued},
    record::{Record, Stored},
    retained::Kept,
    session::Session,
};
use crate::{
    broker::message::{Message, is_reserved},
    wal::Durable,
};

/// A QoS 2 publish: its session and packet id, which are taken in the same moment.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Origin<'a> {
    pub(in crate::broker) session: &'a Session,
    pub(in crate::broker) pkid: u16,
}

/// Where a message goes and what it asks for: enough to know whether anybody wants it.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Address<'a> {
    pub(in crate::broker) topic: &'a TopicName,
    pub(in crate::broker) qos: Qos,
    pub(in crate::broker) retain: bool,
    /// Number of the session that published it.
    pub(in crate::broker) publisher: u64,
}

/// What became of a publish.
#[derive(Debug, Default)]
pub(in crate::broker) struct Routed {
    /// Subscriptions that take it, at any quality of service.
    pub(in crate::broker) matched: usize,
    /// It is on a reserved topic, and somebody takes it at QoS 0: it is for the bus as well.
    pub(in crate::broker) is_for_bus: bool,
    /// Much waits for one of the receivers: who publishes should let it go first.
    pub(in crate::broker) is_crowded: bool,
    /// Receivers whose queue had no room for it.
    pub(in crate::broker) overflowed: usize,
    /// It was to be retained, and there was no room.
    pub(in crate::broker) retain_refused: bool,
    /// It must not be acknowledged before this.
    pub(in crate::broker) durable: Option<Durable>,
}

/// Who is to get it.
struct Receiver {
    session: Arc<Session>,
    is_share: bool,
    qos: Qos,
    queued: Queued,
}

impl Sessions {
    /// Hands a message to everybody who is subscribed to its topic, and retains it if it says so; it is
    /// made only if somebody wants it. `permit` shows that the publisher may.
    pub(in crate::broker) fn publish(
        &self,
        permit: &Permit,
        address: Address<'_>,
        message: impl FnOnce() -> Arc<Message>,
        origin: Option<Origin<'_>>,
    ) -> Routed {
        debug_assert_eq!(permit.action(), Action::Publish);
        self.route(address, message, origin)
    }

    /// The same for what the gateway itself says.
    pub(in crate::broker) fn dispatch(
        &self,
        message: &Arc<Message>,
        origin: Option<Origin<'_>>,
    ) -> Routed {
        let address = Address {
            topic: &message.topic,
            qos: message.qos,
            retain: message.retain,
            publisher: message.publisher,
        };
        self.route(address, || Arc::clone(message), origin)
    }

    fn route(
        &self,
        address: Address<'_>,
        message: impl FnOnce() -> Arc<Message>,
        origin: Option<Origin<'_>>,
    ) -> Routed {
        let mut routed = Routed::default();
        // Held to the end: a checkpoint must not begin between a body and what refers to it.
        let routes = self.routes();
        let mut takers: SmallVec<[(&Route, bool); 16]> = SmallVec::new();
        routes.matching(address.topic, |found| {
            routed.matched += 1;
            let (route, is_share) = match found {
                Match::Direct(_, route) => (route, false),
                Match::Shared(group) => {
                    let mut members = group.in_turn().map(|(_, route)| route).peekable();
                    let first = members.peek().copied();
                    // A share has a member; one that is there is better than one that is away.
                    let Some(route) = members.find(|route| route.session.is_connected()).or(first)
                    else {
                        return;
                    };
                    (route, true)
                }
            };
            if !route
                .options
                .excludes(address.publisher, route.session.number)
            {
                takers.push((route, is_share));
            }
        });
        if takers.is_empty() && !address.retain && origin.is_none() {
            return routed;
        }
        let message = &message();
        let id = self.log.next_id();
        let is_for_bus = address.qos == Qos::AtMostOnce && is_reserved(address.topic);
        let mut receivers: SmallVec<[Receiver; 4]> = SmallVec::new();
        for (route, is_share) in takers {
            let qos = message.qos.min(route.options.qos);
            match (qos, is_share) {
                (Qos::AtMostOnce, false) if is_for_bus => routed.is_for_bus = true,
                _ => add(
                    &mut receivers,
                    is_share,
                    &route.session,
                    qos,
                    route.queued(message, id),
                ),
            }
        }
        let is_retained = message.retain && !message.payload.is_empty();
        if is_retained || receivers.iter().any(Receiver::is_kept) {
            self.write_body(id, message);
        }
        if message.retain {
            routed.retain_refused = self.retain(message, id) == Kept::Full;
        }
        let queued = self.queue(receivers);
        routed.overflowed += queued.overflowed;
        routed.is_crowded = queued.is_crowded;
        let incoming = origin.and_then(Origin::take);
        if queued.is_logged || message.retain || incoming.is_some() {
            self.log.append(&Record::Routed { id, incoming });
            if message.qos != Qos::AtMostOnce {
                routed.durable = self.log.durable();
            }
        }
        self.settle_when_durable(queued.to_settle);
        routed
    }

    /// Puts a retained message into the queue of a session that subscribed; `false` if it is full.
    pub(in crate::broker) fn queue_retained(
        &self,
        session: &Arc<Session>,
        subscribed: &Subscribed,
        options: Options,
        qos: Qos,
        message: &Arc<Message>,
    ) -> bool {
        let _no_checkpoint = self.routes();
        let id = self.log.next_id();
        let receiver = Receiver {
            session: Arc::clone(session),
            is_share: false,
            qos,
            queued: Queued {
                message: Arc::clone(message),
                id,
                retain: true,
                subscribed: smallvec![Arc::new(subscribed.clone())],
                identifiers: options.identifier.into_iter().collect(),
            },
        };
        if receiver.is_kept() {
            self.write_body(id, message);
        }
        let queued = self.queue([receiver]);
        if queued.is_logged {
            self.log.append(&Record::Routed { id, incoming: None });
        }
        self.settle_when_durable(queued.to_settle);
        queued.overflowed == 0
    }

    fn write_body(&self, id: u64, message: &Message) {
        self.log.append(&Record::Body {
            id,
            message: Stored::of(message),
        });
    }

    fn queue(&self, receivers: impl IntoIterator<Item = Receiver>) -> Queueing {
        let mut queueing = Queueing::default();
        for Receiver {
            session,
            qos,
            queued,
            ..
        } in receivers
        {
            if qos == Qos::AtMostOnce {
                match session.offer_loose(&self.log, queued) {
                    Some(Offered::Crowded) => queueing.is_crowded = true,
                    Some(Offered::Lost) => queueing.overflowed += 1,
                    Some(Offered::First | Offered::Behind) | None => {}
                }
                continue;
            }
            match session.offer(&self.log, qos, queued) {
                Err(_) => queueing.overflowed += 1,
                Ok(None) => {}
                Ok(Some(place)) => {
                    queueing.is_logged = true;
                    if qos == Qos::ExactlyOnce {
                        queueing.to_settle.push((session, place));
                    }
                }
            }
        }
        queueing
    }

    fn settle_when_durable(&self, to_settle: Vec<(Arc<Session>, u64)>) {
        if to_settle.is_empty() {
            return;
        }
        self.log.when_durable(move || {
            for (session, place) in &to_settle {
                session.settle(*place);
            }
        });
    }
}

/// What became of a message that was put into queues.
#[derive(Default)]
struct Queueing {
    overflowed: usize,
    is_crowded: bool,
    /// Whether the log has to say of it.
    is_logged: bool,
    /// Sessions with the places of QoS 2 messages that may go once they are durable.
    to_settle: Vec<(Arc<Session>, u64)>,
}

impl Receiver {
    fn is_kept(&self) -> bool {
        self.qos != Qos::AtMostOnce && self.session.lock().is_kept
    }
}

/// Adds a receiver. Of subscriptions of one client that overlap it gets one copy, with the identifiers
/// of all and at the highest quality of service (MQTT 5.0, 3.3.4); shares stand for themselves.
fn add(
    receivers: &mut SmallVec<[Receiver; 4]>,
    is_share: bool,
    session: &Arc<Session>,
    qos: Qos,
    queued: Queued,
) {
    let mut others = receivers.iter_mut();
    let same = |other: &&mut Receiver| !other.is_share && other.session.number == session.number;
    match others.find(same).filter(|_| !is_share) {
        Some(other) => {
            other.qos = other.qos.max(qos);
            other.queued.retain |= queued.retain;
            other.queued.subscribed.extend(queued.subscribed);
            other.queued.identifiers.extend(queued.identifiers);
        }
        None => receivers.push(Receiver {
            session: Arc::clone(session),
            is_share,
            qos,
            queued,
        }),
    }
}

impl Origin<'_> {
    /// Takes the packet id; what the log has to say of it, if the session is kept.
    fn take(self) -> Option<(u64, u16)> {
        let mut state = self.session.lock();
        state.incoming.publish(self.pkid);
        state.is_kept.then_some((self.session.number, self.pkid))
    }
}

impl Route {
    fn queued(&self, message: &Arc<Message>, id: u64) -> Queued {
        Queued {
            message: Arc::clone(message),
            id,
            retain: self.options.retain_as_published && message.retain,
            subscribed: smallvec![Arc::clone(&self.subscribed)],
            identifiers: self.options.identifier.into_iter().collect(),
        }
    }
}
