//! Who may change something over the admin listener: somebody on this machine, and no web page that
//! somebody on this machine happens to look at.
//!
//! A page can make a browser post to a loopback address (cross-site posts), and can give its own name
//! that address (DNS rebinding). The first cannot set a header of its own without being asked first,
//! which nobody answers here, and says its `Origin`; the second says its name as `Host`.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};

/// The header that a request must carry to change something.
pub const HEADER: &str = "X-Portcullis";

/// Why a request may change nothing; `own` is the address that it came to.
pub(super) fn check(headers: &HeaderMap, peer: IpAddr, own: IpAddr) -> Result<(), &'static str> {
    let (peer, own) = (peer.to_canonical(), own.to_canonical());
    if !peer.is_loopback() && peer != own {
        return Err("only who is on the gateway's machine may change something");
    }
    if headers.contains_key(header::ORIGIN) {
        return Err("web pages may change nothing: there is an `Origin` header");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(is_address) {
        return Err("the `Host` header must be an IP address or `localhost`");
    }
    match headers.get(HEADER) {
        Some(value) if value == "1" => Ok(()),
        _ => Err("the header `X-Portcullis: 1` is missing"),
    }
}

/// Whether no name server has a say in it.
fn is_address(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || bare.unwrap_or(host).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1";

    fn asked(headers: &[(&'static str, &str)], peer: &str, own: &str) -> Result<(), &'static str> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        check(
            &headers.collect(),
            peer.parse().unwrap(),
            own.parse().unwrap(),
        )
    }

    #[test]
    fn who_is_on_this_machine_may_and_others_may_not() {
        let headers = [("host", "127.0.0.1:9090"), ("x-portcullis", "1")];
        for (peer, own, may) in [
            (LOOPBACK, LOOPBACK, true),
            ("127.0.0.2", "0.0.0.0", true),
            ("::ffff:127.0.0.1", "::", true),
            ("::1", "::1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.2", "192.0.2.1", false),
            ("2001:db8::1", "::", false),
        ] {
            assert_eq!(asked(&headers, peer, own).is_ok(), may, "{peer} {own}");
        }
    }

    #[test]
    fn a_page_that_a_name_server_brings_here_may_not() {
        for (host, may) in [
            ("127.0.0.1:9090", true),
            ("127.0.0.1", true),
            ("[::1]:9090", true),
            ("[::1]", true),
            ("LocalHost:9090", true),
            ("localhost", true),
            ("evil.example:9090", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let headers = [("host", host), ("x-portcullis", "1")];
            assert_eq!(asked(&headers, LOOPBACK, LOOPBACK).is_ok(), may, "{host}");
        }
        assert!(asked(&[("x-portcullis", "1")], LOOPBACK, LOOPBACK).is_err());
    }

    #[test]
    fn a_page_of_another_site_may_not() {
        let host = ("host", "127.0.0.1:9090");
        assert!(asked(&[host], LOOPBACK, LOOPBACK).is_err());
        assert!(asked(&[host, ("x-portcullis", "0")], LOOPBACK, LOOPBACK).is_err());
        for origin in ["null", "http://evil.example", "http://127.0.0.1:9090"] {
            let headers = [host, ("x-portcullis", "1"), ("origin", origin)];
            assert!(asked(&headers, LOOPBACK, LOOPBACK).is_err(), "{origin}");
        }
    }
}
