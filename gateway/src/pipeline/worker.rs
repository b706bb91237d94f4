//! One thread of a chain: takes what has arrived, runs the steps over it as one batch, appends.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use portcullis_core::{
    detect::{self, RuleHit, ViolationIds},
    event::Event,
    identity::GroupName,
    limits::PLUGIN_BATCH_EVENTS_MAX,
    record::{Draft, Shaped, event_draft},
    topic::TopicName,
    upstream::Routes,
};
use tokio::{runtime, sync::mpsc};
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::{
    Metrics,
    chain::{Chain, Step},
    config::OnFailure,
};
use crate::{
    buffer::{Ack, Buffer},
    clock::{self, now},
    plugin::{self, Instance, Outcome, PluginEvent, Projection, Verdict},
};

/// An event with its acknowledgement.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) event: Event,
    pub(super) ack: Option<Ack>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    steps: Vec<Running>,
    queue: mpsc::Receiver<Item>,
    buffer: Buffer,
    /// Which sinks get what.
    upstream: Arc<Routes>,
    metrics: Metrics,
    runtime: runtime::Handle,
    /// The fields that the rules of all steps ask for; read once an event.
    projection: Projection,
}

#[derive(Debug)]
struct Running {
    step: Step,
    group: GroupName,
    shard: u32,
    shards: u32,
    /// `None` until an instance could be made.
    instance: Option<Instance>,
}

/// An event on its way through the steps.
struct Work {
    /// `None` once it is dropped.
    event: Option<PluginEvent>,
    ack: Option<Ack>,
    /// Violations and emitted messages, after the event itself.
    /// Each with its topic, if it has one.
    further: Vec<(Draft, Option<TopicName>)>,
    groups: Arc<[GroupName]>,
}

impl Worker {
    pub(super) fn new(
        chains: &[Arc<Chain>],
        shard: u32,
        shards: u32,
        queue: mpsc::Receiver<Item>,
        (buffer, upstream): (Buffer, Arc<Routes>),
        metrics: Metrics,
        runtime: runtime::Handle,
    ) -> Self {
        let steps = chains
            .iter()
            .flat_map(|chain| {
                chain
                    .steps()
                    .iter()
                    .map(|step| (chain.group().clone(), step.clone()))
            })
            .map(|(group, step)| Running {
                step,
                group,
                shard,
                shards,
                instance: None,
            })
            .collect();
        Self {
            steps,
            queue,
            buffer,
            upstream,
            metrics,
            runtime,
            projection: Projection::new([]),
        }
    }

    /// Runs until every sender is gone and the queue is empty.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            self.metrics
                .batch_events
                .observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
            let mut works: Vec<_> = batch.into_iter().map(Work::new).collect();
            self.prepare(&works);
            for step in &mut self.steps {
                step.run(&mut works, &self.metrics);
            }
            if !self.append(works) {
                return;
            }
        }
    }

    /// Starts the steps that do not run yet, and reads what all of them ask for out of the payloads.
    fn prepare(&mut self, works: &[Work]) {
        let mut started = false;
        for step in &mut self.steps {
            started |= step.start();
        }
        if started {
            let instances = self.steps.iter().filter_map(|step| step.instance.as_ref());
            self.projection = Projection::new(instances.flat_map(Instance::pointers));
        }
        for event in works.iter().filter_map(|work| work.event.as_ref()) {
            event.project(&self.projection);
        }
    }

    /// Waits for an event and takes what else is there.
    fn next_batch(&mut self) -> Option<Vec<Item>> {
        let mut batch = vec![self.queue.blocking_recv()?];
        while batch.len() < PLUGIN_BATCH_EVENTS_MAX {
            match self.queue.try_recv() {
                Ok(item) => batch.push(item),
                Err(_) => break,
            }
        }
        Some(batch)
    }

    /// Whether the buffer took everything; if it is gone, the acknowledgements are dropped and
    /// nobody is told a success.
    fn append(&self, works: Vec<Work>) -> bool {
        let appended = self.runtime.block_on(async {
            for work in works {
                let (drafts, ack) = work.into_drafts(&self.upstream);
                self.buffer.append(drafts, ack).await?;
            }
            Ok::<_, crate::buffer::Closed>(())
        });
        if appended.is_err() {
            error!("The buffer is closed; events are not acknowledged.");
        }
        appended.is_ok()
    }
}

impl Running {
    /// Runs the step over the events that are still there; a failure follows the step's policy.
    fn run(&mut self, works: &mut [Work], metrics: &Metrics) {
        let present: Vec<usize> = works
            .iter()
            .enumerate()
            .filter(|(_, work)| work.event.is_some())
            .map(|(index, _)| index)
            .collect();
        if present.is_empty() {
            return;
        }
        let outcome = {
            let batch: Vec<&PluginEvent> = works
                .iter()
                .filter_map(|work| work.event.as_ref())
                .collect();
            self.call(&batch)
        };
        match outcome {
            Some(outcome) => self.apply(outcome, &present, works, metrics),
            None => self.fail(&present, works, metrics),
        }
    }

    /// Makes the instance if there is none; whether it did.
    fn start(&mut self) -> bool {
        if self.instance.is_some() {
            return false;
        }
        match self.step.instantiate(&self.group, self.shard, self.shards) {
            Ok(instance) => self.instance = Some(instance),
            Err(error) => {
                warn!(plugin = self.step.plugin.name(), group = %self.group, %error, "A plugin does not start.");
            }
        }
        self.instance.is_some()
    }

    fn call(&mut self, batch: &[&PluginEvent]) -> Option<Outcome> {
        match self.instance.as_mut()?.handle(batch, now()) {
            Ok(outcome) => Some(outcome),
            Err(error @ plugin::CallError::Paused { .. }) => {
                debug!(plugin = self.step.plugin.name(), group = %self.group, %error, "A plugin is paused.");
                None
            }
            Err(error) => {
                warn!(
                    plugin = self.step.plugin.name(), group = %self.group, shard = self.shard,
                    reason = error.reason().as_str(), %error, events = batch.len(), "A plugin's call failed."
                );
                None
            }
        }
    }

    fn apply(&self, outcome: Outcome, present: &[usize], works: &mut [Work], metrics: &Metrics) {
        let plugin = self.step.plugin.name();
        for violation in outcome.violations {
            let Some(work) = present
                .get(violation.event)
                .and_then(|&index| works.get_mut(index))
            else {
                continue;
            };
            metrics.violations.with_label_values(&[plugin]).inc();
            work.raise(plugin, violation);
        }
        for emission in outcome.emissions {
            if let Some(work) = present
                .get(emission.after)
                .and_then(|&index| works.get_mut(index))
            {
                work.emit(&emission.topic, &emission.payload);
            }
        }
        for (verdict, &index) in outcome.verdicts.into_iter().zip(present) {
            let Some(work) = works.get_mut(index) else {
                continue;
            };
            match verdict {
                Verdict::Keep(changes) => {
                    if let Some(event) = &mut work.event {
                        let refused = u64::try_from(event.apply(changes)).unwrap_or(u64::MAX);
                        metrics
                            .tags_refused
                            .with_label_values(&[plugin])
                            .inc_by(refused);
                    }
                }
                Verdict::Drop { reason } => {
                    debug!(plugin, reason, "A rule dropped an event.");
                    metrics.dropped.with_label_values(&[plugin, "rule"]).inc();
                    work.event = None;
                }
            }
        }
    }

    fn fail(&self, present: &[usize], works: &mut [Work], metrics: &Metrics) {
        let plugin = self.step.plugin.name();
        let count = u64::try_from(present.len()).unwrap_or(0);
        match self.step.on_failure {
            OnFailure::Pass => metrics
                .failed
                .with_label_values(&[plugin, "passed"])
                .inc_by(count),
            OnFailure::Drop => {
                metrics
                    .failed
                    .with_label_values(&[plugin, "dropped"])
                    .inc_by(count);
                metrics
                    .dropped
                    .with_label_values(&[plugin, "failure"])
                    .inc_by(count);
                for &index in present {
                    if let Some(work) = works.get_mut(index) {
                        work.event = None;
                    }
                }
            }
        }
    }
}

impl Work {
    fn new(item: Item) -> Self {
        Self {
            groups: Arc::clone(&item.event.groups),
            event: Some(PluginEvent::new(item.event)),
            ack: item.ack,
            further: Vec::new(),
        }
    }

    /// A violation by the rule of a plugin, about the event's device.
    fn raise(&mut self, plugin: &str, violation: plugin::Violation) {
        let Some(event) = self.event.as_ref().map(PluginEvent::event) else {
            return;
        };
        warn!(
            device = event.device(),
            plugin,
            rule = violation.rule,
            severity = violation.severity.name(),
            finding = violation.message,
            "Violation."
        );
        let hit = RuleHit {
            plugin: plugin.into(),
            rule: violation.rule,
            severity: violation.severity,
            message: violation.message,
            score: violation.value,
        };
        let ids = ViolationIds {
            event_id: Uuid::now_v7().to_string(),
            violation_id: Uuid::now_v7().to_string(),
        };
        let raised = detect::Violation::from_plugin(ids, event.received_at, event.device(), hit);
        self.further.push((raised.draft(), None));
    }

    /// A further message under the name of the event's device.
    fn emit(&mut self, topic: &TopicName, payload: &Bytes) {
        if let Some(event) = self.event.as_ref().map(PluginEvent::event) {
            let shaped = Shaped {
                topic,
                payload,
                tags: &BTreeMap::new(),
            };
            let id = Uuid::now_v7().to_string();
            let draft = event_draft(event, &shaped, &id, clock::state());
            self.further.push((draft, Some(topic.clone())));
        }
    }

    fn into_drafts(self, upstream: &Routes) -> (Vec<Draft>, Option<Ack>) {
        let mut drafts = Vec::with_capacity(1 + self.further.len());
        for (mut draft, topic) in self.further {
            draft.sinks = upstream.select(draft.kind, &self.groups, topic.as_ref());
            drafts.push(draft);
        }
        if let Some(event) = self.event {
            let (event, payload, tags) = event.into_parts();
            let tags = tags.into_iter().collect();
            let payload = payload.as_ref().unwrap_or(&event.payload);
            let shaped = Shaped {
                topic: &event.topic,
                payload,
                tags: &tags,
            };
            let id = Uuid::now_v7().to_string();
            let mut draft = event_draft(&event, &shaped, &id, clock::state());
            draft.sinks = upstream.select(draft.kind, &event.groups, Some(&event.topic));
            // The event itself comes before what it gave rise to.
            drafts.insert(0, draft);
        }
        (drafts, self.ack)
    }
}

/// The draft of an event that runs through no chain.
pub(super) fn plain_draft(event: &Event, upstream: &Routes) -> Draft {
    let shaped = Shaped {
        topic: &event.topic,
        payload: &event.payload,
        tags: &BTreeMap::new(),
    };
    let id = Uuid::now_v7().to_string();
    let mut draft = event_draft(event, &shaped, &id, clock::state());
    draft.sinks = upstream.select(draft.kind, &event.groups, Some(&event.topic));
    draft
}
