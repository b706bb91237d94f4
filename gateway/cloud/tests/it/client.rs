//! A client that says exactly what it is told.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use portcullis_cloud::Cloud;
use serde_json::{Value, json};

pub(crate) const STREAM: &str = "site";

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and name of an error.
    pub(crate) fn error(&self) -> (u16, String) {
        (
            self.status,
            self.json()["__type"].as_str().unwrap().to_owned(),
        )
    }
}

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn new(cloud: &Cloud) -> Self {
        let stream = TcpStream::connect(cloud.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// For requests that get no answer.
    pub(crate) fn patience(&self, most: Duration) {
        self.stream.get_ref().set_read_timeout(Some(most)).unwrap();
    }

    pub(crate) fn send(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut request = format!("POST {path} HTTP/1.1\r\nHost: x\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n", body.len());
        let mut stream = self.stream.get_ref();
        stream.write_all(&[request.as_bytes(), body].concat())?;
        self.answer()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let status = self.line()?[9..12].parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let bytes = answer.header("content-length").unwrap().parse().unwrap();
        answer.body.resize(bytes, 0);
        self.stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// A signed call in JSON.
    pub(crate) fn call(&mut self, target: &str, input: &Value) -> io::Result<Answer> {
        let service = match target.split('_').next().unwrap() {
            "Kinesis" => "kinesis",
            "Logs" => "logs",
            _ => "monitoring",
        };
        let (date, authorization) = signed(service, "AKIDTEST", 0);
        let headers = [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Target", target),
            ("X-Amz-Date", &date),
            ("Authorization", &authorization),
        ];
        self.send("/", &headers, input.to_string().as_bytes())
    }

    pub(crate) fn kinesis(&mut self, operation: &str, input: &Value) -> Answer {
        self.call(&format!("Kinesis_20131202.{operation}"), input)
            .unwrap()
    }

    pub(crate) fn logs(&mut self, operation: &str, input: &Value) -> Answer {
        self.call(&format!("Logs_20140328.{operation}"), input)
            .unwrap()
    }

    /// Puts records, key and data.
    pub(crate) fn put(&mut self, records: &[(&str, &[u8])]) -> io::Result<Answer> {
        self.call("Kinesis_20131202.PutRecords", &put_records(records))
    }
}

pub(crate) fn put_records(records: &[(&str, &[u8])]) -> Value {
    let record = |(key, data): &(&str, &[u8])| json!({ "PartitionKey": key, "Data": BASE64_STANDARD.encode(data) });
    json!({ "StreamName": STREAM, "Records": records.iter().map(record).collect::<Vec<_>>() })
}

pub(crate) fn now_secs() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// Headers of a request, signed so many seconds off.
pub(crate) fn signed(service: &str, key: &str, off_secs: i64) -> (String, String) {
    let date = amz_date(now_secs() + off_secs);
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={key}/{}/eu-central-1/{service}/aws4_request, SignedHeaders=host;x-amz-date, Signature={}",
        &date[..8],
        "0".repeat(64)
    );
    (date, authorization)
}

/// By counting, slowly: the cloud's own arithmetic is not to test itself.
fn amz_date(secs: i64) -> String {
    let (mut days, rest) = (secs / 86_400, secs % 86_400);
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [
        31,
        28 + i64::from(is_leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!(
        "{year:04}{month:02}{:02}T{:02}{:02}{:02}Z",
        days + 1,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}
