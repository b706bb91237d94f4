//! Settings of the admin listener.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::document::Section;

/// Where `/metrics` is unless said otherwise: not on the network of the devices.
const ADDRESS: &str = "127.0.0.1:9090";

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address of `/metrics`, `/livez` and `/readyz`.
    pub address: SocketAddr,
}

/// `[admin]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct AdminToml {
    address: String,
}

impl Default for AdminToml {
    fn default() -> Self {
        Self {
            address: ADDRESS.to_owned(),
        }
    }
}

impl Config {
    /// Reads `[admin]`.
    pub(crate) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let toml: AdminToml = section.read().unwrap_or_default();
        let remedy = "write an address and a port, such as \"127.0.0.1:9090\"";
        let address = section.parsed("address", &toml.address, str::parse, remedy)?;
        Some(Self { address })
    }
}
