//! Values with functions in them, and the members of objects.

use super::Reader;
use crate::{
    json::{Kind, Value},
    limits::TEMPLATE_JOIN_DEPTH_MAX,
    problem::nearest,
    provisioning::value::Expression,
};

impl<'a> Reader<'a> {
    pub(super) fn expression(&mut self, value: Value<'a>) -> Option<Expression> {
        self.expression_at(value, 0)
    }

    fn expression_at(&mut self, value: Value<'a>, depth: usize) -> Option<Expression> {
        if depth > TEMPLATE_JOIN_DEPTH_MAX {
            self.mistake(
                value,
                format!("functions are nested over {TEMPLATE_JOIN_DEPTH_MAX} deep"),
                "join the parts in one list",
            );
            return None;
        }
        match value.kind() {
            Kind::String => self.string(value, "the value").map(Expression::Text),
            Kind::Object => {
                let members = self.members(value, "a value");
                let [(key, function, argument)] = members.as_slice() else {
                    self.mistake(
                        value,
                        "an object as a value has exactly one member, a function",
                        "write `{\"Ref\": \"PARAMETER\"}` or `{\"Fn::Join\": [\"-\", […]]}`",
                    );
                    return None;
                };
                match function.as_str() {
                    "Ref" => self.reference(*argument),
                    "Fn::Join" => self.join(*argument, depth),
                    _ => {
                        self.mistake(
                            *key,
                            format!("the function `{function}` is not supported"),
                            "use `Ref` or `Fn::Join`",
                        );
                        None
                    }
                }
            }
            _ => {
                self.mistake(
                    value,
                    "a value is a text, a `Ref` or an `Fn::Join`",
                    "write it in double quotes",
                );
                None
            }
        }
    }

    pub(super) fn reference(&mut self, argument: Value<'a>) -> Option<Expression> {
        let name = self.string(argument, "Ref")?;
        if self.parameters.contains_key(&name) {
            return Some(Expression::Ref(name));
        }
        let remedy = match nearest(&name, self.parameters.keys().map(String::as_str)) {
            Some(near) => format!("write `{near}`"),
            None => format!("add `\"{name}\": {{\"Type\": \"String\"}}` to `Parameters`"),
        };
        self.mistake(
            argument,
            format!("the parameter `{name}` is not declared"),
            remedy,
        );
        None
    }

    fn join(&mut self, argument: Value<'a>, depth: usize) -> Option<Expression> {
        let elements = argument.elements().unwrap_or_default();
        let [separator, parts] = elements.as_slice() else {
            self.mistake(
                argument,
                "`Fn::Join` has a separator and a list",
                "write `[\"-\", [\"a\", {\"Ref\": \"B\"}]]`",
            );
            return None;
        };
        let separator = self.string(*separator, "the separator")?;
        let Some(values) = parts.elements() else {
            self.mistake(*parts, "`Fn::Join` joins a list", "write `[…]`");
            return None;
        };
        let count = values.len();
        let parts: Vec<Expression> = values
            .into_iter()
            .filter_map(|value| self.expression_at(value, depth + 1))
            .collect();
        (parts.len() == count).then_some(Expression::Join { separator, parts })
    }

    pub(super) fn string(&mut self, value: Value<'a>, element: &str) -> Option<String> {
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

    /// The members of an object, whose names are all different.
    pub(super) fn members(
        &mut self,
        value: Value<'a>,
        what: &str,
    ) -> Vec<(Value<'a>, String, Value<'a>)> {
        let Some(raw) = value.members() else {
            self.mistake(value, format!("{what} is a JSON object"), "write `{…}`");
            return Vec::new();
        };
        let mut members: Vec<(Value<'a>, String, Value<'a>)> = Vec::new();
        for (key, value) in raw {
            let Some(name) = key.as_string() else {
                self.mistake(
                    key,
                    format!("the name of a member of {what} is no text"),
                    "write it without escapes such as `\\ud800`",
                );
                continue;
            };
            if members.iter().any(|(_, earlier, _)| *earlier == name) {
                self.mistake(
                    key,
                    format!("`{name}` stands here a second time"),
                    "keep one of them",
                );
                continue;
            }
            members.push((key, name, value));
        }
        members
    }

    /// The members of an object, whose names are all known and different.
    pub(super) fn known_members(
        &mut self,
        value: Value<'a>,
        known: &[&str],
        what: &str,
    ) -> Option<Vec<(String, Value<'a>)>> {
        if value.kind() != Kind::Object {
            self.mistake(value, format!("{what} is a JSON object"), "write `{…}`");
            return None;
        }
        let mut elements = Vec::new();
        for (key, name, value) in self.members(value, what) {
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
}
