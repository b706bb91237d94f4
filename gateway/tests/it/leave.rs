//! Who takes leave and comes back at once: the DISCONNECT counts, although the newcomer with the same
//! client id is heard while it is still unread.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::{
    device::Device,
    served::{PATIENCE, Served},
    wire::{packet, text},
};

const ALLOW_ALL: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;
/// Enough that the gateway is still busy with them when the client is back.
const PUBLISHES: usize = 300;
const ROUNDS: usize = 20;

/// A CONNECT of MQTT 3.1.1 with a clean session and a will.
fn hello() -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([4, 0b110, 0, 60]);
    body.extend(text("hasty"));
    body.extend(text("hasty/will"));
    body.extend(text("will"));
    packet(0x10, &body)
}

fn publish(payload: &str) -> Vec<u8> {
    let mut body = text("hasty/said");
    body.extend(payload.as_bytes());
    packet(0x30, &body)
}

fn connect(served: &Served) -> TcpStream {
    let mut stream = TcpStream::connect(served.plain).unwrap();
    // A DISCONNECT that waits for the former packet's ACK has not been sent.
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello()).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

#[test]
fn a_client_that_took_leave_and_is_back_at_once_leaves_no_will() {
    let mut served = Served::new();
    served.site.write("policies/device.json", ALLOW_ALL);
    served.enrol("hasty", "cold-chain");
    let listening = served.enrol("listener", "apps");
    served.site.replace(
        "gateway.toml",
        "kind = \"plain\"",
        "kind = \"plain\"\nplain-thing = \"hasty\"",
    );
    served.start();
    let mut listener = Device::tls(served.mqtt, "listener", &listening);
    listener.subscribe("hasty/#");
    let mut opened = Vec::new();
    for round in 0..ROUNDS {
        let mut first = connect(&served);
        let mut all = Vec::new();
        for _ in 0..PUBLISHES {
            all.extend(publish("busy"));
        }
        all.extend([0xe0, 0]);
        first.write_all(&all).unwrap();
        let mut second = connect(&served);
        second
            .write_all(&publish(&format!("back {round}")))
            .unwrap();
        second.write_all(&[0xe0, 0]).unwrap();
        // Closed at the end alone: the DISCONNECT is what counts.
        opened.extend([first, second]);
        loop {
            let got = listener.receive();
            assert_eq!(got.topic, "hasty/said", "round {round}: a will");
            if got.payload == format!("back {round}") {
                break;
            }
        }
    }
}
