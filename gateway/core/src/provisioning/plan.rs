//! What a template makes of one device.

use std::collections::{BTreeMap, BTreeSet};

use super::{CERTIFICATE_ID, InitialStatus, Override, RESERVED, Template};
use crate::{
    certificate::{Certificate, NameAttribute},
    identity::{GroupName, ThingName, ThingTypeName},
    limits::{
        ATTRIBUTES_PER_THING_MAX, ATTRIBUTES_WITHOUT_TYPE_MAX, PROVISION_PARAMETERS_MAX,
        TEMPLATE_VALUE_BYTES_MAX,
    },
};

/// How a device came to a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It connected with a certificate of a CA that carries the template.
    JustInTime,
    /// It asked, under a claim certificate.
    Claim,
}

/// A template filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The thing to make, or to find.
    pub thing: PlannedThing,
    /// What the certificate becomes.
    pub status: InitialStatus,
    /// Names of the policies to attach to the certificate.
    pub policies: Vec<String>,
    /// What the device is told.
    pub device_configuration: BTreeMap<String, String>,
    overrides: super::Overrides,
}

/// A thing as a template wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedThing {
    /// Its name.
    pub name: ThingName,
    /// Its type.
    pub thing_type: Option<ThingTypeName>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its groups, ancestors aside.
    pub groups: Vec<GroupName>,
}

/// A thing of that name that is there already.
#[derive(Clone, Copy, Debug)]
pub struct Existing<'a> {
    /// Its type.
    pub thing_type: Option<&'a ThingTypeName>,
    /// Its attributes.
    pub attributes: &'a BTreeMap<String, String>,
    /// Its groups, ancestors aside.
    pub groups: &'a [GroupName],
}

/// What becomes of the thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stays as it is, or there is no other to keep.
    Unchanged,
    /// It becomes this.
    Becomes(PlannedThing),
}

/// Why a template cannot be filled in for a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// A parameter without default is not given.
    #[error("the parameter `{0}` is missing")]
    Missing(String),
    /// The certificate lacks what the template takes from it.
    #[error("the certificate has no value for `{0}`")]
    NotInCertificate(String),
    /// The device gave what is not its to give.
    #[error("the parameter `{0}` is filled in by the gateway alone")]
    Reserved(String),
    /// Too many parameters.
    #[error("more than {PROVISION_PARAMETERS_MAX} parameters are given")]
    TooMany,
    /// A value became too long.
    #[error("the value of `{0}` has more than {TEMPLATE_VALUE_BYTES_MAX} bytes")]
    TooLong(String),
    /// A value became something that its place does not take.
    #[error("`{text}` is no {what}")]
    NoName {
        /// What it should be.
        what: &'static str,
        /// What it is.
        text: String,
    },
    /// Names and values of attributes.
    #[error("the attribute `{0}` has a name or value that an attribute cannot have")]
    Attribute(String),
    /// Too many attributes.
    #[error("the thing would have more attributes than it may")]
    Attributes,
    /// `OverrideSettings` say so.
    #[error("the thing `{thing}` exists with another {what}, and the template says FAIL")]
    Conflict {
        /// The thing.
        thing: ThingName,
        /// What differs.
        what: &'static str,
    },
}

impl Template {
    /// Fills the template in for `certificate`. `given` is what the device gave.
    pub fn fill(
        &self,
        way: Way,
        certificate: &Certificate,
        given: &BTreeMap<String, String>,
    ) -> Result<Plan, FillError> {
        let values = self.values(way, certificate, given)?;
        let fill = |what: &str, expression: &super::Expression| {
            let text = expression.fill(&values);
            text.map_err(|_| FillError::TooLong(what.to_owned()))
        };
        let name = fill("ThingName", &self.thing.name)?;
        let name = ThingName::parse(&name).map_err(|_| no_name("thing name", &name))?;
        let thing_type = match &self.thing.thing_type {
            None => None,
            Some(expression) => {
                let text = fill("ThingTypeName", expression)?;
                let parsed = ThingTypeName::parse(&text);
                Some(parsed.map_err(|_| no_name("thing type name", &text))?)
            }
        };
        let mut groups: Vec<GroupName> = Vec::new();
        for (_, expression) in &self.thing.groups {
            let text = fill("ThingGroups", expression)?;
            let group = GroupName::parse(&text).map_err(|_| no_name("group name", &text))?;
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let mut attributes = BTreeMap::new();
        for (name, expression) in &self.thing.attributes {
            let value = fill(name, expression)?;
            if !is_attribute(name, &value) {
                return Err(FillError::Attribute(name.clone()));
            }
            attributes.insert(name.clone(), value);
        }
        let mut policies: BTreeSet<String> = BTreeSet::new();
        for (_, expression) in &self.policies {
            policies.insert(fill("PolicyName", expression)?);
        }
        let mut device_configuration = BTreeMap::new();
        for (name, expression) in &self.device_configuration {
            device_configuration.insert(name.clone(), fill(name, expression)?);
        }
        let thing = PlannedThing {
            name,
            thing_type,
            attributes,
            groups,
        };
        thing.check_attributes()?;
        Ok(Plan {
            thing,
            status: self.status,
            policies: policies.into_iter().collect(),
            device_configuration,
            overrides: self.thing.overrides,
        })
    }

    /// A value for every parameter.
    fn values(
        &self,
        way: Way,
        certificate: &Certificate,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, FillError> {
        if given.len() > PROVISION_PARAMETERS_MAX {
            return Err(FillError::TooMany);
        }
        if let Some(name) = given.keys().find(|name| name.starts_with(RESERVED)) {
            return Err(FillError::Reserved(name.clone()));
        }
        let mut values = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            let is_reserved = name.starts_with(RESERVED);
            let found = match (is_reserved, way) {
                (true, _) if name == CERTIFICATE_ID => Some(certificate.id.to_string()),
                (true, Way::JustInTime) => of_certificate(certificate, name),
                // The subject of a certificate that was made here says nothing of the device.
                (true, Way::Claim) => None,
                (false, _) => given.get(name).cloned(),
            };
            let value = found.or_else(|| parameter.default.clone());
            let value = value.ok_or_else(|| match is_reserved {
                true => FillError::NotInCertificate(name.clone()),
                false => FillError::Missing(name.clone()),
            })?;
            if value.len() > TEMPLATE_VALUE_BYTES_MAX {
                return Err(FillError::TooLong(name.clone()));
            }
            values.insert(name.clone(), value);
        }
        Ok(values)
    }
}

/// As AWS takes it (specification A.10).
pub(super) fn is_attribute(name: &str, value: &str) -> bool {
    let among = |c: char, others: &str| c.is_ascii_alphanumeric() || others.contains(c);
    let is_name = (1..=128).contains(&name.len()) && name.chars().all(|c| among(c, "_.,@/:#-"));
    is_name && value.len() <= 800 && value.chars().all(|c| among(c, "_.,@/:#=[]-"))
}

fn no_name(what: &'static str, text: &str) -> FillError {
    FillError::NoName {
        what,
        text: text.chars().take(160).collect(),
    }
}

/// The first value of the subject's attribute. `SerialNumber` as well: what these parameters can be
/// is limited to the subject, so it is the attribute 2.5.4.5, not the number of the certificate.
fn of_certificate(certificate: &Certificate, name: &str) -> Option<String> {
    let attribute = match name.strip_prefix("AWS::IoT::Certificate::")? {
        "Country" => NameAttribute::Country,
        "Organization" => NameAttribute::Organization,
        "OrganizationalUnit" => NameAttribute::OrganizationalUnit,
        "DistinguishedNameQualifier" => NameAttribute::DistinguishedNameQualifier,
        "StateName" => NameAttribute::State,
        "CommonName" => NameAttribute::CommonName,
        "SerialNumber" => NameAttribute::SerialNumber,
        _ => return None,
    };
    certificate.subject.get(attribute).first().cloned()
}

impl PlannedThing {
    fn check_attributes(&self) -> Result<(), FillError> {
        let max = match self.thing_type {
            Some(_) => ATTRIBUTES_PER_THING_MAX,
            None => ATTRIBUTES_WITHOUT_TYPE_MAX,
        };
        if self.attributes.len() > max {
            return Err(FillError::Attributes);
        }
        Ok(())
    }
}

impl Plan {
    /// What becomes of a thing of that name that is there already.
    pub fn over(&self, existing: &Existing<'_>) -> Result<Outcome, FillError> {
        let wanted = &self.thing;
        let conflict = |what| FillError::Conflict {
            thing: wanted.name.clone(),
            what,
        };
        let mut next = PlannedThing {
            name: wanted.name.clone(),
            thing_type: existing.thing_type.cloned(),
            attributes: existing.attributes.clone(),
            groups: existing.groups.to_vec(),
        };
        if wanted.thing_type.as_ref() != existing.thing_type {
            match self.overrides.thing_type {
                Override::DoNothing => {}
                Override::Merge | Override::Replace => {
                    next.thing_type.clone_from(&wanted.thing_type);
                }
                Override::Fail => return Err(conflict("type")),
            }
        }
        if wanted.attributes != *existing.attributes {
            match self.overrides.attributes {
                Override::DoNothing => {}
                Override::Merge => next.attributes.extend(wanted.attributes.clone()),
                Override::Replace => next.attributes.clone_from(&wanted.attributes),
                Override::Fail => return Err(conflict("set of attributes")),
            }
        }
        let is_same_set = |a: &[GroupName], b: &[GroupName]| {
            a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
        };
        if !is_same_set(&wanted.groups, existing.groups) {
            match self.overrides.groups {
                Override::DoNothing => {}
                Override::Merge => {
                    let more = wanted.groups.iter();
                    let more = more.filter(|group| !existing.groups.contains(group));
                    next.groups.extend(more.cloned());
                }
                Override::Replace => next.groups.clone_from(&wanted.groups),
                Override::Fail => return Err(conflict("set of groups")),
            }
        }
        let is_same = next.thing_type.as_ref() == existing.thing_type
            && next.attributes == *existing.attributes
            && next.groups == existing.groups;
        if is_same {
            return Ok(Outcome::Unchanged);
        }
        next.check_attributes()?;
        Ok(Outcome::Becomes(next))
    }
}
