//! Least-privilege policies from observed traffic: observations → generalization → a proposal with
//! what each line is based on → replay.
//!
//! [`Observations`] keep what was allowed, as facts about shapes ([`Shape`]); [`propose`] turns the
//! facts of one group's things into policy documents that AWS takes. A proposal is to be reviewed
//! by a person: it can only know what was seen.
//!
//! Wider than what was seen are, on purpose: variables (what one thing did under its own name, the
//! others of the group may under theirs), and levels with values that nobody could list. Never
//! wider: a `*` that would reach what other things do under their names, and filters of
//! subscriptions, whose `*` would take any `#`.
//!
//! A condition is carried over where everything that a line is based on was allowed under it
//! ([`Ground`]); none is made up.
//!
//! Absent on purpose: Deny statements, and anything that was denied.

mod cover;
mod document;
mod fit;
mod ground;
mod guard;
mod observations;
mod proposal;
mod replay;
mod shape;
mod unbounded;
mod unused;

pub use document::{Grant, ProposedPolicy};
pub use ground::{Ground, Grounds};
pub use observations::{Bounds, Doer, Fact, Noted, Observations, Table};
pub use proposal::{Basis, Deed, LeftOut, NoProposal, Proposal, Wider, propose};
pub use shape::{Actor, Shape, Variable};
pub use unused::{Unused, unused};

#[cfg(test)]
mod tests;
