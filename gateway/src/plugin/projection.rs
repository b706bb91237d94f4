//! Values at JSON pointers, read out of a payload without building a tree of it.
//!
//! A tree takes up to a hundred times the payload's memory (`{"":0},` repeated), which hostile
//! devices would use; here memory is bounded by the payload, whatever is in it. What is not asked
//! for is skipped over, checked for syntax only. A value that cannot be read (a number beyond
//! `f64`, half a surrogate pair) is absent and hides no other. Of members with equal keys the last
//! counts, as with most parsers. Depth does no harm: nothing recurses deeper than the pointers.

use std::{fmt, sync::Arc};

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};

/// A set of JSON pointers (RFC 6901), compiled. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Projection(Arc<Compiled>);

#[derive(Debug, Default)]
struct Compiled {
    pointers: Vec<String>,
    root: Node,
}

/// A reference token and what follows it.
#[derive(Debug, Default)]
struct Node {
    /// Place in `pointers`, if one ends here.
    leaf: Option<usize>,
    children: Vec<(String, Node)>,
}

/// A value at a pointer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Scalar {
    /// Nothing there, or null, an object or an array, or the payload is not JSON.
    #[default]
    Absent,
    Number(f64),
    Text(String),
    Boolean(bool),
}

impl Projection {
    /// Compiles pointers; equal ones count once. Those that are no JSON pointers lead nowhere.
    pub fn new<'p>(pointers: impl IntoIterator<Item = &'p str>) -> Self {
        let mut compiled = Compiled::default();
        for pointer in pointers {
            compiled.add(pointer);
        }
        Self(Arc::new(compiled))
    }

    /// The pointers, each once.
    pub(super) fn pointers(&self) -> &[String] {
        &self.0.pointers
    }

    /// The place of a pointer.
    pub(super) fn position(&self, pointer: &str) -> Option<usize> {
        self.0.pointers.iter().position(|other| other == pointer)
    }

    /// The values in the order of the pointers; `None` if the payload is not JSON.
    pub(super) fn extract(&self, payload: &[u8]) -> Option<Vec<Scalar>> {
        let text = std::str::from_utf8(payload).ok()?;
        let text = text.trim_start_matches([' ', '\t', '\n', '\r']);
        let mut found = vec![Scalar::Absent; self.0.pointers.len()];
        let root = &self.0.root;
        if root.children.is_empty() || !text.starts_with(['{', '[']) {
            walk(document(text)?, root, &mut found).ok()?;
            return Some(found);
        }
        let mut document = Deserializer::from_str(text);
        let visitor = Walk {
            node: root,
            found: &mut found,
        };
        document.deserialize_any(visitor).ok()?;
        document.end().ok()?;
        Some(found)
    }
}

/// Whether a payload is a JSON text, and nothing besides.
pub(super) fn is_json(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok_and(|text| document(text).is_some())
}

fn document(text: &str) -> Option<&str> {
    serde_json::from_str::<&RawValue>(text)
        .ok()
        .map(RawValue::get)
}

impl Compiled {
    fn add(&mut self, pointer: &str) {
        if self.pointers.iter().any(|other| other == pointer) {
            return;
        }
        let place = self.pointers.len();
        self.pointers.push(pointer.to_owned());
        let mut node = &mut self.root;
        for token in pointer.split('/').skip(1) {
            node = node.child_or_new(token.replace("~1", "/").replace("~0", "~"));
        }
        if pointer.is_empty() || pointer.starts_with('/') {
            node.leaf = Some(place);
        }
    }
}

impl Node {
    fn child_or_new(&mut self, token: String) -> &mut Self {
        let place = self.children.iter().position(|child| child.0 == token);
        let place = place.unwrap_or_else(|| {
            self.children.push((token, Self::default()));
            self.children.len() - 1
        });
        &mut self.children[place].1
    }

    fn child(&self, token: &[u8]) -> Option<&Self> {
        let mut children = self.children.iter();
        children
            .find(|child| child.0.as_bytes() == token)
            .map(|child| &child.1)
    }

    /// Forgets what an earlier member of the same key had.
    fn clear(&self, found: &mut [Scalar]) {
        if let Some(leaf) = self.leaf {
            found[leaf] = Scalar::Absent;
        }
        for (_, child) in &self.children {
            child.clear(found);
        }
    }
}

/// Reads what `node` asks for from `text`, which is one JSON value.
fn walk(text: &str, node: &Node, found: &mut [Scalar]) -> serde_json::Result<()> {
    let container = text.starts_with(['{', '[']);
    if container && !node.children.is_empty() {
        Deserializer::from_str(text).deserialize_any(Walk { node, found })?;
    } else if let (false, Some(leaf)) = (container, node.leaf) {
        found[leaf] = scalar(text);
    }
    Ok(())
}

fn scalar(text: &str) -> Scalar {
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map(Scalar::Text).ok(),
        Some(b't') => Some(Scalar::Boolean(true)),
        Some(b'f') => Some(Scalar::Boolean(false)),
        Some(b'-' | b'0'..=b'9') => text
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map(Scalar::Number),
        _ => None,
    }
    .unwrap_or_default()
}

/// Visits the members or elements of one container.
struct Walk<'n, 'f> {
    node: &'n Node,
    found: &'f mut [Scalar],
}

impl Walk<'_, '_> {
    fn enter<E: serde::de::Error>(&mut self, child: &Node, value: &RawValue) -> Result<(), E> {
        child.clear(self.found);
        walk(value.get(), child, self.found).map_err(E::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Key(self.node))? {
            match child {
                Some(child) => {
                    let value = map.next_value()?;
                    self.enter(child, value)?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        // Elements behind the last one that is asked for are not numbered.
        let last = self.node.children.iter();
        let last = last.filter_map(|child| child.0.parse::<usize>().ok()).max();
        let node = self.node;
        for index in 0usize.. {
            let asked_for = Some(index) <= last;
            // By text, because `01` is no index (RFC 6901, section 4).
            if let Some(child) = asked_for
                .then(|| node.child(index.to_string().as_bytes()))
                .flatten()
            {
                let Some(value) = seq.next_element()? else {
                    return Ok(());
                };
                self.enter(child, value)?;
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Reads a key as bytes, so that no escape in it is an error, and finds the child of that name.
struct Key<'n>(&'n Node);

impl<'de, 'n> DeserializeSeed<'de> for Key<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: serde::Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_bytes(self)
    }
}

impl<'n> Visitor<'_> for Key<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.child(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(key.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn extract(pointers: &[&str], payload: &str) -> Option<Vec<Scalar>> {
        Projection::new(pointers.iter().copied()).extract(payload.as_bytes())
    }

    fn one(pointer: &str, payload: &str) -> Scalar {
        extract(&[pointer], payload).unwrap().remove(0)
    }

    #[test]
    fn values_are_found_where_the_pointers_lead() {
        let payload = r#" {"a":{"b":[1,-2.5e1,{"c":"x\n"}],"~/":true},"":3,"n":null,"t":"ü"} "#;
        let pointers = [
            "/a/b/0", "/a/b/1", "/a/b/2/c", "/a/~0~1", "/", "/n", "/t", "/a", "/a/b/3", "/a/b/00",
            "/x/y", "",
        ];
        use Scalar::{Absent, Boolean, Number, Text};
        assert_eq!(
            extract(&pointers, payload).unwrap(),
            [
                Number(1.0),
                Number(-25.0),
                Text("x\n".into()),
                Boolean(true),
                Number(3.0),
                Absent,
                Text("ü".into()),
                Absent,
                Absent,
                Absent,
                Absent,
                Absent,
            ]
        );
        assert_eq!(one("", "7"), Scalar::Number(7.0));
    }

    #[test]
    fn what_is_not_json_is_told_from_what_is_absent() {
        for payload in [
            "",
            "x",
            "{",
            r#"{"t":1}}"#,
            r#"{"t":1,"u":}"#,
            r#"{"t":01}"#,
            "[1 2]",
            "\u{c}{}",
        ] {
            assert_eq!(extract(&["/t"], payload), None, "{payload}");
            assert!(!is_json(payload.as_bytes()), "{payload}");
        }
        assert!(!is_json(b"{\"t\":1,\"u\":\"\xff\"}"), "not UTF-8");
        for payload in ["{}", "[]", "null", "7", " \n\"t\"\t"] {
            assert_eq!(one("/t", payload), Scalar::Absent, "{payload}");
        }
    }

    #[test]
    fn depth_and_size_do_no_harm() {
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        assert_eq!(one("/0/0/t", &deep), Scalar::Absent);
        let payload = format!("{{\"d\":{deep},\"t\":1}}");
        assert_eq!(one("/t", &payload), Scalar::Number(1.0));
        assert_eq!(
            one("/t", &format!("[{}0]", "0,".repeat(60_000))),
            Scalar::Absent
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_hides_no_other() {
        for odd in ["1e999", r#""\ud800""#, "[[1e999]]", r#"{"b":1e999}"#] {
            for payload in [
                format!("{{\"a\":{odd},\"t\":9}}"),
                format!("{{\"t\":9,\"a\":{odd}}}"),
                format!("{{\"x\":{odd},\"t\":9}}"),
            ] {
                let found = extract(&["/a", "/a/b", "/a/0/0", "/t"], &payload);
                let expected = [const { Scalar::Absent }; 3].into_iter();
                let expected: Vec<_> = expected.chain([Scalar::Number(9.0)]).collect();
                assert_eq!(found, Some(expected), "{payload}");
            }
        }
        assert_eq!(one("/t", r#"{"\ud800":1,"t":9}"#), Scalar::Number(9.0));
        assert_eq!(one("/t", r#"{"\u0074":9}"#), Scalar::Number(9.0));
    }

    #[test]
    fn of_equal_keys_the_last_counts_with_all_below() {
        assert_eq!(one("/t", r#"{"t":1,"t":2}"#), Scalar::Number(2.0));
        assert_eq!(one("/a/t", r#"{"a":{"t":1},"a":{}}"#), Scalar::Absent);
        assert_eq!(one("/a/t", r#"{"a":{"t":1},"a":7}"#), Scalar::Absent);
    }

    /// Documents of a small grammar, every pointer into them: the same as by way of a tree.
    #[test]
    fn agrees_with_a_tree() {
        let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let tree = document(&mut random, 0);
            let text = tree.to_string();
            let pointers: Vec<String> = (0..8).map(|_| pointer(&mut random)).collect();
            let projection = Projection::new(pointers.iter().map(String::as_str));
            let found = projection.extract(text.as_bytes()).unwrap();
            for (pointer, found) in projection.pointers().iter().zip(found) {
                let expected = match tree.pointer(pointer) {
                    Some(Value::Number(n)) => Scalar::Number(n.as_f64().unwrap()),
                    Some(Value::String(text)) => Scalar::Text(text.clone()),
                    Some(Value::Bool(truth)) => Scalar::Boolean(*truth),
                    _ => Scalar::Absent,
                };
                assert_eq!(found, expected, "{pointer} in {text}");
            }
        }
    }

    const KEYS: [&str; 5] = ["a", "b", "0", "1", "é~/"];

    fn document(random: &mut fastrand::Rng, depth: usize) -> Value {
        let kinds = if depth < 4 { 7 } else { 4 };
        match random.usize(0..kinds) {
            0 => Value::Null,
            1 => Value::Bool(random.bool()),
            2 => Value::from(random.i32(-1000..1000)),
            3 => Value::from(["", "x", "\"\u{1}é"][random.usize(0..3)]),
            4 => (0..random.usize(0..4))
                .map(|_| document(random, depth + 1))
                .collect(),
            _ => (0..random.usize(0..4))
                .map(|_| {
                    let key = KEYS[random.usize(0..KEYS.len())];
                    (key.to_owned(), document(random, depth + 1))
                })
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn pointer(random: &mut fastrand::Rng) -> String {
        (0..random.usize(0..4))
            .map(|_| {
                let key = KEYS[random.usize(0..KEYS.len())];
                format!("/{}", key.replace('~', "~0").replace('/', "~1"))
            })
            .collect()
    }
}
