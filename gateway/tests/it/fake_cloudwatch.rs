//! A CloudWatch endpoint that does what a script says: `PutMetricData` as the SDK speaks it (rpc-v2-cbor)
//! and CloudWatch Logs in JSON 1.1. It holds every call to the limits of the services.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value, json};

/// What happens to one call.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// It is taken.
    Take,
    /// It is refused.
    Refuse(u16, &'static str),
    /// It is taken, and the connection is closed instead of an answer.
    CutAfter,
    /// It is taken, and there is no answer, ever.
    Stall,
    /// It is taken but for what this says: an answer's `rejectedLogEventsInfo`.
    Reject(Value),
    /// It is refused as invalid if its body contains this text, else taken.
    RefuseIfContains(&'static str),
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Step>,
    afterwards: Option<Step>,
    /// Names of all calls.
    calls: Vec<String>,
    metrics: Vec<Value>,
    /// Groups and `group/stream`s.
    made: BTreeSet<String>,
    /// Events of each call that was taken.
    events: Vec<Vec<(u64, String)>>,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeCloudWatch {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl FakeCloudWatch {
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

    /// What a call meets when the script is over; without it, all is taken.
    pub(crate) fn afterwards(&self, step: Step) {
        self.state.lock().unwrap().afterwards = Some(step);
    }

    /// There is a group with a stream.
    pub(crate) fn make(&self, group: &str, stream: &str) {
        let mut state = self.state.lock().unwrap();
        state.made.insert(group.to_owned());
        state.made.insert(format!("{group}/{stream}"));
    }

    /// Names of all calls, refused ones too.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Every `PutMetricData` that was taken.
    pub(crate) fn metrics(&self) -> Vec<Value> {
        self.state.lock().unwrap().metrics.clone()
    }

    /// The events of every `PutLogEvents` that was taken.
    pub(crate) fn events(&self) -> Vec<Vec<(u64, String)>> {
        self.state.lock().unwrap().events.clone()
    }
}

#[derive(Debug, Default)]
struct Head {
    path: String,
    target: String,
    protocol: String,
    authorization: String,
    content_bytes: usize,
}

fn head(reader: &mut impl BufRead) -> std::io::Result<Option<Head>> {
    let mut head = Head::default();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(head));
        }
        if head.path.is_empty() {
            line.split(' ').nth(1).unwrap().clone_into(&mut head.path);
            continue;
        }
        let (name, value) = line.split_once(':').unwrap();
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.content_bytes = value.parse().unwrap(),
            "x-amz-target" => head.target = value,
            "smithy-protocol" => head.protocol = value,
            "authorization" => head.authorization = value,
            _ => {}
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(head) = head(&mut reader)? {
        let mut body = vec![0; head.content_bytes];
        reader.read_exact(&mut body)?;
        let is_metric = head.path.ends_with("/operation/PutMetricData");
        let service = if is_metric { "monitoring" } else { "logs" };
        let scope = format!("/{service}/aws4_request");
        assert!(head.authorization.contains(&scope), "{head:?}");
        let (answer, headers) = if is_metric {
            assert_eq!(head.protocol, "rpc-v2-cbor");
            let answer = put_metric_data(&body, &mut state.lock().unwrap());
            (
                answer,
                "smithy-protocol: rpc-v2-cbor\r\nContent-Type: application/cbor",
            )
        } else {
            let operation = head.target.strip_prefix("Logs_20140328.").unwrap();
            let answer = logs(operation, &body, &mut state.lock().unwrap());
            (answer, "Content-Type: application/x-amz-json-1.1")
        };
        match answer {
            Answer::Cut => return Ok(()),
            Answer::Never => {
                // Until the client gives up.
                std::io::copy(&mut reader, &mut std::io::sink())?;
                return Ok(());
            }
            Answer::Is(status, value) => {
                let body = match is_metric {
                    true => cbor(&value),
                    false => value.to_string().into_bytes(),
                };
                let bytes = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} Scripted\r\n{headers}\r\nContent-Length: {bytes}\r\n\r\n"
                )?;
                stream.write_all(&body)?;
            }
        }
    }
    Ok(())
}

enum Answer {
    Is(u16, Value),
    Cut,
    Never,
}

fn refusal(status: u16, code: &str) -> Answer {
    Answer::Is(
        status,
        json!({ "__type": format!("com.amazonaws#{code}"), "message": "scripted" }),
    )
}

impl State {
    fn step(&mut self) -> Step {
        let next = self.script.pop_front();
        next.or_else(|| self.afterwards.clone())
            .unwrap_or(Step::Take)
    }
}

/// What the step does to a call with this body: whether it is taken, and the answer.
fn play(step: Step, body: &[u8]) -> (bool, Answer) {
    let taken = || Answer::Is(200, json!({}));
    match step {
        Step::Take => (true, taken()),
        Step::Refuse(status, code) => (false, refusal(status, code)),
        Step::CutAfter => (true, Answer::Cut),
        Step::Stall => (true, Answer::Never),
        Step::Reject(info) => (
            true,
            Answer::Is(200, json!({ "rejectedLogEventsInfo": info })),
        ),
        Step::RefuseIfContains(text) => {
            if body.windows(text.len()).any(|w| w == text.as_bytes()) {
                (false, refusal(400, "InvalidParameterValueException"))
            } else {
                (true, taken())
            }
        }
    }
}

fn put_metric_data(body: &[u8], state: &mut State) -> Answer {
    state.calls.push("PutMetricData".to_owned());
    assert!(
        body.len() <= 1_000_000,
        "the limit of a call: {}",
        body.len()
    );
    let mut rest = body;
    let call = read_cbor(&mut rest).unwrap();
    assert!(rest.is_empty());
    let data = call["MetricData"].as_array().unwrap();
    assert!((1..=1000).contains(&data.len()), "{}", data.len());
    for datum in data {
        let name = datum["MetricName"].as_str().unwrap();
        assert!((1..=255).contains(&name.len()));
        let values = datum["Values"].as_array();
        assert!(values.is_none_or(|values| (1..=150).contains(&values.len())));
        let counts = datum["Counts"].as_array();
        assert_eq!(values.map(Vec::len), counts.map(Vec::len));
        let dimensions = datum["Dimensions"].as_array().unwrap();
        assert!(dimensions.len() <= 30);
    }
    let (taken, answer) = play(state.step(), body);
    if taken {
        state.metrics.push(call);
    }
    answer
}

fn logs(operation: &str, body: &[u8], state: &mut State) -> Answer {
    state.calls.push(operation.to_owned());
    let call: Value = serde_json::from_slice(body).unwrap();
    let group = call["logGroupName"].as_str().unwrap().to_owned();
    let made = match operation {
        "CreateLogGroup" => group,
        "CreateLogStream" | "PutLogEvents" => {
            let stream = call["logStreamName"].as_str().unwrap();
            let stream = format!("{group}/{stream}");
            let needed = if operation == "PutLogEvents" {
                &stream
            } else {
                &group
            };
            if !state.made.contains(needed) {
                return refusal(400, "ResourceNotFoundException");
            }
            stream
        }
        other => panic!("no call of ours: {other}"),
    };
    if operation != "PutLogEvents" {
        return match state.made.insert(made) {
            true => Answer::Is(200, json!({})),
            false => refusal(400, "ResourceAlreadyExistsException"),
        };
    }
    let events = call["logEvents"].as_array().unwrap().iter();
    let event = |event: &Value| {
        let message = event["message"].as_str().unwrap().to_owned();
        (event["timestamp"].as_u64().unwrap(), message)
    };
    let events: Vec<_> = events.map(event).collect();
    assert!((1..=10_000).contains(&events.len()));
    assert!(events.is_sorted_by_key(|(at, _)| *at), "sorted by time");
    let bytes: usize = events.iter().map(|(_, message)| message.len() + 26).sum();
    assert!(bytes <= 1_048_576, "the limit of a call: {bytes}");
    let span = events.last().unwrap().0 - events[0].0;
    assert!(span <= 24 * 3600 * 1000, "the span of a call: {span}");
    let (taken, answer) = play(state.step(), body);
    if taken {
        state.events.push(events);
    }
    answer
}

/// As much of CBOR as answers need.
fn cbor(value: &Value) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend([0x78, u8::try_from(text.len()).unwrap()]);
        out.extend(text.as_bytes());
    };
    let mut out = vec![0xbf];
    for (name, value) in value.as_object().unwrap() {
        text(&mut out, name);
        text(&mut out, value.as_str().unwrap());
    }
    out.push(0xff);
    out
}

/// As much of CBOR as calls need; `None` is the end of an indefinite list.
fn read_cbor(input: &mut &[u8]) -> Option<Value> {
    let [first] = take(input);
    if first == 0xff {
        return None;
    }
    let (major, info) = (first >> 5, first & 0x1f);
    if major == 7 {
        return Some(match info {
            20 => json!(false),
            21 => json!(true),
            22 => Value::Null,
            26 => json!(f32::from_be_bytes(take(input))),
            27 => json!(f64::from_be_bytes(take(input))),
            other => panic!("no value of ours: {other}"),
        });
    }
    let argument = match info {
        0..=23 => Some(u64::from(info)),
        24 => Some(u64::from(take::<1>(input)[0])),
        25 => Some(u64::from(u16::from_be_bytes(take(input)))),
        26 => Some(u64::from(u32::from_be_bytes(take(input)))),
        27 => Some(u64::from_be_bytes(take(input))),
        31 => None,
        other => panic!("no head of ours: {other}"),
    };
    let more = |done: u64| argument.is_none_or(|count| done < count);
    Some(match major {
        0 => json!(argument.unwrap()),
        1 => json!(-1 - i64::try_from(argument.unwrap()).unwrap()),
        3 => {
            let bytes = usize::try_from(argument.unwrap()).unwrap();
            let (text, rest) = input.split_at(bytes);
            *input = rest;
            json!(std::str::from_utf8(text).unwrap())
        }
        4 => {
            let mut items = Vec::new();
            while more(items.len() as u64) {
                let Some(item) = read_cbor(input) else { break };
                items.push(item);
            }
            Value::Array(items)
        }
        5 => {
            let mut members = Map::new();
            while more(members.len() as u64) {
                let Some(name) = read_cbor(input) else { break };
                let value = read_cbor(input).unwrap();
                members.insert(name.as_str().unwrap().to_owned(), value);
            }
            Value::Object(members)
        }
        // A time is its number.
        6 => read_cbor(input).unwrap(),
        other => panic!("no type of ours: {other}"),
    })
}

fn take<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let (bytes, rest) = input.split_first_chunk().unwrap();
    *input = rest;
    *bytes
}
