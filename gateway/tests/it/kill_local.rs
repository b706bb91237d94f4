//! The promise to local subscribers, from end to end: clients with sessions that they keep publish at
//! QoS 0, 1 and 2 and set and clear retained messages, others subscribe at QoS 1 and 2, while the
//! gateway is killed with SIGKILL at random moments and started again on the same data.
//!
//! Every client does what the standard asks of it, to the packet: it resends what is not answered,
//! with its packet id, and takes a QoS 2 message once. Publishers use the lowest free packet id, which
//! is the hardest for a gateway that forgets.
//!
//! `PORTCULLIS_KILL_LOCAL_KILLS` sets the number of kills; `gateway/tests/kill_local.sh` runs it in
//! full.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    peer::{Asked, Got, Peer, Publish},
    served::{PATIENCE, Served, eventually},
};

const ANYTHING: &str = r#"{"Version":"2012-10-17","Statement":[
  {"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;
/// Publishes that a publisher has open at most, and messages that a subscriber takes at once.
const WINDOW: u16 = 8;
const PUBLISHERS: [(&str, u8); 3] = [("p-0", 4), ("p-1", 5), ("p-2", 5)];
/// Client id, version, QoS of its subscription.
const SUBSCRIBERS: [(&str, u8, u8); 4] =
    [("s-0", 4, 1), ("s-1", 4, 2), ("s-2", 5, 1), ("s-3", 5, 2)];
/// The message to it is the last.
const LAST: &str = "k/last";
/// A subscriber loses its connection by itself once in so many messages.
const LOSSES: usize = 400;

/// What all clients see.
#[derive(Debug)]
struct Stage {
    gateway: SocketAddr,
    /// Nobody connects.
    is_closed: AtomicBool,
    /// Publishers begin nothing new.
    is_last: AtomicBool,
    answered: AtomicUsize,
    /// Connections of sessions that were there before.
    resumed: AtomicUsize,
    subscribed: AtomicUsize,
    /// What may be in a retained topic: the last value that was acknowledged, and those after it, each
    /// with its number.
    retained: Mutex<BTreeMap<String, Vec<(u64, String)>>>,
}

/// Connects a client that keeps its session, once the gateway is there.
fn connect(stage: &Stage, client_id: &str, version: u8, had_one: bool) -> Peer {
    let deadline = Instant::now() + 2 * PATIENCE;
    let asked = Asked {
        version,
        client_id,
        clean: false,
        expiry_secs: 3600,
        window: WINDOW,
    };
    loop {
        assert!(Instant::now() < deadline, "{client_id} cannot connect");
        if !stage.is_closed.load(Ordering::Acquire)
            && let Ok((peer, is_present)) = Peer::connect(stage.gateway, &asked)
        {
            assert_eq!(is_present, had_one, "{client_id}: session present");
            if had_one {
                stage.resumed.fetch_add(1, Ordering::Relaxed);
            }
            return peer;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A publish that is not answered to the end.
#[derive(Debug)]
struct Exchange {
    publish: Publish,
    /// Of a retained message.
    number: u64,
    /// The PUBREC came.
    is_received: bool,
}

#[derive(Debug)]
struct Publisher {
    stage: Arc<Stage>,
    client_id: &'static str,
    version: u8,
    random: fastrand::Rng,
    /// In the order in which they were published.
    open: Vec<Exchange>,
    /// The next message of each QoS.
    next: [u64; 3],
    next_retained: u64,
}

impl Publisher {
    /// How many messages of each QoS it has published in the end.
    fn run(mut self) -> [u64; 3] {
        let mut had_one = false;
        while !self.is_done() {
            let mut peer = connect(&self.stage, self.client_id, self.version, had_one);
            had_one = true;
            // The gateway may be killed at any moment.
            if self.serve(&mut peer).is_ok() {
                peer.disconnect().ok();
            }
        }
        self.next
    }

    fn is_done(&self) -> bool {
        self.open.is_empty() && self.stage.is_last.load(Ordering::Acquire)
    }

    fn serve(&mut self, peer: &mut Peer) -> io::Result<()> {
        for Exchange {
            publish,
            is_received,
            ..
        } in &self.open
        {
            if *is_received {
                peer.rel(publish.id)?;
            } else {
                peer.publish(&Publish {
                    dup: true,
                    ..publish.clone()
                })?;
            }
        }
        while !self.is_done() {
            let is_last = self.stage.is_last.load(Ordering::Acquire);
            if !is_last && self.open.len() < usize::from(WINDOW) {
                let publish = self.publish();
                peer.publish(&publish)?;
            } else {
                let got = peer.receive()?;
                self.answered(peer, &got)?;
            }
        }
        Ok(())
    }

    /// The next message, with the lowest free packet id.
    fn publish(&mut self) -> Publish {
        let qos = self.random.u8(0..3);
        let is_free = |id: &u16| self.open.iter().all(|open| open.publish.id != *id);
        let id = (1..).find(is_free).unwrap();
        let publish = if qos > 0 && self.random.u8(0..4) == 0 {
            self.next_retained += 1;
            self.set_or_clear(qos, id)
        } else {
            let n = self.next[usize::from(qos)];
            self.next[usize::from(qos)] += 1;
            Publish {
                qos,
                id: if qos == 0 { 0 } else { id },
                topic: format!("k/{}/{qos}", self.client_id),
                payload: n.to_string(),
                ..Publish::default()
            }
        };
        if qos > 0 {
            self.open.push(Exchange {
                publish: publish.clone(),
                number: self.next_retained,
                is_received: false,
            });
        }
        publish
    }

    /// A retained message. A topic has one QoS: what goes again is not repeated at the other.
    fn set_or_clear(&mut self, qos: u8, id: u16) -> Publish {
        let topic = format!("r/{}/{qos}/{}", self.client_id, self.random.u8(0..3));
        let mut payload = String::new();
        if self.random.u8(0..3) > 0 {
            payload = self.next_retained.to_string();
        }
        let mut retained = self.stage.retained.lock().unwrap();
        let values = retained.entry(topic.clone());
        let nothing_yet = || vec![(0, String::new())];
        let value = (self.next_retained, payload.clone());
        values.or_insert_with(nothing_yet).push(value);
        Publish {
            qos,
            id,
            topic,
            payload,
            retain: true,
            dup: false,
        }
    }

    fn answered(&mut self, peer: &mut Peer, got: &Got) -> io::Result<()> {
        match *got {
            Got::Ack(id) => self.end(id, 1),
            Got::Comp(id) => self.end(id, 2),
            Got::Rec(id) => {
                let at = self.position(id, 2);
                self.open[at].is_received = true;
                self.taken(at);
                peer.rel(id)?;
            }
            _ => panic!("{}: {got:?}", self.client_id),
        }
        Ok(())
    }

    fn end(&mut self, id: u16, qos: u8) {
        let at = self.position(id, qos);
        self.taken(at);
        self.open.remove(at);
        self.stage.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn position(&self, id: u16, qos: u8) -> usize {
        let mut open = self.open.iter();
        open.position(|open| open.publish.id == id && open.publish.qos == qos)
            .unwrap_or_else(|| panic!("{}: an answer to nothing: {id}", self.client_id))
    }

    /// It is the gateway's now: what was retained before it is not there any more.
    fn taken(&self, at: usize) {
        let Exchange {
            publish, number, ..
        } = &self.open[at];
        if publish.retain {
            let mut retained = self.stage.retained.lock().unwrap();
            let values = retained.get_mut(&publish.topic).unwrap();
            values.retain(|(known, _)| known >= number);
        }
    }
}

/// Messages by topic, in the order in which they came.
type Taken = BTreeMap<String, Vec<u64>>;

#[derive(Debug)]
struct Subscriber {
    stage: Arc<Stage>,
    client_id: &'static str,
    version: u8,
    qos: u8,
    random: fastrand::Rng,
    /// QoS 2 ids between PUBLISH and PUBREL.
    held: BTreeSet<u16>,
    taken: Arc<Mutex<Taken>>,
}

impl Subscriber {
    /// To the message that says that it is the last.
    fn run(mut self) {
        let mut had_one = false;
        while !self.taken.lock().unwrap().contains_key(LAST) {
            let mut peer = connect(&self.stage, self.client_id, self.version, had_one);
            if let Err(error) = self.serve(&mut peer, had_one) {
                assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "silence");
            }
            had_one = true;
        }
    }

    /// Until the gateway goes, or the client does without a word.
    fn serve(&mut self, peer: &mut Peer, had_one: bool) -> io::Result<()> {
        if !had_one {
            peer.subscribe(1, "k/#", self.qos)?;
        }
        loop {
            match peer.receive()? {
                Got::SubAck(_) => drop(self.stage.subscribed.fetch_add(1, Ordering::Release)),
                Got::Publish(publish) => {
                    if publish.qos < 2 || self.held.insert(publish.id) {
                        self.take(&publish);
                    }
                    if publish.topic == LAST || self.random.usize(0..LOSSES) == 0 {
                        return Ok(());
                    }
                    match publish.qos {
                        0 => {}
                        1 => peer.ack(publish.id)?,
                        _ => peer.rec(publish.id)?,
                    }
                }
                Got::Rel(id) => {
                    self.held.remove(&id);
                    peer.comp(id)?;
                }
                other => panic!("{}: {other:?}", self.client_id),
            }
        }
    }

    fn take(&self, publish: &Publish) {
        let n = publish.payload.parse().unwrap();
        let mut taken = self.taken.lock().unwrap();
        taken.entry(publish.topic.clone()).or_default().push(n);
    }
}

/// What is retained is what its publisher was last told that it is, or something newer.
fn check_retained(stage: &Stage) {
    let asked = Asked {
        version: 5,
        client_id: "checker",
        clean: true,
        expiry_secs: 0,
        window: WINDOW,
    };
    let (mut checker, _) = Peer::connect(stage.gateway, &asked).unwrap();
    checker.subscribe(1, "r/#", 0).unwrap();
    checker.ping().unwrap();
    let mut found = BTreeMap::new();
    loop {
        match checker.receive().unwrap() {
            Got::SubAck(_) => {}
            Got::Publish(publish) => drop(found.insert(publish.topic, publish.payload)),
            Got::Pong => break,
            other => panic!("{other:?}"),
        }
    }
    for (topic, values) in stage.retained.lock().unwrap().iter() {
        let value = found.remove(topic).unwrap_or_default();
        let may_be = values.iter().any(|(_, known)| *known == value);
        assert!(may_be, "{topic}: {value:?} and not one of {values:?}");
    }
    assert!(found.is_empty(), "nobody published {found:?}");
}

/// A gateway at which every client may do anything.
fn served() -> Served {
    let mut gateway = Served::new();
    gateway.site.write("policies/device.json", ANYTHING);
    let publishers = PUBLISHERS.map(|(client_id, _)| client_id);
    let subscribers = SUBSCRIBERS.map(|(client_id, ..)| client_id);
    for thing in [&publishers[..], &subscribers, &["checker", "last"]].concat() {
        let add = ["thing", "add", thing, "--group", "killed"];
        gateway.site.done(&add);
    }
    gateway.start();
    gateway
}

fn subscribe(stage: &Arc<Stage>, seed: u64) -> Vec<(Arc<Mutex<Taken>>, JoinHandle<()>)> {
    let started = (0..)
        .zip(SUBSCRIBERS)
        .map(|(at, (client_id, version, qos))| {
            let taken = Arc::<Mutex<Taken>>::default();
            let subscriber = Subscriber {
                stage: Arc::clone(stage),
                client_id,
                version,
                qos,
                random: fastrand::Rng::with_seed(seed + 100 + at),
                held: BTreeSet::new(),
                taken: Arc::clone(&taken),
            };
            (taken, thread::spawn(move || subscriber.run()))
        });
    let started = started.collect();
    eventually("all are subscribed", || {
        stage.subscribed.load(Ordering::Acquire) == SUBSCRIBERS.len()
    });
    started
}

fn publish(stage: &Arc<Stage>, seed: u64) -> Vec<JoinHandle<[u64; 3]>> {
    let started = (0..).zip(PUBLISHERS).map(|(at, (client_id, version))| {
        let publisher = Publisher {
            stage: Arc::clone(stage),
            client_id,
            version,
            random: fastrand::Rng::with_seed(seed + at),
            open: Vec::new(),
            next: [0; 3],
            next_retained: 0,
        };
        thread::spawn(move || publisher.run())
    });
    started.collect()
}

/// All there, in order; QoS 2 once and QoS 0 at most once. How many came twice, and how many of QoS 0
/// did not come.
fn check_taken(taken: &Taken, published: &[[u64; 3]], qos: u8) -> (u64, u64) {
    let (mut twice, mut missed) = (0, 0);
    for ((client_id, _), counts) in PUBLISHERS.iter().zip(published) {
        for (level, count) in (0_u8..).zip(counts) {
            let topic = format!("k/{client_id}/{level}");
            let came = taken.get(&topic).cloned().unwrap_or_default();
            let mut first = BTreeSet::new();
            let in_order: Vec<_> = came.iter().copied().filter(|&n| first.insert(n)).collect();
            assert!(in_order.is_sorted(), "{topic} in order: {in_order:?}");
            let total = u64::try_from(came.len()).unwrap();
            let different = u64::try_from(in_order.len()).unwrap();
            if level == 0 || level == 2 && qos == 2 {
                assert_eq!(different, total, "{topic}: none twice");
            }
            if level == 0 {
                missed += count - different;
            } else {
                assert_eq!(different, *count, "{topic}: all there");
            }
            twice += total - different;
        }
    }
    (twice, missed)
}

fn kills() -> usize {
    std::env::var("PORTCULLIS_KILL_LOCAL_KILLS").map_or(5, |n| n.parse().unwrap())
}

#[test]
fn local_subscribers_get_all_that_was_acknowledged_and_qos_2_once_through_kills() {
    let seed = fastrand::u64(..1 << 32);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut gateway = served();
    let stage = Arc::new(Stage {
        gateway: gateway.plain,
        is_closed: AtomicBool::new(false),
        is_last: AtomicBool::new(false),
        answered: AtomicUsize::new(0),
        resumed: AtomicUsize::new(0),
        subscribed: AtomicUsize::new(0),
        retained: Mutex::default(),
    });
    let subscribers = subscribe(&stage, seed);
    let publishers = publish(&stage, seed);
    for _ in 0..kills() {
        // At a random point of the traffic, and at any moment between two packets.
        let point = stage.answered.load(Ordering::Relaxed) + random.usize(20..400);
        eventually("the next kill is due", || {
            stage.answered.load(Ordering::Relaxed) >= point
        });
        thread::sleep(Duration::from_micros(random.u64(0..20_000)));
        stage.is_closed.store(true, Ordering::Release);
        gateway.kill();
        gateway.start();
        check_retained(&stage);
        stage.is_closed.store(false, Ordering::Release);
    }
    stage.is_last.store(true, Ordering::Release);
    let published: Vec<_> = publishers.into_iter().map(|p| p.join().unwrap()).collect();
    // Once more, with nothing under way; what comes twice comes before the last message.
    gateway.kill();
    gateway.start();
    check_retained(&stage);
    say_that_it_is_over(&stage);
    let (mut twice, mut missed) = (0, 0);
    for ((taken, running), (_, _, qos)) in subscribers.into_iter().zip(SUBSCRIBERS) {
        running.join().unwrap();
        let counted = check_taken(&taken.lock().unwrap(), &published, qos);
        twice += counted.0;
        missed += counted.1;
    }
    gateway.stop();
    let sum = |qos: usize| published.iter().map(|counts| counts[qos]).sum::<u64>();
    println!(
        "killed {} times; published {}, {} and {} messages at QoS 0, 1 and 2, {} retained topics; \
         {} resumptions; all of QoS 1 and 2 came to each of {} subscribers, in order; QoS 1 came \
         again {twice} times, QoS 0 was missed {missed} times",
        kills() + 1,
        sum(0),
        sum(1),
        sum(2),
        stage.retained.lock().unwrap().len(),
        stage.resumed.load(Ordering::Relaxed),
        SUBSCRIBERS.len(),
    );
}

fn say_that_it_is_over(stage: &Stage) {
    let mut peer = connect(stage, "last", 5, false);
    let last = Publish {
        qos: 2,
        id: 1,
        topic: LAST.to_owned(),
        payload: "0".to_owned(),
        ..Publish::default()
    };
    peer.publish(&last).unwrap();
    assert_eq!(peer.receive().unwrap(), Got::Rec(1));
}
