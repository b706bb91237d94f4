//! `portcullis.event/1`: the JSON of one accepted publish.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Draft, Kind, SinkSet, json};
use crate::{event::Event, topic::TopicName};

/// Whether the gateway's clock could be trusted when the event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Set by a time source since the machine started.
    Synced,
    /// Maybe years off: consumers order by `seq` alone.
    Unsynced,
}

/// What the chain of rules made of an event; without rules, the event's own topic and payload.
#[derive(Clone, Copy, Debug)]
pub struct Shaped<'a> {
    /// Where it counts as published.
    pub topic: &'a TopicName,
    /// What counts as published.
    pub payload: &'a [u8],
    /// What the rules said about it.
    pub tags: &'a BTreeMap<String, String>,
}

/// The draft of an event. Never fails: a payload that is no (sane) JSON travels as text or base64,
/// and one too large for the stream is the uplink's to set aside.
pub fn event_draft(event: &Event, shaped: &Shaped<'_>, event_id: &str, clock: Clock) -> Draft {
    let names = event.client_id.as_str().len() + shaped.topic.as_str().len();
    let mut out = Vec::with_capacity(shaped.payload.len() + names + MEMBERS_BYTES);
    push_member(&mut out, b"\"event_id\":", event_id);
    out.extend_from_slice(b",\"received_at\":");
    match event.received_at.rfc3339() {
        Some(text) => {
            out.push(b'"');
            out.extend_from_slice(&text);
            out.push(b'"');
        }
        None => json::push_string(&mut out, &event.received_at.to_string()),
    }
    out.extend_from_slice(match clock {
        Clock::Synced => b",\"clock\":\"synced\"",
        Clock::Unsynced => b",\"clock\":\"unsynced\"",
    });
    if let Some(thing) = &event.thing {
        push_member(&mut out, b",\"thing\":", thing.as_str());
    }
    out.extend_from_slice(b",\"groups\":");
    push_list(&mut out, *b"[]", event.groups.iter(), |out, group| {
        json::push_string(out, group.as_str());
    });
    push_member(&mut out, b",\"client_id\":", event.client_id.as_str());
    push_member(&mut out, b",\"topic\":", shaped.topic.as_str());
    out.extend_from_slice(b",\"qos\":");
    out.push(b'0' + event.qos.as_u8());
    out.extend_from_slice(if event.retain {
        b",\"retain\":true"
    } else {
        b",\"retain\":false"
    });
    push_payload(&mut out, shaped.payload);
    out.extend_from_slice(b",\"tags\":");
    push_list(&mut out, *b"{}", shaped.tags, |out, (name, value)| {
        json::push_string(out, name);
        out.push(b':');
        json::push_string(out, value);
    });
    if !event.user_properties.is_empty() {
        // MQTT 5 lets a name occur twice and keeps the order: pairs, not an object.
        out.extend_from_slice(b",\"user_properties\":");
        push_list(
            &mut out,
            *b"[]",
            &event.user_properties,
            |out, (name, value)| {
                push_list(out, *b"[]", [name, value], |out, text| {
                    json::push_string(out, text);
                });
            },
        );
    }
    Draft {
        kind: Kind::Event,
        partition_key: event.device().into(),
        members: out.into(),
        sinks: SinkSet::ALL,
    }
}

/// The members' names, punctuation and usual values, the payload aside.
const MEMBERS_BYTES: usize = 400;

/// Appends a member whose name is written out, with what stands before and after it.
fn push_member(out: &mut Vec<u8>, name: &[u8], text: &str) {
    out.extend_from_slice(name);
    json::push_string(out, text);
}

fn push_payload(out: &mut Vec<u8>, payload: &[u8]) {
    if json::is_embeddable(payload) {
        out.extend_from_slice(b",\"payload\":");
        json::push_embedded(out, payload);
    } else if let Ok(text) = std::str::from_utf8(payload) {
        push_member(out, b",\"payload_text\":", text);
    } else {
        out.extend_from_slice(b",\"payload_base64\":\"");
        let start = out.len();
        let bytes = payload.len().div_ceil(3) * 4;
        out.resize(start + bytes, 0);
        BASE64_STANDARD
            .encode_slice(payload, &mut out[start..])
            .expect("four bytes for each three have room");
        out.push(b'"');
    }
}

fn push_list<T>(
    out: &mut Vec<u8>,
    [open, close]: [u8; 2],
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(open);
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        event::Qos,
        identity::{ClientId, GroupName, ThingName},
        record::Record,
        timestamp::Timestamp,
    };

    fn event() -> Event {
        Event {
            thing: Some(ThingName::parse("sensor-7").unwrap()),
            groups: [GroupName::parse("cold-chain").unwrap()].into(),
            client_id: ClientId::parse("c-7").unwrap(),
            received_at: Timestamp::from_millis(1_795_341_600_123),
            topic: TopicName::parse("dt/sensor-7/temp").unwrap(),
            payload: "{\"t\": 4.20}".into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            user_properties: Vec::new(),
        }
    }

    fn draft(event: &Event, payload: &[u8], tags: &BTreeMap<String, String>) -> Draft {
        let shaped = Shaped {
            topic: &event.topic,
            payload,
            tags,
        };
        event_draft(event, &shaped, "e-1", Clock::Synced)
    }

    fn body(draft: &Draft) -> Value {
        let record = Record::new(draft, 1, "gw-1", "b-1");
        assert!(!record.body.contains(&b'\n'), "one record, one line");
        serde_json::from_slice(&record.body).unwrap()
    }

    #[test]
    fn an_event_looks_as_the_contract_says() {
        let tags = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
        let draft = draft(&event(), &event().payload, &tags);
        assert_eq!(&*draft.partition_key, "sensor-7");
        assert_eq!(
            std::str::from_utf8(&Record::new(&draft, 4711, "gw-1", "b-1").body).unwrap(),
            concat!(
                r#"{"schema":"portcullis.event/1","gateway_id":"gw-1","boot_id":"b-1","seq":4711,"#,
                r#""event_id":"e-1","received_at":"2026-11-22T10:00:00.123Z","clock":"synced","#,
                r#""thing":"sensor-7","groups":["cold-chain"],"client_id":"c-7","topic":"dt/sensor-7/temp","#,
                r#""qos":1,"retain":false,"payload":{"t": 4.20},"tags":{"zone":"b"}}"#
            )
        );
    }

    #[test]
    fn exactly_one_form_of_the_payload_is_present() {
        for (payload, name, value) in [
            (&b"[1]"[..], "payload", json!([1])),
            (b"on", "payload_text", json!("on")),
            (b"", "payload_text", json!("")),
            (b"{\"a\":\"\xff\"}", "payload_base64", json!("eyJhIjoi/yJ9")),
        ] {
            let body = body(&draft(&event(), payload, &BTreeMap::new()));
            assert_eq!(body[name], value);
            let forms = ["payload", "payload_text", "payload_base64"];
            assert_eq!(forms.iter().filter(|f| body.get(**f).is_some()).count(), 1);
        }
    }

    #[test]
    fn an_unregistered_device_has_no_thing_and_is_keyed_by_its_client_id() {
        let mut event = event();
        event.thing = None;
        event.user_properties = vec![("k".into(), "1".into()), ("k".into(), "\"2\"".into())];
        let draft = draft(&event, b"1", &BTreeMap::new());
        let body = body(&draft);
        assert_eq!(&*draft.partition_key, "c-7");
        assert_eq!(body.get("thing"), None);
        assert_eq!(body["user_properties"], json!([["k", "1"], ["k", "\"2\""]]));
    }

    proptest! {
        #[test]
        fn whatever_a_device_sends_the_record_is_one_line_of_json(
            payload in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "\\PC{0,80}".prop_map(String::into_bytes),
                "[\\[\\]{}\":,0-9a-z\\\\\n ]{0,40}".prop_map(String::into_bytes),
            ],
            tag in "\\PC{0,20}",
        ) {
            let tags = BTreeMap::from([(tag.clone(), tag.clone())]);
            let body = body(&draft(&event(), &payload, &tags));
            prop_assert_eq!(&body["tags"][&tag], &json!(tag));
            if let Some(text) = body.get("payload_text") {
                prop_assert_eq!(text.as_str().unwrap().as_bytes(), &payload[..]);
            } else if let Some(code) = body.get("payload_base64") {
                prop_assert_eq!(BASE64_STANDARD.decode(code.as_str().unwrap()).unwrap(), payload);
            } else {
                prop_assert_eq!(&body["payload"], &serde_json::from_slice::<Value>(&payload).unwrap());
            }
        }
    }
}
