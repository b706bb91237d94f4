//! Between CBOR and JSON: one reading of a request's members serves both protocols.

use ciborium::Value as Cbor;
use serde_json::{Map, Value as Json};

/// How deep a request may be.
const DEPTH_MAX: usize = 16;
/// Seconds since 1970.
const TIMESTAMP: u64 = 1;

/// A body as JSON. Numbers that JSON does not have become text, as Smithy's JSON has them.
pub(super) fn to_json(body: &[u8]) -> Option<Json> {
    let mut rest = body;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX).ok()?;
    if !rest.is_empty() {
        return None;
    }
    json(value)
}

fn json(value: Cbor) -> Option<Json> {
    Some(match value {
        Cbor::Null => Json::Null,
        Cbor::Bool(bool) => bool.into(),
        Cbor::Text(text) => text.into(),
        Cbor::Float(float) if float.is_nan() => "NaN".into(),
        Cbor::Float(f64::INFINITY) => "Infinity".into(),
        Cbor::Float(f64::NEG_INFINITY) => "-Infinity".into(),
        Cbor::Float(float) => float.into(),
        Cbor::Integer(integer) => match i64::try_from(integer) {
            Ok(integer) => integer.into(),
            Err(_) => u64::try_from(integer).ok()?.into(),
        },
        Cbor::Tag(TIMESTAMP, inner) => json(*inner)?,
        Cbor::Array(items) => items.into_iter().map(json).collect::<Option<_>>()?,
        Cbor::Map(members) => {
            let mut map = Map::new();
            for (name, value) in members {
                map.insert(name.into_text().ok()?, json(value)?);
            }
            map.into()
        }
        _ => return None,
    })
}

/// An answer. Members called `Timestamp` are times.
pub(super) fn from_json(value: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(&cbor(value), &mut out).expect("a vector takes everything");
    out
}

fn cbor(value: &Json) -> Cbor {
    match value {
        Json::Null => Cbor::Null,
        Json::Bool(bool) => Cbor::Bool(*bool),
        Json::String(text) => Cbor::Text(text.clone()),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => integer.into(),
            (None, Some(integer)) => integer.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Json::Array(items) => Cbor::Array(items.iter().map(cbor).collect()),
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| {
                let value = match (name.as_str(), value.as_f64()) {
                    ("Timestamp", Some(secs)) => Cbor::Tag(TIMESTAMP, Box::new(secs.into())),
                    _ => cbor(value),
                };
                (Cbor::Text(name.clone()), value)
            };
            Cbor::Map(members.iter().map(member).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_read_in_definite_and_indefinite_form() {
        // {"a": [_ 1, -2, 1.5f16, NaN], "t": 1(1.0)} with an indefinite map around.
        let body = b"\xbf\x61a\x9f\x01\x21\xf9\x3e\x00\xf9\x7e\x00\xff\x61t\xc1\xfb\x3f\xf0\0\0\0\0\0\0\xff";
        assert_eq!(
            to_json(body).unwrap(),
            json!({ "a": [1, -2, 1.5, "NaN"], "t": 1.0 })
        );
        assert!(to_json(b"\xa1\x61a").is_none(), "cut");
        assert!(to_json(b"\xa0\xa0").is_none(), "more behind");
        let deep = [b"\x81".repeat(5000), b"\x00".to_vec()].concat();
        assert!(to_json(&deep).is_none());
    }

    #[test]
    fn an_answer_has_times_with_their_tag() {
        let bytes = from_json(&json!({ "Timestamp": 60.0 }));
        assert_eq!(bytes, b"\xa1\x69Timestamp\xc1\xf9\x53\x80");
    }
}
