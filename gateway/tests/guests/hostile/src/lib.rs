//! A guest that misbehaves as its settings say, for the tests of the plugin host.

use std::{hint::black_box, thread, time::Duration};

use portcullis_plugin::{
    Batch, Context, Dropping, Edit, Emission, Event, Metric, MetricValue, Outcome, Rule, Severity,
    Subscription, log,
};
use serde::Deserialize;

/// What it does, and when.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    mode: Mode,
    /// Misbehaves on events with this payload only; without it on every one.
    when: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Nothing,
    Loop,
    LoopInConfigure,
    Memory,
    Recursion,
    Panic,
    Exit,
    Output,
    Sleep,
    LogStorm,
    StderrStorm,
    BadIndex,
    BadTopic,
    BadReason,
    BadRule,
    BadMetric,
    BadPointer,
    NotFinite,
    HugePayload,
    Emit,
    Probe,
}

/// The guest.
#[derive(Debug)]
pub struct Hostile {
    settings: Settings,
    calls: u64,
}

impl Rule for Hostile {
    type Settings = Settings;

    fn configure(_: &Context, settings: Settings) -> Result<(Self, Subscription), String> {
        let mut subscription = Subscription::new();
        subscription.payload();
        match settings.mode {
            Mode::LoopInConfigure => spin(),
            Mode::BadPointer => {
                subscription.number("t");
            }
            _ => {}
        }
        let calls = 0;
        Ok((Self { settings, calls }, subscription))
    }

    fn handle(&mut self, batch: &Batch, out: &mut Outcome) {
        self.calls += 1;
        for event in batch {
            let when = self.settings.when.as_deref();
            if when.is_none_or(|when| when.as_bytes() == event.payload()) {
                misbehave(self.settings.mode, &event, out);
            }
            out.tag(&event, "calls", self.calls.to_string());
        }
    }
}

portcullis_plugin::export!(Hostile);

#[expect(clippy::exit, reason = "to see what the host makes of it")]
fn misbehave(mode: Mode, event: &Event<'_>, out: &mut Outcome) {
    match mode {
        Mode::Nothing | Mode::LoopInConfigure | Mode::BadPointer => {}
        Mode::Loop => spin(),
        Mode::Memory => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(black_box(vec![1; 1 << 20]));
            }
        }
        Mode::Recursion => {
            black_box(descend(0));
        }
        Mode::Panic => panic!("as told"),
        Mode::Exit => std::process::exit(3),
        Mode::Output => {
            for _ in 0..64 {
                out.replace(event, vec![b'x'; 128 * 1024]);
            }
        }
        Mode::Sleep => thread::sleep(Duration::from_secs(3600)),
        Mode::LogStorm => {
            for n in 0..10_000 {
                log::info(n);
            }
        }
        Mode::StderrStorm => {
            for n in 0..100 {
                eprintln!("{n} \x1b[31m{}", "y".repeat(5000));
            }
        }
        Mode::BadIndex => out.edits.push(Edit::Drop(Dropping {
            index: 1_000_000,
            reason: "x".into(),
        })),
        Mode::BadTopic => out.emit(event, "a/+", "x"),
        Mode::BadReason => out.drop_event(event, "Not a word"),
        Mode::BadRule => {
            out.violation(event, "no name", Severity::Low, "x");
        }
        Mode::BadMetric => out.count("Upper", 1),
        Mode::NotFinite => out.metrics.push(Metric {
            name: "x".into(),
            value: MetricValue::Gauge(f64::NAN),
        }),
        Mode::HugePayload => out.replace(event, vec![b'x'; 128 * 1024 + 1]),
        Mode::Emit => out.emissions.push(Emission {
            after: 0,
            topic: String::from_utf8_lossy(event.payload()).into_owned(),
            payload: b"emitted".to_vec(),
        }),
        Mode::Probe => probe(event, out),
    }
}

/// Tries what a plugin may not do, and tags the event with what came of it.
fn probe(event: &Event<'_>, out: &mut Outcome) {
    let file =
        std::fs::read("/etc/passwd").map_or_else(|e| e.kind().to_string(), |_| "read".into());
    out.tag(event, "file", file);
    let dir = std::fs::read_dir("/").map_or_else(|e| e.kind().to_string(), |_| "read".into());
    out.tag(event, "dir", dir);
    let tcp = std::net::TcpStream::connect("127.0.0.1:1");
    out.tag(
        event,
        "tcp",
        tcp.map_or_else(|e| e.kind().to_string(), |_| "open".into()),
    );
    let udp = std::net::UdpSocket::bind("127.0.0.1:0");
    out.tag(
        event,
        "udp",
        udp.map_or_else(|e| e.kind().to_string(), |_| "open".into()),
    );
    out.tag(event, "env", std::env::vars().count().to_string());
    out.tag(event, "args", std::env::args().count().to_string());
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let clock = clock.map_or_else(|e| e.to_string(), |t| t.as_millis().to_string());
    out.tag(event, "clock", clock);
}

fn spin() {
    let mut n: u64 = 0;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn descend(depth: u64) -> u64 {
    let ballast = black_box([depth; 64]);
    if ballast[7] == u64::MAX {
        return 0;
    }
    black_box(descend(depth + 1)).wrapping_add(ballast[7])
}
