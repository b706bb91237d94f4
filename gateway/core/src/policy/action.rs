//! What can be allowed or denied, and the patterns that name it.

use std::fmt;

use super::{Fault, glob::wildcard_match};
use crate::problem::nearest;

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

/// Actions of AWS IoT that documents name and that nothing here asks for.
const OTHER_ACTIONS: [&str; 13] = [
    "iot:AssumeRoleWithCertificate",
    "iot:DeleteConnection",
    "iot:DeleteThingShadow",
    "iot:DescribeJobExecution",
    "iot:GetConnection",
    "iot:GetPendingJobExecutions",
    "iot:GetRetainedMessage",
    "iot:GetThingShadow",
    "iot:ListNamedShadowsForThing",
    "iot:ListRetainedMessages",
    "iot:StartNextPendingJobExecution",
    "iot:UpdateJobExecution",
    "iot:UpdateThingShadow",
];

/// Services whose actions AWS IoT policies also hold; they never apply here.
const OTHER_SERVICES: [&str; 3] = ["greengrass", "iotjobsdata", "iotroborunner"];

impl Action {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Connect,
        Self::Publish,
        Self::RetainPublish,
        Self::Subscribe,
        Self::Receive,
    ];

    /// `iot:Connect` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "iot:Connect",
            Self::Publish => "iot:Publish",
            Self::RetainPublish => "iot:RetainPublish",
            Self::Subscribe => "iot:Subscribe",
            Self::Receive => "iot:Receive",
        }
    }

    /// The type of the resource on which it acts (specification A.2).
    pub const fn resource_type(self) -> &'static str {
        self.asks_for().name()
    }

    pub(super) const fn asks_for(self) -> ResourceType {
        match self {
            Self::Connect => ResourceType::Client,
            Self::Publish | Self::RetainPublish | Self::Receive => ResourceType::Topic,
            Self::Subscribe => ResourceType::TopicFilter,
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// A type of resource on which an action acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResourceType {
    Client,
    Topic,
    TopicFilter,
}

impl ResourceType {
    pub(super) const ALL: [Self; 3] = [Self::Client, Self::Topic, Self::TopicFilter];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Topic => "topic",
            Self::TopicFilter => "topicfilter",
        }
    }

    /// The name and the slash.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Client => "client/",
            Self::Topic => "topic/",
            Self::TopicFilter => "topicfilter/",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Actions(u8);

impl Actions {
    pub(super) const fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }

    pub(super) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn complement(self) -> Self {
        let all: u8 = Action::ALL.iter().map(|action| 1 << *action as u8).sum();
        Self(!self.0 & all)
    }

    /// The actions that `pattern` names, case aside. An action that exists nowhere is a mistake: it
    /// would silently allow or deny nothing.
    pub(super) fn parse(pattern: &str) -> Result<Self, Fault> {
        let lower = pattern.to_lowercase();
        let mut actions = Self::default();
        for action in Action::ALL {
            if wildcard_match(&lower, &action.name().to_lowercase()) {
                actions.0 |= 1 << action as u8;
            }
        }
        let known_elsewhere = || {
            OTHER_ACTIONS
                .iter()
                .any(|name| wildcard_match(&lower, &name.to_lowercase()))
                || lower
                    .split_once(':')
                    .is_some_and(|(service, _)| OTHER_SERVICES.contains(&service))
        };
        if actions != Self::default() || known_elsewhere() {
            return Ok(actions);
        }
        let names = Action::ALL.iter().map(|action| action.name());
        let remedy = match nearest(pattern, names.clone().chain(OTHER_ACTIONS)) {
            Some(name) => format!("write `{name}`"),
            None => format!("use {}", names.collect::<Vec<_>>().join(", ")),
        };
        Err((format!("unknown action `{pattern}`"), remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_match_by_wildcard_whatever_their_case() {
        let all = Actions::parse("*").unwrap();
        assert_eq!(all, Actions::parse("IOT:*").unwrap());
        assert_eq!(all.complement(), Actions::default());
        let publish = Actions::parse("iot:*Publish").unwrap();
        assert!(publish.contains(Action::Publish) && publish.contains(Action::RetainPublish));
        assert!(!publish.contains(Action::Receive));
        assert!(
            Actions::parse("iot:publish")
                .unwrap()
                .contains(Action::Publish)
        );
    }

    #[test]
    fn actions_of_other_services_are_taken_and_misspelt_ones_refused() {
        for other in [
            "iot:GetThingShadow",
            "iotjobsdata:*",
            "greengrass:Discover",
            "iot:DescribeJobExecution",
            "iot:GetPendingJobExecutions",
            "iot:StartNextPendingJobExecution",
            "iot:UpdateJobExecution",
        ] {
            assert_eq!(Actions::parse(other), Ok(Actions::default()), "{other}");
        }
        let (message, remedy) = Actions::parse("iot:Pubish").unwrap_err();
        assert_eq!(message, "unknown action `iot:Pubish`");
        assert_eq!(remedy, "write `iot:Publish`");
        assert!(Actions::parse("Publish").is_err());
        assert!(Actions::parse("s3:GetObject").is_err());
    }
}
