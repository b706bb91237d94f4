//! Structured log lines on standard error.

use std::{error::Error, io::IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Config, Format};

/// The bus logs an error for every publish without a subscriber, sled a line for every flush.
const QUIET: &str =
    "rumqttd=off,sled=warn,wasmtime=warn,cranelift=warn,aws=warn,hyper=warn,rustls=error";

/// Starts logging; `RUST_LOG` overrides the configured level. A second call changes nothing.
pub fn init_logging(config: &Config) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{},{QUIET}", config.level)));
    // Colours are for people; a file or a journal gets plain text.
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    let started = match config.format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // Only tests start it twice, and there the first one serves.
    drop(started);
}

/// An error with its causes: `failed to open buffer: permission denied`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
