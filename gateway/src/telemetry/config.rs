//! Settings of logging.

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Default level; `RUST_LOG` overrides it.
    pub level: tracing::Level,
    /// How lines look.
    pub format: Format,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For collectors.
    Json,
}
