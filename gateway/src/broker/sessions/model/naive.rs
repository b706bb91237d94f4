//! The broker as one would explain it: lists that are looked through from the front, nothing written
//! down, time that stands still. Its sessions are what MQTT 5.0 says in 3.1.2.4, 3.3.4, 3.8.3.1, 4.3,
//! 4.4 and 4.9. Clients are numbered.

/// How a filter is subscribed to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) qos: u8,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) identifier: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) topic: &'static str,
    /// Empty or not like any other.
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Seconds since the beginning.
    pub(super) expires_at: Option<u64>,
    /// The session that published it, which the broker writes into it; 0: none.
    pub(super) publisher: u64,
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Publish {
        id: u16,
        dup: bool,
        qos: u8,
        retain: bool,
        topic: String,
        payload: String,
        identifiers: Vec<u32>,
        expires_in: Option<u32>,
    },
    Release {
        id: u16,
    },
}

/// What a client answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ack,
    Rec,
    /// A PUBREC with an error.
    Refusal,
    Comp,
}

#[derive(Debug)]
struct Session {
    /// Used once.
    number: u64,
    expiry_secs: u32,
    /// The Receive Maximum of the connection; `None` while there is none.
    window: Option<usize>,
    away_since: u64,
    subscriptions: Vec<(&'static str, Subscription)>,
    queue: Vec<Queued>,
    /// What waits for the connection at QoS 0.
    loose: Vec<Queued>,
    /// Ids of QoS 2 publishes that are not released.
    incoming: Vec<u16>,
}

#[derive(Debug)]
struct Queued {
    message: Message,
    qos: u8,
    retain: bool,
    filters: Vec<&'static str>,
    identifiers: Vec<u32>,
    /// 0: never sent.
    id: u16,
    /// The PUBREC came.
    is_received: bool,
    /// The exchange is open on this connection.
    is_open: bool,
    /// The PUBREL has to go again.
    release: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) now: u64,
    sessions: Vec<Option<Session>>,
    last_session: u64,
    retained: Vec<Message>,
}

/// What a session without end asks for.
const NEVER: u32 = u32::MAX;

impl Broker {
    pub(super) fn new(clients: usize) -> Self {
        Self {
            now: 0,
            sessions: (0..clients).map(|_| None).collect(),
            last_session: 0,
            retained: Vec::new(),
        }
    }

    /// Whether the session was there.
    pub(super) fn connect(&mut self, client: usize, clean: bool, expiry: u32, max: usize) -> bool {
        self.disconnect(client, None);
        self.end_sessions();
        let was_there = self.sessions[client].is_some() && !clean;
        if !was_there {
            self.last_session += 1;
            self.sessions[client] = Some(Session {
                number: self.last_session,
                expiry_secs: 0,
                window: None,
                away_since: 0,
                subscriptions: Vec::new(),
                queue: Vec::new(),
                loose: Vec::new(),
                incoming: Vec::new(),
            });
        }
        let session = self.sessions[client].as_mut().unwrap();
        session.expiry_secs = expiry;
        session.window = Some(max);
        for queued in &mut session.queue {
            queued.is_open = queued.is_received;
            queued.release = queued.is_received;
        }
        was_there
    }

    pub(super) fn disconnect(&mut self, client: usize, expiry: Option<u32>) {
        let now = self.now;
        if let Some(session) = self.connected(client) {
            session.window = None;
            session.loose.clear();
            session.away_since = now;
            session.expiry_secs = expiry.unwrap_or(session.expiry_secs);
        }
        self.end_sessions();
    }

    pub(super) fn restart(&mut self) {
        (0..self.sessions.len()).for_each(|client| self.disconnect(client, None));
    }

    pub(super) fn end_sessions(&mut self) {
        let now = self.now;
        let is_over = |session: &mut Session| {
            let end = session.away_since + u64::from(session.expiry_secs);
            session.window.is_none() && session.expiry_secs != NEVER && end <= now
        };
        for session in &mut self.sessions {
            drop(session.take_if(is_over));
        }
    }

    fn connected(&mut self, client: usize) -> Option<&mut Session> {
        let session = self.sessions[client].as_mut();
        session.filter(|session| session.window.is_some())
    }

    /// Whether there was none to this filter. `handling`: 0 retained messages come, 1 only if it is a
    /// new subscription, 2 never.
    pub(super) fn subscribe(
        &mut self,
        client: usize,
        filter: &'static str,
        to: Subscription,
        handling: u8,
    ) -> bool {
        let was_there = self.unsubscribe(client, filter);
        let (now, retained) = (self.now, self.retained.clone());
        let session = self.connected(client).unwrap();
        session.subscriptions.push((filter, to));
        if !is_share(filter) && (handling == 0 || handling == 1 && !was_there) {
            for message in retained {
                let qos = message.qos.min(to.qos);
                let is_over = message.expires_at.is_some_and(|end| end <= now);
                let is_own = to.no_local && message.publisher == session.number;
                if matches(filter, message.topic) && !is_over && !is_own && qos > 0 {
                    session.queue_as(message, qos, true, &[(filter, to)]);
                }
            }
        }
        !was_there
    }

    /// Whether there was one.
    pub(super) fn unsubscribe(&mut self, client: usize, filter: &str) -> bool {
        let subscriptions = &mut self.connected(client).unwrap().subscriptions;
        let before = subscriptions.len();
        subscriptions.retain(|(known, _)| *known != filter);
        subscriptions.len() < before
    }

    /// `id`: of a QoS 2 publish. `copies`: who got it in fact, which decides which member of a share
    /// does, and in which order copies of one client go.
    pub(super) fn publish(
        &mut self,
        client: Option<usize>,
        id: Option<u16>,
        message: &Message,
        copies: &[(usize, Vec<String>)],
    ) {
        if let (Some(client), Some(id)) = (client, id) {
            let incoming = &mut self.connected(client).unwrap().incoming;
            if incoming.contains(&id) {
                // The same publish again.
                return;
            }
            incoming.push(id);
        }
        let mut message = message.clone();
        if let Some(client) = client {
            message.publisher = self.connected(client).unwrap().number;
        }
        if message.retain {
            self.retained.retain(|kept| kept.topic != message.topic);
            if !message.payload.is_empty() {
                self.retained.push(message.clone());
                self.retained.sort_by_key(|kept| kept.topic);
            }
        }
        for (number, session) in self.sessions.iter_mut().enumerate() {
            let Some(session) = session else { continue };
            let its = copies.iter().filter(|(client, _)| *client == number);
            let its: Vec<&[String]> = its.map(|(_, filters)| &**filters).collect();
            session.take(&message, &its);
        }
        self.judge_shares(&message, copies);
    }

    /// A share takes a message once: by a member that is connected if there is one.
    fn judge_shares(&self, message: &Message, copies: &[(usize, Vec<String>)]) {
        let is_member =
            |session: &Session, share: &str| session.subscriptions.iter().any(|(f, _)| *f == share);
        let sessions = || self.sessions.iter().flatten();
        let all = sessions().flat_map(|session| session.subscriptions.iter());
        let shares = all.filter(|(filter, _)| is_share(filter) && matches(filter, message.topic));
        for (share, _) in shares {
            let takers = copies.iter().filter(|(_, filters)| filters == &[*share]);
            let takers: Vec<_> = takers.map(|(client, _)| *client).collect();
            let is_there = |session: &Session| session.window.is_some();
            if sessions().any(|session| is_member(session, share) && is_there(session)) {
                assert_eq!(takers.len(), 1, "who takes it for {share}");
                let taker = self.sessions[takers[0]].as_ref();
                assert!(taker.is_some_and(|taker| is_member(taker, share) && is_there(taker)));
            } else {
                assert!(takers.len() <= 1, "nobody is there, and {takers:?} take it");
            }
        }
    }

    /// The client's own QoS 2 publish; whether there was one.
    pub(super) fn release(&mut self, client: usize, id: u16) -> bool {
        let incoming = &mut self.connected(client).unwrap().incoming;
        let before = incoming.len();
        incoming.retain(|known| *known != id);
        incoming.len() < before
    }

    /// Whether the answer was to something.
    pub(super) fn answer(&mut self, client: usize, answer: Answer, id: u16) -> bool {
        let queue = &mut self.connected(client).unwrap().queue;
        let Some(at) = queue.iter().position(|q| q.is_open && q.id == id) else {
            return false;
        };
        match (answer, queue[at].qos, queue[at].is_received) {
            (Answer::Rec, 2, _) => queue[at].is_received = true,
            (Answer::Ack, 1, _) | (Answer::Refusal, 2, false) | (Answer::Comp, 2, true) => {
                drop(queue.remove(at));
            }
            _ => return false,
        }
        true
    }

    /// What goes to the client next. A message that goes for the first time takes `id`, which must be
    /// free.
    pub(super) fn next(&mut self, client: usize, id: u16) -> Option<Sent> {
        let now = self.now;
        let session = self.connected(client)?;
        let window = session.window?;
        while !session.loose.is_empty() {
            let queued = session.loose.remove(0);
            if !queued.is_over(now) && session.wants(&queued) {
                return Some(queued.sent(now));
            }
        }
        if let Some(queued) = session.queue.iter_mut().find(|queued| queued.release) {
            queued.release = false;
            return Some(Sent::Release { id: queued.id });
        }
        loop {
            let at = session.queue.iter().position(|queued| !queued.is_open)?;
            let queued = &session.queue[at];
            if queued.id == 0 && (queued.is_over(now) || !session.wants(queued)) {
                session.queue.remove(at);
                continue;
            }
            if session.queue.iter().filter(|queued| queued.is_open).count() >= window {
                return None;
            }
            let is_free = id > 0 && session.queue.iter().all(|queued| queued.id != id);
            let queued = &mut session.queue[at];
            let dup = queued.id != 0;
            if !dup && is_free {
                queued.id = id;
            }
            queued.is_open = true;
            let mut sent = queued.sent(now);
            if let Sent::Publish { dup: again, .. } = &mut sent {
                *again = dup;
            }
            return Some(sent);
        }
    }
}

impl Queued {
    fn is_over(&self, now: u64) -> bool {
        self.message.expires_at.is_some_and(|end| end <= now)
    }

    /// As it goes for the first time.
    fn sent(&self, now: u64) -> Sent {
        let left = |end: u64| u32::try_from(end.saturating_sub(now)).unwrap();
        Sent::Publish {
            id: self.id,
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: self.message.topic.to_owned(),
            payload: self.message.payload.clone(),
            identifiers: self.identifiers.clone(),
            expires_in: self.message.expires_at.map(left),
        }
    }
}

impl Session {
    /// Whether one of the subscriptions that it came for is still there.
    fn wants(&self, queued: &Queued) -> bool {
        let mut known = self.subscriptions.iter();
        known.any(|(filter, _)| queued.filters.contains(filter))
    }

    /// Takes a message for its own subscriptions, and for the shares that `copies` name.
    fn take(&mut self, message: &Message, copies: &[&[String]]) {
        let its = self.subscriptions.iter().copied();
        let (shares, mut own): (Vec<_>, Vec<_>) = its
            .filter(|(filter, _)| matches(filter, message.topic))
            .partition(|(filter, _)| is_share(filter));
        let is_own = message.publisher == self.number;
        own.retain(|(_, to)| !(to.no_local && is_own));
        let goes_by_the_bus = message.qos == 0 && message.topic.starts_with('$');
        if goes_by_the_bus {
            own.clear();
        }
        for filters in copies {
            let of_share = shares.iter().find(|(share, _)| *filters == [*share]);
            let for_it = match of_share {
                Some(share) => vec![*share],
                None => std::mem::take(&mut own),
            };
            assert!(!for_it.is_empty(), "a copy for {filters:?}");
            self.queue(message, &for_it);
        }
        let is_lost = self.window.is_none() && self.qos(message, &own) == 0;
        assert!(own.is_empty() || is_lost, "no copy for {own:?}");
    }

    fn qos(&self, message: &Message, for_it: &[(&'static str, Subscription)]) -> u8 {
        let qos = for_it.iter().map(|(_, to)| to.qos).max().unwrap_or(0);
        qos.min(message.qos)
    }

    /// Puts a message that was just published into the queue.
    fn queue(&mut self, message: &Message, for_it: &[(&'static str, Subscription)]) {
        let retain = message.retain && for_it.iter().any(|(_, to)| to.retain_as_published);
        let qos = self.qos(message, for_it);
        self.queue_as(message.clone(), qos, retain, for_it);
    }

    fn queue_as(
        &mut self,
        message: Message,
        qos: u8,
        retain: bool,
        for_it: &[(&'static str, Subscription)],
    ) {
        let mut identifiers: Vec<_> = for_it.iter().filter_map(|(_, to)| to.identifier).collect();
        identifiers.sort_unstable();
        if qos == 0 && self.window.is_none() {
            return;
        }
        let queue = match qos {
            0 => &mut self.loose,
            _ => &mut self.queue,
        };
        queue.push(Queued {
            message,
            qos,
            retain,
            filters: for_it.iter().map(|(filter, _)| *filter).collect(),
            identifiers,
            id: 0,
            is_received: false,
            is_open: false,
            release: false,
        });
    }
}

fn is_share(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// Whether a filter, of a share or not, takes a topic (MQTT 5.0, 4.7).
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let of_share = filter.strip_prefix("$share/");
    let filter = match of_share.and_then(|rest| rest.split_once('/')) {
        Some((_, filter)) => filter,
        None => filter,
    };
    let (filter, topic): (Vec<_>, Vec<_>) =
        (filter.split('/').collect(), topic.split('/').collect());
    if topic[0].starts_with('$') && filter[0] != topic[0] {
        return false;
    }
    for (at, level) in filter.iter().enumerate() {
        match (*level, topic.get(at)) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", _) => {}
            (level, Some(other)) if level == *other => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}
