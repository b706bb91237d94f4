//! MQTT over WebSocket (section 6 of both standards): the handshake, and what binary frames carry as
//! a stream of bytes, so that everything behind it is as on a bare connection.
//!
//! Packets may span frames and share them. A frame of text ends the connection. Whatever a peer
//! does, what is kept of it is bounded: a message by [`MESSAGES_MAX`] packets, the request of the
//! handshake by 64 KiB, and a ping by its one answer.
//!
//! Browsers open WebSockets for any page, with the certificate of the person in front of them, and
//! to addresses of the machine itself. They say for which page (`Origin`), so a page of somebody
//! else is refused; programs say nothing, and need not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use portcullis_core::limits::{WEBSOCKET_BUFFER_BYTES, WEBSOCKET_FRAME_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{
            HeaderMap, HeaderValue, StatusCode,
            header::{CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL},
        },
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// The one resource that there is.
const PATH: &str = "/mqtt";
/// What the client must offer to speak, and is told that it speaks.
const SUBPROTOCOL: &str = "mqtt";
/// A message is no larger than so many of the largest packets: there may be several in one.
const MESSAGES_MAX: usize = 2;

/// Who may open WebSockets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// Pages of these origins, besides those of the listener's own.
    pub(super) origins: &'a [String],
    /// The listener's own origin is only this machine, under its own name: what another name says
    /// today is up to its owner.
    pub(super) is_local: bool,
    pub(super) packet_bytes_max: usize,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the path is not {PATH}")]
    Path,
    #[error("the client does not offer the subprotocol {SUBPROTOCOL}")]
    Subprotocol,
    #[error("pages of the origin `{0}` may not connect")]
    Origin(String),
    #[error(transparent)]
    Handshake(Box<Error>),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Subprotocol | Self::Handshake(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Shakes hands; the caller sets the time limit.
pub(super) async fn accept<S>(stream: S, rules: Rules<'_>) -> Result<WebSocket<S>, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let message_bytes_max = rules.packet_bytes_max.saturating_mul(MESSAGES_MAX);
    let config = WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_BUFFER_BYTES)
        .write_buffer_size(WEBSOCKET_BUFFER_BYTES)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    let mut refused = None;
    #[expect(clippy::result_large_err, reason = "the library wants it so")]
    let judge = |request: &Request, mut response: Response| match judge(request, rules) {
        Ok(()) => {
            let spoken = HeaderValue::from_static(SUBPROTOCOL);
            response
                .headers_mut()
                .insert(SEC_WEBSOCKET_PROTOCOL, spoken);
            Ok(response)
        }
        Err(refusal) => {
            let answer = answer(&refusal);
            refused = Some(refusal);
            Err(answer)
        }
    };
    match accept_hdr_async_with_config(stream, judge, Some(config)).await {
        Ok(inner) => Ok(WebSocket {
            inner,
            incoming: Bytes::new(),
            is_over: false,
            farewell: CloseCode::Normal,
            has_said_goodbye: false,
        }),
        Err(error) => Err(refused.unwrap_or_else(|| Refusal::Handshake(Box::new(error)))),
    }
}

fn answer(refusal: &Refusal) -> ErrorResponse {
    let text = format!("{refusal}\n");
    let length = HeaderValue::from(text.len());
    let mut answer = ErrorResponse::new(Some(text));
    *answer.status_mut() = refusal.status();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn judge(request: &Request, rules: Rules<'_>) -> Result<(), Refusal> {
    if request.uri().path() != PATH {
        return Err(Refusal::Path);
    }
    let headers = request.headers();
    if let Some(origin) = headers.get(ORIGIN)
        && !is_allowed(origin, headers, rules)
    {
        let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        return Err(Refusal::Origin(origin));
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let mut offered = offered.iter().filter_map(|value| value.to_str().ok());
    if offered.any(|list| list.split(',').any(|one| one.trim() == SUBPROTOCOL)) {
        Ok(())
    } else {
        Err(Refusal::Subprotocol)
    }
}

/// Whether pages of `origin` may connect: the origin is named, or that of the listener.
fn is_allowed(origin: &HeaderValue, headers: &HeaderMap, rules: Rules<'_>) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let mut named = rules.origins.iter();
    if named.any(|named| named.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let (Some((_, authority)), Some(host)) = (origin.split_once("://"), host) else {
        return false;
    };
    authority.eq_ignore_ascii_case(host) && (!rules.is_local || is_this_machine(authority))
}

/// Whether a host, maybe with a port, is a loopback address or `localhost`.
fn is_this_machine(authority: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => host,
        _ => authority,
    };
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|name| name.eq_ignore_ascii_case(host))
}

/// An open WebSocket, as a stream of bytes.
#[derive(Debug)]
pub(super) struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// What has been received and not read yet: at most a message.
    incoming: Bytes,
    /// Nothing more comes.
    is_over: bool,
    /// What the peer is told at the end.
    farewell: CloseCode,
    has_said_goodbye: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.incoming.is_empty() {
                let length = this.incoming.len().min(buffer.remaining());
                buffer.put_slice(this.incoming.get(..length).unwrap_or_default());
                this.incoming.advance(length);
                return Poll::Ready(Ok(()));
            }
            if this.is_over {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut this.inner).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => this.incoming = bytes,
                Some(Ok(Message::Text(_))) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "a frame of text");
                    return Poll::Ready(Err(this.fail(CloseCode::Unsupported, error)));
                }
                // The library answers pings.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => this.is_over = true,
                Some(Err(error)) => {
                    let code = match &error {
                        Error::Capacity(_) => CloseCode::Size,
                        _ => CloseCode::Protocol,
                    };
                    return Poll::Ready(Err(this.fail(code, io_error(error))));
                }
            }
        }
    }
}

impl<S> WebSocket<S> {
    fn fail(&mut self, farewell: CloseCode, error: io::Error) -> io::Error {
        self.is_over = true;
        self.farewell = farewell;
        error
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut self.get_mut().inner;
        // What does not fit into the socket is flushed before anything more is taken.
        ready!(Pin::new(&mut *inner).poll_ready(context)).map_err(io_error)?;
        let length = bytes.len().min(WEBSOCKET_FRAME_BYTES);
        let frame = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
        let sent = Pin::new(inner).start_send(Message::Binary(frame));
        Poll::Ready(sent.map(|()| length).map_err(io_error))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = Pin::new(&mut self.get_mut().inner);
        inner.poll_flush(context).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_said_goodbye {
            ready!(Pin::new(&mut this.inner).poll_ready(context)).map_err(io_error)?;
            let goodbye = Message::Close(Some(CloseFrame {
                code: this.farewell,
                reason: "".into(),
            }));
            this.has_said_goodbye = true;
            // Where the peer has said goodbye first, the answer is under way already.
            drop(Pin::new(&mut this.inner).start_send(goodbye));
        }
        drop(ready!(Pin::new(&mut this.inner).poll_close(context)));
        Pin::new(this.inner.get_mut()).poll_shutdown(context)
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::NotConnected.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests;
