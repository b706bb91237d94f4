//! What the kernel says of a process: its CPU time and its memory.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Linux counts CPU time in hundredths of a second for those who read it.
const TICK: Duration = Duration::from_millis(10);
/// A process that takes no more than a tick in this time is idle.
const LOOK: Duration = Duration::from_millis(100);
/// One that is not idle by then is measured as it is.
const SETTLE_MAX: Duration = Duration::from_secs(8);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    dir: String,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            dir: format!("/proc/{pid}"),
        }
    }

    pub(crate) fn own() -> Self {
        Self {
            dir: "/proc/self".to_owned(),
        }
    }

    /// User and system time of all threads.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("{}/stat", self.dir))?;
        // The name in parentheses may hold spaces.
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let mut ticks = rest.split_whitespace().skip(11);
        let mut next = || -> Result<u32> { Ok(ticks.next().context("/proc/PID/stat")?.parse()?) };
        Ok(TICK * (next()? + next()?))
    }

    pub(crate) fn rss_kib(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most since [`Self::reset_peak`].
    pub(crate) fn rss_peak_kib(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    pub(crate) fn reset_peak(&self) -> Result<()> {
        Ok(fs::write(format!("{}/clear_refs", self.dir), "5")?)
    }

    fn status(&self, key: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("{}/status", self.dir))?;
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(key));
        let line = line.context("/proc/PID/status")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Waits until the process is idle.
    pub(crate) fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_MAX;
        let mut before = self.cpu()?;
        while Instant::now() < deadline {
            sleep(LOOK);
            let now = self.cpu()?;
            if now - before <= TICK {
                break;
            }
            before = now;
        }
        Ok(())
    }
}

/// Exact below 2^53, which no count here reaches.
pub(crate) fn as_f64(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
