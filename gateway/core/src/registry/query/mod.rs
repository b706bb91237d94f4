//! Queries of dynamic groups, in the syntax of AWS's fleet index (specification A.10).
//!
//! ```text
//! thingName:sensor* AND NOT thingTypeName:display
//! attributes.model:"a b" OR attributes.floor:[1 TO 5] OR attributes.t > 5
//! connectivity.connected:true AND deviceDefender.violationCount > 0
//! deviceDefender.PROFILE.BEHAVIOR.inViolation:true
//! ```
//!
//! `NOT` binds tighter than `AND`, `AND` tighter than `OR`; they are written in capitals. Texts are compared
//! whole and case matters; in a text without quotes `*` is any run of characters and `?` any one.
//! `\` takes the meaning from the character behind it, in fields too. What a thing does not have
//! meets no test, and so meets the `NOT` of every test.
//!
//! [`Query::parse`] refuses what it does not understand, with the place. Absent on purpose: two terms
//! without an operator between them and texts without a field, which have a meaning at AWS that
//! nobody remembers; shadows and jobs, which the gateway does not have.

mod parse;

use std::collections::BTreeSet;

use crate::{identity::Thing, problem::Mistake};

/// A parsed query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    text: String,
    root: Node,
}

/// A profile's behaviour that a device departs from: profile and behaviour.
pub type Alarm = (String, String);

/// What a query is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The thing.
    pub thing: &'a Thing,
    /// Whether it is connected now.
    pub is_connected: bool,
    /// Its active violations.
    pub alarms: &'a BTreeSet<Alarm>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Term(Field, Test),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    ThingName,
    ThingTypeName,
    ThingGroupNames,
    Attribute(String),
    Connected,
    ViolationCount,
    InViolation(Alarm),
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Like(Vec<Piece>),
    Is(bool),
    Within(Bound, Bound),
}

/// A piece of a text with wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    AnyOne,
    AnyRun,
}

/// One end of a range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Open,
    Including(f64),
    Excluding(f64),
}

impl Query {
    /// Reads `text`. The place of a mistake is one in `text`.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let root = parse::parse(text)?;
        Ok(Self {
            text: text.to_owned(),
            root,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `subject` is among those that it finds.
    pub fn finds(&self, subject: &Subject<'_>) -> bool {
        self.root.is_met_by(subject)
    }

    /// Whether its answer depends on more than the registry: connectivity or violations.
    pub fn is_live(&self) -> bool {
        self.root.any_field(&|field| {
            matches!(
                field,
                Field::Connected | Field::ViolationCount | Field::InViolation(_)
            )
        })
    }
}

impl Node {
    fn is_met_by(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.is_met_by(subject)),
            Self::Or(nodes) => nodes.iter().any(|node| node.is_met_by(subject)),
            Self::Not(node) => !node.is_met_by(subject),
            Self::Term(field, test) => field.meets(test, subject),
        }
    }

    fn any_field(&self, is_wanted: &dyn Fn(&Field) -> bool) -> bool {
        match self {
            Self::And(nodes) | Self::Or(nodes) => {
                nodes.iter().any(|node| node.any_field(is_wanted))
            }
            Self::Not(node) => node.any_field(is_wanted),
            Self::Term(field, _) => is_wanted(field),
        }
    }
}

impl Field {
    fn meets(&self, test: &Test, subject: &Subject<'_>) -> bool {
        let thing = subject.thing;
        match self {
            Self::ThingName => test.takes(thing.name.as_str()),
            Self::ThingTypeName => {
                let name = thing.thing_type.as_ref();
                name.is_some_and(|name| test.takes(name.as_str()))
            }
            Self::ThingGroupNames => thing.groups.iter().any(|group| test.takes(group.as_str())),
            Self::Attribute(name) => {
                let value = thing.attributes.get(name);
                value.is_some_and(|value| test.takes(value))
            }
            Self::Connected => *test == Test::Is(subject.is_connected),
            Self::InViolation(alarm) => *test == Test::Is(subject.alarms.contains(alarm)),
            Self::ViolationCount => {
                let count = u32::try_from(subject.alarms.len()).unwrap_or(u32::MAX);
                test.takes_number(f64::from(count))
            }
        }
    }
}

impl Test {
    fn takes(&self, value: &str) -> bool {
        match self {
            Self::Like(pieces) => like(pieces, value),
            Self::Is(_) => false,
            Self::Within(..) => number(value).is_some_and(|value| self.takes_number(value)),
        }
    }

    fn takes_number(&self, value: f64) -> bool {
        let Self::Within(low, high) = self else {
            return false;
        };
        let above = match low {
            Bound::Open => true,
            Bound::Including(low) => value >= *low,
            Bound::Excluding(low) => value > *low,
        };
        let below = match high {
            Bound::Open => true,
            Bound::Including(high) => value <= *high,
            Bound::Excluding(high) => value < *high,
        };
        above && below
    }
}

/// A number as attributes and queries write it; `inf` and `nan` are none.
fn number(text: &str) -> Option<f64> {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    if !text.chars().all(is_number) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether the whole of `text` is like `pieces`. Goes back to the last `*` alone, so that no text makes
/// it slow.
fn like(pieces: &[Piece], text: &str) -> bool {
    let (mut at, mut rest) = (0, text.chars());
    // Behind the last `*`, and what was left of the text when it took one character less.
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let before = rest.clone();
        let next = rest.next();
        let fits = match (pieces.get(at), next) {
            (None, None) => return true,
            (Some(Piece::AnyRun), _) => {
                at += 1;
                retry = Some((at, before.clone()));
                rest = before;
                continue;
            }
            (Some(Piece::AnyOne), Some(_)) => true,
            (Some(Piece::Char(wanted)), Some(c)) => *wanted == c,
            _ => false,
        };
        if fits {
            at += 1;
            continue;
        }
        let Some((behind, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        at = *behind;
        rest = from.clone();
    }
}

#[cfg(test)]
mod tests;
