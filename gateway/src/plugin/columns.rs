//! A batch of events as the columns that a guest gets.
//!
//! What a rule declared as JSON pointers is extracted here, natively: parsing in the guest takes
//! about twice as long, and would be done again by every rule of the chain.

use std::collections::HashMap;

use portcullis_core::{event::Qos, timestamp::Timestamp};

use super::{
    bindings::{
        exports::portcullis::plugin::lifecycle::{Field, FieldKind, Subscription},
        portcullis::plugin::types::{Column, EventBatch},
    },
    event::PluginEvent,
    projection::{Projection, Scalar},
};

/// Stands for an absent text.
const NO_TEXT: u32 = u32::MAX;
/// Stands for an absent truth value.
const NO_BOOLEAN: u8 = 255;
/// The bit of `delivery` that says *retain*.
const RETAIN: u8 = 1 << 2;

/// The columns of one batch, borrowing text from its events.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    strings: Vec<&'a str>,
    indices: HashMap<&'a str, u32>,
    topics: Vec<u32>,
    things: Vec<u32>,
    timestamps: Vec<u64>,
    delivery: Vec<u8>,
    payload_ends: Vec<u32>,
    payloads: Vec<u8>,
    property_ends: Vec<u32>,
    property_keys: Vec<u32>,
    property_values: Vec<u32>,
    fields: Vec<FieldColumn>,
}

#[derive(Debug)]
enum FieldColumn {
    Numbers(Vec<f64>),
    Texts(Vec<u32>),
    Booleans(Vec<u8>),
}

impl<'a> Columns<'a> {
    /// `projection` holds the pointers of `subscription`.
    pub(super) fn collect(
        batch: &[&'a PluginEvent],
        subscription: &Subscription,
        projection: &Projection,
    ) -> Self {
        let mut columns = Self::default();
        for event in batch {
            if !subscription.fields.is_empty() {
                event.project(projection);
            }
            columns.push_envelope(event);
            if subscription.needs_payload {
                columns.payloads.extend_from_slice(event.payload());
                columns.payload_ends.push(index(columns.payloads.len()));
            }
        }
        for field in &subscription.fields {
            let column = columns.collect_field(batch, field);
            columns.fields.push(column);
        }
        columns
    }

    fn push_envelope(&mut self, event: &'a PluginEvent) {
        let event = event.event();
        let topic = self.intern(event.topic.as_str());
        self.topics.push(topic);
        let thing = self.intern(event.device());
        self.things.push(thing);
        self.timestamps.push(event.received_at.as_millis());
        self.delivery.push(delivery(event.qos, event.retain));
        for (key, value) in &event.user_properties {
            let (key, value) = (self.intern(key), self.intern(value));
            self.property_keys.push(key);
            self.property_values.push(value);
        }
        self.property_ends.push(index(self.property_keys.len()));
    }

    fn collect_field(&mut self, batch: &[&'a PluginEvent], field: &Field) -> FieldColumn {
        let values = batch.iter().map(|event| event.value(&field.pointer));
        match field.kind {
            FieldKind::Number => FieldColumn::Numbers(
                values
                    .map(|value| match value {
                        Scalar::Number(number) => *number,
                        _ => f64::NAN,
                    })
                    .collect(),
            ),
            FieldKind::Text => FieldColumn::Texts(
                values
                    .map(|value| match value {
                        Scalar::Text(text) => self.intern(text),
                        _ => NO_TEXT,
                    })
                    .collect(),
            ),
            FieldKind::Boolean => FieldColumn::Booleans(
                values
                    .map(|value| match value {
                        Scalar::Boolean(truth) => u8::from(*truth),
                        _ => NO_BOOLEAN,
                    })
                    .collect(),
            ),
        }
    }

    fn intern(&mut self, text: &'a str) -> u32 {
        *self.indices.entry(text).or_insert_with(|| {
            self.strings.push(text);
            index(self.strings.len() - 1)
        })
    }

    /// The field columns in the form in which they are handed over.
    pub(super) fn fields(&self) -> Vec<Column<'_>> {
        self.fields
            .iter()
            .map(|column| match column {
                FieldColumn::Numbers(numbers) => Column::Numbers(numbers),
                FieldColumn::Texts(texts) => Column::Texts(texts),
                FieldColumn::Booleans(booleans) => Column::Booleans(booleans),
            })
            .collect()
    }

    /// The batch, with what [`fields`](Self::fields) returned.
    pub(super) fn batch<'b>(&'b self, now: Timestamp, fields: &'b [Column<'b>]) -> EventBatch<'b> {
        EventBatch {
            now: now.as_millis(),
            strings: &self.strings,
            topics: &self.topics,
            things: &self.things,
            timestamps: &self.timestamps,
            delivery: &self.delivery,
            payload_ends: &self.payload_ends,
            payloads: &self.payloads,
            property_ends: if self.property_keys.is_empty() {
                &[]
            } else {
                &self.property_ends
            },
            property_keys: &self.property_keys,
            property_values: &self.property_values,
            fields,
        }
    }
}

fn delivery(qos: Qos, retain: bool) -> u8 {
    qos.as_u8() | if retain { RETAIN } else { 0 }
}

/// A batch has a bounded number of events of bounded size, far below 4 GiB.
fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a batch is smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::{super::event::tests::event, *};

    fn subscription(fields: &[(&str, FieldKind)]) -> (Subscription, Projection) {
        let fields = fields.iter().map(|(pointer, kind)| Field {
            pointer: (*pointer).to_owned(),
            kind: *kind,
        });
        let subscription = Subscription {
            fields: fields.collect(),
            needs_payload: false,
        };
        let pointers = subscription.fields.iter().map(|field| &*field.pointer);
        let projection = Projection::new(pointers);
        (subscription, projection)
    }

    #[test]
    fn fields_are_right_for_present_absent_wrong_kind_and_not_json() {
        let events = [
            event("a", r#"{"v":1.5}"#),
            event("a", r#"{"v":"on"}"#),
            event("b", r#"{"v":true}"#),
            event("b", r#"{"w":1}"#),
            event("b", r#"{"v":null}"#),
            event("b", "v = 1"),
            event("c", r#"{"v":"dt/x"}"#),
        ];
        let batch: Vec<&PluginEvent> = events.iter().collect();
        let (subscription, projection) = subscription(&[
            ("/v", FieldKind::Number),
            ("/v", FieldKind::Text),
            ("/v", FieldKind::Boolean),
        ]);
        let columns = Columns::collect(&batch, &subscription, &projection);
        assert_eq!(columns.strings, ["dt/x", "a", "b", "c", "on"]);
        assert_eq!(columns.things, [1, 1, 2, 2, 2, 2, 3]);
        let [
            FieldColumn::Numbers(numbers),
            FieldColumn::Texts(texts),
            FieldColumn::Booleans(booleans),
        ] = &*columns.fields
        else {
            panic!("{:?}", columns.fields);
        };
        let seen: Vec<Option<f64>> = numbers
            .iter()
            .map(|n| Some(*n).filter(|n| !n.is_nan()))
            .collect();
        assert_eq!(seen, [Some(1.5), None, None, None, None, None, None]);
        let none = NO_TEXT;
        assert_eq!(texts, &[none, 4, none, none, none, none, 0]);
        assert_eq!(booleans, &[255, 255, 1, 255, 255, 255, 255]);
        let fields = columns.fields();
        let batch = columns.batch(Timestamp::from_millis(9), &fields);
        assert!(batch.payloads.is_empty() && batch.payload_ends.is_empty());
        assert_eq!(batch.delivery, [0b101; 7]);
        assert!(batch.property_ends.is_empty());
    }
}
