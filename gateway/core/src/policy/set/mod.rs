//! The decision.

use std::{cell::OnceCell, net::IpAddr, sync::Arc};

use super::{
    Action, Effect, Policy, Resources, Statement,
    pattern::{Unresolved, Variable},
};
use crate::{
    certificate::Certificate,
    identity::{ClientId, Thing},
    timestamp::Timestamp,
    topic::TopicName,
};

/// What policy variables stand for in one request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// `iot:ClientId`.
    pub client_id: &'a ClientId,
    /// `iot:Connection.Thing.*`.
    pub thing: Option<&'a Thing>,
    /// `iot:CertificateId` and `iot:Certificate.*`.
    pub certificate: Option<&'a Certificate>,
    /// `aws:SourceIp`.
    pub source: Option<IpAddr>,
    /// `iot:DomainName`.
    pub domain: Option<&'a str>,
    /// `aws:CurrentTime` and `aws:EpochTime`.
    pub now: Timestamp,
    /// `iot:ConnectAttributes` and `iot:LastWillTopic`, when the action is `iot:Connect`.
    pub connect: Option<ConnectRequest<'a>>,
}

impl<'a> Context<'a> {
    /// A client of which nothing but its id is known.
    pub const fn of(client_id: &'a ClientId) -> Self {
        Self {
            client_id,
            thing: None,
            certificate: None,
            source: None,
            domain: None,
            now: Timestamp::from_millis(0),
            connect: None,
        }
    }
}

/// What a CONNECT asks for besides the connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest<'a> {
    /// Whether the session is to outlive the connection (`PersistentConnect`).
    pub persistent: bool,
    /// The topic of the will (`LastWill`).
    pub will_topic: Option<&'a TopicName>,
}

/// The statement that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementRef {
    /// Name of the policy.
    pub policy: Arc<str>,
    /// Position in the document, from 0.
    pub index: usize,
    /// Its `Sid`, if it has one.
    pub sid: Option<Arc<str>>,
}

/// Leave to do one thing. Only [`PolicySet::decide`] makes it.
#[derive(Clone, Debug)]
pub struct Permit {
    action: Action,
    statement: StatementRef,
}

/// Why there is no leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No statement allows it.
    Implicit,
    /// This statement denies it.
    Explicit(StatementRef),
}

/// The policies that apply to a principal.
#[derive(Clone, Debug, Default)]
pub struct PolicySet(Arc<[Arc<Policy>]>);

impl PolicySet {
    /// All of `policies` apply; their order is irrelevant.
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        Self(policies.into())
    }

    /// The policies.
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.0
    }

    /// Decides as specification A.5 says: a Deny anywhere wins, else one Allow is needed.
    /// `resource` is the bare client id, topic name or topic filter.
    ///
    /// A shared subscription `$share/<group>/<filter>` is allowed by an Allow of the whole or of
    /// the filter in it (by one with `NotResource` if that lists neither), and denied by a Deny of
    /// either.
    pub fn decide(
        &self,
        context: &Context<'_>,
        action: Action,
        resource: &str,
    ) -> Result<Permit, Denial> {
        let typed = |name: &str| format!("{}/{name}", action.resource_type());
        let request = Request {
            context,
            certificate_id: OnceCell::new(),
            action,
            resource: typed(resource),
            shared: (action == Action::Subscribe)
                .then(|| shared_filter(resource).map(typed))
                .flatten(),
        };
        let mut allow = None;
        let statements = self.0.iter().flat_map(|policy| &policy.statements);
        for statement in statements.filter(|statement| request.is_met_by(statement)) {
            match statement.effect {
                Effect::Deny => return Err(Denial::Explicit(statement.source.clone())),
                Effect::Allow => allow = allow.or(Some(&statement.source)),
            }
        }
        match allow {
            Some(statement) => Ok(Permit {
                action,
                statement: statement.clone(),
            }),
            None => Err(Denial::Implicit),
        }
    }
}

impl Permit {
    /// What it allows.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The statement that allowed it.
    pub fn statement(&self) -> &StatementRef {
        &self.statement
    }
}

/// The filter in `$share/<group>/<filter>`.
fn shared_filter(filter: &str) -> Option<&str> {
    let (_group, filter) = filter.strip_prefix("$share/")?.split_once('/')?;
    Some(filter)
}

struct Request<'a> {
    context: &'a Context<'a>,
    /// Written out when a policy asks for it.
    certificate_id: OnceCell<String>,
    action: Action,
    /// `TYPE/NAME`.
    resource: String,
    /// The filter of a shared subscription, in the same form.
    shared: Option<String>,
}

impl Request<'_> {
    fn is_met_by(&self, statement: &Statement) -> bool {
        if !statement.actions.contains(self.action) {
            return false;
        }
        let met = |resource: &String| self.meets_resource(statement, resource);
        match (statement.effect, &statement.resources) {
            // What is not to be allowed is not, whichever form it is asked for in.
            (Effect::Allow, Resources::NotIn(_)) => {
                met(&self.resource) && self.shared.as_ref().is_none_or(met)
            }
            _ => met(&self.resource) || self.shared.as_ref().is_some_and(met),
        }
    }

    /// A variable without a value makes an Allow narrower and a Deny wider, whichever way round
    /// the resources are given.
    fn meets_resource(&self, statement: &Statement, resource: &str) -> bool {
        let (patterns, negated) = match &statement.resources {
            Resources::In(patterns) => (patterns, false),
            Resources::NotIn(patterns) => (patterns, true),
        };
        let unresolved = if (statement.effect == Effect::Deny) != negated {
            Unresolved::Anything
        } else {
            Unresolved::Never
        };
        let listed = patterns
            .iter()
            .any(|pattern| pattern.matches(resource, &|v| self.resolve(v), unresolved));
        listed != negated
    }

    fn resolve(&self, variable: &Variable) -> Option<&str> {
        let thing = self.context.thing;
        match variable {
            Variable::ClientId => Some(self.context.client_id.as_str()),
            Variable::CertificateId => {
                let id = self.context.certificate?.id;
                Some(self.certificate_id.get_or_init(|| id.to_string()))
            }
            Variable::ThingName => thing.map(|thing| thing.name.as_str()),
            Variable::ThingTypeName => thing?.thing_type.as_ref().map(|name| name.as_str()),
            Variable::Attribute(name) => thing?.attributes.get(&**name).map(String::as_str),
            // Attachment is a matter of certificates; a plain listener has none.
            Variable::IsAttached if thing.is_some() && self.context.certificate.is_some() => {
                Some("true")
            }
            Variable::IsAttached => Some("false"),
        }
    }
}

#[cfg(test)]
mod tests;
