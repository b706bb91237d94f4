//! What all connections share: settings, scripts, services, what is remembered.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    counters::{Counters, Outcome, Request},
    fault::{After, Course, Fault},
    http::Head,
    kinesis::Kinesis,
    logs::Logs,
    metrics::Metrics,
    service::Call,
    settings::{Keep, Settings},
};

/// With `Keep::UpTo`, so many requests are remembered.
const REQUESTS_MAX: usize = 10_000;
/// In scripts: any put.
pub(crate) const ANY_PUT: &str = "";

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
    pub(crate) kinesis: Kinesis,
    pub(crate) metrics: Metrics,
    pub(crate) logs: Logs,
    /// Connections of an earlier one have no effect any more.
    pub(crate) epoch: u64,
    /// Faults of the next requests, by operation.
    pub(crate) scripts: HashMap<String, VecDeque<Fault>>,
    /// Faults of requests that no script speaks of, by operation.
    pub(crate) standing: HashMap<String, Fault>,
    pub(crate) requests: VecDeque<Request>,
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) number: u64,
    pub(crate) at_micros: u64,
    pub(crate) course: Course,
    /// Whether data are to be decoded.
    pub(crate) decode: bool,
    pub(crate) keeps_tried: bool,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut kinesis = Kinesis::default();
        let now_micros = settings.clock.now_micros();
        for (name, shards) in &settings.streams {
            kinesis.ensure(name, *shards, now_micros);
        }
        Self {
            settings,
            counters: Counters::default(),
            kinesis,
            metrics: Metrics::default(),
            logs: Logs::default(),
            epoch: 0,
            scripts: HashMap::new(),
            standing: HashMap::new(),
            requests: VecDeque::new(),
        }
    }

    /// Numbers a request and says what it meets.
    pub(crate) fn begin(&mut self, call: &Call, head: &Head) -> Begun {
        self.counters.requests += 1;
        let number = self.counters.requests;
        match self.counters.operations.get_mut(&call.operation) {
            Some(count) => *count += 1,
            None => {
                self.counters.operations.insert(call.operation.clone(), 1);
            }
        }
        let at_micros = self.settings.clock.now_micros();
        let mut course = self.course(call, number);
        let now_secs = i64::try_from(at_micros / 1_000_000).unwrap_or(i64::MAX);
        let signatures = &self.settings.signatures;
        let checked = signatures.check(head, call.scope(), now_secs);
        // What is scripted comes first.
        course.refusal = course.refusal.or(checked.err());
        Begun {
            number,
            at_micros,
            decode: self.settings.reads_data() || course.reads_data(),
            keeps_tried: self.settings.keep != Keep::None,
            course,
        }
    }

    fn course(&mut self, call: &Call, number: u64) -> Course {
        let mut places = vec![call.operation.as_str()];
        if call.is_put() {
            places.push(ANY_PUT);
        }
        for place in &places {
            let script = self.scripts.get_mut(*place);
            if let Some(fault) = script.and_then(VecDeque::pop_front) {
                return Course::scripted(fault, &self.settings, number);
            }
        }
        for place in &places {
            if let Some(fault) = self.standing.get(*place) {
                return Course::scripted(fault.clone(), &self.settings, number);
            }
        }
        match call.is_put() {
            true => Course::random(&self.settings, number, call.throttled()),
            false => Course::plain(),
        }
    }

    /// Remembers what became of a request.
    pub(crate) fn finish(
        &mut self,
        call: &Call,
        begun: &Begun,
        target: &str,
        body_bytes: usize,
        records: Vec<(String, Bytes)>,
        outcome: Outcome,
    ) {
        match &outcome {
            Outcome::Done { .. } => match begun.course.after {
                After::Send => {}
                After::Stall => {
                    self.counters.replies_lost += 1;
                    self.counters.stalled += 1;
                }
                After::Close | After::Reset | After::Cut(_) => self.counters.replies_lost += 1,
            },
            Outcome::Refused { status, code } => {
                let name = match code.is_empty() {
                    true => status.to_string(),
                    false => code.clone(),
                };
                *self.counters.refused.entry(name).or_default() += 1;
            }
            Outcome::Cut => self.counters.cut_before += 1,
        }
        match self.settings.keep {
            Keep::None => return,
            Keep::UpTo { .. } if self.requests.len() >= REQUESTS_MAX => {
                self.requests.pop_front();
            }
            Keep::UpTo { .. } | Keep::All => {}
        }
        self.requests.push_back(Request {
            number: begun.number,
            operation: call.operation.clone(),
            target: target.to_owned(),
            at_millis: begun.at_micros / 1000,
            body_bytes,
            records,
            outcome,
        });
    }
}

/// The state, and a bell.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            state: Mutex::new(State::new(settings)),
            changed: Condvar::new(),
        }
    }

    /// A panic of an observer leaves counts that are off by one, nothing worse.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something became of a request.
    pub(crate) fn ring(&self) {
        self.changed.notify_all();
    }

    /// Waits for the bell.
    pub(crate) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        at_most: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
