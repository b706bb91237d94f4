//! Resources with variables for names: `dt/${iot:Connection.Thing.ThingName}/t`.
//!
//! A shape is written as policies write a name, so that what is recorded, what is shown and what is
//! proposed are one text. `*` stands for a level whose values nobody could list.

use std::fmt;

use crate::{identity::Thing, policy::Action};

/// A part of a level shorter than this is not taken for a thing's name: `t` is in every word.
const NAME_WITHIN_LEVEL_BYTES_MIN: usize = 3;
/// Ways of reading one resource that are considered.
const READINGS_MAX: usize = 256;
const ATTRIBUTES: &str = "iot:Connection.Thing.Attributes[";

/// What may stand for a value that differs from thing to thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// `iot:Connection.Thing.ThingName`
    ThingName,
    /// `iot:ClientId`
    ClientId,
    /// `iot:Connection.Thing.ThingTypeName`
    ThingTypeName,
    /// `iot:Connection.Thing.Attributes[…]`
    Attribute(Box<str>),
}

impl Variable {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "iot:Connection.Thing.ThingName" => Self::ThingName,
            "iot:ClientId" => Self::ClientId,
            "iot:Connection.Thing.ThingTypeName" => Self::ThingTypeName,
            _ => Self::Attribute(name.strip_prefix(ATTRIBUTES)?.strip_suffix(']')?.into()),
        })
    }

    /// Whether no two connected devices have the same value.
    pub(super) fn is_identity(&self) -> bool {
        matches!(self, Self::ThingName | Self::ClientId)
    }
}

/// `${…}`
impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThingName => f.write_str("${iot:Connection.Thing.ThingName}"),
            Self::ClientId => f.write_str("${iot:ClientId}"),
            Self::ThingTypeName => f.write_str("${iot:Connection.Thing.ThingTypeName}"),
            Self::Attribute(name) => write!(f, "${{{ATTRIBUTES}{name}]}}"),
        }
    }
}

/// Who did something.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The thing.
    pub thing: &'a Thing,
    /// The client id of its connection.
    pub client_id: &'a str,
}

impl<'a> Actor<'a> {
    /// What `variable` stands for; nothing that a policy would not put in its place.
    pub fn value(&self, variable: &Variable) -> Option<&'a str> {
        let value = match variable {
            Variable::ThingName => self.thing.name.as_str(),
            Variable::ClientId => self.client_id,
            Variable::ThingTypeName => self.thing.thing_type.as_ref()?.as_str(),
            Variable::Attribute(name) => self.thing.attributes.get(&**name)?.as_str(),
        };
        let usable = !value.is_empty() && !value.contains(['*', '$', '+', '?', '#']);
        usable.then_some(value)
    }
}

/// A piece of a level.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Piece {
    /// As it stands.
    Text(Box<str>),
    /// The value of a variable.
    Variable(Variable),
    /// Anything (`*`).
    Any,
}

/// What stands between two slashes; an empty one has no piece.
pub(super) type Level = Vec<Piece>;

/// A generalized client id, topic name or topic filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape(pub(super) Vec<Level>);

impl Shape {
    /// `resource` with variables wherever a value of `actor` stands: the form in which it is
    /// recorded. [`Shape::fill`] gives the resource back.
    pub fn of(actor: &Actor<'_>, action: Action, resource: &str) -> Self {
        let first = |text: &str| {
            let mut readings = readings_of_level(actor, action, text);
            readings.swap_remove(0)
        };
        Self(resource.split('/').map(first).collect())
    }

    /// `resource` as it stands.
    pub fn literal(resource: &str) -> Self {
        Self(resource.split('/').map(text_level).collect())
    }

    /// Every way of reading `resource` as something of `actor`. If a level is the actor's own, every
    /// reading says so at one level at least: what a thing does under its own name, it does because
    /// of its name.
    pub(super) fn readings(actor: &Actor<'_>, action: Action, resource: &str) -> Vec<Self> {
        let mut readings: Vec<Vec<Level>> = vec![Vec::new()];
        let (mut own, mut left) = (false, READINGS_MAX);
        for text in resource.split('/') {
            let mut ways = readings_of_level(actor, action, text);
            own |= ways.iter().any(|level| names_the_actor(level));
            ways.truncate(left.max(1));
            left /= ways.len();
            readings = readings
                .iter()
                .flat_map(|before| {
                    ways.iter().map(move |level| {
                        let mut levels = before.clone();
                        levels.push(level.clone());
                        levels
                    })
                })
                .collect();
        }
        let is_kept = |levels: &Vec<Level>| !own || levels.iter().any(|l| names_the_actor(l));
        readings.into_iter().filter(is_kept).map(Self).collect()
    }

    /// The resource that it is for `actor`; `None` if `actor` has no value for a variable, or if a
    /// level is anything.
    pub fn fill(&self, actor: &Actor<'_>) -> Option<String> {
        let mut text = String::new();
        for (index, level) in self.0.iter().enumerate() {
            if index > 0 {
                text.push('/');
            }
            for piece in level {
                match piece {
                    Piece::Text(literal) => text.push_str(literal),
                    Piece::Variable(variable) => text.push_str(actor.value(variable)?),
                    Piece::Any => return None,
                }
            }
        }
        Some(text)
    }

    /// Whether a policy with this resource would take `resource` from `actor`.
    pub fn takes(&self, actor: &Actor<'_>, resource: &str) -> bool {
        let mut literals = vec![String::new()];
        for (index, level) in self.0.iter().enumerate() {
            if index > 0 {
                push(&mut literals, "/");
            }
            for piece in level {
                match piece {
                    Piece::Text(text) => push(&mut literals, text),
                    Piece::Variable(variable) => match actor.value(variable) {
                        Some(value) => push(&mut literals, value),
                        None => return false,
                    },
                    Piece::Any => literals.push(String::new()),
                }
            }
        }
        matches(&literals, resource)
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut levels = vec![Vec::new()];
        let mut literal = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let level = levels.last_mut()?;
            let mut used = c.len_utf8();
            match c {
                '/' => {
                    close(level, &mut literal);
                    levels.push(Vec::new());
                }
                '*' => {
                    close(level, &mut literal);
                    level.push(Piece::Any);
                }
                '$' if rest.starts_with("${") => {
                    let end = rest.find('}')?;
                    used = end + 1;
                    match rest.get(2..end)? {
                        escaped @ ("*" | "?" | "$") => literal.push_str(escaped),
                        name => {
                            close(level, &mut literal);
                            level.push(Piece::Variable(Variable::parse(name)?));
                        }
                    }
                }
                c => literal.push(c),
            }
            rest = rest.get(used..)?;
        }
        close(levels.last_mut()?, &mut literal);
        Some(Self(levels))
    }

    /// Whether a level of it is anything.
    pub fn has_any(&self) -> bool {
        self.0.iter().flatten().any(|piece| *piece == Piece::Any)
    }

    /// Whether `other` is this shape, with something definite where this one has anything.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let covers = |(wide, level): (&Level, &Level)| match wide.as_slice() {
            [Piece::Any] => {
                !matches!(level.as_slice(), [Piece::Text(t)] if matches!(&**t, "+" | "#"))
            }
            _ => wide == level,
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(covers)
    }

    /// Whether it has a level that is the actor's own.
    pub(super) fn is_own(&self) -> bool {
        self.0.iter().any(|level| names_the_actor(level))
    }

    /// The variables in it.
    pub(super) fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().flatten().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(variable),
            _ => None,
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, level) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            for piece in level {
                match piece {
                    Piece::Text(text) => write_escaped(f, text)?,
                    Piece::Variable(variable) => write!(f, "{variable}")?,
                    Piece::Any => f.write_str("*")?,
                }
            }
        }
        Ok(())
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('*' | '?', _) | ('$', Some('{') | None) => write!(f, "${{{c}}}")?,
            (c, _) => write!(f, "{c}")?,
        }
    }
    Ok(())
}

fn close(level: &mut Level, literal: &mut String) {
    if !literal.is_empty() {
        level.push(Piece::Text(std::mem::take(literal).into()));
    }
}

fn text_level(text: &str) -> Level {
    match text {
        "" => Vec::new(),
        text => vec![Piece::Text(text.into())],
    }
}

fn names_the_actor(level: &[Piece]) -> bool {
    level
        .iter()
        .any(|piece| matches!(piece, Piece::Variable(variable) if variable.is_identity()))
}

/// The likeliest first, the text as it stands last.
fn readings_of_level(actor: &Actor<'_>, action: Action, text: &str) -> Vec<Level> {
    let mut ways = Vec::new();
    let variable = |variable| vec![Piece::Variable(variable)];
    let name = actor.thing.name.as_str();
    if text == name {
        ways.push(variable(Variable::ThingName));
    } else if let Some((before, after)) = around(text, name) {
        let mut level = text_level(before);
        level.push(Piece::Variable(Variable::ThingName));
        level.extend(text_level(after));
        ways.push(level);
    } else if action != Action::Connect && actor.value(&Variable::ClientId) == Some(text) {
        // `client/${iot:ClientId}` would let it connect under any id.
        ways.push(variable(Variable::ClientId));
    }
    if actor.value(&Variable::ThingTypeName) == Some(text) {
        ways.push(variable(Variable::ThingTypeName));
    }
    for name in actor.thing.attributes.keys() {
        let attribute = Variable::Attribute(name.as_str().into());
        if actor.value(&attribute) == Some(text) {
            ways.push(variable(attribute));
        }
    }
    ways.push(text_level(text));
    ways
}

/// What stands before and after `name` in `text`, if `name` is a word of it: `sensor-1` is none of
/// `sensor-10`.
fn around<'t>(text: &'t str, name: &str) -> Option<(&'t str, &'t str)> {
    if name.len() < NAME_WITHIN_LEVEL_BYTES_MIN {
        return None;
    }
    let (before, after) = text.split_once(name)?;
    let ends = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    (ends(before.chars().next_back()) && ends(after.chars().next())).then_some((before, after))
}

fn push(literals: &mut [String], text: &str) {
    if let Some(last) = literals.last_mut() {
        last.push_str(text);
    }
}

/// Whether `text` is the literals in their order with anything between them.
fn matches(literals: &[String], text: &str) -> bool {
    let [first, between @ .., last] = literals else {
        return literals.first().is_some_and(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    for literal in between {
        let Some(at) = rest.find(literal.as_str()) else {
            return false;
        };
        rest = rest.get(at + literal.len()..).unwrap_or_default();
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::tests::thing;
    use super::*;

    fn shape(name: &str, client_id: &str, action: Action, resource: &str) -> String {
        let thing = thing(name, Some("thermometer"), &[("zone", "b")]);
        let actor = Actor {
            thing: &thing,
            client_id,
        };
        let shape = Shape::of(&actor, action, resource);
        assert_eq!(shape.fill(&actor).as_deref(), Some(resource));
        assert!(shape.takes(&actor, resource));
        let text = shape.to_string();
        assert_eq!(Shape::parse(&text), Some(shape), "{text}");
        text.replace("iot:Connection.Thing.", "")
    }

    #[test]
    fn names_become_variables_level_by_level() {
        let topic = |resource| shape("sensor-1", "c-9", Action::Publish, resource);
        assert_eq!(topic("dt/sensor-1/t"), "dt/${ThingName}/t");
        assert_eq!(topic("dt/c-9/t"), "dt/${iot:ClientId}/t");
        assert_eq!(topic("dt/thermometer/t"), "dt/${ThingTypeName}/t");
        assert_eq!(topic("dt/b/t"), "dt/${Attributes[zone]}/t");
        assert_eq!(topic("dt/gw_sensor-1:a/t"), "dt/gw_${ThingName}:a/t");
        assert_eq!(topic("/dt//t"), "/dt//t");
    }

    #[test]
    fn a_name_in_a_longer_word_is_no_name() {
        let topic = |resource| shape("sensor-1", "sensor-1", Action::Publish, resource);
        assert_eq!(topic("dt/sensor-10/t"), "dt/sensor-10/t");
        assert_eq!(topic("dt/xsensor-1/t"), "dt/xsensor-1/t");
        assert_eq!(
            shape("t", "t", Action::Publish, "a-t/t"),
            "a-t/${ThingName}"
        );
    }

    #[test]
    fn a_client_id_is_no_reason_for_any_client_id() {
        let connect = |id| shape("sensor-1", id, Action::Connect, id);
        assert_eq!(connect("sensor-1"), "${ThingName}");
        assert_eq!(connect("sensor-1:sub"), "${ThingName}:sub");
        assert_eq!(connect("backup"), "backup");
    }

    #[test]
    fn special_characters_of_topics_are_escaped() {
        let topic = |resource| shape("sensor-1", "c", Action::Publish, resource);
        assert_eq!(topic("a*b/?"), "a${*}b/${?}");
        assert_eq!(topic("$aws/${x}/$"), "$aws/${$}{x}/${$}");
        assert_eq!(topic("$sensor-1"), "${$}${ThingName}");
    }

    #[test]
    fn every_reading_of_an_own_topic_says_that_it_is_own() {
        let thing = thing("dt", None, &[]);
        let actor = Actor {
            thing: &thing,
            client_id: "dt",
        };
        let mut readings: Vec<_> = Shape::readings(&actor, Action::Publish, "dt/dt/t")
            .iter()
            .map(|shape| shape.to_string().replace("iot:Connection.Thing.", ""))
            .collect();
        readings.sort();
        assert_eq!(
            readings,
            [
                "${ThingName}/${ThingName}/t",
                "${ThingName}/dt/t",
                "dt/${ThingName}/t"
            ]
        );
    }

    #[test]
    fn readings_are_bounded() {
        let name = "a";
        let attributes: Vec<(String, String)> =
            (0..9).map(|i| (format!("x{i}"), name.to_owned())).collect();
        let pairs: Vec<(&str, &str)> = attributes
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let thing = thing(name, Some("type"), &pairs);
        let actor = Actor {
            thing: &thing,
            client_id: name,
        };
        let topic = ["a"; 16].join("/");
        let readings = Shape::readings(&actor, Action::Publish, &topic);
        assert!(
            (1..=READINGS_MAX).contains(&readings.len()),
            "{}",
            readings.len()
        );
        assert!(readings.iter().all(Shape::is_own));
    }

    #[test]
    fn anything_takes_what_a_policy_would_take() {
        let thing = thing("s", None, &[]);
        let actor = Actor {
            thing: &thing,
            client_id: "s",
        };
        let takes = |shape: &str, text| Shape::parse(shape).unwrap().takes(&actor, text);
        assert!(takes("a/*/b", "a/x/y/b"));
        assert!(takes("a/*", "a/"));
        assert!(takes("*a*a", "aa"));
        assert!(!takes("a/*/b", "a/b"));
        assert!(!takes("*a*a", "a"));
        assert!(!takes("a", "ab"));
        assert!(!takes("a/${iot:Connection.Thing.ThingTypeName}", "a/"));
    }
}
