//! What clients do while the recorder runs, and what they must find again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::Value;

use super::log::{Entry, Marks};
use crate::peer::{Asked, Got, Peer, Publish};

/// Publishes that a client has open.
const WINDOW: usize = 8;
/// Every so many messages one is retained.
const RETAINED_EVERY: u64 = 10;
pub(crate) const CLIENTS: [&str; 4] = ["p-0", "p-1", "p-2", "p-3"];
/// Who keep their sessions.
pub(super) const KEEPERS: [&str; 3] = ["kept-0", "kept-1", "kept-2"];

/// The payload of a client's message: its length and text come from its number, so that whoever sees
/// it can tell whether it is whole.
pub(crate) fn payload(client: &str, n: u64) -> String {
    let seed = client.bytes().fold(n, |seed, byte| {
        seed.wrapping_mul(131).wrapping_add(u64::from(byte))
    });
    let mut random = fastrand::Rng::with_seed(seed);
    let bytes = match random.u8(0..50) {
        // Longer than one value of the engine.
        0 => random.usize(8_000..20_000),
        _ => random.usize(10..600),
    };
    let text: String = (0..bytes).map(|_| random.lowercase()).collect();
    format!("{{\"c\":\"{client}\",\"n\":{n},\"text\":\"{text}\"}}")
}

/// Whose message a payload is, and which; panics if it is not whole.
pub(crate) fn read_payload(payload_read: &Value) -> (String, u64) {
    let client = payload_read["c"].as_str().unwrap().to_owned();
    let n = payload_read["n"].as_u64().unwrap();
    let sent: Value = serde_json::from_str(&payload(&client, n)).unwrap();
    assert_eq!(*payload_read, sent, "damage was passed on as data");
    (client, n)
}

/// Clients that publish until they are told to end or the gateway is gone.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    pub(super) acked: Arc<AtomicU64>,
    clients: Vec<JoinHandle<u64>>,
}

impl Traffic {
    /// Each client goes on from its number in `next`.
    pub(super) fn start(address: SocketAddr, next: &[u64], marks: &Arc<Marks>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicU64::new(0));
        let clients = CLIENTS
            .iter()
            .zip(next)
            .map(|(client, first)| {
                let (stop, acked, marks) = (stop.clone(), acked.clone(), marks.clone());
                let first = *first;
                thread::spawn(move || {
                    let mut publisher = Publisher {
                        client,
                        next: first,
                        open: VecDeque::new(),
                        stop,
                        acked,
                        marks,
                    };
                    // The gateway may be killed at any moment.
                    publisher.run(address).ok();
                    publisher.next
                })
            })
            .collect();
        Self {
            stop,
            acked,
            clients,
        }
    }

    /// Ends it; where each client goes on.
    pub(super) fn end(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Release);
        let clients = self.clients.into_iter();
        clients.map(|client| client.join().unwrap()).collect()
    }
}

struct Publisher {
    client: &'static str,
    next: u64,
    open: VecDeque<(u16, u64)>,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    marks: Arc<Marks>,
}

impl Publisher {
    fn run(&mut self, address: SocketAddr) -> io::Result<()> {
        let (mut peer, _) = Peer::connect(address, &asked(self.client, true))?;
        loop {
            let ends = self.stop.load(Ordering::Acquire);
            if ends && self.open.is_empty() {
                return peer.disconnect();
            }
            if !ends && self.open.len() < WINDOW {
                self.publish(&mut peer)?;
                continue;
            }
            let got = peer.receive()?;
            let Got::Ack(id) = got else {
                panic!("{}: {got:?}", self.client);
            };
            let (open, n) = self.open.pop_front().unwrap();
            assert_eq!(open, id, "acknowledgements come in order");
            self.marks.note(&format!("acked {} {n}", self.client));
            self.acked.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn publish(&mut self, peer: &mut Peer) -> io::Result<()> {
        let n = self.next;
        self.next += 1;
        let id = u16::try_from(n % 60_000).unwrap() + 1;
        let retain = is_retained(n);
        self.open.push_back((id, n));
        peer.publish(&Publish {
            qos: 1,
            id,
            retain,
            topic: if retain {
                kept_topic(self.client)
            } else {
                format!("dt/{}/t", self.client)
            },
            payload: payload(self.client, n),
            dup: false,
        })
    }
}

fn is_retained(n: u64) -> bool {
    n.is_multiple_of(RETAINED_EVERY)
}

fn kept_topic(client: &str) -> String {
    format!("kept/{client}")
}

fn asked(client_id: &str, clean: bool) -> Asked<'_> {
    Asked {
        version: 5,
        client_id,
        clean,
        expiry_secs: 3600,
        window: 100,
    }
}

/// Makes a session that is kept, and notes it once the gateway has granted its subscription.
pub(super) fn keep_session(address: SocketAddr, client_id: &str, marks: &Marks) {
    let (mut peer, _) = Peer::connect(address, &asked(client_id, false)).unwrap();
    peer.subscribe(1, "nothing/at/all", 1).unwrap();
    assert_eq!(peer.receive().unwrap(), Got::SubAck(1));
    marks.note(&format!("session {client_id}"));
}

/// What must be there, as the marks before a cut say.
#[derive(Clone, Debug, Default)]
pub(super) struct Promised {
    pub(super) messages: BTreeMap<String, BTreeSet<u64>>,
    pub(super) sessions: BTreeSet<String>,
    /// How many records the sink has taken.
    pub(super) taken: usize,
}

impl Promised {
    /// Adds what was promised before the cut.
    pub(super) fn note(&mut self, entries: &[Entry]) {
        for entry in entries {
            let Entry::Mark(mark) = entry else {
                continue;
            };
            let words: Vec<_> = mark.split(' ').collect();
            match words[..] {
                ["acked", client, n] => {
                    let messages = self.messages.entry(client.to_owned()).or_default();
                    messages.insert(n.parse().unwrap());
                }
                ["session", client_id] => drop(self.sessions.insert(client_id.to_owned())),
                ["taken", count] => self.taken = count.parse().unwrap(),
                _ => panic!("a mark that says {mark:?}"),
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.messages.values().map(BTreeSet::len).sum()
    }

    /// Retained messages and sessions are there. A message that is newer than the acknowledged one is
    /// as good.
    pub(super) fn check_sessions(&self, address: SocketAddr) {
        for client_id in &self.sessions {
            let (_, is_present) = Peer::connect(address, &asked(client_id, false)).unwrap();
            assert!(is_present, "the session of {client_id} was acknowledged");
        }
        let (mut peer, _) = Peer::connect(address, &asked("watcher", true)).unwrap();
        for (client, messages) in &self.messages {
            let Some(last) = messages.iter().rev().find(|n| is_retained(**n)) else {
                continue;
            };
            peer.subscribe(1, &kept_topic(client), 0).unwrap();
            // The marker comes behind whatever is retained, so its absence is seen.
            peer.subscribe(2, "nothing/at/all", 0).unwrap();
            let mut found = None;
            loop {
                match peer.receive().unwrap() {
                    Got::SubAck(2) => break,
                    Got::Publish(publish) => found = Some(publish.payload),
                    _ => {}
                }
            }
            if found.is_none() {
                // The delivery may come behind both answers.
                let Ok(Got::Publish(publish)) = peer.receive() else {
                    panic!("{client}: retained message {last} was acknowledged");
                };
                found = Some(publish.payload);
            }
            let value = serde_json::from_str(&found.unwrap()).unwrap();
            let (of, n) = read_payload(&value);
            assert!(
                of == *client && n >= *last,
                "{client}: retained {n} < {last}"
            );
        }
    }
}
