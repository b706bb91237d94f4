//! AWS IoT policy documents: parsed, compiled, evaluated to a [`Permit`] or a [`Denial`].

use std::sync::Arc;

use crate::identity::{CertificateId, ClientId, Thing};

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `iot:Connect` on `client/<client id>`.
    Connect,
    /// `iot:Publish` on `topic/<name>`.
    Publish,
    /// `iot:RetainPublish` on `topic/<name>`.
    RetainPublish,
    /// `iot:Subscribe` on `topicfilter/<filter>`.
    Subscribe,
    /// `iot:Receive` on `topic/<name>`.
    Receive,
}

/// What policy variables stand for in one request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// `iot:ClientId`.
    pub client_id: &'a ClientId,
    /// `iot:Connection.Thing.*`.
    pub thing: Option<&'a Thing>,
    /// `iot:CertificateId`.
    pub certificate_id: Option<&'a CertificateId>,
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
pub struct PolicySet {}

impl PolicySet {
    /// Decides as specification A.5 says: a Deny anywhere wins, else one Allow is needed.
    /// `resource` is the bare client id, topic name or topic filter.
    pub fn decide(
        &self,
        context: &Context<'_>,
        action: Action,
        resource: &str,
    ) -> Result<Permit, Denial> {
        let _ = (context, action, resource);
        Err(Denial::Implicit)
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
