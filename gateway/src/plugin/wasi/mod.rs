//! The WASI that every guest gets: enough for a language's runtime to start, and nothing else.
//!
//! No arguments, no environment, no preopened directory, no network. Standard input is closed,
//! output becomes log lines. The clocks stand at the time of the batch, so that a replay gives the
//! same result. Random numbers are the same in every instance; only the seed for hash tables is
//! really random, because devices choose the keys. A guest cannot wait: the machine code's
//! deadline would only be noticed when the wait ends.

mod output;
mod waiting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use portcullis_core::timestamp::Timestamp;
use wasmtime::{
    bail,
    component::{HasData, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiView as _,
    cli::{WasiCli, WasiCliView as _},
    clocks::{WasiClocks, WasiClocksView as _},
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::{
        DynPollable, Network, SocketError, SocketResult, TcpSocket, UdpSocket,
        bindings::{
            self, cli, clocks, filesystem, random,
            sockets::{
                self,
                network::{ErrorCode, IpAddressFamily},
            },
            sync,
        },
    },
    random::{Deterministic, WasiRandom},
    sockets::{WasiSockets, WasiSocketsView as _},
};

use self::output::{LogStream, Source};
use super::guest::{Guest, SharedLines};

/// Links the interfaces, one by one, so that what is replaced by our own is plain to see.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let l = linker;
    // Ours.
    clocks::monotonic_clock::add_to_linker::<Guest, StandingClock>(l, |guest| ClockView {
        clock: &guest.clock,
    })?;
    waiting::link(l)?;
    sockets::tcp_create_socket::add_to_linker::<Guest, NoSockets>(l, |_| NoSockets)?;
    sync::sockets::udp_create_socket::add_to_linker::<Guest, NoSockets>(l, |_| NoSockets)?;
    // Theirs.
    bindings::io::error::add_to_linker::<Guest, HasTable>(l, |guest| guest.ctx().table)?;
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
    sockets::instance_network::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sockets::network::add_to_linker::<Guest, WasiSockets>(l, &Default::default(), Guest::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sync::sockets::tcp::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
    sync::sockets::udp::add_to_linker::<Guest, WasiSockets>(l, Guest::sockets)?;
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

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// Refuses sockets before there is one; `wasmtime-wasi` would refuse them an address.
struct NoSockets;

impl HasData for NoSockets {
    type Data<'a> = Self;
}

impl sockets::network::Host for NoSockets {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        _: Resource<bindings::io::error::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl sockets::network::HostNetwork for NoSockets {
    fn drop(&mut self, _: Resource<Network>) -> wasmtime::Result<()> {
        bail!("there is no network")
    }
}

impl sockets::tcp_create_socket::Host for NoSockets {
    fn create_tcp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        Err(ErrorCode::AccessDenied.into())
    }
}

impl sync::sockets::udp_create_socket::Host for NoSockets {
    fn create_udp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        Err(ErrorCode::AccessDenied.into())
    }
}
