//! A statement as people read it.

use super::{Action, Context, Effect, Reading, Statement, StatementRef, context::Values};

/// One statement of a policy.
#[derive(Clone, Copy, Debug)]
pub struct StatementView<'p>(&'p Statement);

impl<'p> StatementView<'p> {
    pub(super) const fn of(statement: &'p Statement) -> Self {
        Self(statement)
    }

    /// How decisions refer to it.
    pub fn source(self) -> &'p StatementRef {
        &self.0.source
    }

    /// Position in the document, from 0.
    pub fn index(self) -> usize {
        self.0.source.index
    }

    /// Its `Sid`, if it has one.
    pub fn sid(self) -> Option<&'p str> {
        self.0.source.sid.as_deref()
    }

    /// What it does where it applies.
    pub fn effect(self) -> Effect {
        self.0.effect
    }

    /// Whether [`Self::action_names`] are those to which it does *not* apply (`NotAction`).
    pub fn is_not_action(self) -> bool {
        self.0.not_action
    }

    /// The names and patterns of actions in the document.
    pub fn action_names(self) -> impl ExactSizeIterator<Item = &'p str> {
        self.0.action_names.iter().map(|name| &**name)
    }

    /// Whether it is about `action`.
    pub fn is_about(self, action: Action) -> bool {
        self.0.actions.contains(action)
    }

    /// Whether [`Self::resources`] are those to which it does *not* apply (`NotResource`).
    pub fn is_not_resource(self) -> bool {
        self.0.resources.negated
    }

    /// The resources as the document has them.
    pub fn resources(self) -> impl ExactSizeIterator<Item = &'p str> {
        self.0
            .resources
            .listed
            .iter()
            .map(|resource| resource.text())
    }

    /// The resources with the values that variables have in `context`.
    pub fn resources_in(self, context: &Context<'_>) -> Vec<Reading> {
        let values = Values::of(context);
        let listed = self.0.resources.listed.iter();
        listed.map(|resource| resource.read(&values)).collect()
    }

    /// The condition as JSON in one line, if it has one.
    pub fn condition(self) -> Option<&'p str> {
        self.0.condition.as_ref().map(|condition| condition.text())
    }
}
