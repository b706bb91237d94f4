//! `portcullis demo`: the whole product on this machine, seen from outside.
//!
//! The demo is an observer and a client of a real gateway, and knows nothing that a customer could not
//! know: it makes a configuration with the command line, starts `portcullis run` as a process of its
//! own, connects a fleet over mutual TLS, plays attacks, reads alerts from the outbox and counters from
//! `/metrics`. What it claims is therefore what the product does.
//!
//! Absent on purpose: any shortcut into the gateway, and any alert made up for the show.
//!
//! How it fails: an attack without its alert, an alert for a normal thing, or a gateway that dies makes
//! the verdict [`Verdict::Failed`] or an error.

mod attacks;
mod fleet;
mod outbox;
mod scrape;
mod screen;
mod show;
mod site;
mod summary;
mod thief;

use anyhow::{Context, Result};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{screen::Screen, show::Show};
use crate::cli::DemoArgs;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every attack that was played raised its alert, and no normal thing did.
    Passed,
    /// Not so.
    Failed,
}

/// Runs the demo until its time is over, or until Ctrl-C; either way it ends with its summary.
pub fn run(args: DemoArgs) -> Result<Verdict> {
    let mut screen = Screen::new(args.json);
    screen.say("Portcullis demo: a real gateway, 20 simulated things, four attacks.");
    Runtime::new()
        .context("failed to start the runtime")?
        .block_on(until_signal(args, &mut screen))
}

async fn until_signal(args: DemoArgs, screen: &mut Screen) -> Result<Verdict> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for SIGTERM")?;
    let stop = CancellationToken::new();
    let show = Show::play(args, Instant::now(), screen, stop.clone());
    tokio::pin!(show);
    tokio::select! {
        verdict = &mut show => return verdict,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
    show.await
}
