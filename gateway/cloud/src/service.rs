//! From a request to its service and back: which operation it calls, in which protocol, and how the
//! three services' answers and errors are written.

use std::{borrow::Cow, io::Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::{
    counters::Outcome,
    fault::After,
    http::{BODY_BYTES_MAX, Head, Reply},
    kinesis::{Batch, Taking},
    logs, metrics,
    metrics::Protocol,
    refusal::Refusal,
    state::{Begun, Shared, State},
};

const JSON_1_1: &str = "application/x-amz-json-1.1";
const CBOR_PATH: &str = "/service/GraniteServiceVersion20100801/operation/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Kinesis,
    Metrics(Protocol),
    Logs,
}

/// What a request calls.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) service: Service,
    pub(crate) operation: String,
}

impl Call {
    /// None: it calls nothing that is here.
    pub(crate) fn of(head: &Head) -> Option<Self> {
        if head.method != "POST" {
            return None;
        }
        if let Some(operation) = head.path.strip_prefix(CBOR_PATH) {
            let is_cbor = head.get("smithy-protocol") == Some("rpc-v2-cbor");
            return is_cbor.then(|| Self {
                service: Service::Metrics(Protocol::Cbor),
                operation: operation.to_owned(),
            });
        }
        let (api, operation) = head.get("x-amz-target")?.split_once('.')?;
        let service = match api {
            "Kinesis_20131202" => Service::Kinesis,
            "GraniteServiceVersion20100801" => Service::Metrics(Protocol::Json),
            "Logs_20140328" => Service::Logs,
            _ => return None,
        };
        Some(Self {
            service,
            operation: operation.to_owned(),
        })
    }

    /// Whether it is one of those that rates and general scripts are about.
    pub(crate) fn is_put(&self) -> bool {
        matches!(
            &*self.operation,
            "PutRecords" | "PutRecord" | "PutMetricData" | "PutLogEvents"
        )
    }

    /// The service's name in signatures.
    pub(crate) fn scope(&self) -> &'static str {
        match self.service {
            Service::Kinesis => "kinesis",
            Service::Metrics(_) => "monitoring",
            Service::Logs => "logs",
        }
    }

    /// How its calls are throttled.
    pub(crate) fn throttled(&self) -> Refusal {
        match self.service {
            Service::Kinesis => Refusal::throughput(),
            Service::Metrics(_) | Service::Logs => Refusal::throttling(),
        }
    }

    pub(crate) fn refuse(&self, refusal: &Refusal) -> Reply {
        match self.service {
            Service::Metrics(protocol) => protocol.refuse(refusal),
            Service::Kinesis | Service::Logs => refuse_in_json(refusal),
        }
    }
}

/// An error in JSON 1.1.
pub(crate) fn refuse_in_json(refusal: &Refusal) -> Reply {
    let document = serde_json::json!({ "__type": refusal.code, "message": refusal.message });
    let mut reply = Reply::new(refusal.status, JSON_1_1, document.to_string());
    reply
        .headers
        .push(("x-amzn-ErrorType", refusal.code.clone().into_owned()));
    reply
}

/// What a request was about, read before the cloud is locked.
enum Body<'a> {
    Records(Result<Batch<'a>, Refusal>),
    Members(Result<Value, Refusal>),
}

/// Serves a request. None if the service went away before it took effect.
pub(crate) fn answer(
    shared: &Shared,
    epoch: u64,
    call: &Call,
    head: &Head,
    raw: &[u8],
    begun: &mut Begun,
) -> Option<Reply> {
    let plain = unpacked(call, head, raw);
    let is_records = call.service == Service::Kinesis && call.is_put();
    let body = match &plain {
        Err(refusal) => Body::Members(Err(refusal.clone())),
        Ok(body) if is_records => Body::Records(Batch::parse(&call.operation, body, begun.decode)),
        Ok(body) => Body::Members(match call.service {
            Service::Metrics(protocol) => protocol.read(body),
            Service::Kinesis | Service::Logs => Protocol::Json.read(body),
        }),
    };
    let (target, tried) = match &body {
        Body::Records(Ok(batch)) => (
            batch.stream.clone().into_owned(),
            if begun.keeps_tried {
                batch.tried()
            } else {
                Vec::new()
            },
        ),
        Body::Members(Ok(input)) => (target(call.service, input), Vec::new()),
        Body::Records(Err(_)) | Body::Members(Err(_)) => (String::new(), Vec::new()),
    };
    let poison = match &body {
        Body::Records(Ok(batch)) => batch.poison(&begun.course).cloned(),
        _ => None,
    };
    let reply = {
        let mut state = shared.lock();
        if state.epoch != epoch {
            return None;
        }
        let (reply, outcome) = match begun.course.bare_status {
            Some(status) => bare(status),
            None => served(&mut state, call, begun, body, poison),
        };
        state.finish(call, begun, &target, raw.len(), tried, outcome);
        reply
    };
    shared.ring();
    Some(reply)
}

/// A proxy's page.
fn bare(status: u16) -> (Reply, Outcome) {
    let page = format!("<html><body><h1>{status}</h1></body></html>\n");
    let outcome = Outcome::Refused {
        status,
        code: String::new(),
    };
    (Reply::new(status, "text/html", page), outcome)
}

fn served(
    state: &mut State,
    call: &Call,
    begun: &mut Begun,
    body: Body<'_>,
    poison: Option<Refusal>,
) -> (Reply, Outcome) {
    let done = match (begun.course.refusal.take(), body) {
        (Some(refusal), _) => Err(refusal),
        (None, Body::Records(batch)) => batch.and_then(|batch| match poison {
            Some(refusal) => Err(refusal),
            None => put_records(state, begun, &batch),
        }),
        (None, Body::Members(input)) => {
            input.and_then(|input| Ok((members(state, call, begun, &input)?, 0)))
        }
    };
    match done {
        Ok((reply, failed)) => {
            let answered = begun.course.after == After::Send;
            (reply, Outcome::Done { failed, answered })
        }
        Err(refusal) => {
            let outcome = Outcome::Refused {
                status: refusal.status,
                code: refusal.code.clone().into_owned(),
            };
            (call.refuse(&refusal), outcome)
        }
    }
}

fn put_records(
    state: &mut State,
    begun: &mut Begun,
    batch: &Batch<'_>,
) -> Result<(Reply, usize), Refusal> {
    let taking = Taking {
        request: begun.number,
        now_micros: begun.at_micros,
        settings: &state.settings,
        counters: &mut state.counters,
        course: &mut begun.course,
    };
    let (document, failed) = state.kinesis.put(batch, taking)?;
    Ok((Reply::new(200, JSON_1_1, document), failed))
}

/// Calls whose bodies are read whole.
fn members(state: &mut State, call: &Call, begun: &Begun, input: &Value) -> Result<Reply, Refusal> {
    let (request, now_micros) = (begun.number, begun.at_micros);
    let operation = &*call.operation;
    let output = match call.service {
        Service::Kinesis => {
            let takes = state.settings.creation_takes;
            state.kinesis.call(operation, input, now_micros, takes)?
        }
        Service::Metrics(protocol) => {
            let calling = metrics::Calling {
                request,
                now_micros,
                settings: &state.settings,
                counters: &mut state.counters,
            };
            let output = state.metrics.call(operation, input, calling)?;
            return Ok(protocol.answer(&output));
        }
        Service::Logs => {
            let calling = logs::Calling {
                request,
                now_millis: i64::try_from(now_micros / 1000).unwrap_or(i64::MAX),
                settings: &state.settings,
                counters: &mut state.counters,
            };
            state.logs.call(operation, input, calling)?
        }
    };
    let document = match output {
        Value::Null => String::new(),
        output => output.to_string(),
    };
    Ok(Reply::new(200, JSON_1_1, document))
}

fn target(service: Service, input: &Value) -> String {
    let text = |member: &str| input[member].as_str().unwrap_or_default();
    match service {
        Service::Kinesis => text("StreamName").to_owned(),
        Service::Metrics(_) => text("Namespace").to_owned(),
        Service::Logs => format!("{}:{}", text("logGroupName"), text("logStreamName")),
    }
}

/// The body without its compression.
fn unpacked<'a>(call: &Call, head: &Head, raw: &'a [u8]) -> Result<Cow<'a, [u8]>, Refusal> {
    let is_metrics = matches!(call.service, Service::Metrics(_));
    let most = match is_metrics {
        true => metrics::REQUEST_BYTES_MAX,
        false => BODY_BYTES_MAX,
    };
    let too_large = || {
        Refusal::new(
            413,
            "RequestEntityTooLargeException",
            format!("Request size exceeds the limit of {most} bytes"),
        )
    };
    let body = match head.get("content-encoding") {
        None => Cow::Borrowed(raw),
        Some("gzip") => {
            let mut plain = Vec::new();
            let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
            let read = MultiGzDecoder::new(raw).take(bound).read_to_end(&mut plain);
            read.map_err(|_| Refusal::serialization("The body is not gzip"))?;
            Cow::Owned(plain)
        }
        Some(other) => {
            return Err(Refusal::serialization(format!(
                "Unknown content encoding {other}"
            )));
        }
    };
    match body.len() > most {
        true => Err(too_large()),
        false => Ok(body),
    }
}

/// What of a request is remembered when it was cut off before its body was read.
pub(crate) fn cut(shared: &Shared, call: &Call, begun: &Begun, is_stalled: bool) {
    let mut state = shared.lock();
    state.finish(
        call,
        begun,
        "",
        0,
        Vec::<(String, Bytes)>::new(),
        Outcome::Cut,
    );
    if is_stalled {
        state.counters.stalled += 1;
    }
    drop(state);
    shared.ring();
}
