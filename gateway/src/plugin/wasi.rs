//! The WASI that every guest gets: enough for a language's runtime to start, and nothing else.
//!
//! No arguments, no environment, no preopened directory, no network. Standard input is closed,
//! output becomes log lines. The clocks stand at the time of the batch, so that a replay gives the
//! same result. Random numbers are the same in every instance; only the seed for hash tables is
//! really random, because devices choose the keys. A guest cannot wait: the machine code's
//! deadline would only be noticed when the wait ends.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use portcullis_core::{limits::PLUGIN_LOG_LINE_BYTES_MAX, timestamp::Timestamp};
use tokio::io::AsyncWrite;
use wasmtime::{
    bail,
    component::{HasData, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiView as _,
    cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView as _},
    clocks::{WasiClocks, WasiClocksView as _},
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::{
        DynPollable, OutputStream, Pollable, StreamResult,
        bindings::{self, cli, clocks, filesystem, random, sockets, sync},
    },
    random::{Deterministic, WasiRandom},
    sockets::{WasiSockets, WasiSocketsView as _},
};

use super::{
    bindings::portcullis::plugin::log::Level,
    guest::{Guest, SharedLines},
};

/// Links the interfaces, one by one, so that what is replaced by our own is plain to see.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let l = linker;
    // Ours.
    clocks::monotonic_clock::add_to_linker::<Guest, StandingClock>(l, |guest| ClockView {
        clock: &guest.clock,
    })?;
    sync::io::poll::add_to_linker::<Guest, NoWaiting>(l, |guest| PollView(guest.ctx().table))?;
    // Theirs.
    bindings::io::error::add_to_linker::<Guest, HasTable>(l, |guest| guest.ctx().table)?;
    sync::io::streams::add_to_linker::<Guest, HasTable>(l, |guest| guest.ctx().table)?;
    clocks::wall_clock::add_to_linker::<Guest, WasiClocks>(l, Guest::clocks)?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    sync::filesystem::types::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    random::random::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    random::insecure::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    cli::exit::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::environment::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    sockets::tcp_create_socket::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sockets::instance_network::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sockets::network::add_to_linker::<Guest, WasiSockets>(l, &Default::default(), Guest::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sync::sockets::tcp::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sync::sockets::udp::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sync::sockets::udp_create_socket::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    Ok(())
}

/// A context that grants nothing.
pub(super) fn locked_down(lines: &SharedLines, clock: &Clock) -> WasiCtx {
    WasiCtxBuilder::new()
        .stdout(LogStream {
            lines: lines.clone(),
            source: Source::Output,
        })
        .stderr(LogStream {
            lines: lines.clone(),
            source: Source::Error,
        })
        .wall_clock(clock.clone())
        .monotonic_clock(clock.clone())
        .secure_random(Deterministic::new(NOT_RANDOM.to_vec()))
        .insecure_random(Deterministic::new(NOT_RANDOM.to_vec()))
        .max_random_size(64 * 1024)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// The "random" bytes of a guest without that capability, over and over.
const NOT_RANDOM: &[u8] = b"portcullis grants no randomness";

/// Stands at the time of the batch; before the first batch, at 1970.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(super) fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.now()
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX)
    }
}

struct StandingClock;

impl HasData for StandingClock {
    type Data<'a> = ClockView<'a>;
}

struct ClockView<'a> {
    clock: &'a Clock,
}

impl clocks::monotonic_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::now(self.clock))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::resolution(self.clock))
    }

    fn subscribe_instant(&mut self, _when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        bail!("sleeping is refused")
    }

    fn subscribe_duration(&mut self, _when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        bail!("sleeping is refused")
    }
}

struct NoWaiting;

impl HasData for NoWaiting {
    type Data<'a> = PollView<'a>;
}

/// `wasi:io/poll` that answers at once or traps: everything that a guest may hold is ready.
struct PollView<'a>(&'a mut ResourceTable);

impl sync::io::poll::Host for PollView<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        match bindings::io::poll::Host::poll(self.0, pollables).now_or_never() {
            Some(ready) => ready,
            None => bail!("waiting is refused"),
        }
    }
}

impl sync::io::poll::HostPollable for PollView<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        match bindings::io::poll::HostPollable::ready(self.0, pollable).now_or_never() {
            Some(ready) => ready,
            None => Ok(false),
        }
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        match bindings::io::poll::HostPollable::block(self.0, pollable).now_or_never() {
            Some(done) => done,
            None => bail!("waiting is refused"),
        }
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        bindings::io::poll::HostPollable::drop(self.0, pollable)
    }
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Output,
    Error,
}

/// Standard output or error, as log lines.
#[derive(Clone, Debug)]
struct LogStream {
    lines: SharedLines,
    source: Source,
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(LineWriter {
            stream: self.clone(),
            partial: Vec::new(),
        })
    }

    /// Of WASI 0.3, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

/// Cuts what is written into lines.
struct LineWriter {
    stream: LogStream,
    partial: Vec<u8>,
}

impl LineWriter {
    fn write_line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&line);
        if line.trim().is_empty() {
            return;
        }
        let mut lines = self.stream.lines.lock();
        match self.stream.source {
            Source::Output => lines.write(Level::Info, &line),
            Source::Error => lines.write_error(&line),
        }
    }
}

impl OutputStream for LineWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for byte in bytes {
            if byte == b'\n' {
                self.write_line();
            } else if self.partial.len() <= PLUGIN_LOG_LINE_BYTES_MAX {
                // One byte more than a line may have, so that the cut is noticed.
                self.partial.push(byte);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(4096)
    }
}

impl Pollable for LineWriter {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

/// What a guest left unfinished when it ended.
impl Drop for LineWriter {
    fn drop(&mut self) {
        self.write_line();
    }
}
