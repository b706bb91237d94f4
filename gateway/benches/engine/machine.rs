//! What the process has used, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// Ticks of a second in `/proc/self/stat`, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Since the start, or between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) written_bytes: u64,
    pub(super) cpu_seconds: f64,
}

impl Usage {
    pub(super) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The name of the program, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let ticks =
            |at: usize| -> Result<f64> { Ok(fields.get(at).context("stat is short")?.parse()?) };
        Ok(Self {
            written_bytes: field("/proc/self/io", "write_bytes:")?,
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        })
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            written_bytes: self.written_bytes - before.written_bytes,
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.written_bytes += other.written_bytes;
        self.cpu_seconds += other.cpu_seconds;
    }
}

/// What is resident now.
pub(super) fn rss_bytes() -> Result<u64> {
    Ok(field("/proc/self/status", "VmRSS:")? * 1024)
}

fn field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("{path} has no {name}"))?;
    Ok(value.parse()?)
}
