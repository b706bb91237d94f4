//! JSON documents of the operator, read with the place of every key and value.
//!
//! serde_json does the parsing; what it hands out are slices of the text ([`RawValue`]), whose
//! offset is their place. So a reader can go on after a mistake and report all of them. Depth and
//! size are bounded by the caller's limit on the file and by serde_json's recursion limit.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::problem::{Mistake, Place};

/// A whole document.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    text: &'a str,
    root: Value<'a>,
}

/// One value in a document.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    raw: &'a RawValue,
}

/// What kind of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number, a boolean or null.
    Other,
}

/// The members of an object in the order of the text, duplicates included.
type Members<'a> = Vec<(Value<'a>, Value<'a>)>;

impl<'a> Document<'a> {
    /// Checks the syntax of `text`.
    pub fn parse(text: &'a str) -> Result<Self, Mistake> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| {
            let place = Place {
                line: error.line().max(1),
                column: error.column().max(1),
            };
            Mistake {
                place: Some(place),
                message: format!("not JSON: {}", without_place(&error)),
                remedy: "correct the syntax".to_owned(),
            }
        })?;
        Ok(Self {
            text,
            root: Value { raw },
        })
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// Where `value`, which must be of this document, stands.
    pub fn place(&self, value: Value<'a>) -> Place {
        let offset = (value.raw.get().as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        Place::of_offset(self.text, offset)
    }

    /// A mistake at `value`.
    pub fn mistake(
        &self,
        value: Value<'a>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Mistake {
        Mistake {
            place: Some(self.place(value)),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

impl<'a> Value<'a> {
    /// What kind of value it is.
    pub fn kind(self) -> Kind {
        match self.raw.get().as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            _ => Kind::Other,
        }
    }

    /// As it stands in the document.
    pub fn text(self) -> &'a str {
        self.raw.get()
    }

    /// The text of a string.
    pub fn as_string(self) -> Option<String> {
        self.read()
    }

    /// Keys and values of an object.
    pub fn members(self) -> Option<Members<'a>> {
        let members: Raw<'a> = serde_json::from_str(self.raw.get()).ok()?;
        Some(members.0)
    }

    /// The elements of an array.
    pub fn elements(self) -> Option<Vec<Value<'a>>> {
        let elements: Vec<&'a RawValue> = serde_json::from_str(self.raw.get()).ok()?;
        Some(elements.into_iter().map(|raw| Value { raw }).collect())
    }

    /// The value as a `T`, if it is one.
    pub fn read<T: DeserializeOwned>(self) -> Option<T> {
        serde_json::from_str(self.raw.get()).ok()
    }
}

/// An object that keeps order, duplicates and places.
struct Raw<'a>(Members<'a>);

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor(PhantomData))
    }
}

struct RawVisitor<'a>(PhantomData<&'a ()>);

impl<'de> Visitor<'de> for RawVisitor<'de> {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            members.push((Value { raw: key }, Value { raw: value }));
        }
        Ok(Raw(members))
    }
}

/// The message without serde_json's own ` at line 1 column 2`.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_know_their_place() {
        let text = "{\n  \"a\": 1,\n  \"é\": [true, \"x\"], \"a\": {}\n}";
        let document = Document::parse(text).unwrap();
        let members = document.root().members().unwrap();
        let names: Vec<_> = members
            .iter()
            .map(|(key, _)| key.as_string().unwrap())
            .collect();
        assert_eq!(names, ["a", "é", "a"], "order and duplicates are kept");
        let place = document.place(members[1].1.elements().unwrap()[1]);
        assert_eq!((place.line, place.column), (3, 15));
        let place = document.place(members[2].0);
        assert_eq!((place.line, place.column), (3, 21));
        assert_eq!(members[2].1.kind(), Kind::Object);
        assert_eq!(members[0].1.read::<u8>(), Some(1));
    }

    #[test]
    fn a_syntax_error_names_its_place_once() {
        let mistake = Document::parse("{\n \"a\" 1}").unwrap_err();
        assert_eq!(mistake.place, Some(Place { line: 2, column: 6 }));
        assert_eq!(mistake.message, "not JSON: expected `:`");
    }
}
