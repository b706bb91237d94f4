//! `gateway.toml` and what it names, validated as a whole. Composes the modules' settings.

use std::path::PathBuf;

use crate::{admin, broker, buffer, identity, pipeline, plugin, telemetry, uplink};

/// The whole of a configuration directory, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory in which `gateway.toml` stands.
    pub dir: PathBuf,
    /// `gateway_id` of every record.
    pub gateway_id: String,
    /// The buffer and all dynamic state.
    pub data_dir: PathBuf,
    pub log: telemetry::Config,
    pub broker: broker::Config,
    pub identity: identity::Config,
    pub admin: admin::Config,
    pub buffer: buffer::Config,
    pub uplink: uplink::Config,
    pub plugins: Vec<plugin::PluginConfig>,
    pub chains: Vec<pipeline::ChainConfig>,
    /// `profiles/`.
    pub profiles: PathBuf,
}
