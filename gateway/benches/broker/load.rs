//! One thread that drives all clients of a row: as fast as the broker takes it, or at a fixed rate.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mio::{Events, Poll, Token};
use rustls::ClientConfig;

use crate::{
    brokers::{Broker, Keys},
    client::{Client, nanos},
    link::Link,
    process::{Usage, as_f64},
    rows::Row,
};

/// Before what is counted.
const WARM_UP: Duration = Duration::from_millis(250);
/// Nothing has come for so long: what comes has come.
const SILENCE: Duration = Duration::from_millis(300);
/// After this a broker is not waited for.
const DRAIN: Duration = Duration::from_secs(10);
/// Publishes a second where the rate is fixed.
pub(crate) const FIXED_RATE: u64 = 1000;

/// What one run of a row showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Messages a second: delivered ones, or taken ones where nobody is subscribed.
    pub(crate) rate: f64,
    /// Of what should have been delivered, that which was.
    pub(crate) delivered_share: f64,
    /// CPU seconds of the broker for a million messages, until it was idle again.
    pub(crate) cpu_per_million: f64,
    /// The most memory of the broker meanwhile.
    pub(crate) rss_peak_kib: u64,
    /// The share of one core that the load took itself.
    pub(crate) generator_share: f64,
    /// Nanoseconds, sorted.
    pub(crate) latencies: Vec<u64>,
}

/// All clients of a row at one broker.
struct Load {
    clients: Vec<Client>,
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    origin: Instant,
}

/// Runs a row once.
pub(crate) fn run(row: &Row, broker: &Broker, keys: &Keys, length: Duration) -> Result<Outcome> {
    broker.usage.settle()?;
    let mut load = Load::connect(row, broker, keys)?;
    broker.usage.settle()?;
    broker.usage.reset_peak()?;
    let cpu_before = broker.usage.cpu()?;
    let mut outcome = if row.is_fixed_rate {
        load.at_fixed_rate(row, length)?
    } else {
        load.at_full_rate(row, length)?
    };
    let handled = match row.subscribers {
        0 => load.taken(),
        _ => load.received(),
    };
    let sent: u64 = load.clients.iter().map(Client::sent).sum();
    let expected = sent * u64::try_from(row.subscribers)?;
    drop(load);
    broker.usage.settle()?;
    let cpu = broker.usage.cpu()? - cpu_before;
    outcome.delivered_share = share(handled, expected.max(1));
    if row.subscribers == 0 {
        outcome.delivered_share = 1.0;
    }
    outcome.cpu_per_million = cpu.as_secs_f64() * 1e6 / as_f64(handled.max(1));
    outcome.rss_peak_kib = broker.usage.rss_peak_kib()?;
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

/// Memory of the broker for a connection that does nothing, in KiB.
pub(crate) fn idle(broker: &Broker, keys: &Keys, connections: usize) -> Result<f64> {
    broker.usage.settle()?;
    let before = broker.usage.rss_kib()?;
    let mut held = Vec::with_capacity(connections);
    for number in 0..connections {
        let thing = number % keys.publishers.len();
        let config = Arc::clone(&keys.publishers[thing]);
        let client_id = format!("b{thing}:{number}");
        held.push(Link::establish(broker.tls, Some(config), &client_id, None)?);
    }
    broker.usage.settle()?;
    let after = broker.usage.rss_kib()?;
    drop(held);
    Ok((as_f64(after) - as_f64(before)) / as_f64(u64::try_from(connections)?))
}

impl Load {
    fn connect(row: &Row, broker: &Broker, keys: &Keys) -> Result<Self> {
        let address = if row.tls { broker.tls } else { broker.plain };
        let config = |of: &[Arc<ClientConfig>], at: usize| row.tls.then(|| Arc::clone(&of[at]));
        let mut clients = Vec::new();
        for at in 0..row.subscribers {
            let filter = Some(("dt/#", row.qos));
            let tls = config(&keys.subscribers, at);
            let link = Link::establish(address, tls, &format!("s{at}"), filter)?;
            clients.push(Client::subscriber(link));
        }
        for at in 0..row.publishers {
            let tls = config(&keys.publishers, at);
            let link = Link::establish(address, tls, &format!("b{at}"), None)?;
            let topic = format!("dt/b{at}/t");
            clients.push(Client::publisher(link, &topic, row.qos, row.bytes)?);
        }
        let poll = Poll::new()?;
        for (at, client) in clients.iter_mut().enumerate() {
            client.link().register(&poll, Token(at))?;
        }
        Ok(Self {
            clients,
            poll,
            events: Events::with_capacity(256),
            scratch: vec![0; 64 * 1024],
            origin: Instant::now(),
        })
    }

    /// Publishers send what the broker and the window take.
    fn at_full_rate(&mut self, row: &Row, length: Duration) -> Result<Outcome> {
        self.turns(Instant::now() + WARM_UP, true)?;
        let (since, before, own) = (Instant::now(), self.counted(row), Usage::own().cpu()?);
        self.turns(since + length, true)?;
        let (after, elapsed) = (self.counted(row), since.elapsed());
        let own = Usage::own().cpu()? - own;
        let outcome = Outcome {
            rate: as_f64(after - before) / elapsed.as_secs_f64(),
            generator_share: own.as_secs_f64() / elapsed.as_secs_f64(),
            ..Outcome::default()
        };
        let deadline = Instant::now() + DRAIN;
        while !self.clients.iter().all(Client::is_answered) {
            ensure!(
                Instant::now() < deadline,
                "the broker does not answer its publishers"
            );
            self.turn(false, Duration::from_millis(1))?;
        }
        self.drain()?;
        Ok(outcome)
    }

    /// All publishers together send [`FIXED_RATE`] a second, in turn.
    fn at_fixed_rate(&mut self, row: &Row, length: Duration) -> Result<Outcome> {
        let interval = Duration::from_nanos(1_000_000_000 / FIXED_RATE);
        let since = Instant::now();
        let (mut due, mut next) = (since, row.subscribers);
        while since.elapsed() < WARM_UP + length {
            let is_warm = since.elapsed() >= WARM_UP;
            for client in &mut self.clients {
                client.is_timed = is_warm && client.is_publisher() == (row.subscribers == 0);
            }
            while Instant::now() >= due {
                // A full window delays what stands in it, which the next message shows.
                self.clients[next].send_stamped(nanos(self.origin));
                next = if next + 1 == self.clients.len() {
                    row.subscribers
                } else {
                    next + 1
                };
                due += interval;
            }
            self.turn(false, due.saturating_duration_since(Instant::now()))?;
        }
        self.drain()?;
        let clients = self.clients.iter_mut();
        let latencies: Vec<u64> = clients
            .flat_map(|client| std::mem::take(&mut client.latencies))
            .collect();
        Ok(Outcome {
            rate: as_f64(self.counted(row)) / since.elapsed().as_secs_f64(),
            latencies,
            ..Outcome::default()
        })
    }

    /// Until nothing comes any more.
    fn drain(&mut self) -> Result<()> {
        let deadline = Instant::now() + DRAIN;
        let (mut last, mut progress) = (0, Instant::now());
        while progress.elapsed() < SILENCE && Instant::now() < deadline {
            self.turn(false, Duration::from_millis(10))?;
            let now = self.received() + self.taken();
            if now != last {
                (last, progress) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn turns(&mut self, until: Instant, fill: bool) -> Result<()> {
        while Instant::now() < until {
            self.turn(fill, Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Everybody writes and reads once; waits if nobody could.
    fn turn(&mut self, fill: bool, wait: Duration) -> Result<()> {
        let mut is_busy = false;
        for client in &mut self.clients {
            if client.can_write {
                if fill {
                    client.fill();
                }
                is_busy |= client.write()?;
            }
            if client.can_read {
                is_busy |= client.read(&mut self.scratch, self.origin)?;
            }
        }
        let wait = if is_busy { Duration::ZERO } else { wait };
        self.poll.poll(&mut self.events, Some(wait))?;
        for event in &self.events {
            let client = &mut self.clients[event.token().0];
            client.can_read |= event.is_readable();
            client.can_write |= event.is_writable();
        }
        Ok(())
    }

    fn counted(&self, row: &Row) -> u64 {
        match row.subscribers {
            0 => self.taken(),
            _ => self.received(),
        }
    }

    fn taken(&self) -> u64 {
        self.clients.iter().map(Client::taken).sum()
    }

    fn received(&self) -> u64 {
        self.clients.iter().map(|client| client.received).sum()
    }
}

fn share(part: u64, whole: u64) -> f64 {
    as_f64(part) / as_f64(whole)
}
