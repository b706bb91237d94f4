//! What a connected client may do: every CONNECT, PUBLISH, SUBSCRIBE and delivery asks here, and
//! nothing happens without the [`Permit`] that comes back (specification A.6).

use portcullis_core::{
    identity::Principal,
    limits::DECISIONS_PER_SESSION_MAX,
    policy::{Action, ConnectRequest, DecisionCache, Denial, Permit, StatementRef},
    reserved::is_reserved,
    topic::{Subscribed, TopicFilter, TopicName},
};

use crate::{clock::now, traffic::Recorder};

/// A principal with the policies that are in force for it now.
#[derive(Debug)]
pub(super) struct Admission {
    principal: Principal,
    asked: Asked,
    decided: DecisionCache,
    /// Grows with every principal: what was decided for the former one is forgotten.
    generation: u64,
    /// Policies are learned from what was allowed.
    recorder: Recorder,
    /// What was allowed last, and is not told to the recorder yet.
    run: Option<Run>,
    /// The hour since the epoch in which it was last noted what stands.
    noted_hour: u64,
}

/// The same that was allowed several times in a row.
#[derive(Debug)]
struct Run {
    permit: Permit,
    resource: String,
    times: u64,
}

/// What the CONNECT asked for besides the connection.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// A session that outlives the connection.
    pub(super) persistent: bool,
    pub(super) will_topic: Option<TopicName>,
}

/// An action that is not allowed.
#[derive(Clone, Debug)]
pub(super) struct Denied {
    pub(super) action: Action,
    pub(super) resource: String,
    why: Why,
}

#[derive(Clone, Debug)]
enum Why {
    Policy(Denial),
    /// The topic is the gateway's own; policies were not asked.
    Reserved,
}

impl Denied {
    /// The metric label.
    pub(super) fn reason(&self) -> &'static str {
        match self.why {
            Why::Policy(Denial::Implicit) => "implicit-deny",
            Why::Policy(Denial::Explicit(_)) => "explicit-deny",
            Why::Reserved => "reserved",
        }
    }

    /// What the policies decided, in AWS's words.
    pub(super) fn decision(&self) -> Option<&'static str> {
        match self.why {
            Why::Policy(Denial::Implicit) => Some("IMPLICIT_DENY"),
            Why::Policy(Denial::Explicit(_)) => Some("EXPLICIT_DENY"),
            Why::Reserved => None,
        }
    }

    /// The statement that denies it.
    pub(super) fn statement(&self) -> Option<&StatementRef> {
        match &self.why {
            Why::Policy(Denial::Explicit(statement)) => Some(statement),
            Why::Policy(Denial::Implicit) | Why::Reserved => None,
        }
    }
}

impl Admission {
    pub(super) fn new(principal: Principal, asked: Asked, recorder: Recorder) -> Self {
        Self {
            principal,
            asked,
            decided: DecisionCache::new(DECISIONS_PER_SESSION_MAX),
            generation: 0,
            recorder,
            run: None,
            noted_hour: hour(),
        }
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// From now on the client is `principal`: nothing of what was decided holds any more.
    pub(super) fn renew(&mut self, principal: Principal) {
        self.tell();
        self.principal = principal;
        self.generation += 1;
    }

    pub(super) fn connect(&self) -> Result<Permit, Denied> {
        let mut context = self.principal.context(now());
        context.connect = Some(ConnectRequest {
            persistent: self.asked.persistent,
            will_topic: self.asked.will_topic.as_ref(),
        });
        let client_id = self.principal.client_id.as_str();
        let decided = self
            .principal
            .policies
            .decide(&context, Action::Connect, client_id);
        decided.map_err(|denial| denied(Action::Connect, client_id, Why::Policy(denial)))
    }

    /// The connection was allowed, and so was its will.
    pub(super) fn connected(&self, permit: &Permit) {
        let client_id = self.principal.client_id.as_str();
        let recorder = &self.recorder;
        recorder.allowed(&self.principal, permit, client_id);
    }

    /// Once an hour: notes what was allowed before and still holds.
    pub(super) fn note_what_stands<'f>(&mut self, filters: impl Iterator<Item = &'f TopicFilter>) {
        let hour = hour();
        if hour == self.noted_hour {
            return;
        }
        self.noted_hour = hour;
        let (principal, recorder) = (self.principal.clone(), self.recorder.clone());
        if let Ok(permit) = self.connect() {
            recorder.stands(&principal, &permit, principal.client_id.as_str());
        }
        let will_topic = self.asked.will_topic.clone();
        let mut stands = |action, resource: &str| {
            if let Ok(permit) = self.decide(action, resource) {
                recorder.stands(&principal, &permit, resource);
            }
        };
        if let Some(topic) = will_topic {
            stands(Action::Publish, topic.as_str());
        }
        for filter in filters {
            stands(Action::Subscribe, filter.as_str());
        }
    }

    /// A retained publish needs `iot:RetainPublish` as well.
    pub(super) fn publish(&mut self, topic: &TopicName, retain: bool) -> Result<Permit, Denied> {
        if is_reserved(topic) {
            return Err(denied(Action::Publish, topic.as_str(), Why::Reserved));
        }
        if !retain {
            return self.allow(Action::Publish, topic.as_str());
        }
        // Both or neither: what is noted was done.
        let retained = self.decide(Action::RetainPublish, topic.as_str())?;
        let permit = self.allow(Action::Publish, topic.as_str())?;
        let recorder = &self.recorder;
        recorder.allowed(&self.principal, &retained, topic.as_str());
        Ok(permit)
    }

    /// Whether what [`Self::publish`] allowed is allowed after a change as well.
    pub(super) fn still_publish(
        &mut self,
        topic: &TopicName,
        retain: bool,
    ) -> Result<Permit, Denied> {
        if retain {
            self.decide(Action::RetainPublish, topic.as_str())?;
        }
        self.decide(Action::Publish, topic.as_str())
    }

    /// Of a share the policies are asked about the whole text and about its filter.
    pub(super) fn subscribe(&mut self, subscribed: &Subscribed) -> Result<Permit, Denied> {
        self.allow(Action::Subscribe, subscribed.as_filter().as_str())
    }

    pub(super) fn receive(&mut self, topic: &TopicName) -> Result<Permit, Denied> {
        self.allow(Action::Receive, topic.as_str())
    }

    /// Decides, and notes what is allowed.
    fn allow(&mut self, action: Action, resource: &str) -> Result<Permit, Denied> {
        let permit = self.decide(action, resource)?;
        match &mut self.run {
            Some(run) if run.permit == permit && run.resource == resource => run.times += 1,
            run => {
                tell(&self.recorder, &self.principal, run);
                // The text's room is taken over.
                let mut text = run.take().map_or_else(String::new, |run| run.resource);
                text.clear();
                text.push_str(resource);
                *run = Some(Run {
                    permit: permit.clone(),
                    resource: text,
                    times: 1,
                });
            }
        }
        Ok(permit)
    }

    /// Tells the recorder what it was not told yet: runs are told once.
    pub(super) fn tell(&mut self) {
        tell(&self.recorder, &self.principal, &mut self.run);
    }

    /// Grows whenever the rights may have changed.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    fn decide(&mut self, action: Action, resource: &str) -> Result<Permit, Denied> {
        let context = self.principal.context(now());
        let policies = &self.principal.policies;
        self.decided
            .decide(policies, self.generation, &context, action, resource)
            .map_err(|denial| denied(action, resource, Why::Policy(denial)))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.tell();
    }
}

/// The run stays, for its text, as one of no times.
fn tell(recorder: &Recorder, principal: &Principal, run: &mut Option<Run>) {
    if let Some(run) = run
        && run.times > 0
    {
        recorder.allowed_times(principal, &run.permit, &run.resource, run.times);
        run.times = 0;
    }
}

fn hour() -> u64 {
    now().as_secs() / 3600
}

fn denied(action: Action, resource: &str, why: Why) -> Denied {
    Denied {
        action,
        resource: resource.to_owned(),
        why,
    }
}

/// The action as metrics and the log name it.
pub(super) fn action_name(action: Action) -> &'static str {
    match action {
        Action::Connect => "connect",
        Action::Publish => "publish",
        Action::RetainPublish => "retain-publish",
        Action::Subscribe => "subscribe",
        Action::Receive => "receive",
    }
}
