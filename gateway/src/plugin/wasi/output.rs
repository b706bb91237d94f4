//! Standard output and error, as log lines.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use portcullis_core::limits::PLUGIN_LOG_LINE_BYTES_MAX;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use super::super::{bindings::portcullis::plugin::log::Level, guest::SharedLines};

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Output,
    Error,
}

/// One of the two.
#[derive(Clone, Debug)]
pub(super) struct LogStream {
    pub(super) lines: SharedLines,
    pub(super) source: Source,
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(LineWriter {
            stream: self.clone(),
            partial: Vec::new(),
        })
    }

    /// Of WASI 0.3, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

/// Cuts what is written into lines.
struct LineWriter {
    stream: LogStream,
    partial: Vec<u8>,
}

impl LineWriter {
    fn write_line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&line);
        if line.trim().is_empty() {
            return;
        }
        let mut lines = self.stream.lines.lock();
        match self.stream.source {
            Source::Output => lines.write(Level::Info, &line),
            Source::Error => lines.write_error(&line),
        }
    }
}

impl OutputStream for LineWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for byte in bytes {
            if byte == b'\n' {
                self.write_line();
            } else if self.partial.len() <= PLUGIN_LOG_LINE_BYTES_MAX {
                // One byte more than a line may have, so that the cut is noticed.
                self.partial.push(byte);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(4096)
    }
}

impl Pollable for LineWriter {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

/// What a guest left unfinished when it ended.
impl Drop for LineWriter {
    fn drop(&mut self) {
        self.write_line();
    }
}
