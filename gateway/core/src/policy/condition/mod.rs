//! Conditions (specification A.4): what else must hold for a statement to apply.
//!
//! All tests of a condition must hold; a test holds by one of its values, or with a negated operator
//! by none. A key without a value fails a test, unless the operator is negated, ends in `IfExists` or
//! begins with `ForAllValues:`. An empty value is a value (in a variable it is none).
//!
//! A value from a name in a certificate is taken by a String operator as it is or with the special
//! characters of distinguished names behind a backslash, as AWS has it in policies.
//!
//! Fail-closed, beyond AWS: where the outcome hangs on a variable without a value, or on a value that
//! cannot be read as the operator needs it (`NumericLessThan` with `abc`), the condition of an Allow
//! is false and that of a Deny is true; with `deny_on_unresolved` off, such a value equals nothing in
//! a Deny. So it is with the values of a `….List` beyond those that are kept.

mod decimal;
mod operand;
mod parse;

use std::net::IpAddr;

use self::{
    decimal::{Decimal, Number},
    operand::{ArnPattern, Network, Order, parse_moment},
};
use super::{
    Effect,
    context::Values,
    glob::{Case, Text, Token, Unresolved, matches},
    rules::Rules,
    variable::{Key, KeyKind, Variable},
};
use crate::timestamp::Timestamp;

/// The `Condition` of a statement, compiled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    /// In one line.
    text: Box<str>,
    /// Those that may turn out otherwise in the connection's next request come last: where another
    /// one fails, the outcome does not depend on them.
    tests: Vec<Test>,
}

/// One operator on one key.
#[derive(Clone, Debug, PartialEq)]
struct Test {
    quantifier: Quantifier,
    negated: bool,
    if_exists: bool,
    key: Key,
    comparison: Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    One,
    ForAllValues,
    ForAnyValue,
}

/// What the values of the key are held against.
#[derive(Clone, Debug, PartialEq)]
enum Comparison {
    Text(Case, Vec<Vec<Token>>),
    Number(Order, Vec<Number>),
    Moment(Order, Vec<Timestamp>),
    Bool(Vec<bool>),
    Address(Vec<Network>),
    /// The case matters, but to String operators that ignore it.
    Arn(Case, Vec<ArnPattern>),
    Null(Vec<bool>),
}

impl Condition {
    /// In one line.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds, for a statement with this effect.
    pub(super) fn holds(&self, values: &Values<'_>, effect: Effect, rules: &Rules) -> bool {
        let holds = |test: &Test| test.holds(values, effect.unresolved(test.negated, rules), rules);
        self.tests.iter().all(holds)
    }
}

impl Test {
    fn holds(&self, values: &Values<'_>, unresolved: Unresolved, rules: &Rules) -> bool {
        let (mut present, mut all, mut any) = (false, true, false);
        let mut each = |matched: bool| {
            present = true;
            all &= matched != self.negated;
            any |= matched != self.negated;
        };
        let is_lenient = unresolved == Unresolved::Anything;
        match (&self.comparison, self.key.kind()) {
            (Comparison::Null(expected), kind) => {
                let absent = match kind {
                    KeyKind::Arn => values.will_topic().is_none(),
                    _ => {
                        let mut absent = true;
                        values.each_text(&self.key, |_, _| absent = false);
                        absent
                    }
                };
                return expected.contains(&absent);
            }
            (Comparison::Address(networks), KeyKind::Address) => {
                let contained = |source| networks.iter().any(|network| network.contains(source));
                values.source().map(contained).into_iter().for_each(each);
            }
            (Comparison::Moment(order, moments), KeyKind::Date | KeyKind::Epoch) => {
                let now = values.now();
                each(moments.iter().any(|moment| order.holds(now.cmp(moment))));
            }
            (Comparison::Arn(case, patterns), KeyKind::Arn) => {
                let topic = values.will_topic();
                let value_of = |variable: &Variable| values.substitute(variable);
                let matched = topic.map(|topic| {
                    let takes = |pattern: &ArnPattern| {
                        pattern.takes_topic(topic, rules, *case, &value_of, unresolved)
                    };
                    patterns.iter().any(takes)
                });
                matched.into_iter().for_each(each);
            }
            (comparison, _) => {
                values.each_text(&self.key, |text, escaped| {
                    let matched = comparison.takes(text, escaped, values, unresolved);
                    each(matched.unwrap_or(is_lenient));
                });
                if values.has_more(&self.key) {
                    each(is_lenient && !comparison.is_empty());
                }
            }
        }
        if !present {
            values.note_missing(&self.key);
            return self.holds_without_value();
        }
        match self.quantifier {
            Quantifier::One | Quantifier::ForAllValues => all,
            Quantifier::ForAnyValue => any,
        }
    }

    fn holds_without_value(&self) -> bool {
        self.if_exists
            || match self.quantifier {
                Quantifier::One => self.negated,
                Quantifier::ForAllValues => true,
                Quantifier::ForAnyValue => false,
            }
    }
}

impl Comparison {
    /// Whether one of the operands takes `text` (or, as a text, its escaped form); `None` if `text`
    /// is not what can be compared.
    fn takes(
        &self,
        text: &str,
        escaped: Option<&str>,
        values: &Values<'_>,
        unresolved: Unresolved,
    ) -> Option<bool> {
        if self.is_empty() {
            return Some(false);
        }
        let value_of = |variable: &Variable| values.substitute(variable);
        Some(match self {
            Self::Text(case, patterns) => {
                let takes = |text| {
                    let text = Text::of(text);
                    let mut patterns = patterns.iter();
                    patterns.any(|pattern| matches(pattern, text, &value_of, unresolved, *case))
                };
                takes(text) || escaped.is_some_and(takes)
            }
            Self::Number(order, numbers) => {
                let number = Decimal::parse(text)?;
                let holds = |operand: &Number| order.holds(number.compare(operand.as_decimal()));
                numbers.iter().any(holds)
            }
            Self::Moment(order, moments) => {
                let moment = parse_moment(text)?;
                moments
                    .iter()
                    .any(|operand| order.holds(moment.cmp(operand)))
            }
            Self::Bool(expected) => expected.contains(&parse_bool(text)?),
            Self::Address(networks) => {
                let address: IpAddr = text.parse().ok()?;
                networks
                    .iter()
                    .any(|network| network.contains(address.to_canonical()))
            }
            Self::Arn(_, patterns) => {
                let mut parts = text.splitn(6, ':');
                let mut next = || parts.next();
                let parts = [next()?, next()?, next()?, next()?, next()?, next()?];
                let takes = |pattern: &ArnPattern| pattern.takes(parts, &value_of, unresolved);
                patterns.iter().any(takes)
            }
            Self::Null(_) => return None,
        })
    }

    /// Whether there is no operand: `ForAllValues:StringEquals` with `[]`.
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_, patterns) => patterns.is_empty(),
            Self::Number(_, numbers) => numbers.is_empty(),
            Self::Moment(_, moments) => moments.is_empty(),
            Self::Bool(expected) | Self::Null(expected) => expected.is_empty(),
            Self::Address(networks) => networks.is_empty(),
            Self::Arn(_, patterns) => patterns.is_empty(),
        }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
