//! A batch of events as the columns that a guest gets.
//!
//! What a rule declared as JSON pointers is extracted here, natively: parsing in the guest takes
//! about twice as long, and would be done again by every rule of the chain.

use std::collections::HashMap;

use portcullis_core::{event::Qos, timestamp::Timestamp};
use serde_json::Value;

use super::{
    bindings::{
        exports::portcullis::plugin::lifecycle::{Field, FieldKind, Subscription},
        portcullis::plugin::types::{Column, EventBatch},
    },
    event::PluginEvent,
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
    pub(super) fn collect(batch: &[&'a PluginEvent], subscription: &Subscription) -> Self {
        let mut columns = Self::default();
        for event in batch {
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
        let values = batch
            .iter()
            .map(|event| event.json().and_then(|json| json.pointer(&field.pointer)));
        match field.kind {
            FieldKind::Number => FieldColumn::Numbers(
                values
                    .map(|value| value.and_then(Value::as_f64).unwrap_or(f64::NAN))
                    .collect(),
            ),
            FieldKind::Text => FieldColumn::Texts(
                values
                    .map(|value| {
                        value
                            .and_then(Value::as_str)
                            .map_or(NO_TEXT, |text| self.intern(text))
                    })
                    .collect(),
            ),
            FieldKind::Boolean => FieldColumn::Booleans(
                values
                    .map(|value| value.and_then(Value::as_bool).map_or(NO_BOOLEAN, u8::from))
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
