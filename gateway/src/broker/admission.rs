//! What a connected client may do: every CONNECT, PUBLISH, SUBSCRIBE and delivery asks here, and
//! nothing happens without the [`Permit`] that comes back (specification A.6).

use std::collections::HashMap;

use portcullis_core::{
    identity::Principal,
    policy::{Action, Denial, Permit},
    topic::{TopicFilter, TopicName},
};

use crate::clock::now;

/// Topics whose `iot:Receive` decision a session remembers; then it starts afresh.
const RECEIVE_CACHE_TOPICS_MAX: usize = 1024;

/// A principal with the policies that are in force for it now.
#[derive(Debug)]
pub(super) struct Admission {
    principal: Principal,
    receive: HashMap<TopicName, bool>,
}

/// An action that is not allowed.
#[derive(Clone, Debug)]
pub(super) struct Denied {
    pub(super) action: Action,
    pub(super) resource: String,
    pub(super) denial: Denial,
}

impl Denied {
    /// The metric label.
    pub(super) fn reason(&self) -> &'static str {
        match self.denial {
            Denial::Implicit => "implicit-deny",
            Denial::Explicit(_) => "explicit-deny",
        }
    }
}

impl Admission {
    pub(super) fn new(principal: Principal) -> Self {
        Self {
            principal,
            receive: HashMap::new(),
        }
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) fn connect(&self) -> Result<Permit, Denied> {
        self.decide(Action::Connect, self.principal.client_id.as_str())
    }

    /// A retained publish needs `iot:RetainPublish` as well.
    pub(super) fn publish(&self, topic: &TopicName, retain: bool) -> Result<Permit, Denied> {
        if retain {
            self.decide(Action::RetainPublish, topic.as_str())?;
        }
        self.decide(Action::Publish, topic.as_str())
    }

    pub(super) fn subscribe(&self, filter: &TopicFilter) -> Result<Permit, Denied> {
        self.decide(Action::Subscribe, filter.as_str())
    }

    pub(super) fn may_receive(&mut self, topic: &TopicName) -> bool {
        if let Some(&allowed) = self.receive.get(topic) {
            return allowed;
        }
        let allowed = self.decide(Action::Receive, topic.as_str()).is_ok();
        if self.receive.len() >= RECEIVE_CACHE_TOPICS_MAX {
            self.receive.clear();
        }
        self.receive.insert(topic.clone(), allowed);
        allowed
    }

    fn decide(&self, action: Action, resource: &str) -> Result<Permit, Denied> {
        let context = self.principal.context(now());
        self.principal
            .policies
            .decide(&context, action, resource)
            .map_err(|denial| Denied {
                action,
                resource: resource.to_owned(),
                denial,
            })
    }
}

/// The action as policies and metrics name it.
pub(super) fn action_name(action: Action) -> &'static str {
    match action {
        Action::Connect => "connect",
        Action::Publish => "publish",
        Action::RetainPublish => "retain-publish",
        Action::Subscribe => "subscribe",
        Action::Receive => "receive",
    }
}
