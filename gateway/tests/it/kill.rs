//! The promise, from end to end: devices with certificates publish at QoS 1 while the gateway is
//! killed with SIGKILL at random moments and started again. Every message that was acknowledged is in
//! the stream, and each thing's are in order once duplicates are removed.
//!
//! `PORTCULLIS_KILL_MESSAGES`, `PORTCULLIS_KILL_CLIENTS` and `PORTCULLIS_KILL_KILLS` set the size;
//! `gateway/tests/kill.sh` runs it in full.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rumqttc::{AsyncClient, Event, MqttOptions, NetworkOptions, Outgoing, Packet, QoS, Transport};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    device::client_config,
    emulators::Emulator,
    served::{Served, is_lifecycle},
    stream::{client, create_stream, read_stream},
    support::{CREDENTIALS, GENEROUS, in_child, run, until},
};

/// Publishes that a client has under way at most.
const WINDOW: usize = 10;

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |n| n.parse().unwrap())
}

/// One device: publishes messages 0 to `messages - 1` in order and, after every loss of the
/// connection, goes on from the first that is not acknowledged.
struct Device {
    number: usize,
    thing: String,
    address: SocketAddr,
    transport: Transport,
    messages: usize,
    acked: usize,
    all_acked: Arc<AtomicUsize>,
}

impl Device {
    async fn run(mut self) {
        let started = Instant::now();
        while self.acked < self.messages {
            assert!(
                started.elapsed() < 5 * GENEROUS,
                "{} got no further than {}",
                self.thing,
                self.acked
            );
            self.connect_and_publish().await;
            // The gateway may be down.
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn connect_and_publish(&mut self) {
        let mut options = MqttOptions::new(
            &self.thing,
            self.address.ip().to_string(),
            self.address.port(),
        );
        options
            .set_transport(self.transport.clone())
            .set_keep_alive(Duration::from_secs(30))
            .set_inflight(u16::try_from(WINDOW).unwrap());
        let (client, mut events) = AsyncClient::new(options, 2 * WINDOW);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(5);
        events.set_network_options(network);
        let topic = format!("dt/{}/kill", self.thing);
        let mut under_way = VecDeque::new();
        let mut connected = false;
        let mut sent = self.acked;
        while self.acked < self.messages {
            match timeout(GENEROUS, events.poll()).await {
                Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => connected = true,
                Ok(Ok(Event::Outgoing(Outgoing::Publish(id)))) => under_way.push_back(id),
                Ok(Ok(Event::Incoming(Packet::PubAck(ack)))) => {
                    let first = under_way.pop_front();
                    assert_eq!(first, Some(ack.pkid), "acknowledgements come in order");
                    self.acked += 1;
                    self.all_acked.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
            while connected && sent < self.messages && sent - self.acked < WINDOW {
                let payload = format!("{{\"client\":{},\"n\":{sent}}}", self.number);
                client
                    .try_publish(&topic, QoS::AtLeastOnce, false, payload)
                    .unwrap();
                sent += 1;
            }
        }
        drop(client.try_disconnect());
        // Until the DISCONNECT is written.
        while let Ok(Ok(event)) = timeout(GENEROUS, events.poll()).await {
            if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                return;
            }
        }
    }
}

/// The messages of each client in the order of their arrival, duplicates removed.
pub(crate) fn arrived(records: &[(String, Vec<u8>)]) -> BTreeMap<String, Vec<u64>> {
    let mut by_thing: BTreeMap<String, (BTreeSet<u64>, Vec<u64>)> = BTreeMap::new();
    for (key, data) in records {
        let body: serde_json::Value = serde_json::from_slice(data).unwrap();
        if body["schema"] != "portcullis.event/1" {
            continue;
        }
        assert_eq!(body["thing"], key.as_str());
        let n = body["payload"]["n"].as_u64().unwrap();
        let (seen, order) = by_thing.entry(key.clone()).or_default();
        if seen.insert(n) {
            order.push(n);
        }
    }
    by_thing
        .into_iter()
        .map(|(thing, (_, order))| (thing, order))
        .collect()
}

fn nothing_acknowledged_is_lost(emulator: Emulator) {
    let Some(running) = emulator.start() else {
        return;
    };
    let devices = size("PORTCULLIS_KILL_CLIENTS", 5);
    let each = size("PORTCULLIS_KILL_MESSAGES", 500).div_ceil(devices);
    let kills = size("PORTCULLIS_KILL_KILLS", 3);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut gateway = Served::new();
    gateway.ship_to(&running.endpoint);
    let things: Vec<_> = (0..devices)
        .map(|n| format!("sensor-{n}"))
        .map(|thing| (gateway.enrol(&thing, "killed"), thing))
        .collect();
    run(async {
        let client = client(&running.endpoint).await;
        create_stream(&client, 2).await;
        gateway.start();
        let all_acked = Arc::new(AtomicUsize::new(0));
        let mut work = JoinSet::new();
        for (number, (credentials, thing)) in things.iter().enumerate() {
            let device = Device {
                number,
                thing: thing.clone(),
                address: gateway.mqtt,
                transport: Transport::tls_with_config(client_config(credentials).into()),
                messages: each,
                acked: 0,
                all_acked: all_acked.clone(),
            };
            work.spawn(device.run());
        }
        // At random points of the traffic, so that every kill meets some.
        let messages = devices * each;
        let mut points: Vec<_> = (0..kills).map(|_| random.usize(1..messages)).collect();
        points.sort_unstable();
        for point in &points {
            until("the next kill is due", || {
                all_acked.load(Ordering::Relaxed) >= *point
            })
            .await;
            gateway.kill();
            gateway.start();
        }
        work.join_all().await;
        let started = Instant::now();
        let records = loop {
            let mut records = read_stream(&client).await;
            records.retain(|(_, data)| !is_lifecycle(&serde_json::from_slice(data).unwrap()));
            let present: usize = arrived(&records).values().map(Vec::len).sum();
            if present >= messages {
                break records;
            }
            assert!(
                started.elapsed() < GENEROUS,
                "{present} of {messages} acknowledged messages are in the stream{}",
                gateway.log()
            );
            sleep(Duration::from_millis(200)).await;
        };
        gateway.stop();
        let in_order: Vec<u64> = (0..u64::try_from(each).unwrap()).collect();
        for (thing, order) in arrived(&records) {
            assert_eq!(order, in_order, "{thing}: all there, in order");
        }
        println!(
            "{emulator:?}: {devices} clients, {messages} messages acknowledged, killed {kills} times \
             (at {points:?} messages), {} records in the stream, {} of them duplicates; none lost, \
             each thing's in order",
            records.len(),
            records.len() - messages
        );
    });
}

#[test]
fn kinesalite_has_every_acknowledged_message_in_order_after_kills() {
    let name = "kill::kinesalite_has_every_acknowledged_message_in_order_after_kills";
    if in_child(name, CREDENTIALS) {
        nothing_acknowledged_is_lost(Emulator::Kinesalite);
    }
}

#[test]
fn moto_has_every_acknowledged_message_in_order_after_kills() {
    let name = "kill::moto_has_every_acknowledged_message_in_order_after_kills";
    if in_child(name, CREDENTIALS) {
        nothing_acknowledged_is_lost(Emulator::Moto);
    }
}
