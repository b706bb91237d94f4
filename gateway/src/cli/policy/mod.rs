//! `portcullis policy`: what policies would decide, what they allow, and what they should.
//!
//! Needs registry, policies and the identity settings to be valid, and nothing else.

mod explain;
mod learn;
mod test;
mod who;

use std::path::Path;

use portcullis_core::policy::{Action, StatementRef};

use super::{Failure, Outcome};

/// What to ask.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Exit with 0 if it is allowed, 3 if it is denied.
    Test(test::TestArgs),
    /// Show what a thing may do and may not, from which statement, with its variables filled in.
    Explain(explain::ExplainArgs),
    /// Propose a least-privilege policy for a group, from what its things were seen to do.
    Learn(learn::LearnArgs),
}

/// An action as it is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ActionArg {
    Connect,
    Publish,
    Subscribe,
    Receive,
    RetainPublish,
}

impl From<ActionArg> for Action {
    fn from(action: ActionArg) -> Self {
        match action {
            ActionArg::Connect => Self::Connect,
            ActionArg::Publish => Self::Publish,
            ActionArg::Subscribe => Self::Subscribe,
            ActionArg::Receive => Self::Receive,
            ActionArg::RetainPublish => Self::RetainPublish,
        }
    }
}

pub(super) fn policy(
    command: &PolicyCommand,
    config: &Path,
    as_json: bool,
) -> Result<Outcome, Failure> {
    match command {
        PolicyCommand::Test(args) => test::test(args, config, as_json),
        PolicyCommand::Explain(args) => explain::explain(args, config, as_json),
        PolicyCommand::Learn(args) => learn::learn(args, config, as_json),
    }
}

fn describe(statement: &StatementRef) -> String {
    let sid = statement.sid.as_ref();
    let sid = sid.map_or_else(String::new, |sid| format!(" (`{sid}`)"));
    format!(
        "statement {}{sid} of policies/{}.json",
        statement.number(),
        statement.policy
    )
}

/// `TYPE/NAME`, where partition, region and account say nothing.
fn short(resource: &str) -> &str {
    resource
        .strip_prefix("arn:aws:iot:*:*:")
        .unwrap_or(resource)
}
