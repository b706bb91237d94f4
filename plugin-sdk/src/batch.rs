//! A batch as an iterator of events.

use serde::de::DeserializeOwned;

use crate::{
    bindings::portcullis::plugin::types::{Column, EventBatch},
    rule::{BooleanField, NumberField, TextField},
};

/// The events of one call, in order of reception.
#[derive(Clone, Debug)]
pub struct Batch(EventBatch);

/// One event of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    batch: &'a EventBatch,
    index: usize,
}

/// Iterator over the events of a batch.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    batch: &'a EventBatch,
    range: std::ops::Range<usize>,
}

impl Batch {
    pub(crate) fn new(batch: EventBatch) -> Self {
        Self(batch)
    }

    /// When the gateway formed the batch, in milliseconds since 1970. Use it instead of a clock.
    pub fn now(&self) -> u64 {
        self.0.now
    }

    /// How many events there are; never 0 in the gateway.
    pub fn len(&self) -> usize {
        self.0.topics.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events.
    pub fn iter(&self) -> Events<'_> {
        Events {
            batch: &self.0,
            range: 0..self.len(),
        }
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Event<'a>;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.iter()
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let index = self.range.next()?;
        Some(Event {
            batch: self.batch,
            index,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl ExactSizeIterator for Events<'_> {}

impl<'a> Event<'a> {
    /// The place in the batch, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The topic.
    pub fn topic(&self) -> &'a str {
        self.string(self.batch.topics[self.index])
    }

    /// The name of the publishing thing; of an unregistered device, its client id.
    pub fn thing(&self) -> &'a str {
        self.string(self.batch.things[self.index])
    }

    /// When the gateway received it, in milliseconds since 1970.
    pub fn timestamp(&self) -> u64 {
        self.batch.timestamps[self.index]
    }

    /// Quality of service: 0, 1 or 2.
    pub fn qos(&self) -> u8 {
        self.batch.delivery[self.index] & 0b11
    }

    /// Whether it was published as a retained message.
    pub fn retain(&self) -> bool {
        self.batch.delivery[self.index] & 0b100 != 0
    }

    /// The payload; empty unless [`Subscription::payload`](crate::Subscription::payload) asked for it.
    pub fn payload(&self) -> &'a [u8] {
        let range = range(&self.batch.payload_ends, self.index);
        &self.batch.payloads[range]
    }

    /// The payload, parsed as JSON. For single values, ask the gateway for fields instead.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(self.payload())
    }

    /// The number at the field's pointer; `None` if it is not there or no number.
    pub fn number(&self, field: NumberField) -> Option<f64> {
        match self.batch.fields.get(field.0) {
            Some(Column::Numbers(numbers)) => Some(numbers[self.index]).filter(|n| !n.is_nan()),
            _ => None,
        }
    }

    /// The text at the field's pointer; `None` if it is not there or no text.
    pub fn text(&self, field: TextField) -> Option<&'a str> {
        match self.batch.fields.get(field.0) {
            Some(Column::Texts(texts)) if texts[self.index] != u32::MAX => {
                Some(self.string(texts[self.index]))
            }
            _ => None,
        }
    }

    /// The truth value at the field's pointer; `None` if it is not there or none.
    pub fn boolean(&self, field: BooleanField) -> Option<bool> {
        match self.batch.fields.get(field.0) {
            Some(Column::Booleans(booleans)) => match booleans[self.index] {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
            _ => None,
        }
    }

    /// The MQTT 5 user properties, in order.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let event = *self;
        range(&self.batch.property_ends, self.index).map(move |at| {
            let key = event.string(event.batch.property_keys[at]);
            let value = event.string(event.batch.property_values[at]);
            (key, value)
        })
    }

    fn string(&self, index: u32) -> &'a str {
        &self.batch.strings[index as usize]
    }
}

/// The part of entry `index` in a column of ends; empty if the column is.
fn range(ends: &[u32], index: usize) -> std::ops::Range<usize> {
    let end = |index: usize| ends.get(index).map_or(0, |end| *end as usize);
    let start = index.checked_sub(1).map_or(0, end);
    start..end(index)
}
