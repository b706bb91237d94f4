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
    match exchange(address, &format!("GET {path} HTTP/1.0\r\n"), "")? {
        (200, answer) => Ok(answer),
        _ => Err(unexpected()),
    }
}

/// Has the gateway do what `path` stands for; the code and the document of its answer.
pub(super) fn tell(address: SocketAddr, path: &str, body: &Value) -> io::Result<(u16, Value)> {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let head = format!(
        "POST {path} HTTP/1.0\r\n{}: 1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        admin::HEADER,
        body.len()
    );
    exchange(address, &head, &body)
}

fn exchange(address: SocketAddr, head: &str, body: &str) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP 1.0: the body comes in one piece and ends with the connection.
    write!(stream, "{head}Host: {address}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(unexpected)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let answer = serde_json::from_str(body).map_err(|_| unexpected())?;
    Ok((code.ok_or_else(unexpected)?, answer))
}

fn unexpected() -> io::Error {
    io::Error::other("the answer is not that of a gateway")
}

/// As it may stand in a path or a query.
pub(super) fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
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

    #[test]
    fn what_has_a_meaning_in_a_path_is_encoded() {
        assert_eq!(encoded("sensor-1"), "sensor-1");
        assert_eq!(encoded("a b/é?"), "a%20b%2F%C3%A9%3F");
    }
}
