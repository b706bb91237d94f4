//! Reads a template. Whatever is not understood is a mistake: a template that is half understood
//! would make half a device.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    CERTIFICATE_ID, CERTIFICATE_PARAMETERS, InitialStatus, Override, Overrides, Parameter,
    RESERVED, Template, ThingResource, plan::is_attribute, value::Expression,
};
use crate::{
    identity::{GroupName, ThingName, ThingTypeName},
    json::{Document, Kind, Value},
    limits::{
        ATTRIBUTES_PER_THING_MAX, GROUPS_PER_THING_MAX, TEMPLATE_BYTES_MAX,
        TEMPLATE_JOIN_DEPTH_MAX, TEMPLATE_POLICIES_MAX,
    },
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

    fn thing(
        &mut self,
        properties: Value<'a>,
        overrides: Option<Value<'a>>,
    ) -> Option<ThingResource> {
        let known = [
            "ThingName",
            "ThingTypeName",
            "ThingGroups",
            "AttributePayload",
        ];
        let elements = self.known_members(properties, &known, "a thing")?;
        let find = |name: &str| elements.iter().find(|(key, _)| key == name).map(|e| e.1);
        let overrides = overrides.map(|value| self.thing_overrides(value));
        let name = match find("ThingName") {
            Some(value) => self.named(value, "thing name", |t| ThingName::parse(t).is_ok()),
            None => {
                self.mistake(
                    properties,
                    "the thing has no `ThingName`",
                    "add `\"ThingName\": {\"Ref\": \"…\"}`",
                );
                None
            }
        };
        let thing_type = find("ThingTypeName")
            .and_then(|v| self.named(v, "thing type name", |t| ThingTypeName::parse(t).is_ok()));
        let mut groups = Vec::new();
        if let Some(value) = find("ThingGroups") {
            let Some(values) = value.elements() else {
                self.mistake(value, "`ThingGroups` is no list", "write `[…]`");
                return None;
            };
            if values.len() > GROUPS_PER_THING_MAX {
                self.mistake(
                    value,
                    format!("`ThingGroups` has {} groups", values.len()),
                    format!("keep at most {GROUPS_PER_THING_MAX}"),
                );
            }
            for value in values {
                let group = self.named(value, "group name", |t| GroupName::parse(t).is_ok());
                groups.extend(group.map(|group| (self.document.place(value), group)));
            }
        }
        let attributes = find("AttributePayload").map(|value| self.attributes(value));
        Some(ThingResource {
            name: name?,
            thing_type,
            groups,
            attributes: attributes.unwrap_or_default(),
            overrides: overrides.unwrap_or_default(),
        })
    }

    fn attributes(&mut self, value: Value<'a>) -> BTreeMap<String, Expression> {
        let mut attributes = BTreeMap::new();
        let members = self.members(value, "`AttributePayload`");
        if members.len() > ATTRIBUTES_PER_THING_MAX {
            self.mistake(
                value,
                format!("`AttributePayload` has {} attributes", members.len()),
                format!("keep at most {ATTRIBUTES_PER_THING_MAX}"),
            );
        }
        for (key, name, value) in members {
            if !is_attribute(&name, "") {
                self.mistake(
                    key,
                    format!("`{name}` is no attribute name"),
                    "use 1 to 128 letters, digits and `_.,@/:#-`",
                );
            }
            let is_value = |text: &str| is_attribute("a", text);
            if let Some(expression) = self.named(value, "attribute value", is_value) {
                attributes.insert(name, expression);
            }
        }
        attributes
    }

    fn thing_overrides(&mut self, value: Value<'a>) -> Overrides {
        let mut overrides = Overrides::default();
        let known = ["AttributePayload", "ThingTypeName", "ThingGroups"];
        let Some(elements) = self.known_members(value, &known, "`OverrideSettings` of a thing")
        else {
            return overrides;
        };
        for (name, value) in elements {
            let (target, takes_merge) = match name.as_str() {
                "AttributePayload" => (&mut overrides.attributes, true),
                "ThingTypeName" => (&mut overrides.thing_type, false),
                _ => (&mut overrides.groups, true),
            };
            match value.as_string().as_deref() {
                Some("MERGE") if takes_merge => *target = Override::Merge,
                Some("REPLACE") => *target = Override::Replace,
                Some("DO_NOTHING") => *target = Override::DoNothing,
                Some("FAIL") => *target = Override::Fail,
                _ => {
                    let merge = if takes_merge { "MERGE, " } else { "" };
                    self.mistake(
                        value,
                        format!("`{name}` cannot be overridden so"),
                        format!("write {merge}REPLACE, DO_NOTHING or FAIL"),
                    );
                }
            }
        }
        overrides
    }

    fn certificate(
        &mut self,
        properties: Value<'a>,
        overrides: Option<Value<'a>>,
    ) -> Option<InitialStatus> {
        if let Some(value) = overrides {
            // Of no effect: a certificate that is provisioned is never there before.
            let elements =
                self.known_members(value, &["Status"], "`OverrideSettings` of a certificate");
            for (_, value) in elements.unwrap_or_default() {
                let known = ["REPLACE", "DO_NOTHING", "FAIL"];
                if !known.contains(&value.as_string().unwrap_or_default().as_str()) {
                    self.mistake(
                        value,
                        "`Status` cannot be overridden so",
                        "write REPLACE, DO_NOTHING or FAIL",
                    );
                }
            }
        }
        let known = [
            "CertificateId",
            "Status",
            "CertificatePem",
            "CACertificatePem",
            "CertificateSigningRequest",
        ];
        let elements = self.known_members(properties, &known, "a certificate")?;
        let mut status = InitialStatus::default();
        for (name, value) in elements {
            match name.as_str() {
                "CertificateId" => {
                    let expression = self.expression(value)?;
                    if expression != Expression::Ref(CERTIFICATE_ID.to_owned()) {
                        self.mistake(
                            value,
                            "`CertificateId` is not that of the certificate that is provisioned",
                            format!("write `{{\"Ref\": \"{CERTIFICATE_ID}\"}}`"),
                        );
                    }
                }
                "Status" => match value.as_string().map(|text| text.to_uppercase()).as_deref() {
                    // AWS's own examples write both `ACTIVE` and `Active`.
                    Some("ACTIVE") => status = InitialStatus::Active,
                    Some("INACTIVE") => status = InitialStatus::Inactive,
                    _ => self.mistake(
                        value,
                        "`Status` is neither `ACTIVE` nor `INACTIVE`",
                        "write one of them",
                    ),
                },
                _ => self.mistake(
                    value,
                    format!("`{name}` belongs to bulk registration, which is not supported"),
                    format!("write `\"CertificateId\": {{\"Ref\": \"{CERTIFICATE_ID}\"}}`"),
                ),
            }
        }
        Some(status)
    }

    fn policy(&mut self, properties: Value<'a>) -> Option<(Place, Expression)> {
        let elements =
            self.known_members(properties, &["PolicyName", "PolicyDocument"], "a policy")?;
        let find = |name: &str| elements.iter().find(|(key, _)| key == name).map(|e| e.1);
        if let Some(value) = find("PolicyDocument") {
            self.mistake(
                value,
                "a template cannot bring its own `PolicyDocument`: policies are files here",
                "write the document to `policies/NAME.json`, with policy variables for what differs \
                 from device to device, and say `\"PolicyName\": \"NAME\"`",
            );
            return None;
        }
        let Some(value) = find("PolicyName") else {
            self.mistake(
                properties,
                "the policy has no `PolicyName`",
                "add `\"PolicyName\": \"NAME\"`, the name of a file `policies/NAME.json`",
            );
            return None;
        };
        let expression = self.expression(value)?;
        let chosen = expression
            .references()
            .into_iter()
            .find(|name| !name.starts_with(RESERVED))
            .map(str::to_owned);
        if let Some(name) = chosen {
            self.mistake(
                value,
                format!("the device would choose its policy with the parameter `{name}`"),
                "name the policy, or use a parameter of the certificate",
            );
        }
        Some((self.document.place(value), expression))
    }

    /// A value which, if it is a plain text, `is_valid` must accept.
    fn named(
        &mut self,
        value: Value<'a>,
        what: &str,
        is_valid: impl Fn(&str) -> bool,
    ) -> Option<Expression> {
        let expression = self.expression(value)?;
        if let Expression::Text(text) = &expression
            && !is_valid(text)
        {
            let remedy = match what {
                "attribute value" => "use at most 800 letters, digits and `_.,@/:#=[]-`",
                _ => "use 1 to 128 letters, digits, `:`, `_` and `-`",
            };
            self.mistake(value, format!("`{text}` is no {what}"), remedy);
        }
        Some(expression)
    }

    fn expression(&mut self, value: Value<'a>) -> Option<Expression> {
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

    fn reference(&mut self, argument: Value<'a>) -> Option<Expression> {
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

    /// The members of an object, whose names are all different.
    fn members(&mut self, value: Value<'a>, what: &str) -> Vec<(Value<'a>, String, Value<'a>)> {
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
    fn known_members(
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
