//! Settings of logging.

use serde::Deserialize;

use crate::document::Section;

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Default level; `RUST_LOG` overrides it.
    pub level: tracing::Level,
    /// How lines look.
    pub format: Format,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

/// `[log]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct LogToml {
    level: LevelToml,
    format: Format,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LevelToml {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Config {
    /// Reads `[log]`.
    pub(crate) fn read(section: &mut Section<'_, '_>) -> Self {
        let toml: LogToml = section.read().unwrap_or_default();
        Self {
            level: match toml.level {
                LevelToml::Error => tracing::Level::ERROR,
                LevelToml::Warn => tracing::Level::WARN,
                LevelToml::Info => tracing::Level::INFO,
                LevelToml::Debug => tracing::Level::DEBUG,
                LevelToml::Trace => tracing::Level::TRACE,
            },
            format: toml.format,
        }
    }
}
