//! How loading, starting and calling a plugin fails.

use std::path::PathBuf;

use portcullis_core::timestamp::Timestamp;

/// The runtime cannot start at all, or a file is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The runtime refuses its settings: a bug, or a platform that it does not know.
    #[error("failed to start the WebAssembly runtime")]
    Runtime(#[source] wasmtime::Error),
    /// The thread that keeps the deadlines cannot be started.
    #[error("failed to start the thread that keeps the plugins' deadlines")]
    Ticker(#[source] std::io::Error),
    /// The file cannot be read.
    #[error("failed to read plugin `{path}`", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        #[source]
        #[expect(missing_docs, reason = "the source of the error")]
        source: std::io::Error,
    },
    /// The file is larger than any plugin.
    #[error("plugin `{path}` has {bytes} bytes, more than {max}", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// [`PLUGIN_FILE_BYTES_MAX`](portcullis_core::limits::PLUGIN_FILE_BYTES_MAX).
        max: u64,
    },
    /// Not a component, or one for another world.
    #[error(
        "plugin `{plugin}` is no component for the world portcullis:plugin/rule@0.1.0: {reason}"
    )]
    Component {
        /// Which plugin.
        plugin: String,
        /// What the runtime says, in one line.
        reason: String,
    },
}

/// An instance cannot be started with these settings.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The plugin itself refuses the settings, and says why.
    #[error("plugin `{plugin}` refuses its settings: {message}")]
    Settings {
        /// Which plugin.
        plugin: String,
        /// Its words, cut.
        message: String,
    },
    /// It fails before it could say anything.
    #[error("plugin `{plugin}` does not start: {error}")]
    Start {
        /// Which plugin.
        plugin: String,
        /// How it fails.
        error: CallError,
    },
}

/// A call failed. It had no effect; what happens to its events is the pipeline's policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It took too long.
    #[error("the call passed its deadline")]
    Deadline,
    /// It needed more memory than allowed, and could not go on without.
    #[error("the memory limit was reached ({0})")]
    Memory(String),
    /// It trapped: a panic, a stack overflow, a refused WASI call.
    #[error("the plugin trapped: {0}")]
    Trap(String),
    /// It returned more than allowed.
    #[error("the call returned more than its output limit")]
    Output,
    /// It returned something that the contract forbids; the text names the field.
    #[error("the answer breaks the contract: {0}")]
    Contract(String),
    /// It said itself that it failed.
    #[error("the plugin failed: {message}")]
    Guest {
        /// The event that is to blame, if it is one.
        event: Option<usize>,
        /// Its words, cut.
        message: String,
    },
    /// It failed too often, and is not called before `until`.
    #[error("the plugin is paused until {until}")]
    Paused {
        /// When it is tried again.
        until: Timestamp,
    },
}

/// Why a call failed, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// See [`CallError::Deadline`].
    Deadline,
    /// See [`CallError::Memory`].
    Memory,
    /// See [`CallError::Trap`].
    Trap,
    /// See [`CallError::Output`].
    Output,
    /// See [`CallError::Contract`].
    Contract,
    /// See [`CallError::Guest`].
    Guest,
    /// See [`CallError::Paused`].
    Paused,
}

impl Reason {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Trap => "trap",
            Self::Output => "output",
            Self::Contract => "contract",
            Self::Guest => "guest",
            Self::Paused => "paused",
        }
    }
}

impl CallError {
    /// The kind of failure.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Deadline => Reason::Deadline,
            Self::Memory(_) => Reason::Memory,
            Self::Trap(_) => Reason::Trap,
            Self::Output => Reason::Output,
            Self::Contract(_) => Reason::Contract,
            Self::Guest { .. } => Reason::Guest,
            Self::Paused { .. } => Reason::Paused,
        }
    }

    /// Whether the instance cannot be used any more.
    pub(super) const fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Deadline | Self::Memory(_) | Self::Trap(_) | Self::Output
        )
    }
}
