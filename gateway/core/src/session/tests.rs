use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::event::Qos;

const BOUNDS: OutgoingBounds = OutgoingBounds {
    messages_max: 40,
    bytes_max: 400,
};

fn queue(messages: u32) -> Outgoing<u32> {
    let mut queue = Outgoing::new(BOUNDS);
    for n in 0..messages {
        queue.offer(Qos::AtLeastOnce, 1, n).unwrap();
    }
    queue
}

fn send(queue: &mut Outgoing<u32>) -> Vec<(u16, bool, u32)> {
    let mut sent = Vec::new();
    while let Some(Transmission::Publish {
        pkid, dup, message, ..
    }) = queue.next_transmission(|_| false, |_, _| {})
    {
        sent.push((pkid, dup, *message));
    }
    sent
}

#[test]
fn nothing_goes_beyond_the_window_and_an_answer_makes_room() {
    let mut queue = queue(5);
    assert_eq!(send(&mut queue), []);
    queue.connect(2);
    assert_eq!(send(&mut queue), [(1, false, 0), (2, false, 1)]);
    assert_eq!(queue.acknowledged(2, Qos::AtLeastOnce).unwrap().message, 1);
    assert_eq!(send(&mut queue), [(3, false, 2)]);
    assert_eq!(queue.in_flight_len(), 2);
}

#[test]
fn what_is_in_flight_goes_again_first_with_its_id_and_dup() {
    let mut queue = queue(4);
    queue.connect(3);
    send(&mut queue);
    queue.acknowledged(1, Qos::AtLeastOnce).unwrap();
    queue.disconnect();
    assert_eq!(send(&mut queue), []);
    queue.connect(10);
    assert_eq!(
        send(&mut queue),
        [(2, true, 1), (3, true, 2), (4, false, 3)]
    );
}

#[test]
fn an_answer_to_nothing_changes_nothing() {
    let mut queue = queue(2);
    queue.connect(1);
    send(&mut queue);
    for pkid in [0, 2, 3, u16::MAX] {
        assert_eq!(
            queue.acknowledged(pkid, Qos::AtLeastOnce),
            Err(Unexpected),
            "{pkid}"
        );
    }
    assert_eq!(queue.acknowledged(1, Qos::ExactlyOnce), Err(Unexpected));
    assert_eq!(queue.received(1), Err(Unexpected));
    assert_eq!(queue.completed(1), Err(Unexpected));
    assert_eq!(queue.len(), 2);
    assert_eq!(send(&mut queue), []);
}

#[test]
fn the_newest_message_is_refused_at_either_bound() {
    let mut queue: Outgoing<u32> = Outgoing::new(OutgoingBounds {
        messages_max: 2,
        bytes_max: 10,
    });
    assert_eq!(queue.offer(Qos::AtLeastOnce, 11, 0), Err(Full));
    assert_eq!(queue.offer(Qos::AtLeastOnce, 4, 0), Ok(0));
    assert_eq!(queue.offer(Qos::AtLeastOnce, 7, 1), Err(Full));
    assert_eq!(queue.offer(Qos::AtLeastOnce, 6, 1), Ok(1));
    assert_eq!(queue.offer(Qos::AtLeastOnce, 0, 2), Err(Full));
    queue.connect(1);
    send(&mut queue);
    queue.acknowledged(1, Qos::AtLeastOnce).unwrap();
    assert_eq!(queue.bytes(), 6);
    assert_eq!(queue.offer(Qos::AtLeastOnce, 4, 2), Ok(2));
}

#[test]
fn packet_ids_begin_anew_without_meeting_one_in_flight() {
    let mut queue = Outgoing::restore(BOUNDS, [], 65_534, 65_534);
    for n in 0..3 {
        queue.offer(Qos::AtLeastOnce, 1, n).unwrap();
    }
    queue.connect(10);
    let ids: Vec<_> = send(&mut queue).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, [65_535, 1, 2]);
    assert_eq!(queue.acknowledged(1, Qos::AtLeastOnce).unwrap().message, 1);
    assert_eq!(
        queue
            .acknowledged(65_535, Qos::AtLeastOnce)
            .unwrap()
            .message,
        0
    );
    assert_eq!(queue.acknowledged(2, Qos::AtLeastOnce).unwrap().message, 2);
    assert!(queue.is_empty());
}

#[test]
fn a_message_65535_after_one_in_flight_waits_for_it() {
    let mut queue: Outgoing<u32> = Outgoing::new(OutgoingBounds {
        messages_max: 100_000,
        bytes_max: 100_000,
    });
    for n in 0..65_536 {
        queue.offer(Qos::AtLeastOnce, 1, n).unwrap();
    }
    queue.connect(u16::MAX);
    assert_eq!(send(&mut queue).len(), 65_535);
    for pkid in 2..=65_535 {
        queue.acknowledged(pkid, Qos::AtLeastOnce).unwrap();
    }
    assert_eq!(send(&mut queue), []);
    queue.acknowledged(1, Qos::AtLeastOnce).unwrap();
    assert_eq!(send(&mut queue), [(1, false, 65_535)]);
}

#[test]
fn a_qos_2_message_waits_until_it_is_settled() {
    let mut queue: Outgoing<u32> = Outgoing::new(BOUNDS);
    queue.settle(0);
    queue.offer(Qos::AtLeastOnce, 1, 0).unwrap();
    queue.offer(Qos::ExactlyOnce, 1, 1).unwrap();
    queue.connect(9);
    assert_eq!(send(&mut queue), [(1, false, 0)]);
    queue.settle(1);
    assert_eq!(send(&mut queue), []);
    queue.settle(2);
    assert_eq!(send(&mut queue), [(2, false, 1)]);
}

#[test]
fn what_is_void_leaves_unless_it_was_sent() {
    let mut queue = queue(4);
    queue.connect(1);
    send(&mut queue);
    queue.connect(10);
    let mut gone = Vec::new();
    let mut sent = Vec::new();
    while let Some(Transmission::Publish { message, .. }) =
        queue.next_transmission(|&n| n != 3, |number, n| gone.push((number, n)))
    {
        sent.push(*message);
    }
    assert_eq!(sent, [0, 3]);
    assert_eq!(gone, [(1, 1), (2, 2)]);
    assert_eq!(queue.len(), 2);
}

/// What may happen to a session.
#[derive(Clone, Debug)]
enum Step {
    Offer(Qos),
    Connect(u16),
    /// The gateway writes what it has.
    Send,
    /// The client answers one of the packets that it has, by position.
    Answer(usize),
    Disconnect,
    /// The gateway starts again from what it wrote down.
    Restart,
    /// The client sends an answer that fits nothing, as it may.
    Noise(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)].prop_map(Step::Offer),
        2 => (1..5_u16).prop_map(Step::Connect),
        8 => Just(Step::Send),
        8 => (0..8_usize).prop_map(Step::Answer),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Restart),
        1 => (0..20_u16).prop_map(Step::Noise),
    ]
}

/// A packet that the client has to answer.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Ack(u16),
    Rec(u16),
    Comp(u16),
}

/// The other side, as simple as MQTT lets it be.
#[derive(Debug, Default)]
struct Client {
    owed: VecDeque<Owed>,
    /// QoS 2 ids that it holds.
    held: BTreeSet<u16>,
    taken: Vec<(Qos, u32)>,
}

impl Client {
    fn publish(&mut self, pkid: u16, dup: bool, qos: Qos, message: u32) {
        let known = self.taken.contains(&(qos, message));
        assert!(dup || !known, "{message} came again without DUP");
        if qos == Qos::AtLeastOnce {
            self.owed.push_back(Owed::Ack(pkid));
            self.taken.push((qos, message));
            return;
        }
        self.owed.push_back(Owed::Rec(pkid));
        if self.held.insert(pkid) {
            assert!(!known, "{message} was taken twice");
            self.taken.push((qos, message));
        }
    }
}

/// One session with its client, and what was offered to it.
struct World {
    queue: Outgoing<u32>,
    client: Client,
    offered: Vec<(Qos, u32)>,
    window: u16,
}

impl World {
    fn act(&mut self, step: &Step) {
        match *step {
            Step::Offer(qos) => {
                let message = u32::try_from(self.offered.len()).unwrap();
                if self.queue.offer(qos, 3, message).is_ok() {
                    self.offered.push((qos, message));
                }
            }
            Step::Connect(window) => {
                self.client.owed.clear();
                self.window = window;
                self.queue.connect(window);
            }
            Step::Send => self.send(),
            Step::Answer(at) => self.answer(at),
            Step::Disconnect => {
                self.client.owed.clear();
                self.window = 0;
                self.queue.disconnect();
            }
            Step::Restart => {
                let written = self
                    .queue
                    .iter()
                    .map(|(number, qos, stage, &message)| Restored {
                        number,
                        qos,
                        bytes: 3,
                        stage,
                        message,
                    });
                let (next, unsent) = (self.queue.next_number(), self.queue.unsent());
                self.queue = Outgoing::restore(BOUNDS, written.collect::<Vec<_>>(), next, unsent);
                self.client.owed.clear();
                self.window = 0;
            }
            Step::Noise(pkid) => {
                if !self.client.owed.iter().any(|owed| match *owed {
                    Owed::Ack(id) | Owed::Rec(id) | Owed::Comp(id) => id == pkid,
                }) {
                    // Whether it fits nothing or is repeated: no message may get lost by it.
                    let in_exchange = self.client.held.contains(&pkid);
                    let acked = self.queue.acknowledged(pkid, Qos::AtLeastOnce);
                    assert!(acked.is_err(), "nothing was owed for {pkid}");
                    if !in_exchange {
                        assert!(self.queue.completed(pkid).is_err());
                    }
                }
            }
        }
    }

    fn send(&mut self) {
        loop {
            let open = self.client.owed.len();
            match self.queue.next_transmission(|_| false, |_, _| {}) {
                None => return,
                Some(Transmission::Release { pkid }) => {
                    self.client.owed.push_back(Owed::Comp(pkid));
                }
                Some(Transmission::Publish {
                    pkid,
                    dup,
                    qos,
                    message,
                    ..
                }) => {
                    assert!(open < usize::from(self.window), "over the window");
                    self.client.publish(pkid, dup, qos, *message);
                }
            }
        }
    }

    fn answer(&mut self, at: usize) {
        let Some(owed) = self
            .client
            .owed
            .remove(at.min(self.client.owed.len().saturating_sub(1)))
        else {
            return;
        };
        match owed {
            Owed::Ack(pkid) => {
                self.queue.acknowledged(pkid, Qos::AtLeastOnce).unwrap();
            }
            Owed::Rec(pkid) => {
                self.queue.received(pkid).unwrap();
                self.client.owed.push_back(Owed::Comp(pkid));
            }
            Owed::Comp(pkid) => {
                self.client.held.remove(&pkid);
                self.queue.completed(pkid).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_message_arrives_in_order_and_those_of_qos_2_once(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut world = World {
            queue: Outgoing::new(BOUNDS),
            client: Client::default(),
            offered: Vec::new(),
            window: 0,
        };
        for step in &steps {
            world.act(step);
        }
        world.act(&Step::Connect(3));
        // Three answers end an exchange, if every one of them gets it on.
        for _ in 0..=3 * BOUNDS.messages_max {
            world.send();
            world.answer(0);
        }
        prop_assert!(world.queue.is_empty(), "stuck: {:?}", world.queue);
        let mut first = BTreeSet::new();
        let arrived: Vec<_> =
            world.client.taken.iter().copied().filter(|&(_, m)| first.insert(m)).collect();
        prop_assert_eq!(arrived, world.offered);
        prop_assert_eq!(world.queue.bytes(), 0);
    }
}
