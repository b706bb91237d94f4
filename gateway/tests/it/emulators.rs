//! kinesalite and moto, started on loopback for one test each.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::GENEROUS;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Emulator {
    Kinesalite,
    Moto,
}

/// A running emulator; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) endpoint: String,
    child: Child,
}

impl Emulator {
    /// Starts it, or says loudly how to install it. With `PORTCULLIS_TEST_REQUIRE_ALL` set, a
    /// missing one is a failure.
    pub(crate) fn start(self) -> Option<Running> {
        self.start_at(free_port())
    }

    /// The same at a port of the test's choice.
    pub(crate) fn start_at(self, port: u16) -> Option<Running> {
        let program = self.program();
        if !program.exists() {
            let how = format!(
                "{self:?} is not installed ({} is missing): run gateway/tests/emulators/install.sh",
                program.display()
            );
            assert!(
                std::env::var_os("PORTCULLIS_TEST_REQUIRE_ALL").is_none(),
                "{how}"
            );
            eprintln!("\n*** SKIPPED, NOTHING WAS TESTED: {how}\n");
            return None;
        }
        let mut command = self.command(&program, port);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Running {
            endpoint: format!("http://127.0.0.1:{port}"),
            child,
        };
        running.wait_for(port);
        Some(running)
    }

    fn program(self) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let emulators = target.join("emulators");
        match self {
            Self::Kinesalite => emulators.join("kinesalite/node_modules/kinesalite/cli.js"),
            Self::Moto => emulators.join("moto/bin/moto_server"),
        }
    }

    fn command(self, program: &Path, port: u16) -> Command {
        let port = port.to_string();
        match self {
            Self::Kinesalite => {
                let loopback =
                    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulators/loopback.cjs");
                let mut command = Command::new("node");
                command.arg("--require").arg(loopback).arg(program);
                command.args(["--port", &port, "--createStreamMs", "10"]);
                command.args(["--shardLimit", "100"]);
                command
            }
            Self::Moto => {
                let mut command = Command::new(program);
                command.args(["-H", "127.0.0.1", "-p", &port]);
                command
            }
        }
    }
}

impl Running {
    fn wait_for(&mut self, port: u16) {
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the emulator ended: {ended:?}");
            assert!(started.elapsed() < GENEROUS, "the emulator does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
