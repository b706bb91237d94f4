//! The engine, its deadlines, and plugins as loaded.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::Read as _,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use portcullis_core::{
    identity::GroupName,
    limits::{PLUGIN_FILE_BYTES_MAX, PLUGIN_MESSAGE_BYTES_MAX, PLUGIN_OUTPUT_BYTES_MAX},
};
use wasmtime::{
    Config, Engine, EngineWeak, OptLevel,
    component::{Component, HasSelf, Linker},
};

use super::{
    bindings::{Rule, RulePre},
    config::PluginConfig,
    error::{LoadError, PluginError},
    guest::{Guest, cut},
    instance::Instance,
    metrics::{Metrics, PluginMetrics},
    wasi,
};

/// How fine deadlines are: the engine's epoch advances this often.
const TICK: Duration = Duration::from_millis(5);

/// Virtual memory reserved for each linear memory. The runtime's default of 4 GiB saves explicit
/// bounds checks, but a hundred instances fill the address space of a small 64-bit machine (39
/// bits), and none fits a 32-bit one. Larger memories are moved when they grow.
const MEMORY_RESERVATION_BYTES: u64 = 64 * 1024 * 1024;
/// Unmapped space after each linear memory: with explicit bounds checks a page or so is enough.
const MEMORY_GUARD_BYTES: u64 = 64 * 1024;
/// Space left for growth when a memory has to be moved.
const MEMORY_GROWTH_BYTES: u64 = 16 * 1024 * 1024;
/// Stack of a guest; deeper recursion traps.
const STACK_BYTES_MAX: usize = 512 * 1024;

/// The runtime. One a process; dropping it and everything loaded from it ends its thread.
pub struct Host {
    engine: Engine,
    linker: Linker<Guest>,
    metrics: Metrics,
}

/// A plugin: compiled, checked against the world, with its limits. Cheap to clone.
#[derive(Clone)]
pub struct Plugin(Arc<Loaded>);

pub(super) struct Loaded {
    pub(super) config: PluginConfig,
    pub(super) name: Arc<str>,
    pub(super) engine: Engine,
    pub(super) pre: RulePre<Guest>,
    pub(super) metrics: PluginMetrics,
}

impl Host {
    /// Starts the engine and the thread that keeps the deadlines.
    pub fn new(metrics: Metrics) -> Result<Self, LoadError> {
        let engine = Engine::new(&engine_config()).map_err(LoadError::Runtime)?;
        start_ticker(engine.weak()).map_err(LoadError::Ticker)?;
        let mut linker = Linker::new(&engine);
        wasi::link(&mut linker).map_err(LoadError::Runtime)?;
        Rule::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)
            .map_err(LoadError::Runtime)?;
        Ok(Self {
            engine,
            linker,
            metrics,
        })
    }

    /// Reads and compiles the component that `config` names. Takes a fraction of a second of
    /// every processor.
    pub fn load(&self, config: &PluginConfig) -> Result<Plugin, LoadError> {
        let path = &config.file;
        let read = |source| LoadError::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let bytes = file.metadata().map_err(read)?.len();
        if bytes > PLUGIN_FILE_BYTES_MAX {
            return Err(LoadError::TooLarge {
                path: path.clone(),
                bytes,
                max: PLUGIN_FILE_BYTES_MAX,
            });
        }
        let mut component = Vec::new();
        file.take(PLUGIN_FILE_BYTES_MAX)
            .read_to_end(&mut component)
            .map_err(read)?;
        self.load_bytes(config, &component)
    }

    /// The same from memory; the file that `config` names is not looked at.
    pub fn load_bytes(&self, config: &PluginConfig, bytes: &[u8]) -> Result<Plugin, LoadError> {
        let refused = |error: wasmtime::Error| LoadError::Component {
            plugin: config.name.clone(),
            reason: one_line(&error),
        };
        // Only components: `Component::new` would also take the text format.
        let component = Component::from_binary(&self.engine, bytes).map_err(refused)?;
        let pre = self.linker.instantiate_pre(&component).map_err(refused)?;
        let pre = RulePre::new(pre).map_err(refused)?;
        Ok(Plugin(Arc::new(Loaded {
            config: config.clone(),
            name: config.name.as_str().into(),
            engine: self.engine.clone(),
            pre,
            metrics: self.metrics.of_plugin(&config.name),
        })))
    }
}

impl Plugin {
    /// The name by which chains refer to it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A fresh instance, configured with `settings` (a JSON object).
    pub fn instantiate(
        &self,
        group: &GroupName,
        shard: u32,
        shards: u32,
        settings: &str,
    ) -> Result<Instance, PluginError> {
        Instance::start(Arc::clone(&self.0), group, shard, shards, settings)
    }
}

impl Loaded {
    /// Bytes that one call may hand over.
    pub(super) fn output_bytes_max(&self) -> usize {
        PLUGIN_OUTPUT_BYTES_MAX
    }

    /// How many ticks a call may see that must end within `deadline`: the tick under way counts
    /// as none.
    pub(super) fn ticks(deadline: Duration) -> u64 {
        let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
        u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
    }
}

fn engine_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::SpeedAndSize)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_reservation_for_growth(MEMORY_GROWTH_BYTES)
        .memory_may_move(true)
        .max_wasm_stack(STACK_BYTES_MAX)
        // The error says what trapped; a backtrace of the guest would only be noise in it.
        .wasm_backtrace_max_frames(None);
    config
}

/// Advances the epoch until the engine is gone.
fn start_ticker(engine: EngineWeak) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("plugin-deadline".into())
        .stack_size(64 * 1024)
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TICK);
            }
        })
}

/// An error and its causes, on one line, cut.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    let mut text = String::new();
    for (n, cause) in error.chain().enumerate() {
        if text.len() > PLUGIN_MESSAGE_BYTES_MAX {
            break;
        }
        let separator = if n == 0 { "" } else { ": " };
        write!(text, "{separator}{cause}").expect("writing to a string cannot fail");
    }
    cut(&text)
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_that_keeps_deadlines_ends_with_the_engine() {
        let engine = Engine::new(&engine_config()).unwrap();
        let ticker = start_ticker(engine.weak()).unwrap();
        assert!(!ticker.is_finished());
        drop(engine);
        ticker.join().unwrap();
    }

    #[test]
    fn a_deadline_is_never_cut_short() {
        for (millis, ticks) in [(1, 2), (5, 2), (6, 3), (100, 21)] {
            assert_eq!(Loaded::ticks(Duration::from_millis(millis)), ticks);
        }
    }
}
