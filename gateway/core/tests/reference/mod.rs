//! A second reading of the policy language (specification A.1 to A.5), against which the compiled
//! engine is held: short, slow, straight from the JSON, and with not a line of the engine in it.
//!
//! Every question has one of three answers. "Unknown" is what hangs on a variable without a value or
//! on a value that cannot be compared; it counts against the client at the very end.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "several tests and the fuzz targets share it, and not all use all of it"
)]

mod compare;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What is known of the client, by the names of the policy language.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Values by name; for keys with several values, all of them.
    pub values: BTreeMap<String, Vec<String>>,
    /// Keys that have more values than are known.
    pub more: BTreeSet<String>,
    /// Partition, region and account, when they must match.
    pub strict: Option<[String; 3]>,
    /// Whether an unknown Deny denies.
    pub deny_on_unresolved: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `iot:Publish` and so on.
    pub action: &'a str,
    /// `topic` and so on.
    pub resource_type: &'a str,
    /// The topic, filter or client id.
    pub name: &'a str,
}

/// A statement that applies: policy, statement, and whether it denies.
pub type Applies = (usize, usize, bool);

/// Yes, no, or `None`: unknown.
type Answer = Option<bool>;

/// All statements of `policies` that apply.
pub fn applying(policies: &[Value], known: &Known, asked: Asked<'_>) -> Vec<Applies> {
    let mut found = Vec::new();
    for (p, policy) in policies.iter().enumerate() {
        for (s, statement) in list(&policy["Statement"]).into_iter().enumerate() {
            let denies = statement["Effect"] == "Deny";
            let reader = Reader {
                known,
                asked,
                ignores_unknown: denies && !known.deny_on_unresolved,
            };
            if reader.applies(statement).unwrap_or(denies) {
                found.push((p, s, denies));
            }
        }
    }
    found
}

/// `None` if nothing allows it, else whether it is allowed.
pub fn decide(applying: &[Applies]) -> Option<bool> {
    match applying {
        [] => None,
        some => Some(!some.iter().any(|(_, _, denies)| *denies)),
    }
}

/// The elements of a list, or the one value that stands for it.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

fn and(answers: impl IntoIterator<Item = Answer>) -> Answer {
    let answers: Vec<Answer> = answers.into_iter().collect();
    if answers.contains(&Some(false)) {
        return Some(false);
    }
    (!answers.contains(&None)).then_some(true)
}

fn or(answers: impl IntoIterator<Item = Answer>) -> Answer {
    not(and(answers.into_iter().map(not)))
}

fn not(answer: Answer) -> Answer {
    answer.map(|yes| !yes)
}

struct Reader<'a> {
    known: &'a Known,
    asked: Asked<'a>,
    /// Whether a variable without a value is a text that equals nothing.
    ignores_unknown: bool,
}

impl Reader<'_> {
    fn applies(&self, statement: &Value) -> Answer {
        let actions = |name: &str| {
            let names = list(&statement[name]);
            let patterns = names.iter().filter_map(|name| name.as_str());
            let asked = plain(&self.asked.action.to_lowercase());
            patterns
                .map(|p| p.to_lowercase())
                .any(|p| matches(&wild(&p), &asked))
        };
        let about = if statement.get("NotAction").is_some() {
            !actions("NotAction")
        } else {
            actions("Action")
        };
        let names = match self.asked.name.strip_prefix("$share/") {
            Some(rest) if self.asked.action == "iot:Subscribe" && rest.contains('/') => {
                vec![self.asked.name, rest.split_once('/').unwrap_or_default().1]
            }
            _ => vec![self.asked.name],
        };
        let resources = if let Some(excluded) = statement.get("NotResource") {
            let outside = names.iter().map(|name| not(self.is_listed(excluded, name)));
            if statement["Effect"] == "Allow" {
                and(outside)
            } else {
                or(outside)
            }
        } else {
            or(names
                .iter()
                .map(|name| self.is_listed(&statement["Resource"], name)))
        };
        and([
            Some(about),
            resources,
            self.condition(statement.get("Condition")),
        ])
    }

    fn is_listed(&self, resources: &Value, name: &str) -> Answer {
        let patterns = list(resources);
        or(patterns.iter().map(|resource| {
            let resource = resource.as_str().unwrap_or_default();
            if resource == "*" {
                return Some(true);
            }
            let parts = split_arn(resource);
            let fits = |part: usize, text: &str| matches(&wild(&parts[part]), &plain(text));
            if !fits(2, "iot") {
                return Some(false);
            }
            if let Some([partition, region, account]) = &self.known.strict
                && !(fits(1, partition) && fits(3, region) && fits(4, account))
            {
                return Some(false);
            }
            let text = format!("{}/{name}", self.asked.resource_type);
            self.takes(&parts[5], true, &text)
        }))
    }

    /// Whether a pattern with variables takes the text.
    fn takes(&self, pattern: &str, wildcards: bool, text: &str) -> Answer {
        let (symbols, complete) = self.symbols(pattern, wildcards);
        match (matches(&symbols, &plain(text)), complete) {
            (yes, true) => Some(yes),
            // With `*` for what is missing it does not match, so it does not with anything.
            (false, false) => Some(false),
            (true, false) if self.ignores_unknown => Some(false),
            (true, false) => None,
        }
    }

    /// The pattern with values for variables, and whether all of them have one.
    fn symbols(&self, pattern: &str, wildcards: bool) -> (Vec<Symbol>, bool) {
        let (mut symbols, mut complete) = (Vec::new(), true);
        let mut rest = pattern;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if c == '$'
                && let Some((name, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}'))
            {
                rest = after;
                match (name, self.value(name)) {
                    ("*" | "?" | "$", _) => symbols.extend(plain(name)),
                    (_, Some(value)) => symbols.extend(plain(value)),
                    (_, None) => {
                        symbols.push(Symbol::Any);
                        complete = false;
                    }
                }
                continue;
            }
            symbols.push(match c {
                '*' if wildcards => Symbol::Any,
                '?' if wildcards => Symbol::One,
                c => Symbol::Char(c),
            });
        }
        (symbols, complete)
    }

    /// The value of a variable, if it has one that may stand in a pattern.
    fn value(&self, name: &str) -> Option<&str> {
        let value = self.values(name)?.first()?;
        let is_plain = !value.chars().any(|c| "*$+?#".contains(c));
        (is_plain && !value.is_empty() && value.chars().count() <= 1024).then_some(value)
    }

    /// The case of names does not matter.
    fn values(&self, name: &str) -> Option<&Vec<String>> {
        let mut known = self.known.values.iter();
        known
            .find(|(known, _)| folded(known) == folded(name))
            .map(|(_, values)| values)
    }

    fn condition(&self, condition: Option<&Value>) -> Answer {
        let Some(Value::Object(operators)) = condition else {
            return Some(true);
        };
        and(operators.iter().flat_map(|(operator, keys)| {
            let keys = keys.as_object().into_iter().flatten();
            keys.map(|(key, operands)| self.test(operator, key, &list(operands)))
        }))
    }

    fn test(&self, operator: &str, key: &str, operands: &[&Value]) -> Answer {
        let none = Vec::new();
        let values = self.values(key).unwrap_or(&none);
        let (quantifier, operator) = operator.split_once(':').unwrap_or(("", operator));
        let (operator, if_exists) = match operator.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (operator, false),
        };
        if operator == "Null" {
            let is = |operand: &&Value| text_of(operand) == values.is_empty().to_string();
            return Some(operands.iter().any(is));
        }
        let negated = operator.contains("Not");
        if values.is_empty() {
            return Some(match (if_exists, quantifier) {
                (true, _) | (_, "ForAllValues") => true,
                (_, "ForAnyValue") => false,
                _ => negated,
            });
        }
        let operator = operator.replace("Not", "");
        let known = values.iter().map(Some);
        let each = known.chain(
            self.known
                .more
                .iter()
                .any(|k| folded(k) == folded(key))
                .then_some(None),
        );
        let each = each.map(|value| {
            let one = or(operands.iter().map(|operand| {
                let operand = text_of(operand);
                let answer =
                    value.and_then(|value| self.in_any_form(&operator, key, value, &operand));
                answer.or(self.ignores_unknown.then_some(false))
            }));
            if negated { not(one) } else { one }
        });
        match quantifier {
            "ForAnyValue" => or(each),
            _ => and(each),
        }
    }

    /// Texts in names of certificates are compared as they are and escaped; directory names are
    /// escaped as they are.
    fn in_any_form(&self, operator: &str, key: &str, value: &str, operand: &str) -> Answer {
        let compare = |value: &str| self.compare(operator, key, value, operand);
        let names = ["iot:Certificate.Subject.", "iot:Certificate.Issuer."];
        let key_is = |start: &&str| folded(key).starts_with(&folded(start));
        let is_directory = folded(key).contains("directoryname");
        if !names.iter().any(key_is) || !operator.starts_with("String") || is_directory {
            return compare(value);
        }
        or([compare(value), compare(&escaped(value))])
    }

    /// Whether `value` and `operand` are as `operator` (without `Not`) wants them; unknown if they
    /// cannot be compared.
    fn compare(&self, operator: &str, key: &str, value: &str, operand: &str) -> Answer {
        match operator {
            "StringEquals" => self.takes(operand, false, value),
            "StringLike" => self.takes(operand, true, value),
            "StringEqualsIgnoreCase" => {
                let (symbols, complete) = self.symbols(operand, false);
                let lower = symbols.into_iter().map(Symbol::lower).collect::<Vec<_>>();
                let value: Vec<_> = plain(value).into_iter().map(Symbol::lower).collect();
                match (matches(&lower, &value), complete) {
                    (false, _) => Some(false),
                    (true, true) => Some(true),
                    (true, false) => (self.ignores_unknown).then_some(false),
                }
            }
            "ArnEquals" | "ArnLike" => {
                let parts: Vec<&str> = value.splitn(6, ':').collect();
                if parts.len() < 6 {
                    return None;
                }
                let any_owner =
                    folded(key) == folded("iot:LastWillTopic") && self.known.strict.is_none();
                let patterns = split_arn(operand);
                and((0..6).map(|part| match part {
                    1 | 3 | 4 if any_owner => Some(true),
                    part => self.takes(&patterns[part], true, parts[part]),
                }))
            }
            "Bool" => match &*value.to_lowercase() {
                value @ ("true" | "false") => Some(value == operand.to_lowercase()),
                _ => None,
            },
            "IpAddress" => compare::address(value, operand),
            // The time itself needs no guess at what its digits are.
            _ if operator.starts_with("Date") && folded(key) == folded("aws:EpochTime") => {
                let now = self.known.values.get("aws:CurrentTime")?.first()?;
                compare::ordered(operator, now, operand)
            }
            _ => compare::ordered(operator, value, operand),
        }
    }
}

/// A name in lower case; in brackets it is as it is.
fn folded(name: &str) -> String {
    let (start, rest) = name.split_at(name.find('[').unwrap_or(name.len()));
    format!("{}{rest}", start.to_lowercase())
}

/// RFC 4514, 2.4.
fn escaped(value: &str) -> String {
    let count = value.chars().count();
    let written = value.chars().enumerate().map(|(at, c)| match c {
        '\0' => "\\00".to_owned(),
        ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => format!("\\{c}"),
        ' ' if at == 0 || at + 1 == count => "\\ ".to_owned(),
        '#' if at == 0 => "\\#".to_owned(),
        c => c.to_string(),
    });
    written.collect()
}

/// A JSON scalar as text.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The six parts of an ARN; colons in variables do not count.
fn split_arn(text: &str) -> [String; 6] {
    let mut parts: [String; 6] = Default::default();
    let (mut part, mut in_variable, mut last) = (0, false, ' ');
    for c in text.chars() {
        if last == '$' && c == '{' {
            in_variable = true;
        }
        if c == '}' {
            in_variable = false;
        }
        if c == ':' && !in_variable && part < 5 {
            part += 1;
        } else {
            parts[part].push(c);
        }
        last = c;
    }
    parts
}

/// A character of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// Itself.
    Char(char),
    /// `*`
    Any,
    /// `?`
    One,
}

impl Symbol {
    fn lower(self) -> Self {
        match self {
            // One to one: what becomes several characters is left alone.
            Self::Char(c) if c.to_lowercase().count() == 1 => {
                Self::Char(c.to_lowercase().next().unwrap_or(c))
            }
            other => other,
        }
    }
}

/// Every character for itself.
pub fn plain(text: &str) -> Vec<Symbol> {
    text.chars().map(Symbol::Char).collect()
}

/// `*` and `?` as wildcards.
pub fn wild(text: &str) -> Vec<Symbol> {
    let symbols = text.chars().map(|c| match c {
        '*' => Symbol::Any,
        '?' => Symbol::One,
        c => Symbol::Char(c),
    });
    symbols.collect()
}

/// The definition of wildcards, exponential and obviously right.
pub fn matches(pattern: &[Symbol], text: &[Symbol]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([Symbol::Any, rest @ ..], _) => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        ([Symbol::One, pattern @ ..], [_, text @ ..]) => matches(pattern, text),
        ([p, pattern @ ..], [t, text @ ..]) => p == t && matches(pattern, text),
        _ => false,
    }
}
