//! Reads a policy document (specification A.1). Whatever is not understood is a mistake: a policy
//! that is half understood would be half enforced.

use std::sync::Arc;

use super::{
    Effect, Policy, Resources, Statement, StatementRef, action::Actions, resource::Resource,
};
use crate::{
    json::{Document, Kind, Value},
    limits::{NAME_BYTES_MAX, POLICY_CHARACTERS_MAX},
    problem::{Mistake, nearest},
};

const VERSION: &str = "2012-10-17";
const POLICY_ELEMENTS: [&str; 3] = ["Version", "Id", "Statement"];
const STATEMENT_ELEMENTS: [&str; 7] = [
    "Sid",
    "Effect",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
];

pub(super) fn parse(name: &str, json: &str) -> Result<Policy, Vec<Mistake>> {
    let document = Document::parse(json).map_err(|mistake| vec![mistake])?;
    let mut reader = Reader {
        document,
        name: name.into(),
        mistakes: Vec::new(),
    };
    if !reader.check_name_and_size(json) {
        return Err(reader.mistakes);
    }
    let statements = reader.policy(document.root());
    if reader.mistakes.is_empty() {
        Ok(Policy {
            name: reader.name,
            statements,
        })
    } else {
        reader.mistakes.sort_by_key(|mistake| mistake.place);
        Err(reader.mistakes)
    }
}

/// A document with the mistakes found in it.
pub(super) struct Reader<'a> {
    document: Document<'a>,
    name: Arc<str>,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub(super) fn mistake(
        &mut self,
        at: Value<'a>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let mistake = self.document.mistake(at, message, remedy);
        self.mistakes.push(mistake);
    }

    /// Whether it is short enough to be read on: what comes is not made for large documents.
    fn check_name_and_size(&mut self, json: &str) -> bool {
        let root = self.document.root();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if self.name.is_empty()
            || self.name.len() > NAME_BYTES_MAX
            || !self.name.chars().all(allowed)
        {
            let message = format!("`{}` is no policy name", self.name);
            self.mistake(
                root,
                message,
                format!("name the file with 1 to {NAME_BYTES_MAX} letters, digits and `_+=,.@-`"),
            );
        }
        let characters = json.chars().filter(|c| !c.is_whitespace()).count();
        let is_short = characters <= POLICY_CHARACTERS_MAX;
        if !is_short {
            self.mistake(
                root,
                format!("the policy has {characters} characters, white space aside"),
                format!("shorten it to {POLICY_CHARACTERS_MAX}, or split it into two policies"),
            );
        }
        is_short
    }

    fn policy(&mut self, root: Value<'a>) -> Vec<Statement> {
        let Some(elements) = self.elements(root, &POLICY_ELEMENTS, "a policy") else {
            return Vec::new();
        };
        let find = |name: &str| {
            elements
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, v)| *v)
        };
        match find("Version") {
            Some(version) if version.as_string().as_deref() == Some(VERSION) => {}
            version => self.mistake(
                version.unwrap_or(root),
                "the version of the policy language is missing or not supported",
                format!("write `\"Version\": \"{VERSION}\"`"),
            ),
        }
        if let Some(id) = find("Id") {
            self.label(id, "Id");
        }
        let Some(statement) = find("Statement") else {
            self.mistake(
                root,
                "the policy has no `Statement`",
                "add `\"Statement\": [{\"Effect\": …, \"Action\": …, \"Resource\": …}]`",
            );
            return Vec::new();
        };
        let values = match statement.kind() {
            Kind::Array => statement.elements().unwrap_or_default(),
            _ => vec![statement],
        };
        if values.is_empty() {
            self.mistake(statement, "`Statement` is empty", "add a statement");
        }
        let count = values.len();
        let statements: Vec<Statement> = (0..)
            .zip(values)
            .filter_map(|(index, value)| self.statement(index, value))
            .collect();
        // A Deny that is left out without a word would allow what it denies.
        assert!(
            !self.mistakes.is_empty() || statements.len() == count,
            "a statement that is left out is a mistake"
        );
        statements
    }

    fn statement(&mut self, index: usize, value: Value<'a>) -> Option<Statement> {
        let elements = self.elements(value, &STATEMENT_ELEMENTS, "a statement")?;
        let find = |name: &str| {
            elements
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, v)| *v)
        };
        let sid = find("Sid").and_then(|sid| self.label(sid, "Sid"));
        let effect = self.effect(value, find("Effect"));
        let actions = self.either(value, &find, "Action", "NotAction");
        let resources = self.either(value, &find, "Resource", "NotResource");
        let actions = actions.map(|(negated, values)| {
            let mut union = Actions::default();
            for (at, text) in &values {
                match Actions::parse(text) {
                    Ok(actions) => union = union.union(actions),
                    Err((message, remedy)) => self.mistake(*at, message, remedy),
                }
            }
            let names = values.into_iter().map(|(_, text)| text.into()).collect();
            let actions = if negated { union.complement() } else { union };
            (actions, negated, names)
        });
        let resources = resources.map(|(negated, values)| {
            let mut listed = Vec::new();
            for (at, text) in values {
                match Resource::parse(&text) {
                    Ok(resource) => listed.push(resource),
                    Err((message, remedy)) => self.mistake(at, message, remedy),
                }
            }
            Resources { negated, listed }
        });
        let condition = match find("Condition") {
            Some(condition) => self.condition(condition),
            None => Some(None),
        };
        let (actions, not_action, action_names) = actions?;
        Some(Statement {
            source: StatementRef {
                policy: self.name.clone(),
                index,
                sid: sid.map(Into::into),
            },
            effect: effect?,
            actions,
            not_action,
            action_names,
            resources: resources?,
            condition: condition?,
        })
    }

    fn effect(&mut self, statement: Value<'a>, effect: Option<Value<'a>>) -> Option<Effect> {
        match effect.and_then(Value::as_string).as_deref() {
            Some("Allow") => Some(Effect::Allow),
            Some("Deny") => Some(Effect::Deny),
            _ => {
                self.mistake(
                    effect.unwrap_or(statement),
                    "`Effect` is missing or neither `Allow` nor `Deny`",
                    "write `\"Effect\": \"Allow\"` or `\"Effect\": \"Deny\"`",
                );
                None
            }
        }
    }

    /// The strings of exactly one of two elements, and whether it was the negated one.
    fn either(
        &mut self,
        statement: Value<'a>,
        find: &dyn Fn(&str) -> Option<Value<'a>>,
        plain: &str,
        negated: &str,
    ) -> Option<(bool, Vec<(Value<'a>, String)>)> {
        match (find(plain), find(negated)) {
            (Some(value), None) => Some((false, self.strings(value, plain)?)),
            (None, Some(value)) => Some((true, self.strings(value, negated)?)),
            (None, None) => {
                self.mistake(
                    statement,
                    format!("the statement has no `{plain}`"),
                    format!("add `{plain}` (or `{negated}`)"),
                );
                None
            }
            (Some(_), Some(value)) => {
                self.mistake(
                    value,
                    format!("the statement has both `{plain}` and `{negated}`"),
                    "keep one of them",
                );
                None
            }
        }
    }

    /// A string or a list of strings, not empty.
    fn strings(&mut self, value: Value<'a>, element: &str) -> Option<Vec<(Value<'a>, String)>> {
        let values = match value.kind() {
            Kind::Array => value.elements()?,
            _ => vec![value],
        };
        if values.is_empty() {
            self.mistake(
                value,
                format!("`{element}` is empty"),
                "name at least one, or remove the statement",
            );
            return None;
        }
        let mut strings = Vec::new();
        for value in values {
            strings.push((value, self.string(value, element)?));
        }
        Some(strings)
    }

    /// A text that is shown to people; control characters would let it forge what they see.
    fn label(&mut self, value: Value<'a>, element: &str) -> Option<String> {
        let label = self.string(value, element)?;
        if label.chars().any(char::is_control) {
            self.mistake(
                value,
                format!("`{element}` has a control character"),
                "remove it",
            );
            return None;
        }
        Some(label)
    }

    fn string(&mut self, value: Value<'a>, element: &str) -> Option<String> {
        let string = value.as_string();
        if string.is_none() {
            self.mistake(
                value,
                format!("`{element}` is no text"),
                "write a string in double quotes",
            );
        }
        string
    }

    /// The members of an object, whose names are all known and different.
    fn elements(
        &mut self,
        value: Value<'a>,
        known: &[&str],
        what: &str,
    ) -> Option<Vec<(String, Value<'a>)>> {
        let mut elements = Vec::new();
        for (name, key, value) in self.members(value, what)? {
            if known.contains(&name.as_str()) {
                elements.push((name, value));
                continue;
            }
            let remedy = match nearest(&name, known.iter().copied()) {
                Some(near) => format!("write `{near}`"),
                None => format!("remove it; {what} has {}", known.join(", ")),
            };
            self.mistake(key, format!("unknown element `{name}`"), remedy);
        }
        Some(elements)
    }

    /// The members of an object, whose names are all different: name, where it stands, and value.
    pub(super) fn members(
        &mut self,
        value: Value<'a>,
        what: &str,
    ) -> Option<Vec<(String, Value<'a>, Value<'a>)>> {
        let Some(members) = value.members() else {
            self.mistake(value, format!("{what} is a JSON object"), "write `{…}`");
            return None;
        };
        let mut found: Vec<(String, Value<'a>, Value<'a>)> = Vec::new();
        for (key, value) in members {
            let Some(name) = key.as_string() else {
                self.mistake(
                    key,
                    format!("the name of an element of {what} is no text"),
                    "write it without escapes such as `\\ud800`",
                );
                continue;
            };
            if found.iter().any(|(earlier, ..)| *earlier == name) {
                self.mistake(
                    key,
                    format!("`{name}` stands here a second time"),
                    "keep one of them",
                );
                continue;
            }
            found.push((name, key, value));
        }
        Some(found)
    }
}
