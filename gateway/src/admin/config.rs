//! Settings of the admin listener.

use std::net::SocketAddr;

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address of `/metrics`, `/livez` and `/readyz`.
    pub address: SocketAddr,
}
