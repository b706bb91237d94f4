//! An outage of a day in accelerated time: devices go on publishing into the buffer's bound while nobody
//! takes anything; then all of it drains. Each device's messages arrive in order, nothing that was
//! acknowledged is missing, the bound holds, and the disk comes back.
//!
//! It drives the gateway itself, through MQTT. What comes at the bound is refused with 0x97 (or not
//! answered), so the outage ends there at the latest; how many events found room is printed.
//! `PORTCULLIS_DAY_EVENTS` sets the number of events, `PORTCULLIS_DAY_BYTES` the bound;
//! `gateway/tests/day.sh` runs it in full.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fake_kinesis::{FakeKinesis, Step},
    served::{Served, eventually, is_lifecycle},
    support::CREDENTIALS,
    tree::Tree,
    wire::{packet, text},
};

const ANYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;
const DEVICES: u64 = 8;
/// Publishes that a device has open.
const WINDOW: u64 = 100;
/// A device that gets no answer for so long has met the bound.
const UNANSWERED: Duration = Duration::from_secs(10);

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

/// Publishes numbers from 1 on; how many were acknowledged before one was refused or left unanswered.
fn publish(address: SocketAddr, device: u64, count: u64) -> io::Result<u64> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(UNANSWERED))?;
    let mut out = BufWriter::new(socket.try_clone()?);
    let mut answers = io::BufReader::new(socket);
    let mut hello = text("MQTT");
    hello.extend([5, 2, 0, 0, 0]);
    hello.extend(text(&format!("day-{device}")));
    out.write_all(&packet(0x10, &hello))?;
    out.flush()?;
    assert_eq!(answer(&mut answers)?.0, 0x20);
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && sent - acked < WINDOW {
            sent += 1;
            let mut body = text(&format!("dt/day-{device}/t"));
            body.extend(u16::try_from(sent % 60_000 + 1).unwrap().to_be_bytes());
            body.push(0);
            body.extend(format!("{{\"n\":{sent},\"t\":{}}}", 200 + sent % 17).as_bytes());
            out.write_all(&packet(0x32, &body))?;
        }
        out.flush()?;
        // As many answers as there are, for few are worth a system call of their own.
        loop {
            let Ok((first, body)) = answer(&mut answers) else {
                return Ok(acked);
            };
            assert_eq!(first, 0x40);
            if body.get(2).is_some_and(|reason| *reason >= 0x80) {
                return Ok(acked);
            }
            acked += 1;
            if acked == sent || answers.buffer().is_empty() {
                break;
            }
        }
    }
    Ok(acked)
}

/// First byte and body of the next packet, which is a short one.
fn answer(source: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    source.read_exact(&mut head)?;
    let mut body = vec![0; usize::from(head[1])];
    source.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// The last number of each device that arrived, and how many came twice.
#[derive(Debug, Default)]
struct Arrived {
    last: BTreeMap<String, u64>,
    count: u64,
    twice: u64,
}

impl Arrived {
    fn take(&mut self, device: &str, data: &[u8]) {
        let body: serde_json::Value = serde_json::from_slice(data).unwrap();
        if body["schema"] != "portcullis.event/1" || is_lifecycle(&body) {
            return;
        }
        let n = body["payload"]["n"].as_u64().unwrap();
        let last = self.last.entry(device.to_owned()).or_default();
        if n <= *last {
            self.twice += 1;
            return;
        }
        assert_eq!(n, *last + 1, "{device}: all there, in order");
        *last = n;
        self.count += 1;
    }
}

fn peak_kib(served: &Served) -> u64 {
    let status = served.proc("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let mut words = line.unwrap().split_whitespace();
    words.nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_days_outage_fits_the_bound_and_drains_in_order_and_the_disk_comes_back() {
    let events = variable("PORTCULLIS_DAY_EVENTS", 8_000);
    let bytes_max = variable("PORTCULLIS_DAY_BYTES", 32 << 20);
    let stream = FakeKinesis::start([]);
    stream.afterwards(Step::Refuse(503, "ServiceUnavailable"));
    let arrived = Arc::new(Mutex::new(Arrived::default()));
    let consumer = arrived.clone();
    stream.consumed_by(move |device, data| consumer.lock().unwrap().take(device, data));
    let mut served = Served::new();
    served.ship_in_order_to(&stream.endpoint);
    served.site.write("policies/device.json", ANYTHING);
    for device in 0..DEVICES {
        let thing = format!("day-{device}");
        let add = ["thing", "add", &thing, "--group", "cold-chain"];
        served.site.done(&add);
    }
    let small = format!("bytes-max = {bytes_max}");
    served
        .site
        .replace("gateway.toml", "bytes-max = 2147483648", &small);
    let generation = format!("generation-bytes-max = {}", (bytes_max / 32).max(1 << 20));
    let default = "generation-bytes-max = 8388608";
    served.site.replace("gateway.toml", default, &generation);
    served.start_with(CREDENTIALS);
    let began = Instant::now();
    let devices: Vec<_> = (0..DEVICES)
        .map(|device| {
            let address = served.plain;
            thread::spawn(move || publish(address, device, events / DEVICES).unwrap())
        })
        .collect();
    let acked: Vec<_> = devices.into_iter().map(|d| d.join().unwrap()).collect();
    let filled = began.elapsed();
    let disk = Tree::bytes_of(&served.site.path("data/buffer"));
    let peak_filled = peak_kib(&served);
    assert!(disk < bytes_max + bytes_max / 8, "{disk} bytes on the disk");
    let began = Instant::now();
    stream.afterwards(Step::Take);
    let total: u64 = acked.iter().sum();
    let patience = Duration::from_secs(120 + events / 2_000);
    while arrived.lock().unwrap().count < total {
        assert!(began.elapsed() < patience, "it does not drain: {arrived:?}");
        thread::sleep(Duration::from_millis(50));
    }
    let drained = began.elapsed();
    eventually("the disk comes back", || {
        Tree::bytes_of(&served.site.path("data/buffer")) < 50_000_000.min(bytes_max)
    });
    for (device, acked) in (0..DEVICES).zip(acked) {
        let arrived = arrived.lock().unwrap();
        let last = arrived.last.get(&format!("day-{device}"));
        assert!(last.copied().unwrap_or(0) >= acked, "day-{device}");
    }
    let arrived = arrived.lock().unwrap();
    println!(
        "{total} of {events} events found room in {bytes_max} bytes ({disk} used) in {filled:?}; drained in \
         {drained:?}, in order, {} came twice; memory {peak_filled} KiB at most before the drain, {} KiB in \
         all; {} bytes on the disk after",
        arrived.twice,
        peak_kib(&served),
        Tree::bytes_of(&served.site.path("data/buffer")),
    );
    drop(arrived);
    served.stop();
}
