//! CloudWatch Logs: `PutLogEvents` with its limits and rejections, groups, streams, reading back.
//! What is not here: retention per group (one setting serves all), filters, queries, subscriptions.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use crate::{
    counters::Counters,
    refusal::Refusal,
    settings::{Keep, Seen, Settings},
};

const EVENTS_MAX: usize = 10_000;
const BATCH_BYTES_MAX: usize = 1_048_576;
/// What each event counts beside its message.
const EVENT_OVERHEAD_BYTES: usize = 26;
const EVENT_BYTES_MAX: usize = 1_048_576;
const SPAN_MILLIS_MAX: i64 = 24 * 3600 * 1000;
const PAST_MILLIS_MAX: i64 = 14 * 24 * 3600 * 1000;
const FUTURE_MILLIS_MAX: i64 = 2 * 3600 * 1000;
const NAME_CHARS_MAX: usize = 512;

/// A log event that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEvent {
    /// The number of the request that brought it.
    pub request: u64,
    /// The log group.
    pub group: String,
    /// The log stream.
    pub stream: String,
    /// Its own timestamp.
    pub at_millis: i64,
    /// When it came.
    pub ingested_millis: i64,
    /// What.
    pub message: String,
}

#[derive(Debug, Default)]
struct LogStream {
    created_millis: i64,
    events: VecDeque<LogEvent>,
    kept_bytes: u64,
    token: u64,
}

/// The service.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    groups: BTreeMap<String, BTreeMap<String, LogStream>>,
}

/// What a call needs besides the service.
#[derive(Debug)]
pub(crate) struct Calling<'a> {
    pub(crate) request: u64,
    pub(crate) now_millis: i64,
    pub(crate) settings: &'a Settings,
    pub(crate) counters: &'a mut Counters,
}

/// From where to where a batch is taken, and what the answer says of the rest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cut {
    /// Events before this place have expired.
    expired: usize,
    /// Events before this place are too old, or have expired.
    from: usize,
    /// Events from this place on are too new.
    to: usize,
}

impl Logs {
    pub(crate) fn call(
        &mut self,
        operation: &str,
        input: &Value,
        calling: Calling<'_>,
    ) -> Result<Value, Refusal> {
        match operation {
            "CreateLogGroup" => self.create_group(input),
            "CreateLogStream" => self.create_stream(input, calling.now_millis),
            "PutLogEvents" => self.put(input, calling),
            "GetLogEvents" => self.get(input),
            "DescribeLogGroups" => {
                let groups = self.groups.keys();
                let groups: Vec<_> = groups.map(|name| json!({ "logGroupName": name })).collect();
                Ok(json!({ "logGroups": groups }))
            }
            "DescribeLogStreams" => self.describe_streams(input),
            "DeleteLogGroup" => {
                let group = name(input, "logGroupName", is_group_char)?;
                self.groups
                    .remove(group)
                    .map(|_| Value::Null)
                    .ok_or_else(no_group)
            }
            "DeleteLogStream" => {
                let stream = name(input, "logStreamName", is_stream_char)?;
                let streams = self.streams_of(input)?;
                streams
                    .remove(stream)
                    .map(|_| Value::Null)
                    .ok_or_else(no_stream)
            }
            _ => Err(Refusal::bad("UnknownOperationException", "")),
        }
    }

    pub(crate) fn events(&self, group: &str, stream: &str) -> Vec<LogEvent> {
        let stream = self.groups.get(group).and_then(|group| group.get(stream));
        stream.map_or_else(Vec::new, |stream| stream.events.iter().cloned().collect())
    }

    fn streams_of(&mut self, input: &Value) -> Result<&mut BTreeMap<String, LogStream>, Refusal> {
        let group = name(input, "logGroupName", is_group_char)?;
        self.groups.get_mut(group).ok_or_else(no_group)
    }

    fn stream_of(&mut self, input: &Value) -> Result<&mut LogStream, Refusal> {
        let stream = name(input, "logStreamName", is_stream_char)?;
        self.streams_of(input)?
            .get_mut(stream)
            .ok_or_else(no_stream)
    }

    fn create_group(&mut self, input: &Value) -> Result<Value, Refusal> {
        let group = name(input, "logGroupName", is_group_char)?;
        if self.groups.contains_key(group) {
            return Err(exists("The specified log group already exists"));
        }
        self.groups.insert(group.to_owned(), BTreeMap::new());
        Ok(Value::Null)
    }

    fn create_stream(&mut self, input: &Value, now_millis: i64) -> Result<Value, Refusal> {
        let stream = name(input, "logStreamName", is_stream_char)?;
        let streams = self.streams_of(input)?;
        if streams.contains_key(stream) {
            return Err(exists("The specified log stream already exists"));
        }
        let created = LogStream {
            created_millis: now_millis,
            ..LogStream::default()
        };
        streams.insert(stream.to_owned(), created);
        Ok(Value::Null)
    }

    fn put(&mut self, input: &Value, calling: Calling<'_>) -> Result<Value, Refusal> {
        let events = events(input)?;
        let group = name(input, "logGroupName", is_group_char)?.to_owned();
        let stream_name = name(input, "logStreamName", is_stream_char)?.to_owned();
        let stream = self.stream_of(input)?;
        let cut = cut(&events, &calling)?;
        let (taken, all) = (cut.to - cut.from, events.len());
        calling.counters.log_events += count(taken);
        calling.counters.log_events_rejected += count(all - taken);
        let keep = calling.settings.keep;
        for (at_millis, message) in events.into_iter().take(cut.to).skip(cut.from) {
            let event = LogEvent {
                request: calling.request,
                group: group.clone(),
                stream: stream_name.clone(),
                at_millis,
                ingested_millis: calling.now_millis,
                message: message.to_owned(),
            };
            if let Some(observer) = &calling.settings.observer {
                observer.tell(Seen::LogEvent(&event));
            }
            stream.remember(event, keep);
        }
        stream.token += 1;
        let mut answer = json!({ "nextSequenceToken": format!("{:056}", stream.token) });
        let mut rejected = json!({});
        if cut.expired > 0 {
            rejected["expiredLogEventEndIndex"] = cut.expired.into();
        }
        if cut.from > cut.expired {
            rejected["tooOldLogEventEndIndex"] = cut.from.into();
        }
        if cut.to < all {
            rejected["tooNewLogEventStartIndex"] = cut.to.into();
        }
        if taken < all {
            answer["rejectedLogEventsInfo"] = rejected;
        }
        Ok(answer)
    }

    fn get(&mut self, input: &Value) -> Result<Value, Refusal> {
        let stream = self.stream_of(input)?;
        let limit = input["limit"].as_u64().unwrap_or(10_000);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (from, to) = (input["startTime"].as_i64(), input["endTime"].as_i64());
        let mut events: Vec<&LogEvent> = stream.events.iter().collect();
        // Reading is by time; of one time, by arrival.
        events.sort_by_key(|event| event.at_millis);
        events.retain(|event| {
            from.is_none_or(|from| event.at_millis >= from)
                && to.is_none_or(|to| event.at_millis < to)
        });
        let token = input["nextToken"]
            .as_str()
            .and_then(|token| token.split_once('/'));
        let at = token.and_then(|(_, at)| at.parse::<usize>().ok());
        let from_head = input["startFromHead"] == true;
        let at = match (at, token.map(|(direction, _)| direction)) {
            (Some(at), Some("b")) => at.saturating_sub(limit),
            (Some(at), _) => at.min(events.len()),
            (None, _) if from_head => 0,
            (None, _) => events.len().saturating_sub(limit),
        };
        let page: Vec<_> = events.iter().skip(at).take(limit).collect();
        let shown = |event: &&&LogEvent| {
            json!({
                "timestamp": event.at_millis,
                "message": event.message,
                "ingestionTime": event.ingested_millis,
            })
        };
        Ok(json!({
            "events": page.iter().map(shown).collect::<Vec<_>>(),
            "nextForwardToken": format!("f/{}", at + page.len()),
            "nextBackwardToken": format!("b/{at}"),
        }))
    }

    fn describe_streams(&mut self, input: &Value) -> Result<Value, Refusal> {
        let prefix = input["logStreamNamePrefix"].as_str().unwrap_or_default();
        let streams = self.streams_of(input)?.iter();
        let streams = streams.filter(|(name, _)| name.starts_with(prefix));
        let shown = streams.map(|(name, stream)| {
            let times = || stream.events.iter().map(|event| event.at_millis);
            json!({
                "logStreamName": name,
                "creationTime": stream.created_millis,
                "firstEventTimestamp": times().min(),
                "lastEventTimestamp": times().max(),
                "lastIngestionTime": stream.events.back().map(|event| event.ingested_millis),
                "uploadSequenceToken": format!("{:056}", stream.token),
            })
        });
        Ok(json!({ "logStreams": shown.collect::<Vec<_>>() }))
    }
}

impl LogStream {
    fn remember(&mut self, event: LogEvent, keep: Keep) {
        if keep == Keep::None {
            return;
        }
        self.kept_bytes += count(event.message.len());
        self.events.push_back(event);
        while keep.is_over(self.kept_bytes)
            && let Some(oldest) = self.events.pop_front()
        {
            self.kept_bytes -= count(oldest.message.len());
        }
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn no_group() -> Refusal {
    Refusal::bad(
        "ResourceNotFoundException",
        "The specified log group does not exist.",
    )
}

fn no_stream() -> Refusal {
    Refusal::bad(
        "ResourceNotFoundException",
        "The specified log stream does not exist.",
    )
}

fn exists(message: &'static str) -> Refusal {
    Refusal::bad("ResourceAlreadyExistsException", message)
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::bad("InvalidParameterException", message)
}

fn is_group_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-/#".contains(c)
}

fn is_stream_char(c: char) -> bool {
    c != ':' && c != '*'
}

fn name<'a>(
    input: &'a Value,
    member: &str,
    is_allowed: fn(char) -> bool,
) -> Result<&'a str, Refusal> {
    let name = input[member].as_str().ok_or_else(|| {
        invalid(format!(
            "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
        ))
    })?;
    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) || !name.chars().all(is_allowed) {
        return Err(invalid(format!(
            "1 validation error detected: Value '{name}' at '{member}' failed to satisfy constraint: Member must satisfy its pattern and have length from 1 to {NAME_CHARS_MAX}"
        )));
    }
    Ok(name)
}

/// Timestamps and messages, within the limits of a call.
fn events(input: &Value) -> Result<Vec<(i64, &str)>, Refusal> {
    let tried = input["logEvents"].as_array().map_or(&[][..], Vec::as_slice);
    if !(1..=EVENTS_MAX).contains(&tried.len()) {
        let bound = match tried.is_empty() {
            true => "greater than or equal to 1",
            false => "less than or equal to 10000",
        };
        return Err(invalid(format!(
            "1 validation error detected: Value '[...]' at 'logEvents' failed to satisfy constraint: Member must have length {bound}"
        )));
    }
    let (mut events, mut bytes) = (Vec::with_capacity(tried.len()), 0);
    for (at, event) in tried.iter().enumerate() {
        let at_millis = event["timestamp"].as_i64().filter(|millis| *millis >= 0);
        let message = event["message"]
            .as_str()
            .filter(|message| !message.is_empty());
        let (Some(at_millis), Some(message)) = (at_millis, message) else {
            let member = if at_millis.is_none() {
                "timestamp"
            } else {
                "message"
            };
            return Err(invalid(format!(
                "1 validation error detected: Value at 'logEvents.{}.member.{member}' failed to satisfy constraint",
                at + 1
            )));
        };
        if message.len() > EVENT_BYTES_MAX {
            return Err(invalid(format!(
                "Log event too large: {} bytes exceeds limit of {EVENT_BYTES_MAX}",
                message.len()
            )));
        }
        bytes += message.len() + EVENT_OVERHEAD_BYTES;
        events.push((at_millis, message));
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(invalid(format!(
            "Upload too large: {bytes} bytes exceeds limit of {BATCH_BYTES_MAX}"
        )));
    }
    if events
        .iter()
        .zip(events.iter().skip(1))
        .any(|((one, _), (next, _))| one > next)
    {
        return Err(invalid(
            "Log events in a single PutLogEvents request must be in chronological order.",
        ));
    }
    Ok(events)
}

fn cut(events: &[(i64, &str)], calling: &Calling<'_>) -> Result<Cut, Refusal> {
    let before = |bound: i64| events.partition_point(|(at, _)| *at < bound);
    let now = calling.now_millis;
    let retention = calling.settings.log_retention;
    let expired = retention.map_or(0, |age| {
        before(now - i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
    });
    let from = before(now - PAST_MILLIS_MAX).max(expired);
    let to = before(now + FUTURE_MILLIS_MAX + 1).max(from);
    if let [(first, _), .., (last, _)] = &events[from..to]
        && last - first > SPAN_MILLIS_MAX
    {
        return Err(invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        ));
    }
    Ok(Cut { expired, from, to })
}
