//! What the host keeps for one instance: its limits, its log lines, its WASI context.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use portcullis_core::{
    limits::{
        PLUGIN_CORE_INSTANCES_MAX, PLUGIN_LOG_LINE_BYTES_MAX, PLUGIN_LOG_LINES_MAX,
        PLUGIN_RESOURCES_MAX, PLUGIN_TABLE_ELEMENTS_MAX,
    },
    timestamp::Timestamp,
};
use tracing::{debug, error, info, trace, warn};
use wasmtime::{ResourceLimiter, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{
    bindings::portcullis::plugin::{
        log::{self, Level},
        types,
    },
    wasi,
};

/// Lines on standard error that are quoted when a call traps: Rust writes two, place and message.
const LAST_WORDS_LINES_MAX: usize = 2;

/// Names an instance in log lines.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) plugin: Arc<str>,
    pub(super) group: Arc<str>,
    pub(super) shard: u32,
}

/// The data of a store.
pub(super) struct Guest {
    pub(super) limiter: Limiter,
    pub(super) lines: SharedLines,
    pub(super) clock: wasi::Clock,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Guest {
    pub(super) fn new(label: Label, memory_bytes_max: usize) -> Self {
        let lines = SharedLines::new(label);
        let clock = wasi::Clock::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(PLUGIN_RESOURCES_MAX);
        Self {
            limiter: Limiter::new(memory_bytes_max),
            wasi: wasi::locked_down(&lines, &clock),
            lines,
            clock,
            table,
        }
    }

    /// Before a call: the counts of the call start at zero.
    pub(super) fn begin_call(&mut self, now: Timestamp) {
        self.limiter.refused = false;
        self.lines.lock().begin_call();
        self.clock.set(now);
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Has types only.
impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: Level, message: String) {
        self.lines.lock().write(level, &message);
    }
}

/// Holds an instance to its memory: all linear memories of the component together, all tables
/// together.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes: Budget,
    table_elements: Budget,
    /// Whether the guest was refused memory during this call: what it does next, usually a trap,
    /// is then put down to the limit.
    pub(super) refused: bool,
}

impl Limiter {
    fn new(memory_bytes_max: usize) -> Self {
        Self {
            memory_bytes: Budget::new(memory_bytes_max),
            table_elements: Budget::new(PLUGIN_TABLE_ELEMENTS_MAX),
            refused: false,
        }
    }
}

/// What all memories, or all tables, may take together.
#[derive(Debug)]
struct Budget {
    used: usize,
    max: usize,
}

impl Budget {
    fn new(max: usize) -> Self {
        Self { used: 0, max }
    }

    /// Lets one of them grow from `current` to `desired`, of which its own type allows `maximum`;
    /// whether it may.
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> bool {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        let allowed = used <= self.max && maximum.is_none_or(|maximum| desired <= maximum);
        if allowed {
            self.used = used;
        }
        allowed
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = self.memory_bytes.grow(current, desired, maximum);
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The machine itself is out of memory: for the guest the same as its limit.
        self.refused = true;
        debug!(%error, "A plugin's memory could not grow.");
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = self.table_elements.grow(current, desired, maximum);
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        PLUGIN_CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        PLUGIN_CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        PLUGIN_CORE_INSTANCES_MAX
    }
}

/// The log lines of an instance, shared with its standard output and error.
#[derive(Clone, Debug)]
pub(super) struct SharedLines(Arc<Mutex<Lines>>);

impl SharedLines {
    fn new(label: Label) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            label,
            written: 0,
            dropped: 0,
            last_words: VecDeque::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Log lines of one call, bounded in number and length.
#[derive(Debug)]
pub(super) struct Lines {
    label: Label,
    written: usize,
    dropped: u64,
    last_words: VecDeque<String>,
}

impl Lines {
    fn begin_call(&mut self) {
        self.written = 0;
        self.last_words.clear();
    }

    /// Lines dropped since the last time of asking.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// The last lines on standard error during this call: after a trap, the guest's last words.
    pub(super) fn last_words(&self) -> Option<String> {
        let words: Vec<&str> = self.last_words.iter().map(String::as_str).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// A line on standard error.
    pub(super) fn write_error(&mut self, line: &str) {
        // Rust says how to get a backtrace, which is of no use here.
        if !line.starts_with("note: run with") {
            if self.last_words.len() >= LAST_WORDS_LINES_MAX {
                self.last_words.pop_front();
            }
            self.last_words.push_back(cut(line));
        }
        self.write(Level::Warn, line);
    }

    /// A line.
    pub(super) fn write(&mut self, level: Level, line: &str) {
        if self.written >= PLUGIN_LOG_LINES_MAX {
            self.dropped += 1;
            return;
        }
        self.written += 1;
        let line = cut(line);
        let Label {
            plugin,
            group,
            shard,
        } = &self.label;
        match level {
            Level::Trace => trace!(%plugin, %group, shard, "{line}"),
            Level::Debug => debug!(%plugin, %group, shard, "{line}"),
            Level::Info => info!(%plugin, %group, shard, "{line}"),
            Level::Warn => warn!(%plugin, %group, shard, "{line}"),
            Level::Error => error!(%plugin, %group, shard, "{line}"),
        }
    }
}

/// Cuts a guest's text to a log line; control characters, by which it could forge further lines,
/// become spaces.
pub(super) fn cut(line: &str) -> String {
    let end = line.floor_char_boundary(PLUGIN_LOG_LINE_BYTES_MAX);
    let (kept, rest) = line.split_at(end);
    let mut text: String = kept
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if !rest.is_empty() {
        text.push('…');
    }
    text
}
