//! A Kinesis endpoint that does what a script says: faults that no emulator produces.
//! It speaks as much of HTTP/1.1 and JSON 1.1 as the real SDK needs for `PutRecords`.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// What happens to one request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// All records are taken.
    Take,
    /// The records at these places fail with this code, the others are taken.
    FailRecords(Vec<usize>, &'static str),
    /// The whole request fails.
    Refuse(u16, &'static str),
    /// The connection is closed before anything is read from the request's body.
    CutBefore,
    /// All records are taken, and the connection is closed instead of an answer.
    CutAfter,
    /// Fails the whole request as invalid if a record's data contain this text, else takes it.
    RefuseIfContains(&'static str),
    /// A link that carries bodies up to this size in time: larger ones get no answer, ever.
    StallAbove(usize),
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Step>,
    /// What a request meets when the script is over.
    afterwards: Option<Step>,
    requests: Vec<Vec<(String, Vec<u8>)>>,
    taken: Vec<(String, Vec<u8>)>,
    stalled: usize,
    /// 0: it does not say.
    shards: u32,
    date: Option<String>,
    witness: Option<Witness>,
    /// Who gets what is taken instead of `taken`.
    consumer: Option<Consumer>,
}

/// Gets partition key and data of a record.
struct Consumer(Box<Consume>);

type Consume = dyn FnMut(&str, &[u8]) + Send;

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Consumer")
    }
}

/// Who is told how many records were taken, before the gateway is.
struct Witness(Box<dyn Fn(usize) + Send>);

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct FakeKinesis {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl FakeKinesis {
    pub(crate) fn start(script: impl IntoIterator<Item = Step>) -> Self {
        Self::start_on(0, script)
    }

    pub(crate) fn start_on(port: u16, script: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let fake = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::new(Mutex::new(State {
                script: script.into_iter().collect(),
                ..State::default()
            })),
        };
        let state = fake.state.clone();
        // Threads end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        fake
    }

    /// So many shards, each with its part of the hash keys.
    pub(crate) fn shards(&self, shards: u32) {
        self.state.lock().unwrap().shards = shards;
    }

    /// What every answer has for a date.
    pub(crate) fn date(&self, date: &str) {
        self.state.lock().unwrap().date = Some(date.to_owned());
    }

    /// What a request meets when the script is over; without it, all is taken.
    pub(crate) fn afterwards(&self, step: Step) {
        self.state.lock().unwrap().afterwards = Some(step);
    }

    /// From now on this is told how many records were taken so far, before the gateway is.
    pub(crate) fn witnessed_by(&self, witness: impl Fn(usize) + Send + 'static) {
        self.state.lock().unwrap().witness = Some(Witness(Box::new(witness)));
    }

    /// From now on what is taken goes here and is not kept: for more than the memory holds.
    pub(crate) fn consumed_by(&self, consumer: impl FnMut(&str, &[u8]) + Send + 'static) {
        self.state.lock().unwrap().consumer = Some(Consumer(Box::new(consumer)));
    }

    /// Everything that was taken, in order, `(partition key, data)`.
    pub(crate) fn taken(&self) -> Vec<(String, Vec<u8>)> {
        self.state.lock().unwrap().taken.clone()
    }

    /// How many requests got no answer.
    pub(crate) fn stalled(&self) -> usize {
        self.state.lock().unwrap().stalled
    }

    /// Every request that was read.
    pub(crate) fn requests(&self) -> Vec<Vec<(String, Vec<u8>)>> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut content_bytes = 0;
        let mut target = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => content_bytes = value.trim().parse().unwrap(),
                "x-amz-target" => target = value.trim().to_owned(),
                _ => {}
            }
        }
        if target != "Kinesis_20131202.PutRecords" {
            let mut body = vec![0; content_bytes];
            reader.read_exact(&mut body)?;
            let answer = about_the_stream(&target, state);
            respond(&mut stream, 200, &answer, state)?;
            continue;
        }
        let step = {
            let mut state = state.lock().unwrap();
            let next = state.script.pop_front();
            next.or_else(|| state.afterwards.clone())
                .unwrap_or(Step::Take)
        };
        if matches!(step, Step::CutBefore) {
            return Ok(());
        }
        if matches!(step, Step::StallAbove(most) if content_bytes > most) {
            state.lock().unwrap().stalled += 1;
            // Until the client gives up.
            std::io::copy(&mut reader, &mut std::io::sink())?;
            return Ok(());
        }
        let mut body = vec![0; content_bytes];
        reader.read_exact(&mut body)?;
        let records = records(&serde_json::from_slice(&body).unwrap());
        let Some((status, answer)) = answer(&step, records, &mut state.lock().unwrap()) else {
            return Ok(());
        };
        respond(&mut stream, status, &answer, state)?;
    }
}

fn respond(
    stream: &mut TcpStream,
    status: u16,
    answer: &Value,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let date = state.lock().unwrap().date.clone();
    let date = date.map_or_else(String::new, |date| format!("Date: {date}\r\n"));
    let answer = answer.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} Scripted\r\n{date}Content-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    )
}

/// A stream with as many shards as the test says; by default it does not tell.
fn about_the_stream(target: &str, state: &Mutex<State>) -> Value {
    let shards = u128::from(state.lock().unwrap().shards);
    if target == "Kinesis_20131202.DescribeStreamSummary" {
        return json!({ "StreamDescriptionSummary": {
            "StreamName": "s", "StreamARN": "arn", "StreamStatus": "ACTIVE",
            "RetentionPeriodHours": 24, "StreamCreationTimestamp": 0,
            "EnhancedMonitoring": [], "OpenShardCount": u32::try_from(shards).unwrap(),
        }});
    }
    assert_eq!(target, "Kinesis_20131202.ListShards");
    let size = u128::MAX / shards.max(1);
    let shards = (0..shards).map(|at| {
        let last = if at + 1 == shards {
            u128::MAX
        } else {
            (at + 1) * size - 1
        };
        json!({
            "ShardId": format!("shardId-{at}"),
            "HashKeyRange": {
                "StartingHashKey": (at * size).to_string(), "EndingHashKey": last.to_string(),
            },
            "SequenceNumberRange": { "StartingSequenceNumber": "0" },
        })
    });
    json!({ "Shards": shards.collect::<Vec<_>>() })
}

fn records(request: &Value) -> Vec<(String, Vec<u8>)> {
    let records = request["Records"].as_array().unwrap();
    assert!((1..=500).contains(&records.len()), "the limit of a request");
    records
        .iter()
        .map(|record| {
            let key = record["PartitionKey"].as_str().unwrap().to_owned();
            let data = BASE64_STANDARD
                .decode(record["Data"].as_str().unwrap())
                .unwrap();
            assert!(key.len() + data.len() <= 1 << 20, "the limit of a record");
            (key, data)
        })
        .collect()
}

fn answer(step: &Step, records: Vec<(String, Vec<u8>)>, state: &mut State) -> Option<(u16, Value)> {
    if state.consumer.is_none() {
        state.requests.push(records.clone());
    }
    let refusal = |status, code: &str| {
        let error = json!({ "__type": code, "message": "scripted" });
        Some((status, error))
    };
    let failing = match step {
        Step::Take | Step::CutAfter | Step::CutBefore | Step::StallAbove(_) => None,
        Step::FailRecords(places, code) => Some((places, *code)),
        Step::Refuse(status, code) => return refusal(*status, code),
        Step::RefuseIfContains(text) => {
            let poisoned = |data: &[u8]| data.windows(text.len()).any(|w| w == text.as_bytes());
            if records.iter().any(|(_, data)| poisoned(data)) {
                return refusal(400, "InvalidArgumentException");
            }
            None
        }
    };
    let mut outcomes = Vec::new();
    for (at, record) in records.into_iter().enumerate() {
        match failing.filter(|(places, _)| places.contains(&at)) {
            Some((_, code)) => {
                outcomes.push(json!({ "ErrorCode": code, "ErrorMessage": "scripted" }));
            }
            None => {
                if let Some(Consumer(consumer)) = &mut state.consumer {
                    consumer(&record.0, &record.1);
                } else {
                    state.taken.push(record);
                }
                let number = (state.taken.len() + at).to_string();
                outcomes.push(json!({ "ShardId": "shardId-0", "SequenceNumber": number }));
            }
        }
    }
    if let Some(Witness(witness)) = &state.witness {
        witness(state.taken.len());
    }
    if matches!(step, Step::CutAfter) {
        return None;
    }
    let failed = failing.map_or(0, |(places, _)| places.len());
    Some((
        200,
        json!({ "FailedRecordCount": failed, "Records": outcomes }),
    ))
}
