//! Reads a template. Whatever is not understood is a mistake: a template that is half understood
//! would make half a device.

mod resources;
mod values;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    CERTIFICATE_PARAMETERS, InitialStatus, Parameter, RESERVED, Template, ThingResource,
    value::Expression,
};
use crate::{
    json::{Document, Kind, Value},
    limits::{TEMPLATE_BYTES_MAX, TEMPLATE_POLICIES_MAX},
    problem::{Mistake, Place, nearest},
};

/// As AWS names templates.
const NAME_CHARACTERS_MAX: usize = 36;
const THING: &str = "AWS::IoT::Thing";
const CERTIFICATE: &str = "AWS::IoT::Certificate";
const POLICY: &str = "AWS::IoT::Policy";

pub(super) fn parse(name: &str, json: &str) -> Result<Template, Vec<Mistake>> {
    let document = Document::parse(json).map_err(|mistake| vec![mistake])?;
    let mut reader = Reader {
        document,
        parameters: BTreeMap::new(),
        mistakes: Vec::new(),
    };
    reader.check_name_and_size(name, json);
    let template = reader.template(name.into());
    reader.mistakes.sort_by_key(|mistake| mistake.place);
    match template {
        Some(template) if reader.mistakes.is_empty() => Ok(template),
        _ => {
            assert!(
                !reader.mistakes.is_empty(),
                "a template that is not read has a mistake"
            );
            Err(reader.mistakes)
        }
    }
}

struct Reader<'a> {
    document: Document<'a>,
    parameters: BTreeMap<String, Parameter>,
    mistakes: Vec<Mistake>,
}

/// The resources of a template, each with its logical name's place.
#[derive(Default)]
struct Resources<'a> {
    thing: Option<ThingResource>,
    certificate: Option<InitialStatus>,
    policies: Vec<(Place, Expression)>,
    /// Kinds that stood there, understood or not.
    seen: Vec<(&'static str, Value<'a>)>,
}

impl<'a> Reader<'a> {
    fn mistake(&mut self, at: Value<'a>, message: impl Into<String>, remedy: impl Into<String>) {
        let mistake = self.document.mistake(at, message, remedy);
        self.mistakes.push(mistake);
    }

    fn check_name_and_size(&mut self, name: &str, json: &str) {
        let root = self.document.root();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > NAME_CHARACTERS_MAX || !name.chars().all(allowed) {
            self.mistake(
                root,
                format!("`{name}` is no name of a template"),
                format!(
                    "name the file with 1 to {NAME_CHARACTERS_MAX} letters, digits, `_` and `-`"
                ),
            );
        }
        if json.len() > TEMPLATE_BYTES_MAX {
            self.mistake(
                root,
                format!("the template has {} bytes", json.len()),
                format!("shorten it to {TEMPLATE_BYTES_MAX}"),
            );
        }
    }

    fn template(&mut self, name: Arc<str>) -> Option<Template> {
        let root = self.document.root();
        let known = ["Parameters", "Resources", "DeviceConfiguration"];
        let elements = self.known_members(root, &known, "a template")?;
        let find = |name: &str| elements.iter().find(|(key, _)| key == name).map(|e| e.1);
        if let Some(parameters) = find("Parameters") {
            self.read_parameters(parameters);
        }
        let configuration = find("DeviceConfiguration");
        let device_configuration = configuration.map(|value| self.device_configuration(value));
        let Some(value) = find("Resources") else {
            self.mistake(
                root,
                "the template has no `Resources`",
                "add `\"Resources\": {…}` with a thing, a certificate and a policy",
            );
            return None;
        };
        let resources = self.resources(value)?;
        for (kind, example) in [
            (
                THING,
                "\"thing\": {\"Type\": \"AWS::IoT::Thing\", \"Properties\": {\"ThingName\": …}}",
            ),
            (
                CERTIFICATE,
                "\"certificate\": {\"Type\": \"AWS::IoT::Certificate\", \"Properties\": \
                 {\"CertificateId\": {\"Ref\": \"AWS::IoT::Certificate::Id\"}}}",
            ),
        ] {
            if !resources.seen.iter().any(|(seen, _)| *seen == kind) {
                self.mistake(
                    value,
                    format!("`Resources` has no `{kind}`"),
                    format!("add `{example}`"),
                );
            }
        }
        if resources.policies.len() > TEMPLATE_POLICIES_MAX {
            self.mistake(
                value,
                format!("`Resources` has {} policies", resources.policies.len()),
                format!("keep at most {TEMPLATE_POLICIES_MAX}"),
            );
        }
        Some(Template {
            name,
            parameters: std::mem::take(&mut self.parameters),
            thing: resources.thing?,
            status: resources.certificate?,
            policies: resources.policies,
            device_configuration: device_configuration.unwrap_or_default(),
        })
    }

    fn read_parameters(&mut self, value: Value<'a>) {
        for (key, name, value) in self.members(value, "`Parameters`") {
            if name.starts_with(RESERVED) && !CERTIFICATE_PARAMETERS.contains(&name.as_str()) {
                let remedy = match nearest(&name, CERTIFICATE_PARAMETERS) {
                    Some(near) => format!("write `{near}`"),
                    None => format!("use one of {}", CERTIFICATE_PARAMETERS.join(", ")),
                };
                self.mistake(key, format!("nothing fills in `{name}`"), remedy);
                continue;
            }
            let place = self.document.place(key);
            let mut parameter = Parameter {
                place,
                default: None,
            };
            let known = ["Type", "Default"];
            if let Some(elements) = self.known_members(value, &known, "a parameter") {
                let find = |name: &str| elements.iter().find(|(key, _)| key == name).map(|e| e.1);
                let kind = find("Type");
                if kind.and_then(Value::as_string).as_deref() != Some("String") {
                    self.mistake(
                        kind.unwrap_or(value),
                        "the type of the parameter is missing or not `String`",
                        "write `\"Type\": \"String\"`",
                    );
                }
                parameter.default = find("Default").and_then(|v| self.string(v, "Default"));
            }
            self.parameters.insert(name, parameter);
        }
    }

    fn device_configuration(&mut self, value: Value<'a>) -> BTreeMap<String, Expression> {
        let mut configuration = BTreeMap::new();
        for (_, name, value) in self.members(value, "`DeviceConfiguration`") {
            if let Some(expression) = self.expression(value) {
                configuration.insert(name, expression);
            }
        }
        configuration
    }

    fn resources(&mut self, value: Value<'a>) -> Option<Resources<'a>> {
        if value.kind() != Kind::Object {
            self.mistake(value, "`Resources` is a JSON object", "write `{…}`");
            return None;
        }
        let mut resources = Resources::default();
        for (key, _, value) in self.members(value, "`Resources`") {
            let known = ["Type", "Properties", "OverrideSettings"];
            let Some(elements) = self.known_members(value, &known, "a resource") else {
                continue;
            };
            let find = |name: &str| elements.iter().find(|(key, _)| key == name).map(|e| e.1);
            let kind = find("Type").and_then(Value::as_string).unwrap_or_default();
            let Some(kind) = [THING, CERTIFICATE, POLICY]
                .into_iter()
                .find(|k| *k == kind)
            else {
                let remedy = match nearest(&kind, [THING, CERTIFICATE, POLICY]) {
                    Some(near) => format!("write `\"Type\": \"{near}\"`"),
                    None => format!("write `{THING}`, `{CERTIFICATE}` or `{POLICY}`"),
                };
                self.mistake(
                    find("Type").unwrap_or(value),
                    "the type of the resource is missing or unknown",
                    remedy,
                );
                continue;
            };
            if kind != POLICY && resources.seen.iter().any(|(seen, _)| *seen == kind) {
                self.mistake(
                    key,
                    format!("the template has a second `{kind}`"),
                    "keep one of them",
                );
                continue;
            }
            resources.seen.push((kind, key));
            let Some(properties) = find("Properties") else {
                self.mistake(value, "the resource has no `Properties`", "add them");
                continue;
            };
            let overrides = find("OverrideSettings");
            match kind {
                THING => resources.thing = self.thing(properties, overrides),
                CERTIFICATE => resources.certificate = self.certificate(properties, overrides),
                _ => {
                    if let Some(overrides) = overrides {
                        self.mistake(
                            overrides,
                            "a policy has no `OverrideSettings`",
                            "remove them",
                        );
                    }
                    resources.policies.extend(self.policy(properties));
                }
            }
        }
        Some(resources)
    }
}
