//! Operators see who is connected, and send a client away.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::{
    device::Device,
    served::{PATIENCE, Served, eventually},
    wire::{framed, text},
};

const DISCONNECTED: &str = "portcullis_broker_disconnected_total";

/// CONNECT of MQTT 5 on the plain listener, and the CONNACK.
fn connect_v5(served: &Served, client_id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(served.plain).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut body = text("MQTT");
    body.extend([5, 2, 0, 0, 0]);
    body.extend(text(client_id));
    stream.write_all(&framed(0x10, &body)).unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x20);
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest).unwrap();
    assert_eq!(rest[1], 0, "{rest:?}");
    stream
}

fn listed(served: &Served) -> Vec<Value> {
    let text = served.site.done(&["client", "list", "--json"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    document["clients"].as_array().unwrap().clone()
}

/// The code of the answer to a POST with these further headers.
fn post(served: &Served, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(served.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_client_is_listed_and_kicked_with_the_reason_code_and_others_stay() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.enrol("sensor-2", "cold-chain");
    let silent = served.site.run(&["client", "list"]);
    assert_eq!(silent.code, 1, "{silent:?}");
    served.start();
    let mut stays = Device::tls(served.mqtt, "sensor-1", &own);
    let mut kicked = connect_v5(&served, "sensor-2");

    let clients = listed(&served);
    assert_eq!(clients.len(), 2, "{clients:?}");
    assert_eq!(clients[0]["clientId"], "sensor-1");
    assert_eq!(clients[0]["protocol"], "3.1.1");
    assert!(clients[0]["certificateId"].is_string());
    assert_eq!(clients[1]["thingName"], "sensor-2");
    assert_eq!(clients[1]["protocol"], "5");
    let people = served.site.done(&["client", "list"]);
    assert!(
        people.contains("sensor-2  thing sensor-2  127.0.0.1:"),
        "{people}"
    );

    let kick = ["client", "kick", "sensor-2", "--reason", "too noisy"];
    served.site.done(&kick);
    // DISCONNECT, Administrative action, and the end.
    let mut goodbye = Vec::new();
    kicked.read_to_end(&mut goodbye).unwrap();
    assert_eq!(goodbye.first(), Some(&0xe0), "{goodbye:?}");
    assert_eq!(goodbye.get(2), Some(&0x98), "{goodbye:?}");
    eventually("it is counted", || {
        served.metric(DISCONNECTED, &["\"kicked\""]) == 1.0
    });
    let log = served.log();
    let line = log.lines().find(|line| line.contains("\"kicked\""));
    assert!(line.is_some_and(|line| line.contains("too noisy")), "{log}");
    eventually("it is no longer listed", || listed(&served).len() == 1);
    stays.publish("dt/sensor-1/t", "1");

    let gone = served.site.run(&kick);
    assert_eq!(gone.code, 2, "{gone:?}");
    assert!(
        gone.stderr.contains("no such client is connected"),
        "{gone:?}"
    );
    // It may come again.
    connect_v5(&served, "sensor-2");
    served.stop();
}

#[test]
fn a_web_page_cannot_send_a_client_away() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    let path = "/api/v1/clients/sensor-1/disconnect";
    let host = format!("Host: {}\r\n", served.http);
    for (headers, code) in [
        (host.clone(), "403"),
        (
            "Host: evil.example\r\nX-Portcullis: 1\r\n".to_owned(),
            "403",
        ),
        (
            format!("{host}X-Portcullis: 1\r\nOrigin: http://evil.example\r\n"),
            "403",
        ),
    ] {
        assert_eq!(post(&served, path, &headers), code, "{headers}");
    }
    device.publish("dt/sensor-1/t", "1");
    let ours = format!("{host}X-Portcullis: 1\r\n");
    assert_eq!(post(&served, path, &ours), "200");
    assert!(device.closes());
    assert_eq!(
        post(&served, "/api/v1/clients/nobody/disconnect", &ours),
        "404"
    );
    assert_eq!(served.metric(DISCONNECTED, &["\"kicked\""]), 1.0);
    served.stop();
}
