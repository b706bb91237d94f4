//! As much of HTTP/1.1 as the SDKs, boto and curl speak: requests in, answers out, on one connection.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

/// Of all header lines together.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Of a body as it comes over the wire: 10 MiB in base64 and its JSON.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// The head of a request. Names of headers are in lower case.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(own, _)| own == name)?;
        Some(value)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
        if !first.next()?.starts_with("HTTP/1.") {
            return None;
        }
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(header)
            .collect::<Option<_>>()?;
        Some(Self {
            method,
            path,
            headers,
        })
    }

    /// How long the body says it is; none if it comes in chunks.
    pub(crate) fn body_bytes(&self) -> Option<usize> {
        if self.get("transfer-encoding").is_some() {
            return None;
        }
        match self.get("content-length") {
            Some(length) => length.parse().ok(),
            None => Some(0),
        }
    }

    /// Whether the client goes on after the answer.
    pub(crate) fn keeps_alive(&self) -> bool {
        !self
            .get("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// None: without a body.
    pub(crate) content_type: Option<&'static str>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: Some(content_type),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// As it goes over the wire.
    pub(crate) fn to_bytes(&self, request: u64, date: &str) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400..500 => "Bad Request",
            _ => "Internal Server Error",
        };
        let mut out = Vec::with_capacity(self.body.len() + 512);
        out.extend_from_slice(
            format!(
                "HTTP/1.1 {} {reason}\r\nx-amzn-RequestId: 00000000-0000-4000-8000-{request:012}\r\nDate: {date}\r\nContent-Length: {}\r\n",
                self.status,
                self.body.len()
            )
            .as_bytes(),
        );
        if let Some(content_type) = self.content_type {
            out.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
        }
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// A connection, with what was read ahead.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    ahead: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// The next request's head; none if the client is done.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        let mut searched = 0;
        loop {
            let from = &self.ahead[searched..];
            if let Some(at) = from.windows(4).position(|part| part == b"\r\n\r\n") {
                let end = searched + at;
                let head = std::str::from_utf8(&self.ahead[..end]).ok();
                let head = head.and_then(Head::parse).ok_or_else(malformed)?;
                self.ahead.drain(..end + 4);
                return Ok(Some(head));
            }
            searched = self.ahead.len().saturating_sub(3);
            if self.ahead.len() > HEAD_BYTES_MAX {
                return Err(malformed());
            }
            if !self.more()? {
                return if self.ahead.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Reads the body into `body`. `false` if it is larger than any request may be.
    pub(crate) fn body(&mut self, head: &Head, body: &mut Vec<u8>) -> io::Result<bool> {
        body.clear();
        if head.get("expect").is_some() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        match head.body_bytes() {
            Some(bytes) if bytes > BODY_BYTES_MAX => Ok(false),
            Some(bytes) => {
                self.exactly(bytes, body)?;
                Ok(true)
            }
            None if head.get("transfer-encoding").is_some() => self.chunks(body),
            None => Err(malformed()),
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| malformed())?;
            if size.saturating_add(body.len()) > BODY_BYTES_MAX {
                return Ok(false);
            }
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(true);
            }
            self.exactly(size, body)?;
            self.line()?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|part| part == b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.drain(..end + 2);
                return Ok(line);
            }
            if self.ahead.len() > HEAD_BYTES_MAX || !self.more()? {
                return Err(malformed());
            }
        }
    }

    /// Appends so many bytes to `body`.
    fn exactly(&mut self, bytes: usize, body: &mut Vec<u8>) -> io::Result<()> {
        let had = bytes.min(self.ahead.len());
        body.extend(self.ahead.drain(..had));
        let from = body.len();
        body.resize(from + bytes - had, 0);
        self.stream.read_exact(&mut body[from..])
    }

    fn more(&mut self) -> io::Result<bool> {
        let from = self.ahead.len();
        self.ahead.resize(from + (16 << 10), 0);
        let read = self.stream.read(&mut self.ahead[from..]);
        self.ahead
            .truncate(from + read.as_ref().copied().unwrap_or(0));
        Ok(read? > 0)
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/1.1 request")
}
