//! What the demo shows while it runs: sentences, and one line of counters that is rewritten on a
//! terminal and rare in a pipe.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use tokio::time::Instant;

use super::scrape::Counters;

/// In a pipe the counters are shown so often.
const PIPE_PERIOD: Duration = Duration::from_secs(5);

/// Where the demo shows things.
#[derive(Debug)]
pub(super) struct Screen {
    place: Place,
    terminal: bool,
    /// A line of counters stands at the bottom.
    status_shown: bool,
    status_due: Instant,
    started: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Out,
    /// Standard output is for the document.
    Err,
    Nowhere,
}

impl Screen {
    /// With `json`, standard output stays clean, and sentences go to a terminal alone.
    pub(super) fn new(json: bool) -> Self {
        let place = match (json, io::stderr().is_terminal()) {
            (false, _) => Place::Out,
            (true, true) => Place::Err,
            (true, false) => Place::Nowhere,
        };
        let terminal = match place {
            Place::Out => io::stdout().is_terminal(),
            Place::Err | Place::Nowhere => true,
        };
        Self {
            place,
            terminal,
            status_shown: false,
            status_due: Instant::now(),
            started: Instant::now(),
        }
    }

    /// Says something.
    pub(super) fn say(&mut self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.print(&format!("{seconds:6.1}s  {text}\n"));
        self.status_shown = false;
    }

    /// Says something as it is.
    pub(super) fn block(&mut self, text: &str) {
        self.print(text);
        self.status_shown = false;
    }

    /// Shows the counters, if it is time.
    pub(super) fn status(&mut self, counters: &Counters, alerts: usize) {
        let now = Instant::now();
        if now < self.status_due {
            return;
        }
        let text = format!(
            "{:6.1}s  {} connected · {} published · {} acknowledged · {} denied · {} records delivered, {} waiting · {alerts} alerts",
            self.started.elapsed().as_secs_f64(),
            counters.connections,
            counters.published,
            counters.acknowledged,
            counters.denied,
            counters.records_delivered,
            counters.records_waiting,
        );
        if self.terminal {
            self.print(&text);
            self.status_shown = true;
        } else {
            self.status_due = now + PIPE_PERIOD;
            self.print(&format!("{text}\n"));
        }
    }

    fn print(&mut self, text: &str) {
        let clear = if self.status_shown { "\r\x1b[2K" } else { "" };
        let text = format!("{clear}{text}");
        // Nobody looks any more: the demo goes on to its verdict.
        _ = match self.place {
            Place::Out => write(&mut io::stdout().lock(), &text),
            Place::Err => write(&mut io::stderr().lock(), &text),
            Place::Nowhere => Ok(()),
        };
    }
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}
