//! A client that asks in TLS for another host than this one is not served.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, Stream, pki_types::ServerName};

use crate::{
    device::client_config,
    served::{Credentials, PATIENCE, Served, eventually},
    wire::Believer,
};

/// A MQTT 3.1.1 CONNECT of `sensor-1`.
const CONNECT: &[u8] = b"\x10\x14\x00\x04MQTT\x04\x02\x00\x1e\x00\x08sensor-1";

/// What the gateway answers to the CONNECT of a client that asks for `host`; nothing if it closes.
fn answer(served: &Served, own: &Credentials, host: &'static str) -> Vec<u8> {
    let mut config: ClientConfig = client_config(own);
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Believer));
    let name = ServerName::try_from(host).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(served.mqtt).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = Stream::new(&mut connection, &mut socket);
    let mut answer = vec![0; 4];
    match stream
        .write_all(CONNECT)
        .and_then(|()| stream.read_exact(&mut answer))
    {
        Ok(()) => answer,
        Err(_) => Vec::new(),
    }
}

#[test]
fn only_hosts_that_the_server_certificate_names_are_served() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    assert_eq!(answer(&served, &own, "localhost"), b"\x20\x02\x00\x00");
    assert_eq!(answer(&served, &own, "LOCALHOST"), b"\x20\x02\x00\x00");
    assert_eq!(answer(&served, &own, "127.0.0.1"), b"\x20\x02\x00\x00");
    assert!(answer(&served, &own, "cloud.example").is_empty());
    let parts = ["tls-sni-mismatch", "cloud.example", "sensor-1"];
    eventually("the refusal is logged with the host and who asked", || {
        let log = served.log();
        log.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    });
    let refused = served.metric("portcullis_broker_refused_total", &["tls-sni-mismatch"]);
    assert_eq!(refused, 1.0);

    served.stop();
    served
        .site
        .replace("gateway.toml", "check-sni = true", "check-sni = false");
    served.start();
    let taken = answer(&served, &own, "cloud.example");
    assert_eq!(taken, b"\x20\x02\x00\x00");
}
