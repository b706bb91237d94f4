//! AWS IoT policy documents: parsed, compiled, evaluated to a [`Permit`] or a [`Denial`].
//!
//! [`Policy::parse`] refuses what it does not understand, with the place, so that a policy in force
//! is a policy understood. [`PolicySet::decide`] is a pure function; the only way to a [`Permit`].
//!
//! Absent on purpose: conditions and the variables of certificates (refused, not ignored), and the
//! partition, region and account of an ARN (a policy written for one account holds in any).
//! Deliberate differences from AWS, all towards closed: a Deny whose variable has no value matches
//! with the variable as `*`; substituted values are literals; an empty value is no value.

mod action;
mod document;
mod pattern;
mod set;

pub use action::Action;
pub use pattern::Variable;
pub use set::{ConnectRequest, Context, Denial, Permit, PolicySet, StatementRef};

use std::sync::Arc;

use crate::problem::Mistake;

/// One policy document, compiled.
#[derive(Clone, Debug)]
pub struct Policy {
    name: Arc<str>,
    statements: Vec<Statement>,
}

impl Policy {
    /// Reads the document `json` as the policy `name`; all mistakes at once.
    pub fn parse(name: &str, json: &str) -> Result<Self, Vec<Mistake>> {
        document::parse(name, json)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// One statement, compiled.
#[derive(Clone, Debug)]
struct Statement {
    source: StatementRef,
    effect: Effect,
    actions: action::Actions,
    resources: Resources,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// `Resource` or `NotResource`.
#[derive(Clone, Debug)]
enum Resources {
    In(Vec<pattern::Pattern>),
    NotIn(Vec<pattern::Pattern>),
}
