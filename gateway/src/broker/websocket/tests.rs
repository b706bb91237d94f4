use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use super::*;

const PACKET_BYTES_MAX: usize = 1000;

type Client = WebSocketStream<DuplexStream>;

/// Shakes hands as a client that sends `headers` for `uri`.
async fn shake(
    uri: &str,
    headers: &[(&'static str, &str)],
    origins: &[String],
    is_local: bool,
) -> (
    Result<Client, Error>,
    Result<WebSocket<DuplexStream>, Refusal>,
) {
    let (near, far) = duplex(64 * 1024);
    let mut request = uri.into_client_request().unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append(*name, value);
    }
    let rules = Rules {
        origins,
        is_local,
        packet_bytes_max: PACKET_BYTES_MAX,
    };
    let client = async { client_async(request, near).await.map(|(client, _)| client) };
    tokio::join!(client, accept(far, rules))
}

async fn open() -> (Client, WebSocket<DuplexStream>) {
    let offered = [("sec-websocket-protocol", "mqtt")];
    let (client, server) = shake("ws://localhost/mqtt", &offered, &[], true).await;
    (client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn the_path_the_subprotocol_and_the_origin_decide() {
    let origins = ["https://dash.example".to_owned()];
    let origins = &origins[..];
    let mqtt = ("sec-websocket-protocol", "mqtt");
    for (uri, headers, is_local, status) in [
        ("ws://localhost/mqtt", &[mqtt][..], true, None),
        ("ws://localhost/mqtt?x=1", &[mqtt], true, None),
        (
            "ws://localhost/mqtt",
            &[("sec-websocket-protocol", "mqttv3.1, mqtt")],
            true,
            None,
        ),
        ("ws://localhost/", &[mqtt], true, Some(404)),
        ("ws://localhost/mqtt/x", &[mqtt], true, Some(404)),
        ("ws://localhost/mqtt", &[], true, Some(400)),
        (
            "ws://localhost/mqtt",
            &[("sec-websocket-protocol", "mqttv3.1")],
            true,
            Some(400),
        ),
        // Pages.
        (
            "ws://localhost:1884/mqtt",
            &[mqtt, ("origin", "http://localhost:1884")],
            true,
            None,
        ),
        (
            "ws://127.0.0.1:1884/mqtt",
            &[mqtt, ("origin", "http://127.0.0.1:1884")],
            true,
            None,
        ),
        (
            "ws://localhost:1884/mqtt",
            &[mqtt, ("origin", "http://localhost:8000")],
            true,
            Some(403),
        ),
        (
            "ws://localhost/mqtt",
            &[mqtt, ("origin", "https://evil.example")],
            true,
            Some(403),
        ),
        // A name that its owner points at this machine.
        (
            "ws://evil.example/mqtt",
            &[mqtt, ("origin", "http://evil.example")],
            true,
            Some(403),
        ),
        (
            "ws://gateway.example/mqtt",
            &[mqtt, ("origin", "https://gateway.example")],
            false,
            None,
        ),
        (
            "ws://gateway.example/mqtt",
            &[mqtt, ("origin", "null")],
            false,
            Some(403),
        ),
        (
            "ws://localhost/mqtt",
            &[mqtt, ("origin", "https://dash.example")],
            true,
            None,
        ),
    ] {
        let (client, server) = shake(uri, headers, origins, is_local).await;
        let is = match &client {
            // The answer names the subprotocol, or the client would have refused it.
            Ok(_) | Err(Error::Protocol(_)) => None,
            Err(Error::Http(answer)) => Some(answer.status().as_u16()),
            Err(error) => panic!("{uri} {headers:?}: {error}"),
        };
        assert_eq!(is, status, "{uri} {headers:?}");
        assert_eq!(server.is_err(), status.is_some(), "{uri} {headers:?}");
    }
}

#[tokio::test]
async fn frames_and_packets_have_nothing_to_do_with_each_other() {
    let (mut client, mut server) = open().await;
    for frame in [&b"ab"[..], b"", b"c", b"defgh"] {
        let frame = Message::Binary(Bytes::copy_from_slice(frame));
        client.send(frame).await.unwrap();
    }
    client.send(Message::Ping("?".into())).await.unwrap();
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"abcde");
    let mut bytes = [0; 3];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"fgh");

    server.write_all(b"answer").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(
        client.next().await.unwrap().unwrap(),
        Message::Binary("answer".into())
    );
}

#[tokio::test]
async fn a_large_packet_spans_frames() {
    let (mut client, mut server) = open().await;
    let large = vec![7; 3 * WEBSOCKET_FRAME_BYTES];
    let send = async {
        server.write_all(&large).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let receive = async {
        let mut got = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            match message {
                Message::Binary(bytes) => {
                    assert!(bytes.len() <= WEBSOCKET_FRAME_BYTES);
                    got.extend_from_slice(&bytes);
                }
                other => assert!(other.is_close(), "{other:?}"),
            }
        }
        got
    };
    let ((), got) = tokio::join!(send, receive);
    assert!(got == large);
}

/// What the client is told when the server has read to an error and closes.
async fn told(mut client: Client, mut server: WebSocket<DuplexStream>) -> CloseCode {
    let end = async move {
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        server.shutdown().await.unwrap();
    };
    let hear = async {
        loop {
            match client.next().await.expect("a goodbye").unwrap() {
                Message::Close(Some(frame)) => break frame.code,
                other => assert!(!other.is_close(), "{other:?}"),
            }
        }
    };
    tokio::join!(end, hear).1
}

#[tokio::test]
async fn a_frame_of_text_ends_it() {
    let (mut client, server) = open().await;
    client.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(told(client, server).await, CloseCode::Unsupported);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_it() {
    let (mut client, server) = open().await;
    let large = vec![0; MESSAGES_MAX * PACKET_BYTES_MAX + 1];
    client.send(Message::Binary(large.into())).await.unwrap();
    assert_eq!(told(client, server).await, CloseCode::Size);
}

#[tokio::test]
async fn the_clients_goodbye_is_the_end() {
    let (mut client, mut server) = open().await;
    client.send(Message::Binary("last".into())).await.unwrap();
    client.close(None).await.unwrap();
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"last");
    server.shutdown().await.unwrap();
    let mut farewell = Vec::new();
    while let Some(Ok(message)) = client.next().await {
        farewell.push(message.is_close());
    }
    assert_eq!(farewell, [true]);
}
