//! What the resources of a template say.

use std::collections::BTreeMap;

use super::Reader;
use crate::{
    identity::{GroupName, ThingName, ThingTypeName},
    json::Value,
    limits::{ATTRIBUTES_PER_THING_MAX, GROUPS_PER_THING_MAX},
    problem::Place,
    provisioning::{
        CERTIFICATE_ID, InitialStatus, Override, Overrides, RESERVED, ThingResource,
        plan::is_attribute, value::Expression,
    },
};

impl<'a> Reader<'a> {
    pub(super) fn thing(
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

    pub(super) fn certificate(
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

    pub(super) fn policy(&mut self, properties: Value<'a>) -> Option<(Place, Expression)> {
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
}
