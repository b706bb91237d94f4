//! Questions to the running gateway, over its admin listener.
//!
//! Only the address of the listener is read from the settings: a gateway that runs can be asked
//! whatever became of the files since.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use serde_json::Value;

use super::Failure;
use crate::{
    admin,
    document::{Document, read_text},
};

/// For each step of the exchange.
const PATIENCE: Duration = Duration::from_secs(5);
/// More is no answer of ours.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where the gateway with the settings in `file` can be asked.
pub(super) fn address(file: &Path) -> Result<SocketAddr, Failure> {
    let text = read_text(file).map_err(|problem| Failure::Mistakes(vec![problem]))?;
    let mut document = Document::parse(file, &text);
    match admin::Config::read(&mut document.section("admin")) {
        Some(config) => Ok(reachable(config.address)),
        None => Err(Failure::Mistakes(document.into_problems())),
    }
}

/// A listener on every address is asked on the loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// What the gateway has at `path`.
pub(super) fn ask(address: SocketAddr, path: &str) -> io::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP 1.0: the body comes in one piece and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let unexpected = || io::Error::other("the answer is not that of a gateway");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unexpected)?;
    let code = head.split(' ').nth(1);
    if code != Some("200") {
        return Err(unexpected());
    }
    serde_json::from_str(body).map_err(|_| unexpected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_the_loopback() {
        for (given, asked) in [
            ("0.0.0.0:9", "127.0.0.1:9"),
            ("[::]:9", "[::1]:9"),
            ("192.0.2.1:9", "192.0.2.1:9"),
        ] {
            assert_eq!(reachable(given.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
