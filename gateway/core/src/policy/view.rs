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
        let values = Values::of(context, None);
        let listed = self.0.resources.listed.iter();
        listed.map(|resource| resource.read(&values)).collect()
    }

    /// The condition as JSON in one line, if it has one.
    pub fn condition(self) -> Option<&'p str> {
        self.0.condition.as_ref().map(|condition| condition.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::ClientId, policy::Policy};

    #[test]
    fn a_statement_is_shown_as_it_was_written_and_as_it_reads_for_a_client() {
        let json = r#"{"Version":"2012-10-17","Statement":[
            {"Effect":"Allow","Action":["iot:Connect","iot:Pub*"],"Resource":"*"},
            {"Sid":"Rest","Effect":"Deny","NotAction":"iot:Connect",
             "NotResource":["arn:aws:iot:*:*:topic/${iot:ClientId}/*","arn:aws:iot:*:*:topic/${iot:DomainName}"],
             "Condition" : { "StringLike" : {"iot:ClientId" : [ "a b\" ", "c" ] } } }]}"#;
        let policy = Policy::parse("p", json).unwrap();
        let [first, second] = policy.statements().collect::<Vec<_>>()[..] else {
            panic!("two statements")
        };
        assert_eq!(
            first.action_names().collect::<Vec<_>>(),
            ["iot:Connect", "iot:Pub*"]
        );
        assert!(first.is_about(Action::Publish) && !first.is_about(Action::Receive));
        assert_eq!(
            (first.index(), first.sid(), first.effect()),
            (0, None, Effect::Allow)
        );
        assert!(!first.is_not_action() && !first.is_not_resource() && first.condition().is_none());
        assert_eq!(first.resources().collect::<Vec<_>>(), ["*"]);

        assert_eq!(
            (second.index(), second.sid(), second.effect()),
            (1, Some("Rest"), Effect::Deny)
        );
        assert!(second.is_not_action() && second.is_not_resource());
        assert!(second.is_about(Action::Receive) && !second.is_about(Action::Connect));
        assert_eq!(
            second.condition(),
            Some(r#"{"StringLike":{"iot:ClientId":["a b\" ","c"]}}"#)
        );
        let client_id = ClientId::parse("c1").unwrap();
        let [own, domain] = &second.resources_in(&Context::of(&client_id))[..] else {
            panic!("two resources")
        };
        assert_eq!(
            (&*own.text, own.unresolved.len()),
            ("arn:aws:iot:*:*:topic/c1/*", 0)
        );
        assert_eq!(domain.text, "arn:aws:iot:*:*:topic/${iot:DomainName}");
        assert_eq!(domain.unresolved, ["iot:DomainName"]);
        assert_eq!((second.source().index, policy.statements().len()), (1, 2));
    }
}
