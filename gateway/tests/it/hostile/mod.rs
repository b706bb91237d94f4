//! Hostile clients, each against a gateway that has neighbours to serve: a device and a subscriber
//! over TLS who do nothing but their work. The neighbours lose nothing, whatever happens beside them, and the
//! gateway's memory stays inside its bound. How much slower their messages get is printed and not
//! asserted: it is for `gateway/tests/hostile.sh`, which runs the same tests at full size.

mod connections;
mod moments;
mod mutations;
mod volume;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::net::TcpSocket;

use crate::{
    device::Device,
    served::{Credentials, PATIENCE, Served, eventually},
    support::run,
    wire::{packet, text},
};

const ALLOW_ALL: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;
const CALM: &str = "calm/device";
/// Round trips of the neighbours before the attack.
const QUIET_MESSAGES: usize = 300;

/// As many as in the acceptance, or as the test command has time for.
fn size(full: usize, short: usize) -> usize {
    match std::env::var_os("PORTCULLIS_HOSTILE") {
        Some(_) => full,
        None => short,
    }
}

/// A gateway, its neighbours and a thing that attacks.
struct Scene {
    served: Served,
    calm: Credentials,
    listening: Credentials,
    hostile: Credentials,
}

/// What the neighbours saw.
#[derive(Default)]
struct Service {
    round_trips: Vec<Duration>,
}

impl Scene {
    /// Settings are replaced in `gateway.toml`: what stands there, and what is to.
    fn new(settings: &[(&str, &str)]) -> Self {
        let mut served = Served::new();
        served.site.write("policies/device.json", ALLOW_ALL);
        let hostile = served.enrol("hostile", "cold-chain");
        // Whoever comes there is this thing.
        let plain = (
            "kind = \"plain\"",
            "kind = \"plain\"\nplain-thing = \"hostile\"",
        );
        for (there, instead) in [plain].iter().chain(settings) {
            served.site.replace("gateway.toml", there, instead);
        }
        let calm = served.enrol("calm", "cold-chain");
        let listening = served.enrol("listener", "apps");
        served.start();
        Self {
            served,
            calm,
            listening,
            hostile,
        }
    }

    /// Runs `attack` while the neighbours work; the gateway may grow by `growth_max` bytes at most.
    fn endures<T>(&self, name: &str, growth_max: u64, attack: impl FnOnce(&Served) -> T) -> T {
        let mut calm = Device::tls(self.served.mqtt, "calm", &self.calm);
        let mut listener = Device::tls(self.served.mqtt, "listener", &self.listening);
        listener.subscribe(CALM);
        let mut quiet = Service::default();
        for _ in 0..QUIET_MESSAGES {
            quiet.round_trip(&mut calm, &mut listener);
        }
        let before = self.memory("VmRSS");
        let is_over = AtomicBool::new(false);
        let (mut beside, done) = thread::scope(|scope| {
            let working = scope.spawn(|| {
                let mut beside = Service::default();
                while !is_over.load(Ordering::Relaxed) || beside.round_trips.is_empty() {
                    beside.round_trip(&mut calm, &mut listener);
                }
                beside
            });
            let over = Over(&is_over);
            let done = attack(&self.served);
            drop(over);
            (working.join().unwrap(), done)
        });
        let (peak, after) = (self.memory("VmHWM"), self.memory("VmRSS"));
        let mib = |bytes: u64| bytes / (1024 * 1024);
        println!(
            "{name}: p50 {:?} quiet, {:?} beside; p99 {:?} quiet, {:?} beside ({:.1} times); {} round trips beside; memory {} MiB before, {} at most, {} after",
            quiet.percentile(50),
            beside.percentile(50),
            quiet.percentile(99),
            beside.percentile(99),
            beside.percentile(99).as_secs_f64() / quiet.percentile(99).as_secs_f64(),
            beside.round_trips.len(),
            mib(before),
            mib(peak),
            mib(after),
        );
        assert!(
            peak <= before + growth_max,
            "{name}: {} MiB, from {}",
            mib(peak),
            mib(before)
        );
        assert!(!self.served.log().contains("panicked"), "{name}");
        // And newcomers are served as before.
        Device::tls(self.served.mqtt, "calm:new", &self.calm).publish(CALM, "new");
        done
    }

    /// A line of `/proc/PID/status`, in bytes.
    fn memory(&self, name: &str) -> u64 {
        let status = self.served.proc("status");
        let mut lines = status.lines();
        let line = lines.find(|line| line.starts_with(name)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

/// The neighbours stop working, also if the attack panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Service {
    /// A message that is acknowledged, and received as it was sent.
    fn round_trip(&mut self, calm: &mut Device, listener: &mut Device) {
        let number = self.round_trips.len().to_string();
        let began = Instant::now();
        calm.publish(CALM, &number);
        let got = listener.receive();
        assert_eq!(got.payload, number.as_bytes());
        self.round_trips.push(began.elapsed());
    }

    fn percentile(&mut self, percent: usize) -> Duration {
        self.round_trips.sort_unstable();
        self.round_trips[(self.round_trips.len() - 1) * percent / 100]
    }
}

/// A connection from a loopback address of its own.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    run(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let stream = socket.connect(to).await?.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// The attackers' addresses: a few hundred connections each.
fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, u8::try_from(1 + number % 50).unwrap())
}

/// A CONNECT of MQTT 3.1.1 with a clean session.
fn hello(client_id: &str, keep_alive_secs: u16) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([4, 2]);
    body.extend(keep_alive_secs.to_be_bytes());
    body.extend(text(client_id));
    packet(0x10, &body)
}

/// A connected client on the plain listener, from an attacker's address.
fn plain(served: &Served, client_id: &str) -> TcpStream {
    let mut stream = connect_from(source(0), served.plain).unwrap();
    stream.write_all(&hello(client_id, 60)).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

/// How many of them the gateway holds.
fn held(crowd: &[TcpStream]) -> usize {
    let is_held = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let mut stream: &TcpStream = stream;
        let read = stream.read(&mut [0; 16]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    crowd.iter().filter(is_held).count()
}
