//! Provisioning templates: what becomes of a certificate that nobody has listed (specification
//! A.11, "Template body").
//!
//! A [`Template`] is parsed once, with every mistake told; [`Template::fill`] makes a [`Plan`] of
//! it for one device: a thing, the policies of its certificate, what the device is told. Pure: who
//! may ask, what exists already and where it is written down is the gateway's part.
//!
//! Absent on purpose: `PolicyDocument` (policies are files that somebody reviewed, and what a
//! device says must not shape them), `Fn::Sub`, `Fn::FindInMap` and other functions, certificate
//! bodies in a template (bulk registration), and pre-provisioning hooks.

mod parse;
mod plan;
mod value;

use std::{collections::BTreeMap, sync::Arc};

pub use plan::{Existing, FillError, Outcome, Plan, PlannedThing, Way};

use crate::{
    identity::CertificateId,
    problem::{Mistake, Place},
};
use value::Expression;

#[cfg(test)]
mod tests;

/// A provisioning template whose every part is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    name: Arc<str>,
    parameters: BTreeMap<String, Parameter>,
    thing: ThingResource,
    status: InitialStatus,
    policies: Vec<(Place, Expression)>,
    device_configuration: BTreeMap<String, Expression>,
}

/// Something that is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    place: Place,
    default: Option<String>,
}

/// `AWS::IoT::Thing`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ThingResource {
    name: Expression,
    thing_type: Option<Expression>,
    groups: Vec<(Place, Expression)>,
    attributes: BTreeMap<String, Expression>,
    overrides: Overrides,
}

/// State of a certificate once it is provisioned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialStatus {
    /// May connect.
    #[default]
    Active,
    /// Waits for somebody to activate it.
    Inactive,
}

/// `OverrideSettings`: what happens to a thing that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Overrides {
    attributes: Override,
    thing_type: Override,
    groups: Override,
}

/// One of them. Without one, a thing that is there stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Override {
    /// Leave it as it is.
    #[default]
    DoNothing,
    /// Add to it; what the template says wins.
    Merge,
    /// Put what the template says in its place.
    Replace,
    /// Refuse.
    Fail,
}

/// The parameters that the gateway fills in from the certificate.
const CERTIFICATE_PARAMETERS: [&str; 8] = [
    "AWS::IoT::Certificate::Country",
    "AWS::IoT::Certificate::Organization",
    "AWS::IoT::Certificate::OrganizationalUnit",
    "AWS::IoT::Certificate::DistinguishedNameQualifier",
    "AWS::IoT::Certificate::StateName",
    "AWS::IoT::Certificate::CommonName",
    "AWS::IoT::Certificate::SerialNumber",
    CERTIFICATE_ID,
];
const CERTIFICATE_ID: &str = "AWS::IoT::Certificate::Id";
/// Names that begin with this are the gateway's to fill in, never a device's.
const RESERVED: &str = "AWS::";

impl Template {
    /// Reads the JSON of the template `name`; or tells every mistake in it.
    pub fn parse(name: &str, json: &str) -> Result<Self, Vec<Mistake>> {
        parse::parse(name, json)
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The policies that it names outright, and where: they must exist.
    pub fn policy_names(&self) -> impl Iterator<Item = (Place, &str)> {
        literals(&self.policies)
    }

    /// The groups that it names outright, and where: they must exist.
    pub fn group_names(&self) -> impl Iterator<Item = (Place, &str)> {
        literals(&self.thing.groups)
    }

    /// Why it can never be filled in on `way`, if so.
    pub fn mistakes_for(&self, way: Way) -> Vec<Mistake> {
        let never = |(name, parameter): (&String, &Parameter)| {
            let is_given = match way {
                Way::JustInTime => name.starts_with(RESERVED),
                Way::Claim => !name.starts_with(RESERVED) || name == CERTIFICATE_ID,
            };
            (!is_given && parameter.default.is_none()).then(|| match way {
                Way::JustInTime => Mistake {
                    place: Some(parameter.place),
                    message: format!(
                        "nobody gives the parameter `{name}` when a certificate of a CA connects"
                    ),
                    remedy: "add a `Default`, or use one of the certificate's: \
                             AWS::IoT::Certificate::CommonName, …"
                        .to_owned(),
                },
                Way::Claim => Mistake {
                    place: Some(parameter.place),
                    message: format!(
                        "a certificate that is made for a claim has no value for `{name}`"
                    ),
                    remedy: "add a `Default`, or let the device give a parameter of another name"
                        .to_owned(),
                },
            })
        };
        self.parameters.iter().filter_map(never).collect()
    }

    /// What works but should be looked at.
    pub fn warnings(&self) -> Vec<Mistake> {
        let chosen = self.thing.groups.iter().filter_map(|(place, group)| {
            let name = group
                .references()
                .into_iter()
                .find(|n| !n.starts_with(RESERVED))?;
            Some(Mistake {
                place: Some(*place),
                message: format!("the device chooses its group with the parameter `{name}`"),
                remedy: "name the group, unless every group's policies may be any such device's"
                    .to_owned(),
            })
        });
        chosen.collect()
    }
}

fn literals(values: &[(Place, Expression)]) -> impl Iterator<Item = (Place, &str)> {
    values.iter().filter_map(|(place, value)| match value {
        Expression::Text(text) => Some((*place, text.as_str())),
        _ => None,
    })
}

/// The name of the topic on which AWS announces a certificate that just-in-time registration has
/// set down.
pub fn registered_topic(ca: CertificateId) -> String {
    format!("$aws/events/certificates/registered/{ca}")
}
