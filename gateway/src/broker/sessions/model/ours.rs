//! Sessions with their log on a disk, driven as a connection drives them (`broker::client`).

use std::{sync::Arc, thread::JoinHandle};

use bytes::Bytes;
use portcullis_core::{
    event::Qos,
    identity::ClientId,
    timestamp::Timestamp,
    topic::{Subscribed, TopicName},
};
use prometheus::Registry;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    super::{Asked, Options, Origin, Outbound, Session, Sessions},
    naive::{Answer, Message, Sent, Subscription},
};
use crate::{
    broker::message,
    clock,
    wal::{self, WriteError},
};

/// The beginning of the model's time.
const BEGINNING: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// See the module.
#[derive(Debug)]
pub(super) struct Broker {
    dir: TempDir,
    running: Option<Running>,
    connections: Vec<Option<Connection>>,
    last_connection: u64,
}

#[derive(Debug)]
struct Running {
    sessions: Arc<Sessions>,
    writer: JoinHandle<Result<(), WriteError>>,
}

#[derive(Clone, Debug)]
struct Connection {
    session: Arc<Session>,
    number: u64,
}

fn start(dir: &TempDir) -> Running {
    let metrics = wal::Metrics::register(&Registry::new());
    let (sessions, writer) = Sessions::open(
        dir.path(),
        crate::broker::Limits::default().of_sessions(),
        metrics,
    )
    .unwrap();
    Running {
        sessions: Arc::new(sessions),
        writer: std::thread::spawn(move || writer.run(&CancellationToken::new())),
    }
}

fn client_id(client: usize) -> ClientId {
    ClientId::parse(&format!("c{client}")).unwrap()
}

fn at(secs: u64) -> Timestamp {
    BEGINNING.plus_millis(secs * 1000)
}

impl Broker {
    pub(super) fn new(clients: usize) -> Self {
        clock::stand_at(at(0));
        let dir = TempDir::new().unwrap();
        Self {
            running: Some(start(&dir)),
            dir,
            connections: vec![None; clients],
            last_connection: 0,
        }
    }

    fn sessions(&self) -> &Arc<Sessions> {
        &self.running.as_ref().unwrap().sessions
    }

    fn connection(&self, client: usize) -> &Connection {
        self.connections[client].as_ref().unwrap()
    }

    pub(super) fn is_connected(&self, client: usize) -> bool {
        self.connections[client].is_some()
    }

    /// It is `secs` after the beginning.
    pub(super) fn set_time(&self, secs: u64) {
        clock::stand_at(at(secs));
    }

    pub(super) fn sweep(&self) {
        self.sessions().sweep(clock::now());
    }

    /// The log is written anew.
    pub(super) fn checkpoint(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(self.sessions().checkpoint());
    }

    /// Ends and opens again; nothing is said to anybody about the end.
    pub(super) fn restart(&mut self) {
        self.connections.fill(None);
        let Running { sessions, writer } = self.running.take().unwrap();
        drop(Arc::into_inner(sessions).unwrap());
        writer.join().unwrap().unwrap();
        self.running = Some(start(&self.dir));
    }

    pub(super) fn connect(&mut self, client: usize, clean: bool, expiry: u32, max: u16) -> bool {
        self.last_connection += 1;
        let asked = Asked {
            clean_start: clean,
            expiry_secs: expiry,
            window: max,
            owner: None,
            connection: self.last_connection,
        };
        let attached = self.sessions().attach(&client_id(client), &asked);
        let attached = attached.unwrap();
        // The former connection notices later.
        self.disconnect(client, None);
        self.connections[client] = Some(Connection {
            session: attached.session,
            number: self.last_connection,
        });
        attached.is_present
    }

    pub(super) fn disconnect(&mut self, client: usize, expiry: Option<u32>) {
        if let Some(Connection { session, number }) = self.connections[client].take() {
            self.sessions().detach(&session, number, expiry);
        }
    }

    /// As the SUBSCRIBE of a connection: what goes at QoS 0 is not looked at.
    pub(super) fn subscribe(
        &self,
        client: usize,
        filter: &str,
        to: Subscription,
        handling: u8,
    ) -> bool {
        let Connection { session, .. } = self.connection(client);
        let subscribed = Subscribed::parse(filter).unwrap();
        let options = Options {
            qos: Qos::from_u8(to.qos),
            no_local: to.no_local,
            retain_as_published: to.retain_as_published,
            identifier: to.identifier,
        };
        let is_new = self.sessions().subscribe(session, &subscribed, options);
        let wants_retained = handling == 0 || handling == 1 && is_new;
        if wants_retained && subscribed.share.is_none() {
            let retained = &self.sessions().retained;
            for message in retained.matching(&subscribed.filter, clock::now()) {
                let qos = message.qos.min(options.qos);
                let is_own = options.excludes(message.publisher, session.number);
                if qos != Qos::AtMostOnce && !is_own {
                    let sessions = self.sessions();
                    assert!(sessions.queue_retained(session, &subscribed, options, qos, &message));
                }
            }
        }
        is_new
    }

    pub(super) fn unsubscribe(&self, client: usize, filter: &str) -> bool {
        let subscribed = Subscribed::parse(filter).unwrap();
        let Connection { session, .. } = self.connection(client);
        self.sessions().unsubscribe(session, &subscribed)
    }

    /// Who got it: the filters of each copy, in the order of the client's queue.
    pub(super) fn publish(
        &self,
        client: Option<usize>,
        id: Option<u16>,
        given: &Message,
    ) -> Vec<(usize, Vec<String>)> {
        let session = client.map(|client| &self.connection(client).session);
        let origin = session
            .zip(id)
            .map(|(session, pkid)| Origin { session, pkid });
        if origin.is_some_and(|origin| origin.session.has_incoming(origin.pkid)) {
            return Vec::new();
        }
        let expires_at = given.expires_at.map(at);
        let message = message::Message {
            topic: TopicName::parse(given.topic).unwrap(),
            payload: Bytes::from(given.payload.clone()),
            qos: Qos::from_u8(given.qos),
            retain: given.retain,
            publisher: session.map_or(0, |session| session.number),
            properties: expires_at.map(|end| PublishProperties {
                message_expiry_interval: Some(
                    u32::try_from(end.millis_since(clock::now()) / 1000).unwrap(),
                ),
                ..PublishProperties::default()
            }),
            expires_at,
        };
        let message = Arc::new(message);
        let routed = self.sessions().dispatch(&message, origin);
        assert_eq!(routed.overflowed, 0);
        let mut copies = Vec::new();
        for client in 0..self.connections.len() {
            let Some(session) = self.sessions().of(&client_id(client)) else {
                continue;
            };
            let state = session.lock();
            let queued = state.outgoing.iter().map(|(_, _, _, queued)| queued);
            let all = state.loose.iter().chain(queued);
            let its = all.filter(|queued| Arc::ptr_eq(&queued.message, &message));
            copies.extend(its.map(|queued| (client, queued.filters())));
        }
        copies
    }

    pub(super) fn release(&self, client: usize, id: u16) -> bool {
        let session = &self.connection(client).session;
        let released = session.release_incoming(&self.sessions().log, id);
        released.was_there
    }

    /// Whether it was to something.
    pub(super) fn answer(&self, client: usize, answer: Answer, id: u16) -> bool {
        let session = &self.connection(client).session;
        let log = &self.sessions().log;
        match answer {
            Answer::Ack => session.acknowledged(log, id, Qos::AtLeastOnce).is_ok(),
            Answer::Refusal => session.acknowledged(log, id, Qos::ExactlyOnce).is_ok(),
            Answer::Rec => session.received(log, id).is_ok(),
            Answer::Comp => session.completed(log, id).is_ok(),
        }
    }

    /// Until everything is durable: QoS 2 messages wait for it.
    pub(super) fn settle(&self) {
        let durable = self.sessions().log.durable().unwrap();
        durable.blocking_recv().unwrap();
    }

    pub(super) fn next(&self, client: usize) -> Option<Sent> {
        let Connection { session, number } = self.connections[client].as_ref()?;
        let log = &self.sessions().log;
        let mut batch = Vec::new();
        session.next_batch(log, *number, clock::now(), 1, &mut batch, |_| {});
        Some(match batch.pop()? {
            Outbound::Release { pkid } => Sent::Release { id: pkid },
            Outbound::Publish {
                pkid,
                dup,
                qos,
                queued,
                ..
            } => {
                let properties = queued.message.properties_at(clock::now());
                let mut identifiers = queued.identifiers;
                identifiers.sort_unstable();
                Sent::Publish {
                    id: pkid,
                    dup,
                    qos: qos.as_u8(),
                    retain: queued.retain,
                    topic: queued.message.topic.to_string(),
                    payload: String::from_utf8(queued.message.payload.to_vec()).unwrap(),
                    identifiers,
                    expires_in: properties.and_then(|given| given.message_expiry_interval),
                }
            }
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.connections.clear();
        if let Some(Running { sessions, writer }) = self.running.take() {
            drop(sessions);
            drop(writer.join());
        }
    }
}
