//! Makes grants fit the size of a policy: one, else two, else wider ones.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    document::{Grant, ProposedPolicy},
    guard::Guard,
    shape::{Piece, Shape},
};
use crate::{
    limits::{POLICIES_PER_GROUP_MAX, POLICY_CHARACTERS_MAX},
    policy::Action,
};

/// What fits.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) policies: Vec<ProposedPolicy>,
    /// What had to be made wider: the new shape, and how many it replaces.
    pub(super) widened: Vec<(Shape, usize)>,
}

/// As narrow as possible; the error is the number of characters that the narrowest form has after
/// everything that may be widened was.
pub(super) fn fit(mut grants: Vec<Grant>, guard: &Guard) -> Result<Fitted, usize> {
    let mut widened: Vec<(Shape, usize)> = Vec::new();
    loop {
        grants.sort_by(|a, b| order(a).cmp(&order(b)));
        if let Some(policies) = policies(&grants) {
            // A wide one may have been made wider still.
            widened.retain(|(shape, _)| grants.iter().any(|grant| grant.shape == *shape));
            return Ok(Fitted { policies, widened });
        }
        let Some((wide, replaced)) = widest_gain(&grants, guard) else {
            return Err(ProposedPolicy::of(&grants).characters);
        };
        widened.push((wide.shape.clone(), replaced.len()));
        let mut index = 0;
        grants.retain(|_| {
            index += 1;
            !replaced.contains(&(index - 1))
        });
        grants.push(wide);
    }
}

/// What must be the same of grants that become one, aside from the shape.
type Key = (Vec<usize>, Option<Arc<str>>);

fn order(grant: &Grant) -> (Key, &Shape) {
    let positions = grant.actions.iter().map(|a| super::document::position(*a));
    ((positions.collect(), grant.condition.clone()), &grant.shape)
}

/// One policy, or two that divide the grants in their order.
fn policies(grants: &[Grant]) -> Option<Vec<ProposedPolicy>> {
    let fits = |policy: &ProposedPolicy| policy.characters <= POLICY_CHARACTERS_MAX;
    let mut made = Vec::new();
    let mut rest = grants;
    while !rest.is_empty() {
        if made.len() == POLICIES_PER_GROUP_MAX {
            return None;
        }
        // The longest beginning that fits.
        let (mut low, mut high) = (0, rest.len());
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(&ProposedPolicy::of(&rest[..middle])) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        if low == 0 {
            return None;
        }
        made.push(ProposedPolicy::of(&rest[..low]));
        rest = &rest[low..];
    }
    Some(made)
}

/// The grant that replaces most others, and their positions. Below a thing's own name first, there
/// it gives away nothing of others; one level before several.
fn widest_gain(grants: &[Grant], guard: &Guard) -> Option<(Grant, Vec<usize>)> {
    type Candidates = BTreeMap<(Key, Shape), (bool, Grant, Vec<usize>)>;
    let mut candidates: Candidates = BTreeMap::new();
    for (index, grant) in grants.iter().enumerate() {
        // Filters stay as they are: their `*` would take any `#`.
        if !grant
            .actions
            .iter()
            .all(|action| action.resource_type() == "topic")
        {
            continue;
        }
        for at in 1..grant.shape.0.len() {
            for tail in [false, true] {
                let Some(shape) = widened(&grant.shape, at, tail) else {
                    continue;
                };
                let wide = Grant {
                    shape,
                    ..grant.clone()
                };
                let (key, shape) = order(&wide);
                let key = (key, shape.clone());
                let candidate = candidates.entry(key);
                let (_, _, replaced) = candidate.or_insert_with(|| (tail, wide, Vec::new()));
                if replaced.last() != Some(&index) {
                    replaced.push(index);
                }
            }
        }
    }
    let crosses = |grant: &Grant| {
        grant.actions.iter().any(|action: &Action| {
            guard.is_crossed_by(*action, &grant.shape)
                && !guard.is_subscribed(*action, &grant.shape)
        })
    };
    candidates
        .into_values()
        .filter(|(_, grant, replaced)| replaced.len() >= 2 && !crosses(grant))
        .reduce(|best, next| {
            if gain(&next) > gain(&best) {
                next
            } else {
                best
            }
        })
        .map(|(_, grant, replaced)| (grant, replaced))
}

fn gain((tail, grant, replaced): &(bool, Grant, Vec<usize>)) -> (bool, bool, usize, usize) {
    let levels = grant.shape.0.len();
    (grant.shape.is_own(), !tail, replaced.len(), levels)
}

/// With anything at level `at`, or from there on.
fn widened(shape: &Shape, at: usize, tail: bool) -> Option<Shape> {
    let is_text = |level: &[Piece]| matches!(level, [Piece::Text(_)] | []);
    let mut levels = shape.0.clone();
    if tail {
        // What is given up must not be a name, and what stays must not be the wildcard alone.
        if levels[at..]
            .iter()
            .flatten()
            .any(|p| matches!(p, Piece::Variable(_)))
        {
            return None;
        }
        levels.truncate(at);
        levels.push(vec![Piece::Any]);
    } else {
        if !is_text(&levels[at]) {
            return None;
        }
        levels[at] = vec![Piece::Any];
    }
    Some(Shape(levels))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::tests::{observed, thing},
        *,
    };

    fn fitted(topics: &[String]) -> Result<Fitted, usize> {
        let things = [thing("s-1", None, &[])];
        let seen = [("s-1", Action::Publish, "dt/s-1/t")];
        let guard = Guard::new(&observed(&things, &seen), &BTreeSet::from(["s-1"]));
        let grants = topics.iter().map(|text| Grant {
            actions: vec![Action::Publish],
            shape: Shape::parse(text).unwrap(),
            condition: None,
        });
        fit(grants.collect(), &guard)
    }

    fn topics(prefix: &str, count: usize) -> Vec<String> {
        let name = |i| format!("{prefix}/measurement-number-{i:03}/value");
        (0..count).map(name).collect()
    }

    fn widened_to(fitted: &Fitted) -> Vec<String> {
        let shapes = fitted.widened.iter().map(|(shape, _)| shape.to_string());
        shapes.collect()
    }

    #[test]
    fn what_fits_one_policy_stays_as_it_is() {
        let fitted = fitted(&topics("plant", 20)).unwrap();
        assert_eq!((fitted.policies.len(), fitted.widened.len()), (1, 0));
        assert_eq!(fitted.policies[0].lines.len(), 20);
    }

    #[test]
    fn two_policies_come_before_anything_wider() {
        let fitted = fitted(&topics("plant", 50)).unwrap();
        assert_eq!((fitted.policies.len(), fitted.widened.len()), (2, 0));
        let lines: usize = fitted
            .policies
            .iter()
            .map(|policy| policy.lines.len())
            .sum();
        assert_eq!(lines, 50);
        for policy in &fitted.policies {
            assert!(policy.characters <= POLICY_CHARACTERS_MAX);
        }
    }

    #[test]
    fn what_fits_in_no_way_is_made_wider_where_it_hurts_least() {
        let own = "app/${iot:Connection.Thing.ThingName}";
        let all = [topics(own, 40), topics("plant", 40)].concat();
        let fitted = fitted(&all).unwrap();
        assert_eq!(widened_to(&fitted), [format!("{own}/*/value")]);
    }

    #[test]
    fn a_wider_one_never_reaches_what_others_do_under_their_names() {
        // `dt/*/t` would be the shortest.
        let all: Vec<_> = (0..100)
            .map(|i| format!("dt/some-quite-long-name-of-a-room-{i:03}/t"))
            .collect();
        assert!(fitted(&all).unwrap_err() > POLICY_CHARACTERS_MAX);
    }
}
