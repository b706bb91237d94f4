//! The line that no `*` may cross: what other things do under their own names.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    observations::Observations,
    shape::{Actor, Level, Piece, Shape, Variable},
};
use crate::{
    identity::{Thing, ThingName, ThingTypeName},
    policy::Action,
};

/// Names that no registry would choose, and that have nothing in common.
const ITSELF: &str = "0:itself:0";
const ANOTHER: &str = "1:another:1";

/// Every place where a thing was seen to stand under its own name.
#[derive(Debug)]
pub(super) struct Guard {
    own: BTreeSet<(&'static str, Shape)>,
    itself: Thing,
    another: Thing,
    /// All names of the registry.
    names: BTreeSet<Box<str>>,
    /// Filters that were subscribed to.
    filters: BTreeSet<Shape>,
}

impl Guard {
    /// From the traffic of all groups; `things` are all names of the registry.
    pub(super) fn new(observations: &Observations, things: &BTreeSet<&str>) -> Self {
        let mut own = BTreeSet::new();
        let mut filters = BTreeSet::new();
        let mut attributes = BTreeMap::new();
        for fact in observations.facts() {
            let kind = fact.action.resource_type();
            let examples = fact.examples.iter();
            let examples = examples.filter_map(|(_, text)| Shape::parse(text));
            for shape in examples.chain([fact.shape.clone()]) {
                for variable in shape.variables() {
                    if let Variable::Attribute(name) = variable {
                        attributes.insert(name.to_string(), "attribute".to_owned());
                    }
                }
                let shape = with_names_as_variables(shape, things);
                if shape.is_own() {
                    own.insert((kind, shape.clone()));
                }
                if fact.action == Action::Subscribe {
                    filters.insert(shape);
                }
            }
        }
        // Every thing connects as itself, seen or not.
        let client = Shape(vec![vec![Piece::Variable(Variable::ThingName)]]);
        own.insert((Action::Connect.resource_type(), client));
        let fictive = |name: &str| Thing {
            name: ThingName::parse(name).expect("the name is one that the registry takes"),
            thing_type: ThingTypeName::parse("type").ok(),
            attributes: attributes.clone(),
            groups: [].into(),
        };
        Self {
            own,
            itself: fictive(ITSELF),
            another: fictive(ANOTHER),
            names: things.iter().map(|name| (*name).into()).collect(),
            filters,
        }
    }

    /// Whether a thing that is allowed `shape` may do what another does under its own name.
    pub(super) fn is_crossed_by(&self, action: Action, shape: &Shape) -> bool {
        if !shape.has_any() {
            return false;
        }
        // A whole namespace is nobody's level.
        if shape.0.len() > 1 && shape.0.first().is_some_and(|l| l.contains(&Piece::Any)) {
            return true;
        }
        let itself = Actor {
            thing: &self.itself,
            client_id: ITSELF,
        };
        let reaches = |own: &Shape, other: &Thing| {
            let other = Actor {
                thing: other,
                client_id: other.name.as_str(),
            };
            let its = own.fill(&other);
            its.is_some_and(|resource| shape.takes(&itself, &resource))
        };
        let same_kind = |(kind, _): &&(&str, Shape)| *kind == action.resource_type();
        self.own.iter().filter(same_kind).any(|(_, own)| {
            let own = definite(own);
            reaches(&own, &self.another)
                || self.named(&own, shape).any(|other| reaches(&own, &other))
        })
    }

    /// The things whose names stand in `shape` as a text, where `own` has a variable for them: what
    /// looks like a common level (`dt/*`) may be one's own.
    fn named<'s>(&'s self, own: &'s Shape, shape: &'s Shape) -> impl Iterator<Item = Thing> + 's {
        let texts = shape.0.iter().filter_map(|level| match level.as_slice() {
            [Piece::Text(text)] => Some(&**text),
            _ => None,
        });
        texts.flat_map(move |text| {
            let named = own.0.iter().filter_map(move |level| name_in(level, text));
            let known = named.filter(|name| self.names.contains(*name));
            known.filter_map(|name| {
                Some(Thing {
                    name: ThingName::parse(name).ok()?,
                    ..self.another.clone()
                })
            })
        })
    }

    /// Whether the things asked for all of `shape` themselves: what a subscription brings, its
    /// filter bounds already.
    pub(super) fn is_subscribed(&self, action: Action, shape: &Shape) -> bool {
        action == Action::Receive
            && self
                .filters
                .iter()
                .any(|filter| filter_covers(filter, shape))
    }
}

/// With names of things, whoever they are, as the variable.
fn with_names_as_variables(mut shape: Shape, things: &BTreeSet<&str>) -> Shape {
    for level in &mut shape.0 {
        if let [Piece::Text(text)] = level.as_slice()
            && things.contains(&**text)
        {
            *level = vec![Piece::Variable(Variable::ThingName)];
        }
    }
    shape
}

/// What the name in `level` is if the whole level is `text`.
fn name_in<'t>(level: &Level, text: &'t str) -> Option<&'t str> {
    let is_name = |piece: &Piece| matches!(piece, Piece::Variable(v) if v.is_identity());
    let at = level.iter().position(is_name)?;
    let mut name = text;
    for piece in &level[..at] {
        let Piece::Text(before) = piece else {
            return None;
        };
        name = name.strip_prefix(&**before)?;
    }
    for piece in level[at + 1..].iter().rev() {
        let Piece::Text(after) = piece else {
            return None;
        };
        name = name.strip_suffix(&**after)?;
    }
    Some(name)
}

/// With a word for anything.
fn definite(shape: &Shape) -> Shape {
    let mut shape = shape.clone();
    for piece in shape.0.iter_mut().flatten() {
        if *piece == Piece::Any {
            *piece = Piece::Text("anything".into());
        }
    }
    shape
}

/// Whether every topic of `shape` matches `filter`, as far as its levels say.
fn filter_covers(filter: &Shape, shape: &Shape) -> bool {
    let mut levels = shape.0.iter();
    for level in &filter.0 {
        match level.as_slice() {
            [Piece::Text(text)] if &**text == "#" => return true,
            [Piece::Text(text)] if &**text == "+" => {
                if levels.next().is_none() {
                    return false;
                }
            }
            exact => {
                if levels.next().map(Vec::as_slice) != Some(exact) {
                    return false;
                }
            }
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{observed, thing},
        *,
    };

    fn crosses(seen: &[(&str, Action, &str)], action: Action, shape: &str) -> bool {
        let names = BTreeSet::from(["s-1", "s-2"]);
        let things = [thing("s-1", None, &[]), thing("s-2", None, &[])];
        let guard = Guard::new(&observed(&things, seen), &names);
        guard.is_crossed_by(action, &Shape::parse(shape).unwrap())
    }

    #[test]
    fn a_wildcard_does_not_reach_what_others_do_under_their_names() {
        let seen = [("s-1", Action::Publish, "dt/s-1/t")];
        assert!(crosses(&seen, Action::Publish, "dt/*/t"));
        assert!(crosses(&seen, Action::Receive, "dt/*"));
        assert!(!crosses(&seen, Action::Publish, "cmd/*"));
        assert!(!crosses(
            &seen,
            Action::Publish,
            "dt/${iot:Connection.Thing.ThingName}/*"
        ));
    }

    #[test]
    fn a_wildcard_of_one_level_reaches_deeper_ones_and_is_judged_by_that() {
        let seen = [("s-1", Action::Publish, "a/sensors/s-1/t")];
        assert!(crosses(&seen, Action::Publish, "a/*/t"));
        assert!(!crosses(&seen, Action::Publish, "a/*/x"));
    }

    #[test]
    fn names_of_others_are_names() {
        let seen = [("s-1", Action::Receive, "dt/s-2/t")];
        assert!(crosses(&seen, Action::Receive, "dt/*/t"));
    }

    #[test]
    fn a_level_that_is_the_name_of_a_thing_is_its_own() {
        for seen in ["s-1/s-1/t", "s-1/t"] {
            let seen = [("s-1", Action::Publish, seen)];
            assert!(crosses(&seen, Action::Publish, "s-2/*"));
            assert!(!crosses(&seen, Action::Publish, "s-3/*"));
        }
        let seen = [("s-1", Action::Publish, "dt/pre_s-1/t")];
        assert!(crosses(&seen, Action::Publish, "dt/pre_s-2/*"));
        assert!(!crosses(&seen, Action::Publish, "dt/s-2/*"));
    }

    #[test]
    fn nobody_may_connect_as_anybody() {
        assert!(crosses(&[], Action::Connect, "*"));
    }

    #[test]
    fn a_whole_namespace_is_never_given_away() {
        assert!(crosses(&[], Action::Publish, "*/t"));
    }

    #[test]
    fn filters_cover_what_they_match() {
        let covers = |filter, shape| {
            filter_covers(
                &Shape::parse(filter).unwrap(),
                &Shape::parse(shape).unwrap(),
            )
        };
        assert!(covers("dt/+/t", "dt/*/t"));
        assert!(covers("dt/#", "dt/*/t"));
        assert!(!covers("dt/+", "dt/*/t"));
        assert!(!covers("dt/+/t/x", "dt/*/t"));
        assert!(!covers("dt/s/t", "dt/*/t"));
    }
}
