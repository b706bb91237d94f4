//! AWS IoT policy documents: parsed, compiled, evaluated to a [`Permit`] or a [`Denial`].
//!
//! [`Policy::parse`] refuses what it does not understand, with the place, so that a policy in force
//! is a policy understood. [`PolicySet::decide`] is a pure function; the only way to a [`Permit`],
//! besides a [`DecisionCache`] that remembers what it said. [`PolicySet::explain`] and
//! [`Policy::statements`] say for people what was decided and why.
//!
//! # Where this is not AWS
//! All of it towards closed, unless said otherwise:
//! - A Deny whose variable has no value matches with the variable as `*`
//!   ([`Rules::deny_on_unresolved`]); so does a condition of a Deny whose outcome hangs on it.
//! - Substituted values are literals. Values that hold `* $ + ? #`, are longer than 1024 characters
//!   or are empty are no values where they are substituted, in resources and in condition values. The
//!   value of a condition key may be empty.
//! - Five values of each part of a certificate's name are kept, as at AWS; where the outcome of a
//!   condition on a `….List` hangs on the others, an Allow does not apply and a Deny does.
//! - The partition, region and account of an ARN are compared with [`Rules::strict_arn`] alone:
//!   a policy written for one account holds in any. (This one is towards convenience.)
//! - What AWS takes and nobody can want is refused when it is read: unknown names, a resource whose
//!   type matches nothing or begins with a variable, a key with several values that is compared as if
//!   it had one, `${name, 'default'}`, control characters in `Sid` and `Id`, a mapped IPv6 block that
//!   no IPv4 address is in.
//! - A date of digits alone is seconds since 1970 if it has nine digits or more and is before the year
//!   10000; else it is refused, or unreadable in a request.
//! - Numbers are compared exactly, not as floating-point numbers.
//! - A value from a name in a certificate is taken as it is and with the special characters of
//!   distinguished names escaped; AWS wants them escaped. (In an Allow, this one is towards
//!   convenience.)
//! - `iot:LastWillTopic` is compared part by part by String operators as well; an operand that is no
//!   ARN (nor `*`) is refused.
//! - An unconditional Allow of `iot:Connect` covers persistent sessions and wills.
//! - A shared subscription is authorized by its filter as well, see [`PolicySet::decide`].

mod action;
mod cache;
mod condition;
mod context;
mod document;
mod explanation;
mod glob;
mod resource;
mod rules;
mod set;
mod variable;
mod view;

pub use action::Action;
pub use cache::DecisionCache;
pub use context::{ConnectRequest, Context};
pub use explanation::{Decision, Explanation, Matching};
pub use resource::Reading;
pub use rules::{ArnIdentity, Rules};
pub use set::{Denial, Permit, PolicySet, StatementRef};
pub use view::StatementView;

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

    /// What it consists of, in the order of the document.
    pub fn statements(&self) -> impl ExactSizeIterator<Item = StatementView<'_>> {
        self.statements.iter().map(StatementView::of)
    }
}

/// Message and remedy of a mistake, before it is known where it stands.
type Fault = (String, String);

/// One statement, compiled.
#[derive(Clone, Debug)]
struct Statement {
    source: StatementRef,
    effect: Effect,
    actions: action::Actions,
    /// Whether the names are those of `NotAction`.
    not_action: bool,
    /// As the document has them.
    action_names: Vec<Box<str>>,
    resources: Resources,
    condition: Option<condition::Condition>,
}

/// What a statement does where it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is allowed, unless a Deny applies.
    Allow,
    /// It is denied, whatever else applies.
    Deny,
}

impl Effect {
    /// What a variable without a value does to a pattern, so that an Allow becomes narrower and a
    /// Deny wider. `negated`: the statement applies where the pattern does not match.
    fn unresolved(self, negated: bool, rules: &Rules) -> glob::Unresolved {
        match self {
            Self::Deny if negated || !rules.deny_on_unresolved => glob::Unresolved::Never,
            Self::Deny => glob::Unresolved::Anything,
            Self::Allow if negated => glob::Unresolved::Anything,
            Self::Allow => glob::Unresolved::Never,
        }
    }
}

/// `Resource` or `NotResource`.
#[derive(Clone, Debug)]
struct Resources {
    negated: bool,
    listed: Vec<resource::Resource>,
}
