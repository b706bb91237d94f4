//! Values of a template: a text, a reference to a parameter, several joined.

use std::collections::BTreeMap;

use crate::limits::TEMPLATE_VALUE_BYTES_MAX;

/// What a value is before it is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Itself.
    Text(String),
    /// `{"Ref": "…"}`: a parameter that the template declares.
    Ref(String),
    /// `{"Fn::Join": ["…", […]]}`
    Join {
        separator: String,
        parts: Vec<Expression>,
    },
}

/// A value grew beyond [`TEMPLATE_VALUE_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Expression {
    /// Its text, with parameters from `values`, which has all that the template declares.
    pub(super) fn fill(&self, values: &BTreeMap<String, String>) -> Result<String, TooLong> {
        let mut text = String::new();
        self.fill_into(values, &mut text)?;
        Ok(text)
    }

    fn fill_into(
        &self,
        values: &BTreeMap<String, String>,
        text: &mut String,
    ) -> Result<(), TooLong> {
        let mut push = |part: &str| {
            if text.len() + part.len() > TEMPLATE_VALUE_BYTES_MAX {
                return Err(TooLong);
            }
            text.push_str(part);
            Ok(())
        };
        match self {
            Self::Text(literal) => push(literal),
            Self::Ref(name) => push(values.get(name).map_or("", String::as_str)),
            Self::Join { separator, parts } => {
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        Self::Text(separator.clone()).fill_into(values, text)?;
                    }
                    part.fill_into(values, text)?;
                }
                Ok(())
            }
        }
    }

    /// The parameters that it refers to.
    pub(super) fn references(&self) -> Vec<&str> {
        match self {
            Self::Text(_) => Vec::new(),
            Self::Ref(name) => vec![name],
            Self::Join { parts, .. } => parts.iter().flat_map(Self::references).collect(),
        }
    }
}
