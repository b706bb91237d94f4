//! The minimal loop: ready-made requests over one connection.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use portcullis_core::{limits::PUT_RECORDS_MAX, record::Record};
use serde_json::json;

use super::STREAM;

/// Requests of as many of these records as go into one.
pub(super) fn requests(records: &[Record]) -> Vec<Vec<u8>> {
    records.chunks(PUT_RECORDS_MAX).map(request).collect()
}

fn request(records: &[Record]) -> Vec<u8> {
    let records: Vec<_> = records
        .iter()
        .map(|record| {
            let data = BASE64_STANDARD.encode(&record.body);
            json!({"Data": data, "PartitionKey": &*record.partition_key})
        })
        .collect();
    let body = json!({"Records": records, "StreamName": STREAM}).to_string();
    format!(
        "POST / HTTP/1.1\r\nHost: cloud\r\nX-Amz-Target: Kinesis_20131202.PutRecords\r\n\
         Content-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends the requests in turn, so many.
pub(super) fn send(endpoint: &str, requests: &[Vec<u8>], times: usize) -> Result<()> {
    let address = endpoint.strip_prefix("http://").context("no http://")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::with_capacity(1 << 17, stream.try_clone()?);
    let mut body = Vec::new();
    for request in requests.iter().cycle().take(times) {
        stream.write_all(request)?;
        read_answer(&mut answers, &mut body)?;
    }
    Ok(())
}

fn read_answer(answers: &mut impl BufRead, body: &mut Vec<u8>) -> Result<()> {
    let (mut line, mut status, mut bytes) = (String::new(), String::new(), 0);
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if status.is_empty() {
            text.clone_into(&mut status);
        }
        let length = text
            .split_once(':')
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if let Some((_, length)) = length {
            bytes = length.trim().parse()?;
        }
    }
    anyhow::ensure!(status.contains(" 200 "), "{status}");
    body.resize(bytes, 0);
    answers.read_exact(body)?;
    Ok(())
}
