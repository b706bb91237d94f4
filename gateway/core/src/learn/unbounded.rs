//! Which levels have values that nobody could list, such as the ids of requests.
//!
//! Two signs: many values that look as if a machine had made them up, or very many values at all.

use std::collections::{BTreeMap, BTreeSet};

use super::shape::{Piece, Shape};

/// Values of one level that look made up and stay listed: a site may well have a UUID for a name.
pub(super) const MINTED_MAX: usize = 4;
/// Values of one level that stay listed, whatever they look like.
pub(super) const LISTED_MAX: usize = 64;

/// The shapes that have an unbounded level, each with what it becomes.
pub(super) fn collapse<'s>(shapes: impl Iterator<Item = &'s Shape>) -> BTreeMap<Shape, Shape> {
    let shapes: Vec<&Shape> = shapes.collect();
    let levels_max = shapes.iter().map(|shape| shape.0.len()).max().unwrap_or(0);
    let mut now: Vec<Shape> = shapes.iter().map(|shape| (*shape).clone()).collect();
    for at in 0..levels_max {
        // Shapes that agree so far, and what stands next.
        let mut values: BTreeMap<&[Vec<Piece>], BTreeSet<&str>> = BTreeMap::new();
        for shape in &now {
            if let Some((before, value)) = open_level(shape, at) {
                values.entry(before).or_default().insert(value);
            }
        }
        let is_unbounded = |before: &[Vec<Piece>], value: &str| {
            let Some(all) = values.get(before) else {
                return false;
            };
            let minted = all.iter().filter(|value| looks_minted(value)).count();
            let named = all.len() - minted;
            if looks_minted(value) {
                minted > MINTED_MAX
            } else {
                named > LISTED_MAX
            }
        };
        let collapsed: Vec<usize> = (0..now.len())
            .filter(|index| {
                open_level(&now[*index], at).is_some_and(|(b, value)| is_unbounded(b, value))
            })
            .collect();
        for index in collapsed {
            now[index].0[at] = vec![Piece::Any];
        }
    }
    let pairs = shapes.into_iter().cloned().zip(now);
    pairs.filter(|(before, after)| before != after).collect()
}

/// What stands before level `at`, and its text if it is nothing but text.
fn open_level(shape: &Shape, at: usize) -> Option<(&[Vec<Piece>], &str)> {
    match shape.0.get(at)?.as_slice() {
        // The wildcards of filters are no values.
        [Piece::Text(text)] if !matches!(&**text, "+" | "#") => Some((&shape.0[..at], text)),
        _ => None,
    }
}

/// A UUID, a long number (a time, a counter), long hex, or a long mixture of letters and digits.
pub(super) fn looks_minted(value: &str) -> bool {
    let count = |is: fn(&char) -> bool| value.chars().filter(is).count();
    let digits = count(char::is_ascii_digit);
    let all = value.chars().count();
    let hex = value.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let letters_and_digits = value.chars().all(|c| c.is_ascii_alphanumeric());
    (all >= 8 && digits == all)
        || (all >= 12 && hex && digits >= 3)
        || (all >= 20 && letters_and_digits && digits >= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collapsed(resources: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let shapes: Vec<Shape> = resources
            .into_iter()
            .map(|text| Shape::parse(&text).unwrap())
            .collect();
        let map = collapse(shapes.iter());
        shapes
            .iter()
            .map(|shape| map.get(shape).unwrap_or(shape).to_string())
            .collect()
    }

    fn texts(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn made_up_values_are_told_from_names() {
        for minted in [
            "3f2b8c1e-1111-4222-8333-444455556666",
            "1795341600123",
            "deadbeef0123",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        ] {
            assert!(looks_minted(minted), "{minted}");
        }
        for name in [
            "temperature",
            "sensor-7",
            "2026",
            "defender",
            "cafe-babe",
            "",
        ] {
            assert!(!looks_minted(name), "{name}");
        }
    }

    #[test]
    fn ids_of_requests_become_anything_and_their_neighbours_stay() {
        let ids = (0..5).map(|i| format!("cmd/1795341600{i:03}/done"));
        let all = ids.chain(["cmd/config/done".to_owned()]);
        assert_eq!(collapsed(all), texts(&["cmd/*/done", "cmd/config/done"]));
    }

    #[test]
    fn a_few_made_up_values_stay_listed() {
        let ids: Vec<_> = (0..4).map(|i| format!("site/1795341600{i:03}")).collect();
        assert_eq!(collapsed(ids.clone()).len(), ids.len());
    }

    #[test]
    fn levels_collapse_one_after_another() {
        let ids = (0..25).map(|i| format!("a/179534160{:04}/b/18000000{:02}", i / 5, i));
        assert_eq!(collapsed(ids), texts(&["a/*/b/*"]));
    }

    #[test]
    fn many_names_are_unbounded_at_last() {
        let names = |n| (0..n).map(|i| format!("room/r{i}/t"));
        assert_eq!(collapsed(names(LISTED_MAX)).len(), LISTED_MAX);
        assert_eq!(collapsed(names(LISTED_MAX + 1)), texts(&["room/*/t"]));
    }

    #[test]
    fn variables_and_wildcards_are_no_values() {
        let filters = (0..9).map(|i| format!("a{i}/+/${{iot:ClientId}}/#"));
        assert_eq!(collapsed(filters).len(), 9);
    }
}
