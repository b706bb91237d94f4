//! JSON as it is embedded in a record: checked, never re-serialized.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::limits::PAYLOAD_JSON_DEPTH_MAX;

/// Appends `text` as a JSON string.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    // Looked through as a whole, which the compiler makes wide steps of; names need no escapes.
    let is_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text.bytes().fold(false, |any, byte| any | is_escaped(byte)) {
        serde_json::to_writer(&mut *out, text).expect("text is written to memory as JSON");
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether `payload` is one JSON value that every consumer can read: grammar, numbers that fit a
/// double, strings without lone surrogates, and nesting that no recursive parser trips over. (The
/// grammar alone, as `RawValue` checks it, would let a device send a record that breaks its consumer.)
pub(super) fn is_embeddable(payload: &[u8]) -> bool {
    let mut parser = serde_json::Deserializer::from_slice(payload);
    Checked {
        depth_left: PAYLOAD_JSON_DEPTH_MAX,
    }
    .deserialize(&mut parser)
    .and_then(|()| parser.end())
    .is_ok()
}

/// Appends a checked payload as it is, but on one line: a raw line break in valid JSON is white
/// space between tokens, and the outbox holds one record a line.
pub(super) fn push_embedded(out: &mut Vec<u8>, payload: &[u8]) {
    let one_line = |byte: &u8| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    };
    out.extend(payload.trim_ascii().iter().map(one_line));
}

/// Reads a value and keeps nothing.
#[derive(Clone, Copy)]
struct Checked {
    depth_left: usize,
}

impl Checked {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth_left = self
            .depth_left
            .checked_sub(1)
            .ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while members.next_key_seed(inner)?.is_some() {
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_string_is_written_as_the_library_writes_it(text in "(?s).{0,40}|[ -~]{0,40}") {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }

    #[test]
    fn only_json_that_consumers_can_read_is_embedded() {
        for good in [
            "{}",
            " [1, -2.5e3, true, null, \"\\u00e4\"] ",
            "4.2",
            "\"\\ud83d\\ude00\"",
            "{\"a\":{\"b\":[]}}",
        ] {
            assert!(is_embeddable(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            " ",
            "{",
            "{} {}",
            "nan",
            "01",
            "1e999",
            "\"\\ud800\"",
            "\"raw\nbreak\"",
            "{'a':1}",
            "\u{feff}{}",
        ] {
            assert!(!is_embeddable(bad.as_bytes()), "{bad}");
        }
        assert!(!is_embeddable(b"\"\xff\""));
    }

    #[test]
    fn deep_nesting_is_not_embedded() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(is_embeddable(&nested(PAYLOAD_JSON_DEPTH_MAX)));
        assert!(!is_embeddable(&nested(PAYLOAD_JSON_DEPTH_MAX + 1)));
        assert!(!is_embeddable(&nested(60_000)));
    }

    #[test]
    fn an_embedded_payload_stays_on_one_line() {
        let mut out = Vec::new();
        push_embedded(&mut out, b"\n{\r\n  \"a\": \"x\\ny\"\n}\n");
        assert_eq!(out, b"{    \"a\": \"x\\ny\" }");
    }
}
