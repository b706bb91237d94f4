//! JSON with places: every value knows where in the text it stands, so that a problem can name line
//! and column. serde_json reads it; the offset is that of the borrowed slice.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    raw: &'a str,
    /// Bytes from the start of the text.
    pub(super) offset: usize,
}

/// The members of an object, in order, duplicates included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Node<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(|raw| Self::within(text, 0, raw))
    }

    /// The members, or `None` if this is no object.
    pub(super) fn object(self) -> Option<Vec<(String, Self)>> {
        let Members(members) = serde_json::from_str(self.raw).ok()?;
        let within = |(key, raw)| (key, Self::within(self.raw, self.offset, raw));
        Some(members.into_iter().map(within).collect())
    }

    /// The items, or `None` if this is no array.
    pub(super) fn array(self) -> Option<Vec<Self>> {
        let items: Vec<&RawValue> = serde_json::from_str(self.raw).ok()?;
        let within = |raw| Self::within(self.raw, self.offset, raw);
        Some(items.into_iter().map(within).collect())
    }

    /// A string, number or bool, or `None` if this is something else.
    pub(super) fn scalar<T: Deserialize<'a>>(self) -> Option<T> {
        serde_json::from_str(self.raw).ok()
    }

    /// As it stands in the text.
    pub(super) fn text(self) -> &'a str {
        self.raw
    }

    fn within(parent: &'a str, parent_offset: usize, raw: &'a RawValue) -> Self {
        let inner = raw.get().as_ptr().addr() - parent.as_ptr().addr();
        Self {
            raw: raw.get(),
            offset: parent_offset + inner,
        }
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_where_it_stands() {
        let text = " {\"a\" : [ 1, {\"b\": \"ü\"} ],\n\"c\":true}";
        let root = Node::parse(text).unwrap().object().unwrap();
        let items = root[0].1.array().unwrap();
        let b = items[1].object().unwrap()[0].1;
        assert_eq!(b.offset, text.find("\"ü\"").unwrap());
        assert_eq!(b.scalar::<String>().unwrap(), "ü");
        assert_eq!(root[1].1.offset, text.find("true").unwrap());
        assert!(root[1].1.object().is_none() && items[0].array().is_none());
    }
}
