//! Random lives of clients, once with our sessions and their log and once with a broker that is too
//! simple to be wrong ([`naive`]): both send the same packets at every step.
//!
//! Which member of a share gets a message is ours to choose; that it is one of those who may is the
//! naive broker's to judge. Absent on purpose: what goes at QoS 0 by the bus (reserved topics) or from
//! the connection itself (retained messages at a SUBSCRIBE); queues at their bounds, which
//! `portcullis_core::session` tries. A failure shrinks, and prints the steps that are left;
//! `proptest-regressions` keeps its seed. `PORTCULLIS_MODEL_CASES` asks for more lives than the ordinary 200.

mod naive;
mod ours;

use proptest::prelude::*;

use self::naive::{Answer, Message, Sent, Subscription};

const CLIENTS: usize = 3;
const TOPICS: [&str; 5] = ["a", "a/b", "a/c", "b/b", "$s/b"];
const FILTERS: [&str; 12] = [
    "#",
    "a",
    "a/#",
    "a/b",
    "a/+",
    "+/b",
    "+",
    "$s/+",
    "b/b",
    "$share/g/a/#",
    "$share/g/+/b",
    "$share/h/a/#",
];
const NEVER: u32 = u32::MAX;

/// What may happen; all but [`Step::Connect`] passes a client that is not connected by.
#[derive(Clone, Debug)]
enum Step {
    /// `expiry_secs` of MQTT 3.1.1 follow from the clean session.
    Connect {
        client: usize,
        v5: bool,
        clean: bool,
        expiry_secs: u32,
        window: u16,
    },
    /// `expiry_secs` counts if the session has an expiry.
    Disconnect {
        client: usize,
        expiry_secs: Option<u32>,
    },
    Subscribe {
        client: usize,
        filter: &'static str,
        to: Subscription,
        handling: u8,
    },
    Unsubscribe {
        client: usize,
        filter: &'static str,
    },
    /// Published by the gateway itself if the client is not there.
    Publish {
        client: usize,
        id: u16,
        topic: &'static str,
        is_empty: bool,
        qos: u8,
        retain: bool,
        expires_in: Option<u64>,
    },
    Release {
        client: usize,
        id: u16,
    },
    /// Answers one of the packets that the client owes an answer, by its position.
    Answer {
        client: usize,
        at: prop::sample::Index,
    },
    /// An answer that need not fit anything.
    Noise {
        client: usize,
        answer: Answer,
        id: u16,
    },
    Wait {
        secs: u64,
        sweep: bool,
    },
    Checkpoint,
    Restart,
}

fn client() -> std::ops::Range<usize> {
    0..CLIENTS
}

fn expiry_secs() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0, 10, 30, 30, NEVER])
}

fn a_connect() -> impl Strategy<Value = Step> {
    let clean = prop::bool::weighted(0.2);
    let fields = (client(), any::<bool>(), clean, expiry_secs(), 1_u16..5);
    fields.prop_map(|(client, v5, clean, expiry_secs, window)| Step::Connect {
        client,
        v5,
        clean,
        expiry_secs,
        window,
    })
}

fn a_subscribe() -> impl Strategy<Value = Step> {
    let filter = prop::sample::select(FILTERS.to_vec());
    let identifier = prop::option::of(1_u32..20);
    let flags = (any::<bool>(), any::<bool>());
    let fields = (client(), filter, 0_u8..3, flags, identifier, 0_u8..3);
    fields.prop_map(|(client, filter, qos, flags, identifier, handling)| {
        let (no_local, retain_as_published) = flags;
        let to = Subscription {
            qos,
            no_local,
            retain_as_published,
            identifier,
        };
        Step::Subscribe {
            client,
            filter,
            to,
            handling,
        }
    })
}

fn a_publish() -> impl Strategy<Value = Step> {
    let topic = prop::sample::select(TOPICS.to_vec());
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.3));
    let expires_in = prop::option::weighted(0.3, 1_u64..30);
    let fields = (client(), 1_u16..4, topic, flags, 0_u8..3, expires_in);
    fields.prop_map(
        |(client, id, topic, (is_empty, retain), qos, expires_in)| Step::Publish {
            client,
            id,
            topic,
            is_empty,
            qos,
            retain,
            expires_in,
        },
    )
}

fn a_step() -> impl Strategy<Value = Step> {
    let answer = prop::sample::select(vec![
        Answer::Ack,
        Answer::Rec,
        Answer::Refusal,
        Answer::Comp,
    ]);
    let filter = prop::sample::select(FILTERS.to_vec());
    let shorter = prop::option::weighted(0.3, expiry_secs());
    prop_oneof![
        5 => a_connect(),
        6 => a_subscribe(),
        12 => a_publish(),
        12 => (client(), any::<prop::sample::Index>())
            .prop_map(|(client, at)| Step::Answer { client, at }),
        3 => (client(), answer, 0_u16..8)
            .prop_map(|(client, answer, id)| Step::Noise { client, answer, id }),
        3 => (client(), 1_u16..4).prop_map(|(client, id)| Step::Release { client, id }),
        2 => (client(), filter).prop_map(|(client, filter)| Step::Unsubscribe { client, filter }),
        2 => (client(), shorter)
            .prop_map(|(client, expiry_secs)| Step::Disconnect { client, expiry_secs }),
        2 => (1_u64..15, any::<bool>()).prop_map(|(secs, sweep)| Step::Wait { secs, sweep }),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Restart),
    ]
}

/// Both brokers, and what the clients have in hand.
struct World {
    ours: ours::Broker,
    naive: naive::Broker,
    /// Answers that each client owes.
    owed: Vec<Vec<(Answer, u16)>>,
    /// What each client's session lives without a connection.
    expiry_secs: Vec<u32>,
    is_v5: Vec<bool>,
    published: u32,
}

impl World {
    fn new() -> Self {
        Self {
            ours: ours::Broker::new(CLIENTS),
            naive: naive::Broker::new(CLIENTS),
            owed: vec![Vec::new(); CLIENTS],
            expiry_secs: vec![0; CLIENTS],
            is_v5: vec![true; CLIENTS],
            published: 0,
        }
    }

    fn act(&mut self, step: &Step) {
        match *step {
            Step::Connect {
                client,
                v5,
                clean,
                expiry_secs,
                window,
            } => {
                let expiry_secs = match (v5, clean) {
                    (true, _) => expiry_secs,
                    (false, true) => 0,
                    (false, false) => NEVER,
                };
                self.connect(client, clean, expiry_secs, window);
                self.is_v5[client] = v5;
            }
            Step::Wait { secs, sweep } => {
                self.naive.now += secs;
                self.naive.end_sessions();
                self.ours.set_time(self.naive.now);
                if sweep {
                    self.ours.sweep();
                }
            }
            Step::Checkpoint => self.ours.checkpoint(),
            Step::Restart => {
                self.ours.restart();
                self.naive.restart();
                self.owed.fill(Vec::new());
            }
            Step::Publish { .. } => self.publish(step),
            Step::Disconnect { client, .. }
            | Step::Subscribe { client, .. }
            | Step::Unsubscribe { client, .. }
            | Step::Release { client, .. }
            | Step::Answer { client, .. }
            | Step::Noise { client, .. } => {
                if self.ours.is_connected(client) {
                    self.act_connected(step);
                }
            }
        }
        if matches!(step, Step::Subscribe { .. } | Step::Publish { qos: 2, .. }) {
            self.ours.settle();
        }
        self.compare_sent();
    }

    fn connect(&mut self, client: usize, clean: bool, expiry_secs: u32, window: u16) {
        let is_present = self.ours.connect(client, clean, expiry_secs, window);
        let naively = self
            .naive
            .connect(client, clean, expiry_secs, window.into());
        assert_eq!(is_present, naively, "session present");
        self.owed[client].clear();
        self.expiry_secs[client] = expiry_secs;
    }

    fn act_connected(&mut self, step: &Step) {
        let (ours, naively) = match *step {
            Step::Disconnect {
                client,
                expiry_secs,
            } => {
                let is_heard = self.is_v5[client] && self.expiry_secs[client] > 0;
                let expiry_secs = expiry_secs.filter(|_| is_heard);
                self.ours.disconnect(client, expiry_secs);
                self.naive.disconnect(client, expiry_secs);
                self.owed[client].clear();
                (true, true)
            }
            Step::Subscribe {
                client,
                filter,
                mut to,
                mut handling,
            } => {
                if !self.is_v5[client] {
                    to = Subscription {
                        qos: to.qos,
                        no_local: false,
                        retain_as_published: false,
                        identifier: None,
                    };
                    handling = 0;
                }
                // With both it is a protocol error (MQTT 5.0, 3.8.3.1).
                to.no_local &= !filter.starts_with("$share/");
                (
                    self.ours.subscribe(client, filter, to, handling),
                    self.naive.subscribe(client, filter, to, handling),
                )
            }
            Step::Unsubscribe { client, filter } => (
                self.ours.unsubscribe(client, filter),
                self.naive.unsubscribe(client, filter),
            ),
            Step::Release { client, id } => (
                self.ours.release(client, id),
                self.naive.release(client, id),
            ),
            Step::Answer { client, at } => {
                if self.owed[client].is_empty() {
                    return;
                }
                let at = at.index(self.owed[client].len());
                let (answer, id) = self.owed[client].remove(at);
                self.answer(client, answer, id)
            }
            Step::Noise { client, answer, id } => self.answer(client, answer, id),
            _ => unreachable!("not of a connection"),
        };
        assert_eq!(ours, naively, "whether there was one: {step:?}");
    }

    fn answer(&mut self, client: usize, answer: Answer, id: u16) -> (bool, bool) {
        let ours = self.ours.answer(client, answer, id);
        if ours && answer == Answer::Rec {
            // A PUBREL goes, and is answered.
            self.owed[client].push((Answer::Comp, id));
        }
        (ours, self.naive.answer(client, answer, id))
    }

    fn publish(&mut self, step: &Step) {
        let &Step::Publish {
            client,
            id,
            topic,
            is_empty,
            qos,
            retain,
            expires_in,
        } = step
        else {
            unreachable!("a publish")
        };
        self.published += 1;
        let message = Message {
            topic,
            payload: if is_empty {
                String::new()
            } else {
                self.published.to_string()
            },
            qos,
            retain,
            expires_at: expires_in.map(|secs| self.naive.now + secs),
            publisher: 0,
        };
        let client = self.ours.is_connected(client).then_some(client);
        let id = (qos == 2 && client.is_some()).then_some(id);
        let copies = self.ours.publish(client, id, &message);
        self.naive.publish(client, id, &message, &copies);
    }

    fn compare_sent(&mut self) {
        for client in 0..CLIENTS {
            loop {
                let sent = self.ours.next(client);
                let id = match sent {
                    Some(Sent::Publish { id, .. } | Sent::Release { id }) => id,
                    None => 0,
                };
                assert_eq!(sent, self.naive.next(client, id), "to client {client}");
                let owed = &mut self.owed[client];
                match sent {
                    None => break,
                    Some(Sent::Release { id }) => owed.push((Answer::Comp, id)),
                    Some(Sent::Publish { qos: 0, .. }) => {}
                    Some(Sent::Publish { id, qos: 1, .. }) => owed.push((Answer::Ack, id)),
                    Some(Sent::Publish { id, .. }) => owed.push((Answer::Rec, id)),
                }
            }
        }
    }

    /// Everybody comes back and takes what there is.
    fn finish(&mut self) {
        for client in 0..CLIENTS {
            self.connect(client, false, NEVER, 3);
        }
        self.compare_sent();
        for client in 0..CLIENTS {
            while let Some((answer, id)) = self.owed[client].pop() {
                let (ours, naively) = self.answer(client, answer, id);
                assert_eq!(ours, naively, "the last answers");
                self.compare_sent();
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("PORTCULLIS_MODEL_CASES").map_or(200, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn sessions_send_what_a_naive_broker_sends(
        steps in prop::collection::vec(a_step(), 1..80)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.act(step);
        }
        world.finish();
    }
}
