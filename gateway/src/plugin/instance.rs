//! One instance of a plugin: a group, a shard, a thread at a time.

use std::{fmt, sync::Arc, time::Instant};

use portcullis_core::{identity::GroupName, limits::PLUGIN_START_DEADLINE, timestamp::Timestamp};
use tracing::{info, warn};
use wasmtime::{Store, Trap};

use super::{
    bindings::{
        Rule,
        exports::portcullis::plugin::lifecycle::{Context, Subscription},
        portcullis::plugin::types::Error as GuestError,
    },
    breaker::Breaker,
    columns::Columns,
    error::{CallError, PluginError},
    event::PluginEvent,
    guest::{Guest, Label, cut},
    host::{Loaded, one_line},
    outcome::{Outcome, Verdict},
    projection::Projection,
    verify::{self, Metric, MetricValue},
};

/// A configured instance, which replaces itself when a call has broken it. Calls block.
pub struct Instance {
    plugin: Arc<Loaded>,
    label: Label,
    shards: u32,
    settings: String,
    live: Option<Live>,
    breaker: Breaker,
}

/// What a trap destroys.
struct Live {
    store: Store<Guest>,
    rule: Rule,
    subscription: Subscription,
    projection: Projection,
}

impl Instance {
    pub(super) fn start(
        plugin: Arc<Loaded>,
        group: &GroupName,
        shard: u32,
        shards: u32,
        settings: &str,
    ) -> Result<Self, PluginError> {
        let mut instance = Self {
            label: Label {
                plugin: Arc::clone(&plugin.name),
                group: group.as_str().into(),
                shard,
            },
            plugin,
            shards,
            settings: settings.to_owned(),
            live: None,
            breaker: Breaker::default(),
        };
        match instance.make(Timestamp::default()) {
            Ok(live) => instance.live = Some(live),
            Err(StartError::Settings(message)) => {
                return Err(PluginError::Settings {
                    plugin: instance.label.plugin.to_string(),
                    message,
                });
            }
            Err(StartError::Call(error)) => {
                return Err(PluginError::Start {
                    plugin: instance.label.plugin.to_string(),
                    error,
                });
            }
        }
        Ok(instance)
    }

    /// The plugin's name.
    pub fn plugin(&self) -> &str {
        &self.label.plugin
    }

    /// The JSON pointers that the rule asked for: a [`Projection`] of those of a whole chain lets
    /// its events be parsed once.
    pub fn pointers(&self) -> impl Iterator<Item = &str> {
        self.live
            .iter()
            .flat_map(|live| &live.subscription.fields)
            .map(|field| field.pointer.as_str())
    }

    /// Lets the rule look at a batch. `now` is the time that the rule sees, and by which pauses
    /// are measured.
    ///
    /// Takes up to the deadline: keep it off the threads of an asynchronous runtime. An error means that the call had no
    /// effect; the instance can be called again at once, and is made afresh then if need be.
    pub fn handle(&mut self, batch: &[&PluginEvent], now: Timestamp) -> Result<Outcome, CallError> {
        if batch.is_empty() {
            return Ok(Outcome::default());
        }
        let metrics = &self.plugin.metrics;
        if let Err(until) = self.breaker.check(now) {
            metrics.called("paused");
            return Err(CallError::Paused { until });
        }
        let started = Instant::now();
        let result = self.call(batch, now);
        let metrics = &self.plugin.metrics;
        metrics.seconds.observe(started.elapsed().as_secs_f64());
        match &result {
            Ok(outcome) => {
                metrics.called("ok");
                self.count(outcome);
                if self.breaker.succeeded() {
                    info!(plugin = %self.label.plugin, group = %self.label.group, shard = self.label.shard,
                        "Plugin works again.");
                }
            }
            Err(error) => {
                metrics.called(error.reason().as_str());
                self.report(error, now);
            }
        }
        result
    }

    fn call(&mut self, batch: &[&PluginEvent], now: Timestamp) -> Result<Outcome, CallError> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => {
                self.plugin.metrics.restarts.inc();
                self.make(now).map_err(|error| match error {
                    StartError::Settings(message) => CallError::Guest {
                        event: None,
                        message,
                    },
                    StartError::Call(error) => error,
                })?
            }
        };
        let columns = Columns::collect(batch, &live.subscription, &live.projection);
        let result = {
            live.store.data_mut().begin_call(now);
            live.store
                .set_epoch_deadline(Loaded::ticks(self.plugin.config.deadline));
            let fields = columns.fields();
            live.rule
                .portcullis_plugin_handler()
                .call_handle(&mut live.store, columns.batch(now, &fields))
        };
        self.report_dropped_lines(&live.store);
        let result = match result {
            Ok(Ok(answer)) => verify::outcome(answer, batch.len(), &self.plugin.config.emit)
                .map_err(CallError::Contract),
            Ok(Err(error)) => Err(guest_error(error, batch.len())),
            Err(error) => Err(failure(&error, &live.store)),
        };
        if !result.as_ref().is_err_and(CallError::is_fatal) {
            self.live = Some(live);
        }
        let (outcome, metrics) = result?;
        for metric in metrics {
            self.measure(&metric);
        }
        Ok(outcome)
    }

    /// A fresh, configured instance.
    fn make(&self, now: Timestamp) -> Result<Live, StartError> {
        let guest = Guest::new(self.label.clone(), self.plugin.config.memory_bytes_max);
        let mut store = Store::new(&self.plugin.engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(self.plugin.output_bytes_max());
        store.set_epoch_deadline(Loaded::ticks(PLUGIN_START_DEADLINE));
        store.data_mut().begin_call(now);
        let made = self.plugin.pre.instantiate(&mut store).and_then(|rule| {
            let context = Context {
                plugin: &self.label.plugin,
                group: &self.label.group,
                shard: self.label.shard,
                shards: self.shards,
                gateway_version: env!("CARGO_PKG_VERSION"),
            };
            let answer = rule.portcullis_plugin_lifecycle().call_configure(
                &mut store,
                context,
                &self.settings,
            )?;
            Ok((rule, answer))
        });
        self.report_dropped_lines(&store);
        match made {
            Ok((rule, Ok(subscription))) => {
                verify::subscription(&subscription)
                    .map_err(|message| StartError::Call(CallError::Contract(message)))?;
                let pointers = subscription.fields.iter().map(|field| &*field.pointer);
                Ok(Live {
                    projection: Projection::new(pointers),
                    store,
                    rule,
                    subscription,
                })
            }
            Ok((_, Err(GuestError::BadSettings(message)))) => {
                Err(StartError::Settings(cut(&message)))
            }
            Ok((_, Err(error))) => Err(StartError::Call(guest_error(error, 0))),
            Err(error) => Err(StartError::Call(failure(&error, &store))),
        }
    }

    fn count(&self, outcome: &Outcome) {
        let metrics = &self.plugin.metrics;
        let (mut kept, mut changed, mut dropped) = (0, 0, 0);
        for verdict in &outcome.verdicts {
            match verdict {
                Verdict::Keep(changes) if changes.is_empty() => kept += 1,
                Verdict::Keep(_) => changed += 1,
                Verdict::Drop { .. } => dropped += 1,
            }
        }
        metrics.kept.inc_by(kept);
        metrics.changed.inc_by(changed);
        metrics.dropped.inc_by(dropped);
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        metrics.emitted.inc_by(count(outcome.emissions.len()));
        metrics.violations.inc_by(count(outcome.violations.len()));
    }

    fn measure(&self, metric: &Metric) {
        let metrics = &self.plugin.metrics;
        match metric.value {
            MetricValue::Count(by) => metrics.count(&self.label.group, &metric.name, by),
            MetricValue::Gauge(value) => {
                metrics.gauge(&self.label.group, self.label.shard, &metric.name, value);
            }
        }
    }

    fn report(&mut self, error: &CallError, now: Timestamp) {
        let paused_until = self.breaker.failed(now);
        let Label {
            plugin,
            group,
            shard,
        } = &self.label;
        warn!(%plugin, %group, shard, reason = error.reason().as_str(), %error, "Plugin call failed.");
        if let Some(until) = paused_until {
            warn!(%plugin, %group, shard, %until, "Plugin keeps failing and is paused.");
        }
    }

    fn report_dropped_lines(&self, store: &Store<Guest>) {
        let dropped = store.data().lines.lock().take_dropped();
        if dropped > 0 {
            self.plugin.metrics.log_lines_dropped.inc_by(dropped);
            warn!(plugin = %self.label.plugin, group = %self.label.group, shard = self.label.shard, dropped,
                "Plugin logs too much; lines were dropped.");
        }
    }
}

enum StartError {
    Settings(String),
    Call(CallError),
}

/// What the guest says of its own failure.
fn guest_error(error: GuestError, events: usize) -> CallError {
    match error {
        GuestError::BadEvent(bad) => match verify::in_range("bad-event.index", bad.index, events) {
            Ok(event) => CallError::Guest {
                event: Some(event),
                message: cut(&bad.message),
            },
            Err(problem) => CallError::Contract(problem),
        },
        GuestError::BadSettings(message) | GuestError::Failed(message) => CallError::Guest {
            event: None,
            message: cut(&message),
        },
    }
}

/// Why the runtime ended a call.
fn failure(error: &wasmtime::Error, store: &Store<Guest>) -> CallError {
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return CallError::Deadline;
    }
    let text = one_line(error);
    // The runtime has no public type for this error; a test holds it to these words.
    if text.contains("hostcalls has been exhausted") {
        return CallError::Output;
    }
    let guest = store.data();
    let text = match guest.lines.lock().last_words() {
        Some(last) => format!("{text}; last words: {last}"),
        None => text,
    };
    if guest.limiter.refused {
        CallError::Memory(text)
    } else {
        CallError::Trap(text)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("label", &self.label)
            .field("live", &self.live.is_some())
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
