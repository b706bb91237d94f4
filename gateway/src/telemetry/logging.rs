//! Structured log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Config, Format, tap};

/// The bus logs an error for every publish without a subscriber, sled a line for every flush.
const QUIET: &str =
    "rumqttd=off,sled=warn,wasmtime=warn,cranelift=warn,aws=warn,hyper=warn,rustls=error";

/// Starts logging; `RUST_LOG` overrides the configured level. A second call changes nothing.
pub fn init_logging(config: &Config) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| config.level.to_string());
    // What is wanted comes last and wins.
    let filter = EnvFilter::new(format!("{QUIET},{wanted}"));
    // Colours are for people; a file or a journal gets plain text.
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The tap has a level of its own.
    let registry = tracing_subscriber::registry().with(tap::layer());
    let started = match config.format {
        Format::Text => registry.with(lines.with_filter(filter)).try_init(),
        Format::Json => {
            let lines = lines.json().flatten_event(true);
            registry.with(lines.with_filter(filter)).try_init()
        }
    };
    // Only tests start it twice, and there the first one serves.
    drop(started);
}
