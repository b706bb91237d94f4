//! Sessions that wait for something: whatever it is, they hear at once that their rights are gone.
//!
//! Nothing is ever committed here, and time passes only while everybody waits.

use std::{net::Ipv4Addr, time::Duration};

use portcullis_core::{
    detect::Profiles,
    identity::{ClientId, OnPublishDenied},
    limits::{APPEND_QUEUE_RECORDS_MAX, CONNECTING_PER_ADDRESS_MAX, PACKET_BYTES_MAX},
    record::{Draft, Kind, SinkSet},
};
use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, Semaphore, mpsc, watch},
    time::sleep,
};

use super::*;
use crate::{
    broker::{
        Config, Denials, LifecycleEvents, Metrics, Neighbours,
        bus::Bus,
        connect::{self, Peer},
        handshakes::Handshakes,
        lifecycle::Versions,
        limits::Limits,
        newcomers::Newcomers,
        pace::Paces,
        sessions::Sessions,
        sys::Figures,
    },
    buffer::{self, Buffer},
    defend::Defend,
    identity::{self, Fleet, Journal, Provisioner, Snapshot, testing::Bench},
    pipeline::{self, Pipeline},
    traffic::{self, Traffic},
};

/// Shorter than anything that sessions wait for.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A broker whose buffer takes records until its queue is full, and commits none.
struct Stuck {
    bench: Bench,
    snapshots: watch::Sender<Arc<Snapshot>>,
    shared: Arc<Shared>,
    buffer: Buffer,
    stop: CancellationToken,
    /// What must outlive it.
    _others: Box<dyn std::any::Any>,
}

impl Stuck {
    fn new() -> Self {
        let bench = Bench::new();
        let registry = Registry::new();
        let (snapshots, identity) = watch::channel(bench.snapshot(1));
        let settings = buffer::Config {
            dir: bench.path("data/buffer"),
            linger: Duration::ZERO,
            bytes_max: 64 << 20,
            generation_bytes_max: 16 << 20,
        };
        let stamp = buffer::Stamp {
            gateway_id: "gw".to_owned(),
            boot_id: "boot".to_owned(),
        };
        let metrics = buffer::Metrics::register(&registry);
        let (buffer, writer) = Buffer::open(&settings, stamp, metrics).unwrap();
        let metrics = pipeline::Metrics::register(&registry);
        let (pipeline, handle) = Pipeline::new(Vec::new(), 1, buffer.clone(), metrics);
        let (violations, drafts) = mpsc::channel(1);
        let (defend, observer) = Defend::new(Profiles::default(), violations, &registry);
        let metrics = traffic::Metrics::register(&registry);
        let (traffic, recorder) = Traffic::new(bench.path("data/traffic"), metrics);
        let metrics = Metrics::register(&registry);
        let provisioner = Provisioner::new(
            bench.config.clone(),
            "account",
            identity.clone(),
            Journal::open(&bench.config.journal),
            Arc::new(Notify::new()),
            identity::provision::Metrics::register(&registry),
        );
        let neighbours = Neighbours {
            fleet: Fleet::new(identity.clone()),
            identity,
            provisioner,
            pipeline: handle,
            observer,
            recorder,
            denials: Denials::new(&metrics),
            clients: Arc::default(),
        };
        let shared = Shared {
            connections: Arc::new(Semaphore::new(8)),
            newcomers: Arc::new(Newcomers::new(CONNECTING_PER_ADDRESS_MAX, 8)),
            handshakes: Handshakes::new(8, 8, None, 0),
            of_address: Arc::default(),
            bus: Arc::new(Bus::start(8).unwrap()),
            clients: Arc::clone(&neighbours.clients),
            versions: Versions::new(8),
            sessions: Arc::new(Sessions::unkept()),
            paces: Paces::default(),
            figures: Figures::default(),
            config: config(),
            metrics,
            neighbours,
        };
        Self {
            bench,
            snapshots,
            shared: Arc::new(shared),
            buffer,
            stop: CancellationToken::new(),
            _others: Box::new((writer, pipeline, defend, drafts, traffic)),
        }
    }

    /// Serves the client that `script` plays, to its end.
    async fn serve<T>(&self, script: impl AsyncFnOnce(DuplexStream) -> T) -> T {
        let (client, server) = duplex(64 * 1024);
        let source = Ipv4Addr::LOCALHOST.into();
        let peer = Peer {
            address: (source, 1).into(),
            chain: &[],
            credential: Credential::Plain {
                thing: None,
                unknown_policy: None,
            },
        };
        let newcomer = self.shared.newcomers.enter(source).newcomer;
        let session = connect::serve(&self.shared, server, &peer, newcomer, self.stop.clone());
        // What a connection costs while nothing happens, besides its session.
        assert!(size_of_val(&session) < 4096, "{}", size_of_val(&session));
        tokio::join!(session, script(client)).1
    }

    /// Until nothing more is taken, with so many records in the queue.
    async fn fill(&self, queued: usize) {
        let draft = Draft {
            kind: Kind::Event,
            partition_key: "k".into(),
            members: "".into(),
            sinks: SinkSet::ALL,
        };
        let all = vec![draft; APPEND_QUEUE_RECORDS_MAX - queued];
        self.buffer.append(all, None).await.unwrap();
    }

    /// The registry with this instead of that.
    fn change(&self, from: &str, to: &str) {
        let registry = std::fs::read_to_string(&self.bench.config.registry).unwrap();
        assert!(registry.contains(from));
        self.bench
            .write("registry.toml", &registry.replacen(from, to, 1));
        let generation = self.snapshots.borrow().generation() + 1;
        self.snapshots.send_replace(self.bench.snapshot(generation));
    }

    /// Nobody is called `t1` any more.
    fn shut_out(&self) {
        self.change("name = \"t1\"", "name = \"t2\"");
    }

    fn ended(&self, reason: &str) -> u64 {
        let disconnected = &self.shared.metrics.disconnected;
        disconnected.with_label_values(&[reason]).get()
    }
}

fn config() -> Config {
    Config {
        listeners: Vec::new(),
        connections_max: 8,
        connecting_per_address_max: CONNECTING_PER_ADDRESS_MAX,
        handshakes_max: 8,
        handshake_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        packet_bytes_max: PACKET_BYTES_MAX,
        on_publish_denied: OnPublishDenied::Disconnect,
        lifecycle_events: LifecycleEvents::All,
        session_expiry_max_secs: 3600,
        keep_alive_max_secs: 60,
        check_sni: true,
        limits: Limits::default(),
    }
}

/// CONNECT of MQTT 3.1.1 as `t1`, and its answer.
async fn connect(client: &mut DuplexStream, will: Option<&str>) {
    let text = |text: &str| {
        let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    let mut body = text("MQTT");
    body.extend([4, if will.is_some() { 0b110 } else { 0b10 }, 0, 0]);
    body.extend(text("t1"));
    if let Some(topic) = will {
        body.extend(text(topic));
        body.extend(text("gone"));
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    client.write_all(&packet).await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
}

/// PUBLISH with QoS 1 on `a`.
async fn publish(client: &mut DuplexStream, pkid: u8) {
    let packet = [0x32, 6, 0, 1, b'a', 0, pkid, b'1'];
    client.write_all(&packet).await.unwrap();
}

/// Until everybody waits.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// How long it takes until the gateway closes; nothing is said before.
async fn closes(client: &mut DuplexStream) -> Duration {
    let since = Instant::now();
    let read = client.read(&mut [0]).await.unwrap();
    assert_eq!(read, 0, "a packet came");
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_is_shut_out_does_not_wait_until_the_stream_knows_that_it_came() {
    let stuck = Stuck::new();
    stuck.fill(0).await;
    let closed = stuck
        .serve(async |mut client| {
            connect(&mut client, None).await;
            settle().await;
            stuck.shut_out();
            closes(&mut client).await
        })
        .await;
    assert!(closed < AT_ONCE, "{closed:?}");
    assert_eq!(stuck.ended("shut-out"), 1);
    let told = |kind| {
        let labels = [kind, "dropped"];
        stuck
            .shared
            .metrics
            .lifecycle
            .with_label_values(&labels)
            .get()
    };
    assert_eq!((told("connected"), told("disconnected")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_is_shut_out_does_not_wait_for_the_commits_before_its_groups_changed() {
    let stuck = Stuck::new();
    let closed = stuck
        .serve(async |mut client| {
            connect(&mut client, None).await;
            publish(&mut client, 1).await;
            settle().await;
            stuck.change(
                "groups = [\"devices\"]",
                "groups = [\"devices\", \"north\"]",
            );
            publish(&mut client, 2).await;
            settle().await;
            stuck.shut_out();
            closes(&mut client).await
        })
        .await;
    assert!(closed < AT_ONCE, "{closed:?}");
    assert_eq!(stuck.ended("shut-out"), 1);
    // The second one was not taken.
    assert_eq!(
        stuck
            .shared
            .metrics
            .publishes
            .with_label_values(&["1"])
            .get(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_shut_out_while_the_gateway_stops_does_not_wait_for_its_commits() {
    let stuck = Stuck::new();
    let closed = stuck
        .serve(async |mut client| {
            connect(&mut client, Some("will")).await;
            publish(&mut client, 1).await;
            settle().await;
            stuck.stop.cancel();
            settle().await;
            stuck.shut_out();
            closes(&mut client).await
        })
        .await;
    assert!(closed < AT_ONCE, "{closed:?}");
    assert_eq!(stuck.ended("shut-out"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_session_waits_for_its_commits_a_while() {
    let stuck = Stuck::new();
    let closed = stuck
        .serve(async |mut client| {
            connect(&mut client, None).await;
            publish(&mut client, 1).await;
            settle().await;
            stuck.stop.cancel();
            closes(&mut client).await
        })
        .await;
    assert!(closed > AT_ONCE, "{closed:?}");
    assert_eq!(stuck.ended("stopping"), 1);
}

/// Whatever the session notices first.
#[tokio::test(start_paused = true)]
async fn who_goes_when_its_rights_go_leaves_no_will() {
    for _ in 0..20 {
        let stuck = Stuck::new();
        stuck
            .serve(async |mut client| {
                connect(&mut client, Some("will")).await;
                settle().await;
                stuck.shut_out();
                drop(client);
            })
            .await;
        let publishes = &stuck.shared.metrics.publishes;
        assert_eq!(publishes.with_label_values(&["0"]).get(), 0);
    }
    // It is there where the rights are.
    let stuck = Stuck::new();
    stuck
        .serve(async |mut client| connect(&mut client, Some("will")).await)
        .await;
    let publishes = &stuck.shared.metrics.publishes;
    assert_eq!(publishes.with_label_values(&["0"]).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_buffer_is_held_to_a_new_policy() {
    let stuck = Stuck::new();
    let closed = stuck
        .serve(async |mut client| {
            connect(&mut client, None).await;
            settle().await;
            // It was told that the client came.
            stuck.fill(1).await;
            publish(&mut client, 1).await;
            settle().await;
            let everything = std::fs::read_to_string(stuck.bench.path("policies/device.json"));
            let less = everything.unwrap().replace("iot:*", "iot:Connect");
            stuck.bench.write("policies/device.json", &less);
            stuck.change("name = \"t1\"", "name = \"t1\"");
            closes(&mut client).await
        })
        .await;
    assert!(closed < Duration::from_secs(2), "{closed:?}");
    assert_eq!(stuck.ended("not-authorized"), 1);
    assert_eq!(
        stuck
            .shared
            .metrics
            .publishes
            .with_label_values(&["1"])
            .get(),
        0
    );
}

/// CONNECT of MQTT 3.1.1 as `t1`, whose session is kept; whether it was there.
async fn connect_kept(client: &mut DuplexStream) -> bool {
    let packet = [
        0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0, 0, 2, b't', b'1',
    ];
    client.write_all(&packet).await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    answer[2] == 1
}

/// PUBLISH with QoS 2 and packet id 5.
async fn publish_exactly_once(client: &mut DuplexStream, topic: u8, dup: bool) {
    let packet = [0x34 | u8::from(dup) << 3, 6, 0, 1, topic, 0, 5, b'1'];
    client.write_all(&packet).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_comes_again_is_answered_only_when_it_is_in_the_stream() {
    let stuck = Stuck::new();
    stuck
        .serve(async |mut client| {
            assert!(!connect_kept(&mut client).await);
            publish_exactly_once(&mut client, b'a', false).await;
            settle().await;
        })
        .await;
    let held = stuck.shared.sessions.of(&client_id()).unwrap();
    assert!(held.has_incoming(5) && held.is_open(5));
    stuck
        .serve(async |mut client| {
            assert!(connect_kept(&mut client).await);
            publish_exactly_once(&mut client, b'a', true).await;
            settle().await;
            stuck.stop.cancel();
            // No PUBREC: nothing is committed here.
            closes(&mut client).await;
        })
        .await;
    assert!(held.is_open(5));
    // Local subscribers got it once.
    let published = &stuck.shared.metrics.publishes;
    assert_eq!(published.with_label_values(&["2"]).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_publish_whose_commit_was_heard_of_is_answered_at_once_when_it_comes_again() {
    let stuck = Stuck::new();
    for dup in [false, true] {
        stuck
            .serve(async |mut client| {
                assert_eq!(connect_kept(&mut client).await, dup);
                // Goes to no stream, so that there is nothing to commit.
                publish_exactly_once(&mut client, b'$', dup).await;
                let mut answer = [0; 4];
                client.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, [0x50, 2, 0, 5]);
            })
            .await;
        let held = stuck.shared.sessions.of(&client_id()).unwrap();
        assert!(held.has_incoming(5) && !held.is_open(5));
    }
}

fn client_id() -> ClientId {
    ClientId::parse("t1").unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_its_own_gets_its_own_retained_message_neither() {
    let stuck = Stuck::new();
    let retain = [0x31, 5, 0, 1, b'a', 0, b'1'];
    let subscribe = |options| [0x82, 7, 0, 1, 0, 0, 1, b'a', options];
    let granted = [0x90, 4, 0, 1, 0, 0];
    stuck
        .serve(async |mut client| {
            let connect = [
                0x10, 15, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 2, b't', b'1',
            ];
            client.write_all(&connect).await.unwrap();
            let mut head = [0; 2];
            client.read_exact(&mut head).await.unwrap();
            client
                .read_exact(&mut vec![0; usize::from(head[1])])
                .await
                .unwrap();
            client.write_all(&retain).await.unwrap();
            let mut answer = [0; 6];
            // No Local; a PINGREQ behind it shows that nothing more comes.
            client.write_all(&subscribe(0b100)).await.unwrap();
            client.write_all(&[0xc0, 0]).await.unwrap();
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, granted);
            let mut pong = [0; 2];
            client.read_exact(&mut pong).await.unwrap();
            assert_eq!(pong, [0xd0, 0]);
            // Without it the message comes.
            client.write_all(&subscribe(0)).await.unwrap();
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, granted);
            let mut message = [0; 7];
            client.read_exact(&mut message).await.unwrap();
            assert_eq!(message, retain);
        })
        .await;
}
