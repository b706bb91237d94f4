//! MQTT over WebSocket: rumqttc behind a bridge that puts its bytes into frames, and frames by hand.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use futures_util::{SinkExt, StreamExt};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

use crate::{
    device::{Device, client_config},
    served::{PATIENCE, Served, eventually, free_addresses},
    support::run,
    wire::{framed, text},
};

const REFUSED: &str = "portcullis_broker_refused_total";

/// A gateway with the thing `sensor-1` that listens for WebSockets as well: `wss` and `ws`.
struct Site {
    served: Served,
    wss: SocketAddr,
    ws: SocketAddr,
    own: crate::served::Credentials,
}

impl Site {
    fn start(settings: &[(&str, &str)]) -> Self {
        let mut served = Served::new();
        let own = served.enrol("sensor-1", "cold-chain");
        let [wss, ws] = free_addresses();
        for (from, to) in settings {
            served.site.replace("gateway.toml", from, to);
        }
        served.site.append(
            "gateway.toml",
            &format!(
                "\n[[listener]]\nkind = \"wss\"\naddress = \"{wss}\"\n\
                 \n[[listener]]\nkind = \"ws\"\naddress = \"{ws}\"\norigins = [\"https://dash.example\"]\n"
            ),
        );
        served.start();
        Self {
            served,
            wss,
            ws,
            own,
        }
    }

    fn refused(&self, reason: &str) -> f64 {
        let label = format!("reason=\"{reason}\"");
        self.served.metric(REFUSED, &[&label])
    }
}

/// Opens a WebSocket on `stream`.
async fn open<S>(stream: S) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    let mqtt = "mqtt".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", mqtt);
    let (socket, answer) = client_async(request, stream).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "mqtt");
    socket
}

/// Where one client may connect; its bytes go to `target` in frames of at most `frame_bytes`, within
/// TLS if there is a `config`.
fn bridge(target: SocketAddr, config: Option<ClientConfig>, frame_bytes: usize) -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let (local, _) = socket.accept().unwrap();
        local.set_nonblocking(true).unwrap();
        run(async {
            let local = net::TcpStream::from_std(local).unwrap();
            let stream = net::TcpStream::connect(target).await.unwrap();
            match config {
                None => carry(open(stream).await, local, frame_bytes).await,
                Some(config) => {
                    let name = ServerName::try_from("localhost").unwrap();
                    let tls = TlsConnector::from(Arc::new(config));
                    let stream = tls.connect(name, stream).await.unwrap();
                    carry(open(stream).await, local, frame_bytes).await;
                }
            }
        });
    });
    address
}

async fn carry<S>(socket: WebSocketStream<S>, mut local: net::TcpStream, frame_bytes: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = local.split();
    let up = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            match read.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    for frame in bytes[..length].chunks(frame_bytes) {
                        let frame = Message::Binary(frame.to_vec().into());
                        if sink.send(frame).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    };
    let down = async {
        while let Some(Ok(message)) = source.next().await {
            if let Message::Binary(bytes) = message
                && write.write_all(&bytes).await.is_err()
            {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[test]
fn a_device_is_served_in_a_websocket_as_without() {
    let site = Site::start(&[]);
    let tls = Some(client_config(&site.own));
    let large = "x".repeat(100_000);
    for (address, count) in [
        (bridge(site.wss, tls, 3), 1),
        (bridge(site.ws, None, 1 << 20), 2),
    ] {
        let mut device = Device::plain(address, "sensor-1");
        device.subscribe("dt/sensor-1/#");
        device.send("dt/sensor-1/t", &large);
        let (topic, payload) = device.next_message();
        assert_eq!(topic, "dt/sensor-1/t");
        assert!(payload == large);
        assert!(device.is_refused("dt/other/t"), "policies hold here too");
        eventually("the publish is in the outbox", || {
            let topics = site.served.outbox().into_iter();
            topics
                .filter(|event| event["topic"] == "dt/sensor-1/t")
                .count()
                == count
        });
    }
}

#[test]
fn a_revoked_certificate_is_shut_out_of_its_websocket() {
    let site = Site::start(&[]);
    let address = bridge(site.wss, Some(client_config(&site.own)), 1000);
    let mut device = Device::plain(address, "sensor-1");
    device.publish("dt/sensor-1/t", "1");
    site.served.site.done(&["cert", "revoke", "sensor-1"]);
    assert!(device.closes());
}

#[test]
fn a_websocket_over_tls_takes_a_certificate() {
    let site = Site::start(&[]);
    let mut roots = RootCertStore::empty();
    let ca = std::fs::read(&site.own.ca).unwrap();
    for certificate in
        <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::pem_slice_iter(
            &ca,
        )
    {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let nobody = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    run(async {
        let stream = net::TcpStream::connect(site.wss).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let shaken = TlsConnector::from(Arc::new(nobody)).connect(name, stream);
        // With TLS 1.3 the client hears of it with the first byte that it waits for.
        if let Ok(mut stream) = shaken.await {
            let read = stream.read(&mut [0]).await;
            assert!(read.is_err() || read.is_ok_and(|length| length == 0));
        }
    });
    eventually("it is counted", || {
        site.refused("tls-no-certificate") == 1.0
    });
}

/// The status of the answer to a handshake by hand.
fn status(address: SocketAddr, path: &str, headers: &[&str]) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for header in headers {
        request += header;
        request += "\r\n";
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    let answer = std::str::from_utf8(&answer).unwrap();
    answer.strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

#[test]
fn handshakes_that_may_not_be_are_refused_and_counted() {
    let site = Site::start(&[]);
    let mqtt = "Sec-WebSocket-Protocol: mqtt";
    let own = format!("Origin: http://{}", site.ws);
    for (path, headers, is) in [
        ("/mqtt", &[mqtt][..], 101),
        ("/mqtt", &[mqtt, &own], 101),
        ("/mqtt", &[mqtt, "Origin: https://dash.example"], 101),
        ("/", &[mqtt], 404),
        ("/metrics", &[mqtt], 404),
        ("/mqtt", &[], 400),
        ("/mqtt", &["Sec-WebSocket-Protocol: chat"], 400),
        ("/mqtt", &[mqtt, "Origin: https://evil.example"], 403),
    ] {
        assert_eq!(status(site.ws, path, headers), is, "{path} {headers:?}");
    }
    eventually("they are counted", || {
        site.refused("websocket-path") == 2.0
            && site.refused("websocket-subprotocol") == 2.0
            && site.refused("websocket-origin") == 1.0
    });
    let log = site.served.log();
    assert!(log.contains("https://evil.example"), "{log}");
}

#[test]
fn who_does_not_finish_the_handshake_is_cut_off() {
    let site = Site::start(&[("connect-timeout-ms = 10000", "connect-timeout-ms = 500")]);
    let mut silent = TcpStream::connect(site.ws).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    silent.write_all(b"GET /mqtt HTTP/1.1\r\nHost").unwrap();
    let mut byte = [0];
    assert!(silent.read(&mut byte).is_ok_and(|length| length == 0));
    assert_eq!(site.refused("websocket-timeout"), 1.0);
    // The same time for the CONNECT.
    run(async {
        let mut socket = open(net::TcpStream::connect(site.ws).await.unwrap()).await;
        while let Some(Ok(_)) = socket.next().await {}
    });
    assert_eq!(site.refused("connect-timeout"), 1.0);
}

/// A MQTT 3.1.1 CONNECT of `sensor-1`.
fn connect() -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([4, 2, 0, 30]);
    body.extend(text("sensor-1"));
    framed(0x10, &body)
}

#[test]
fn packets_share_frames_and_text_ends_it() {
    let site = Site::start(&[]);
    run(async {
        let mut socket = open(net::TcpStream::connect(site.ws).await.unwrap()).await;
        let mut together = connect();
        together.extend([0xc0, 0, 0xc0, 0]);
        socket.send(Message::Binary(together.into())).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 8 {
            if let Message::Binary(bytes) = socket.next().await.unwrap().unwrap() {
                got.extend_from_slice(&bytes);
            }
        }
        assert_eq!(got, [0x20, 2, 0, 0, 0xd0, 0, 0xd0, 0]);

        let ping = Message::Text("\u{c0}\0".into());
        socket.send(ping).await.unwrap();
        let end = socket.next().await.unwrap().unwrap();
        let Message::Close(Some(frame)) = end else {
            panic!("{end:?}")
        };
        assert_eq!(frame.code, CloseCode::Unsupported);
        while let Some(Ok(_)) = socket.next().await {}
    });
    eventually("the session ended", || {
        let lost = ["reason=\"connection-lost\""];
        let ended = "portcullis_broker_disconnected_total";
        site.served.metric(ended, &lost) == 1.0
    });
}
