//! Settings of the identity module.

use std::path::PathBuf;

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// `registry.toml`.
    pub registry: PathBuf,
    /// `policies/`.
    pub policies: PathBuf,
    /// Certificates that may sign device certificates; PEM.
    pub ca_certificates: Vec<PathBuf>,
    /// What the TLS listener shows to devices; PEM chain.
    pub server_certificate: PathBuf,
    /// Its key; PEM.
    pub server_key: PathBuf,
    /// Refuse connections that resolve to no thing.
    pub require_thing: bool,
}
