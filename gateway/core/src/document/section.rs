//! One table of a document, read into its wire struct.

use std::{borrow::Cow, fmt::Display, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{Found, unknown_key_remedy};
use crate::problem::{Mistake, nearest};

/// A table under its name, and the problems found in it, which go to the document.
#[derive(Debug)]
pub struct Section<'d, 't> {
    found: &'d mut Found<'t>,
    name: Cow<'d, str>,
    table: Option<&'d Spanned<DeValue<'t>>>,
}

impl<'d, 't> Section<'d, 't> {
    pub(super) fn new(
        found: &'d mut Found<'t>,
        name: Cow<'d, str>,
        table: Option<&'d Spanned<DeValue<'t>>>,
    ) -> Self {
        Self { found, name, table }
    }

    /// Whether it stands in the file.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The table `name` in this one; an empty one if it is absent.
    pub fn section(&mut self, name: &str) -> Section<'_, 't> {
        let table = self.value(name);
        let name = Cow::Owned(format!("{}.{name}", self.name));
        Section::new(self.found, name, table)
    }

    /// The `index`th of the tables `[[….name]]`.
    pub fn section_at(&mut self, name: &str, index: usize) -> Section<'_, 't> {
        let table = self
            .value(name)
            .and_then(|value| value.get_ref().as_array())
            .and_then(|elements| elements.get(index));
        let name = Cow::Owned(format!("{}.{name}", self.name));
        Section::new(self.found, name, table)
    }

    /// Reads the table; every unknown key and every value of a wrong type becomes a problem and is
    /// left out. `None` if a required key is missing, which is a problem too.
    pub fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        let table = self.copy();
        if !table.get_ref().is_table() {
            let span = table.span();
            let message = format!("`{}` is not a table", self.name);
            let remedy = format!("write `[{}]` and its keys below", self.name);
            self.found.problem(Some(span), message, remedy);
            return None;
        }
        // Nearly every table is in order, and thousands are read.
        if let Ok(value) = T::deserialize(ValueDeserializer::from(table)) {
            return Some(value);
        }
        let mut table = self.copy();
        let mut dropped = Vec::new();
        loop {
            let error = match T::deserialize(ValueDeserializer::from(table.clone())) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let missing = missing_field(error.message());
            if let Some(field) = missing {
                // A key that was dropped has its problem already.
                if !dropped.iter().any(|key| key == field) {
                    let span = self.table.and_then(|_| error.span());
                    let message = format!("`{}` has no `{field}`", self.name);
                    self.found
                        .problem(span, message, format!("add `{field} = …`"));
                }
                return None;
            }
            let span = error.span();
            // The parser leaves empty values where it found a syntax error, which is told already.
            if span.as_ref().is_none_or(|span| !span.is_empty()) {
                let (message, remedy) = (message_of(error.message()), remedy_of(error.message()));
                self.found.problem(span.clone(), message, remedy);
            }
            match span.and_then(|span| drop_at(&mut table, &span)) {
                Some(key) => dropped.push(key),
                None => return None,
            }
        }
    }

    /// The candidate that `wrong` was probably meant to be. In a file with very many mistakes nobody
    /// looks any more: each look goes through all candidates.
    pub fn nearest<'a>(
        &self,
        wrong: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Option<&'a str> {
        const LOOKS_MAX: usize = 50;
        if self.found.problems.len() > LOOKS_MAX {
            return None;
        }
        nearest(wrong, candidates)
    }

    /// Adds a problem at the value of `key`, or at the table if the key is not there.
    pub fn problem(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let span = self.span(key);
        self.found.problem(span, message, remedy);
    }

    /// Adds a problem at the `index`th element of the list at `key`.
    pub fn problem_at(
        &mut self,
        key: &str,
        index: usize,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let element = self
            .value(key)
            .and_then(|value| value.get_ref().as_array())
            .and_then(|elements| elements.get(index))
            .map(Spanned::span);
        let span = element.or_else(|| self.span(key));
        self.found.problem(span, message, remedy);
    }

    /// Adds a mistake in the text at `key`: at its place in the file where that can be told, else at
    /// the value, with the column in the text.
    pub fn problem_within(&mut self, key: &str, mistake: &Mistake) {
        let text = self.value(key).and_then(|value| value.get_ref().as_str());
        let span = self.span(key);
        let offset = mistake.place.map_or(0, |place| {
            let before = text.into_iter().flat_map(str::chars);
            before.take(place.column - 1).map(char::len_utf8).sum()
        });
        let verbatim = span.clone().filter(|span| {
            let inner = span.start + 1..span.end.saturating_sub(1);
            let is_one_line = mistake.place.is_some_and(|place| place.line == 1);
            is_one_line && text.is_some() && self.found.text.get(inner) == text
        });
        match (verbatim, mistake.place) {
            (Some(span), _) => {
                let at = span.start + 1 + offset;
                self.found
                    .problem(Some(at..at), &*mistake.message, &*mistake.remedy);
            }
            (None, Some(place)) => {
                let message = format!("{} (column {} of it)", mistake.message, place.column);
                self.found.problem(span, message, &*mistake.remedy);
            }
            (None, None) => self
                .found
                .problem(span, &*mistake.message, &*mistake.remedy),
        }
    }

    /// `value` if it is within `range`; else a problem, and the nearest bound.
    pub fn within<T>(&mut self, key: &str, value: T, min: T, max: T) -> T
    where
        T: PartialOrd + Copy + Display,
    {
        if (min..=max).contains(&value) {
            return value;
        }
        let message = format!("`{key}` is {value}, out of its range");
        let remedy = format!("write a number from {min} to {max}");
        self.problem(key, message, remedy);
        if value < min { min } else { max }
    }

    /// `text` as a `T`; else a problem with `remedy`.
    pub fn parsed<T, E: Display>(
        &mut self,
        key: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        remedy: &str,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, format!("`{key}` is `{text}`: {error}"), remedy);
                None
            }
        }
    }

    fn copy(&self) -> Spanned<DeValue<'t>> {
        match self.table {
            Some(table) => table.clone(),
            None => Spanned::new(0..0, DeValue::Table(DeTable::new())),
        }
    }

    fn value(&self, key: &str) -> Option<&'d Spanned<DeValue<'t>>> {
        self.table?.get_ref().as_table()?.get(key)
    }

    /// Where the value of `key` stands, or else the table.
    pub fn span(&self, key: &str) -> Option<Range<usize>> {
        let value = self.value(key).or(self.table);
        value.map(Spanned::span)
    }
}

/// Takes the key out at which, or in whose value, `span` starts; the innermost one.
fn drop_at(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => {
            let mut at_fault = None;
            for (key, value) in table.iter_mut() {
                if let Some(inner) = drop_at(value, span) {
                    return Some(inner);
                }
                let of_key = key.span() == *span;
                let of_value = value.span() == *span || value.span().contains(&span.start);
                if of_key || of_value {
                    at_fault = Some(key.get_ref().to_string());
                    if of_key {
                        break;
                    }
                }
            }
            let key = at_fault?;
            table.remove(key.as_str()).map(|_| key)
        }
        DeValue::Array(elements) => {
            for element in elements.iter_mut() {
                if let Some(inner) = drop_at(element, span) {
                    return Some(inner);
                }
            }
            None
        }
        _ => None,
    }
}

fn missing_field(message: &str) -> Option<&str> {
    message
        .strip_prefix("missing field `")?
        .split_once('`')
        .map(|(field, _)| field)
}

/// The message without the list of what was expected, which is the remedy's part.
fn message_of(message: &str) -> String {
    let short = message.split(", expected ").next().unwrap_or(message);
    short
        .replace("unknown field", "unknown key")
        .replace("unknown variant", "unknown value")
        .replace('\n', ", ")
}

/// What to write instead, from serde's list of what it expected.
fn remedy_of(message: &str) -> String {
    let Some((wrong, expected)) = message.split_once(", expected ") else {
        return "correct it".to_owned();
    };
    let is_choice = wrong.starts_with("unknown field") || wrong.starts_with("unknown variant");
    if !is_choice {
        return format!("write {}", plain_type(expected));
    }
    let quoted = |text: &str| -> Vec<String> {
        let words = text.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let known = quoted(expected);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    match quoted(wrong).first() {
        Some(wrong) => unknown_key_remedy(wrong, &known),
        None => format!("write {expected}"),
    }
}

/// Rust's names of types are not the operator's.
fn plain_type(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" => "a text in double quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list: `[…]`",
        "a map" => "a table",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use serde::Deserialize;

    use crate::document::Document;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Wire {
        name: String,
        #[serde(default)]
        some_number: u16,
        #[serde(default)]
        flag: bool,
        #[serde(default)]
        inner: Vec<Inner>,
        #[serde(default)]
        map: BTreeMap<String, String>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Inner {
        #[serde(default)]
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        Plain,
        Tls,
    }

    fn read(text: &str) -> (Option<Wire>, Vec<String>) {
        let mut document = Document::parse(Path::new("f"), text);
        let wire = document.section("a").read();
        let problems = document.into_problems();
        (wire, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_mistake_of_a_section_is_found_and_the_rest_is_read() {
        let (wire, problems) = read(
            r#"[a]
name = "n"
some-numbr = 1
some-number = "x"
colour = 1
flag = 7
[[a.inner]]
kind = "plane"
size = 1
[a.map]
k = 1
l = "ok"
"#,
        );
        assert_eq!(
            problems,
            [
                "f:3:1: unknown key `some-numbr`; write `some-number`",
                "f:4:15: invalid type: string \"x\"; write a whole number that is not negative",
                "f:5:1: unknown key `colour`; remove it, or use one of name, some-number, flag, inner, map",
                "f:6:8: invalid type: integer `7`; write true or false",
                "f:8:8: unknown value `plane`; write `plain`",
                "f:9:1: unknown key `size`; remove it, or use one of kind",
                "f:11:5: invalid type: integer `1`; write a text in double quotes",
            ]
        );
        let wire = wire.unwrap();
        assert_eq!((wire.name.as_str(), wire.some_number), ("n", 0));
        assert_eq!(wire.inner.len(), 1);
        assert_eq!(wire.map.len(), 1);
    }

    #[test]
    fn a_missing_key_is_told_once() {
        assert_eq!(
            read("[a]\nflag = true").1,
            ["f:1:1: `a` has no `name`; add `name = …`"]
        );
        assert_eq!(read("").1, ["f: `a` has no `name`; add `name = …`"]);
        let problems = read("[a]\nname = 1").1;
        assert_eq!(
            problems,
            ["f:2:8: invalid type: integer `1`; write a text in double quotes"]
        );
    }

    #[test]
    fn syntax_errors_do_not_hide_other_mistakes() {
        let (_, problems) = read("[a]\nname = \"n\"\nflag = = true\nsome-number = -1\n");
        assert!(problems[0].starts_with("f:3:"), "{problems:?}");
        assert!(
            problems.iter().any(|p| p.starts_with("f:4:15: ")),
            "{problems:?}"
        );
    }

    #[test]
    fn what_should_be_a_table_and_is_not_is_a_problem() {
        assert_eq!(
            read("a = 1").1,
            ["f:1:5: `a` is not a table; write `[a]` and its keys below"]
        );
    }
}
