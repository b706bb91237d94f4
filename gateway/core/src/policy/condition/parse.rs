//! Reads a `Condition`. What cannot mean anything is a mistake, as everywhere in a document.

use super::{
    Comparison, Condition, Quantifier, Test,
    decimal::{Decimal, Number},
    operand::{ArnPattern, Network, Order, parse_moment},
    parse_bool,
};
use crate::{
    json::{Kind, Value},
    policy::{
        Fault,
        document::Reader,
        glob::{Case, Wildcards, tokenize},
        variable::{Key, KeyKind},
    },
    problem::nearest,
};

/// What an operator compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Text(Case, Wildcards),
    Number(Order),
    Moment(Order),
    Bool,
    Address,
    Arn,
    Null,
}

/// An operator without prefix and suffix.
#[derive(Clone, Copy, Debug)]
struct Operator {
    name: &'static str,
    family: Family,
    negated: bool,
}

const fn operator(name: &'static str, family: Family, negated: bool) -> Operator {
    Operator {
        name,
        family,
        negated,
    }
}

const EXACT: Family = Family::Text(Case::Sensitive, Wildcards::Literal);
const CASELESS: Family = Family::Text(Case::Ignored, Wildcards::Literal);
const LIKE: Family = Family::Text(Case::Sensitive, Wildcards::Honoured);

const OPERATORS: [Operator; 26] = [
    operator("StringEquals", EXACT, false),
    operator("StringNotEquals", EXACT, true),
    operator("StringEqualsIgnoreCase", CASELESS, false),
    operator("StringNotEqualsIgnoreCase", CASELESS, true),
    operator("StringLike", LIKE, false),
    operator("StringNotLike", LIKE, true),
    operator("NumericEquals", Family::Number(Order::Equal), false),
    operator("NumericNotEquals", Family::Number(Order::Equal), true),
    operator("NumericLessThan", Family::Number(Order::Less), false),
    operator(
        "NumericLessThanEquals",
        Family::Number(Order::LessOrEqual),
        false,
    ),
    operator("NumericGreaterThan", Family::Number(Order::Greater), false),
    operator(
        "NumericGreaterThanEquals",
        Family::Number(Order::GreaterOrEqual),
        false,
    ),
    operator("DateEquals", Family::Moment(Order::Equal), false),
    operator("DateNotEquals", Family::Moment(Order::Equal), true),
    operator("DateLessThan", Family::Moment(Order::Less), false),
    operator(
        "DateLessThanEquals",
        Family::Moment(Order::LessOrEqual),
        false,
    ),
    operator("DateGreaterThan", Family::Moment(Order::Greater), false),
    operator(
        "DateGreaterThanEquals",
        Family::Moment(Order::GreaterOrEqual),
        false,
    ),
    operator("Bool", Family::Bool, false),
    operator("IpAddress", Family::Address, false),
    operator("NotIpAddress", Family::Address, true),
    operator("ArnEquals", Family::Arn, false),
    operator("ArnLike", Family::Arn, false),
    operator("ArnNotEquals", Family::Arn, true),
    operator("ArnNotLike", Family::Arn, true),
    operator("Null", Family::Null, false),
];
const QUANTIFIERS: [(&str, Quantifier); 2] = [
    ("ForAllValues", Quantifier::ForAllValues),
    ("ForAnyValue", Quantifier::ForAnyValue),
];
const IF_EXISTS: &str = "IfExists";

/// An operator as it is written.
#[derive(Clone, Copy, Debug)]
struct Written<'n> {
    name: &'n str,
    operator: Operator,
    quantifier: Quantifier,
    if_exists: bool,
}

impl<'n> Written<'n> {
    /// The error is message and remedy.
    fn parse(name: &'n str) -> Result<Self, Fault> {
        let unknown = |remedy| Err((format!("unknown condition operator `{name}`"), remedy));
        let (quantifier, rest) = match name.split_once(':') {
            None => (Quantifier::One, name),
            Some((prefix, rest)) => match QUANTIFIERS.iter().find(|(known, _)| *known == prefix) {
                Some((_, quantifier)) => (*quantifier, rest),
                None => return unknown("begin it with `ForAllValues:` or `ForAnyValue:`".into()),
            },
        };
        let (base, if_exists) = match rest.strip_suffix(IF_EXISTS) {
            Some(base) => (base, true),
            None => (rest, false),
        };
        let Some(operator) = OPERATORS.into_iter().find(|known| known.name == base) else {
            let names = OPERATORS.iter().map(|operator| operator.name);
            return unknown(match nearest(base, names.clone()) {
                Some(near) => {
                    let prefix = name.strip_suffix(rest).unwrap_or_default();
                    let suffix = if if_exists { IF_EXISTS } else { "" };
                    format!("write `{prefix}{near}{suffix}`")
                }
                None => format!("use one of {}", names.collect::<Vec<_>>().join(", ")),
            });
        };
        if operator.family == Family::Null && (if_exists || quantifier != Quantifier::One) {
            return Err((
                format!("`{name}` would ask twice whether the key exists"),
                "write `Null`".to_owned(),
            ));
        }
        Ok(Self {
            name,
            operator,
            quantifier,
            if_exists,
        })
    }

    /// What is wrong with comparing `key` so: message and remedy.
    fn cannot_compare(self, key: &Key) -> Option<Fault> {
        use KeyKind::{Address, Arn, Bool, Date, Epoch, Text, Texts};
        let name = self.name;
        let fits = match (self.operator.family, key.kind()) {
            (Family::Null, _) => return None,
            (_, Texts) if self.quantifier == Quantifier::One => {
                return Some((
                    format!("`{key}` may have several values, and `{name}` compares one"),
                    format!("write `ForAllValues:{name}` or `ForAnyValue:{name}`"),
                ));
            }
            (Family::Text(..), _) => return None,
            (Family::Number(_), kind) => matches!(kind, Text | Texts | Epoch),
            (Family::Moment(_), kind) => matches!(kind, Text | Texts | Date | Epoch),
            (Family::Bool, kind) => matches!(kind, Text | Texts | Bool),
            (Family::Address, kind) => matches!(kind, Text | Texts | Address),
            (Family::Arn, kind) => matches!(kind, Text | Texts | Arn),
        };
        (!fits).then(|| {
            let instead = match key.kind() {
                Address => "`IpAddress`",
                Bool => "`Bool`",
                Date | Epoch => "a Date operator",
                Arn => "`ArnEquals` or `ArnLike`",
                Text | Texts => "another",
            };
            (
                format!("`{name}` cannot compare `{key}`"),
                format!("use {instead}"),
            )
        })
    }
}

impl<'a> Reader<'a> {
    /// The `Condition` of a statement; `None` if there is a mistake in it, `Some(None)` if it asks for
    /// nothing.
    pub(in crate::policy) fn condition(&mut self, value: Value<'a>) -> Option<Option<Condition>> {
        let operators = self.members(value, "`Condition`")?;
        let mut tests = Some(Vec::new());
        for (name, at, keys) in operators {
            match Written::parse(&name) {
                Ok(written) => match (self.tests(written, keys), &mut tests) {
                    (Some(more), Some(tests)) => tests.extend(more),
                    _ => tests = None,
                },
                Err((message, remedy)) => {
                    self.mistake(at, message, remedy);
                    tests = None;
                }
            }
        }
        let mut tests: Vec<Test> = tests?;
        tests.sort_by_key(|test| test.key.is_volatile());
        Some((!tests.is_empty()).then(|| Condition {
            text: in_one_line(value.text()).into(),
            tests,
        }))
    }

    fn tests(&mut self, written: Written<'_>, keys: Value<'a>) -> Option<Vec<Test>> {
        let members = self.members(keys, &format!("`{}`", written.name))?;
        let mut tests = Some(Vec::new());
        let mut known: Vec<Key> = Vec::new();
        for (name, at, operands) in members {
            let key = Key::parse(&name).and_then(|key| match written.cannot_compare(&key) {
                Some(mistake) => Err(mistake),
                // In other letters.
                None if known.contains(&key) => Err((
                    format!("`{key}` stands here a second time"),
                    "keep one of them".to_owned(),
                )),
                None => Ok(key),
            });
            known.extend(key.as_ref().ok().cloned());
            let test = match key {
                Ok(key) => self
                    .comparison(written, key.kind(), operands)
                    .map(|comparison| Test {
                        quantifier: written.quantifier,
                        negated: written.operator.negated,
                        if_exists: written.if_exists,
                        key,
                        comparison,
                    }),
                Err((message, remedy)) => {
                    self.mistake(at, message, remedy);
                    None
                }
            };
            match (test, &mut tests) {
                (Some(test), Some(tests)) => tests.push(test),
                _ => tests = None,
            }
        }
        tests
    }

    fn comparison(
        &mut self,
        written: Written<'_>,
        kind: KeyKind,
        value: Value<'a>,
    ) -> Option<Comparison> {
        let values = match value.kind() {
            Kind::Array => value.elements()?,
            _ => vec![value],
        };
        if values.is_empty() && written.quantifier == Quantifier::One {
            self.mistake(
                value,
                format!("`{}` has no value", written.name),
                "name at least one; only `ForAllValues:` and `ForAnyValue:` take an empty list",
            );
            return None;
        }
        let arn = "write `arn:aws:iot:REGION:ACCOUNT:TYPE/NAME`, six parts with colons";
        Some(match written.operator.family {
            // The account of a policy need not be the gateway's: compared part by part.
            Family::Text(case, special) if kind == KeyKind::Arn => {
                let read = |text: &str| match (text, special) {
                    ("*", Wildcards::Honoured) => ArnPattern::parse("arn:*:*:*:*:*", special),
                    _ => ArnPattern::parse(text, special),
                };
                Comparison::Arn(case, self.operands(written, values, &["text"], arn, &read)?)
            }
            Family::Text(case, special) => {
                let read = |text: &str| tokenize(text, special).map(Some);
                let kinds = ["text", "number", "boolean"];
                Comparison::Text(case, self.operands(written, values, &kinds, "", &read)?)
            }
            Family::Arn => {
                let read = |text: &str| ArnPattern::parse(text, Wildcards::Honoured);
                let patterns = self.operands(written, values, &["text"], arn, &read)?;
                Comparison::Arn(Case::Sensitive, patterns)
            }
            Family::Number(order) => {
                let read = |text: &str| Ok(Decimal::parse(text).map(Number::from));
                let kinds = ["text", "number"];
                let example = "write a number, for example `21.5`";
                Comparison::Number(
                    order,
                    self.operands(written, values, &kinds, example, &read)?,
                )
            }
            Family::Moment(order) => {
                let read = |text: &str| Ok(parse_moment(text));
                let kinds = ["text", "number"];
                let example = "write `2026-11-22T10:00:00Z`, or seconds since 1970 (9 digits or \
                               more, before the year 10000)";
                Comparison::Moment(
                    order,
                    self.operands(written, values, &kinds, example, &read)?,
                )
            }
            Family::Address => {
                let read = |text: &str| Network::parse(text);
                let example = "write an address or a block, for example `192.168.1.0/24`";
                Comparison::Address(self.operands(written, values, &["text"], example, &read)?)
            }
            family @ (Family::Bool | Family::Null) => {
                let read = |text: &str| Ok(parse_bool(text));
                let kinds = ["text", "boolean"];
                let example = "write `true` or `false`";
                let expected = self.operands(written, values, &kinds, example, &read)?;
                match family {
                    Family::Null => Comparison::Null(expected),
                    _ => Comparison::Bool(expected),
                }
            }
        })
    }

    /// Each of `values`, which are JSON of one of these `kinds`, as `read` reads it.
    fn operands<T>(
        &mut self,
        written: Written<'_>,
        values: Vec<Value<'a>>,
        kinds: &[&str],
        example: &str,
        read: &dyn Fn(&str) -> Result<Option<T>, Fault>,
    ) -> Option<Vec<T>> {
        let takes_variables = matches!(written.operator.family, Family::Text(..) | Family::Arn);
        let mut operands = Some(Vec::new());
        for value in values {
            let (kind, text) = kind_and_text(value);
            let operand = match text.filter(|_| kinds.contains(&kind)) {
                None if example.is_empty() => Err((
                    format!("`{}` compares no {kind}", written.name),
                    "write a string in double quotes".to_owned(),
                )),
                None => Err((
                    format!("`{}` compares no {kind}", written.name),
                    example.to_owned(),
                )),
                Some(text) if !takes_variables && text.contains("${") => Err((
                    format!("a variable cannot stand in `{}`", written.name),
                    format!("{example}; variables stand in String and Arn operators alone"),
                )),
                Some(text) => read(&text).and_then(|operand| {
                    let unreadable = format!("`{}` cannot compare with `{text}`", written.name);
                    operand.ok_or_else(|| (unreadable, example.to_owned()))
                }),
            };
            match (operand, &mut operands) {
                (Ok(operand), Some(operands)) => operands.push(operand),
                (Ok(_), None) => {}
                (Err((message, remedy)), _) => {
                    self.mistake(value, message, remedy);
                    operands = None;
                }
            }
        }
        operands
    }
}

/// What kind of JSON it is, and the text that an operator reads of it.
fn kind_and_text(value: Value<'_>) -> (&'static str, Option<String>) {
    let bare = || Some(value.text().to_owned());
    match value.kind() {
        Kind::String => ("text", value.as_string()),
        Kind::Object => ("object", None),
        Kind::Array => ("list of lists", None),
        Kind::Other => match value.text() {
            "true" | "false" => ("boolean", bare()),
            "null" => ("null", None),
            _ => ("number", bare()),
        },
    }
}

/// JSON without the white space between its tokens.
fn in_one_line(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        let keep = in_string || !c.is_whitespace();
        match c {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
        keep
    });
    kept.collect()
}
