//! What an author writes.

use std::fmt::Display;

use serde::de::DeserializeOwned;

use crate::{
    batch::Batch,
    bindings::{
        exports::portcullis::plugin::lifecycle,
        portcullis::plugin::types::{Error, EventBatch},
    },
    outcome::Outcome,
};

/// A rule: looks at batches of events, and says what is to be done.
///
/// The gateway makes one instance per thing group and shard; all events of one device come to the
/// same instance, in order. An instance may be replaced by a fresh one after a failure: what it
/// remembers is a convenience, not a record.
pub trait Rule: Sized {
    /// The rule's settings, as they stand in the gateway's configuration. Refuse unknown keys with
    /// `#[serde(deny_unknown_fields)]`: the operator is told before the gateway serves.
    type Settings: DeserializeOwned;

    /// Makes the rule, and says what it wants to see of events. The error is shown to the operator.
    fn configure(
        context: &Context,
        settings: Self::Settings,
    ) -> Result<(Self, Subscription), String>;

    /// Handles a batch. A panic fails the whole batch and costs the instance.
    fn handle(&mut self, batch: &Batch, out: &mut Outcome);
}

/// Who and where an instance is.
pub type Context = lifecycle::Context;

/// What a rule wants to see of events besides topic, thing and time.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    fields: Vec<lifecycle::Field>,
    needs_payload: bool,
}

/// A number that the gateway extracts from JSON payloads: see [`Subscription::number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NumberField(pub(crate) usize);

/// A text that the gateway extracts from JSON payloads: see [`Subscription::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextField(pub(crate) usize);

/// A truth value that the gateway extracts from JSON payloads: see [`Subscription::boolean`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BooleanField(pub(crate) usize);

impl Subscription {
    /// Topic, thing, time and user properties only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the number at a JSON pointer such as `/t` or `/axes/0/g`. The gateway parses each
    /// payload once for all rules, natively: much cheaper than [`Event::json`](crate::Event::json).
    pub fn number(&mut self, pointer: impl Into<String>) -> NumberField {
        NumberField(self.field(pointer.into(), lifecycle::FieldKind::Number))
    }

    /// Asks for the text at a JSON pointer.
    pub fn text(&mut self, pointer: impl Into<String>) -> TextField {
        TextField(self.field(pointer.into(), lifecycle::FieldKind::Text))
    }

    /// Asks for the truth value at a JSON pointer.
    pub fn boolean(&mut self, pointer: impl Into<String>) -> BooleanField {
        BooleanField(self.field(pointer.into(), lifecycle::FieldKind::Boolean))
    }

    /// Asks for the payloads themselves.
    pub fn payload(&mut self) {
        self.needs_payload = true;
    }

    fn field(&mut self, pointer: String, kind: lifecycle::FieldKind) -> usize {
        self.fields.push(lifecycle::Field { pointer, kind });
        self.fields.len() - 1
    }
}

impl From<Subscription> for lifecycle::Subscription {
    fn from(subscription: Subscription) -> Self {
        Self {
            fields: subscription.fields,
            needs_payload: subscription.needs_payload,
        }
    }
}

#[doc(hidden)]
pub fn configure<R: Rule>(
    context: Context,
    settings: &str,
) -> Result<(R, lifecycle::Subscription), Error> {
    let refused = |reason: &dyn Display| Error::BadSettings(reason.to_string());
    let settings = serde_json::from_str(settings).map_err(|error| refused(&error))?;
    let (rule, subscription) =
        R::configure(&context, settings).map_err(|reason| refused(&reason))?;
    Ok((rule, subscription.into()))
}

#[doc(hidden)]
pub fn handle<R: Rule>(rule: Option<&mut R>, batch: EventBatch) -> Result<Outcome, Error> {
    let Some(rule) = rule else {
        return Err(Error::Failed("handle was called before configure".into()));
    };
    let mut out = Outcome::default();
    rule.handle(&Batch::new(batch), &mut out);
    Ok(out)
}
