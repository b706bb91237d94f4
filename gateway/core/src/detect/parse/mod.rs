//! Reads security profiles: AWS's `CreateSecurityProfile` shape (specification B.3) plus `targets`.
//!
//! What AWS takes and this version does not evaluate is refused by name. A behaviour that looks
//! enforced and is not would be worse than none.

mod criteria;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::profile::{Behavior, Metric, SecurityProfile, Target};
use crate::{
    identity::GroupName,
    json::{Document, Value},
    limits::{BEHAVIORS_PER_PROFILE_MAX, NAME_BYTES_MAX, PROFILE_DESCRIPTION_MAX},
    problem::Problem,
};

/// Members that AWS adds when it describes a profile, or that only it needs.
const PROFILE_IGNORED: &[&str] = &[
    "securityProfileArn",
    "version",
    "creationDate",
    "lastModifiedDate",
    "tags",
];
/// Members that ask for something; taken only while empty.
const PROFILE_NOT_YET: &[&str] = &[
    "alertTargets",
    "additionalMetricsToRetain",
    "additionalMetricsToRetainV2",
    "metricsExportConfig",
];
/// AWS's other metrics.
const METRICS_NOT_YET: &[&str] = &[
    "aws:disconnect-duration",
    "aws:source-ip-address",
    "aws:all-bytes-out",
    "aws:all-bytes-in",
    "aws:all-packets-out",
    "aws:all-packets-in",
    "aws:num-listening-tcp-ports",
    "aws:num-listening-udp-ports",
    "aws:num-established-tcp-connections",
    "aws:listening-tcp-ports",
    "aws:listening-udp-ports",
    "aws:destination-ip-addresses",
];

/// Reads one profile; or says everything that is wrong with it.
pub fn parse(file: &Path, text: &str) -> Result<SecurityProfile, Vec<Problem>> {
    let document = Document::parse(text).map_err(|mistake| {
        let remedy = "write a security profile as `CreateSecurityProfile` takes it".into();
        vec![Problem {
            remedy,
            ..mistake.in_file(file)
        }]
    })?;
    let mut reader = Reader {
        file,
        document,
        problems: Vec::new(),
    };
    let profile = reader.profile();
    match profile {
        Some(profile) if reader.problems.is_empty() => Ok(profile),
        _ => Err(reader.problems),
    }
}

struct Reader<'a> {
    file: &'a Path,
    document: Document<'a>,
    problems: Vec<Problem>,
}

type Members<'a> = BTreeMap<String, Value<'a>>;

impl<'a> Reader<'a> {
    fn profile(&mut self) -> Option<SecurityProfile> {
        let root = self.document.root();
        let mut known = vec![
            "securityProfileName",
            "securityProfileDescription",
            "behaviors",
            "targets",
        ];
        known.extend(PROFILE_NOT_YET);
        known.extend(PROFILE_IGNORED);
        let members = self.object(root, "a security profile", &known)?;
        for name in PROFILE_NOT_YET {
            if let Some(node) = members.get(*name) {
                self.not_yet_unless_empty(name, *node);
            }
        }
        let name = self
            .required(&members, root, "securityProfileName")
            .and_then(|node| self.name(node, "securityProfileName"));
        let description = self.description(&members);
        let behaviors = self
            .required(&members, root, "behaviors")
            .and_then(|node| self.behaviors(node));
        let targets = self
            .required(&members, root, "targets")
            .and_then(|node| self.targets(node));
        Some(SecurityProfile {
            name: name?,
            description,
            behaviors: behaviors?,
            targets: targets?,
        })
    }

    fn description(&mut self, members: &Members<'a>) -> Option<String> {
        let node = *members.get("securityProfileDescription")?;
        let text: Option<String> = node.read();
        match text {
            Some(text) if text.chars().count() <= PROFILE_DESCRIPTION_MAX => Some(text),
            _ => {
                self.report(
                    node,
                    "`securityProfileDescription` is no text within the limit",
                    format!("write a string of at most {PROFILE_DESCRIPTION_MAX} characters"),
                );
                None
            }
        }
    }

    fn behaviors(&mut self, node: Value<'a>) -> Option<Vec<Arc<Behavior>>> {
        let Some(items) = node.elements().filter(|items| !items.is_empty()) else {
            self.report(
                node,
                "`behaviors` says nothing",
                "write at least one behaviour",
            );
            return None;
        };
        if items.len() > BEHAVIORS_PER_PROFILE_MAX {
            self.report(
                node,
                format!("{} behaviours in one profile", items.len()),
                format!("write at most {BEHAVIORS_PER_PROFILE_MAX}, and more profiles"),
            );
        }
        let mut behaviors: Vec<Arc<Behavior>> = Vec::new();
        for item in items {
            let Some(behavior) = self.behavior(item) else {
                continue;
            };
            if behaviors.iter().any(|other| other.name == behavior.name) {
                self.report(
                    item,
                    format!("a second behaviour `{}`", behavior.name),
                    "give it another name",
                );
            }
            behaviors.push(Arc::new(behavior));
        }
        Some(behaviors)
    }

    fn behavior(&mut self, node: Value<'a>) -> Option<Behavior> {
        let known = [
            "name",
            "metric",
            "metricDimension",
            "criteria",
            "suppressAlerts",
            "exportMetric",
        ];
        let members = self.object(node, "a behaviour", &known)?;
        if let Some(dimension) = members.get("metricDimension") {
            self.not_yet(*dimension, "`metricDimension`");
        }
        if self.flag(&members, "exportMetric") {
            self.not_yet(members["exportMetric"], "`exportMetric`");
        }
        let name = self
            .required(&members, node, "name")
            .and_then(|node| self.name(node, "name"));
        let metric = self
            .required(&members, node, "metric")
            .and_then(|node| self.metric(node));
        let criteria = self
            .required(&members, node, "criteria")
            .and_then(|node| self.criteria(node, metric));
        Some(Behavior {
            name: name?,
            metric: metric?,
            criteria: criteria?,
            suppress_alerts: self.flag(&members, "suppressAlerts"),
        })
    }

    fn metric(&mut self, node: Value<'a>) -> Option<Metric> {
        let name: String = node.read().unwrap_or_default();
        if let Some(metric) = Metric::ALL.into_iter().find(|metric| metric.name() == name) {
            return Some(metric);
        }
        let ours = Metric::ALL.map(Metric::name).join("`, `");
        if METRICS_NOT_YET.contains(&name.as_str()) {
            self.not_yet(node, &format!("the metric `{name}`"));
        } else if name.starts_with("aws:") || name.starts_with("portcullis:") || !is_name(&name) {
            self.report(
                node,
                format!("unknown metric {}", node.text()),
                format!("use one of `{ours}`"),
            );
        } else {
            self.not_yet(node, &format!("the custom metric `{name}`"));
        }
        None
    }

    fn targets(&mut self, node: Value<'a>) -> Option<Vec<Target>> {
        let Some(items) = node.elements().filter(|items| !items.is_empty()) else {
            self.report(
                node,
                "`targets` names nobody",
                "write a list like `[\"all/registered-things\"]`",
            );
            return None;
        };
        let mut targets = Vec::new();
        for item in items {
            let target = item.as_string().and_then(|text| target(&text));
            match target {
                Some(target) if targets.contains(&target) => {
                    self.report(
                        item,
                        format!("the target {} twice", item.text()),
                        "remove one",
                    );
                }
                Some(target) => targets.push(target),
                None => self.report(
                    item,
                    format!("unknown target {}", item.text()),
                    "use `all/things`, `all/registered-things`, `all/unregistered-things` or \
                     `thinggroup/NAME`, with or without `arn:aws:iot:REGION:ACCOUNT:` before it",
                ),
            }
        }
        Some(targets)
    }

    fn name(&mut self, node: Value<'a>, member: &str) -> Option<Arc<str>> {
        let name = node.as_string().filter(|name| is_name(name));
        if name.is_none() {
            self.report(
                node,
                format!("`{member}` {} is no name", node.text()),
                format!("use 1 to {NAME_BYTES_MAX} letters, digits, `:`, `_` and `-`"),
            );
        }
        name.map(Arc::from)
    }

    fn flag(&mut self, members: &Members<'a>, name: &str) -> bool {
        let Some(node) = members.get(name) else {
            return false;
        };
        node.read().unwrap_or_else(|| {
            self.report(
                *node,
                format!("`{name}` is no bool"),
                "write `true` or `false`",
            );
            false
        })
    }

    fn object(&mut self, node: Value<'a>, what: &str, known: &[&str]) -> Option<Members<'a>> {
        let Some(members) = node.members() else {
            self.report(node, format!("{what} is no object"), "write `{ … }`");
            return None;
        };
        let mut map = BTreeMap::new();
        for (name, value) in members {
            let Some(key) = name.as_string() else {
                let message = format!("a member of {what} has a name that is no text");
                self.report(name, message, "remove it");
                continue;
            };
            if !known.contains(&key.as_str()) {
                self.report(
                    value,
                    format!("unknown member `{key}` of {what}"),
                    format!("remove it; known are `{}`", known.join("`, `")),
                );
            }
            if map.insert(key.clone(), value).is_some() {
                self.report(value, format!("a second `{key}` in {what}"), "remove one");
            }
        }
        Some(map)
    }

    fn required(
        &mut self,
        members: &Members<'a>,
        within: Value<'a>,
        name: &str,
    ) -> Option<Value<'a>> {
        let member = members.get(name).copied();
        if member.is_none() {
            let remedy = match name {
                "targets" => "add it, for instance `\"targets\": [\"all/registered-things\"]`",
                _ => "add it",
            };
            self.report(within, format!("`{name}` is missing"), remedy);
        }
        member
    }

    fn not_yet_unless_empty(&mut self, name: &str, node: Value<'a>) {
        let empty = node.members().is_some_and(|members| members.is_empty())
            || node.elements().is_some_and(|items| items.is_empty());
        if !empty {
            self.not_yet(node, &format!("`{name}`"));
        }
    }

    fn not_yet(&mut self, node: Value<'a>, what: &str) {
        self.report(
            node,
            format!("{what} is not evaluated yet"),
            "remove it until it is; nothing is enforced by halves",
        );
    }

    fn report(&mut self, node: Value<'a>, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem {
            file: self.file.into(),
            place: Some(self.document.place(node)),
            message: message.into(),
            remedy: remedy.into(),
        });
    }
}

fn target(text: &str) -> Option<Target> {
    let short = match text.strip_prefix("arn:") {
        None => text,
        Some(rest) => {
            // partition:service:region:account:resource
            let mut parts = rest.splitn(5, ':');
            let (partition, service) = (parts.next()?, parts.next()?);
            if !partition.starts_with("aws") || service != "iot" {
                return None;
            }
            parts.nth(2)?
        }
    };
    match short {
        "all/things" => Some(Target::AllThings),
        "all/registered-things" => Some(Target::RegisteredThings),
        "all/unregistered-things" => Some(Target::UnregisteredThings),
        _ => {
            let group = short.strip_prefix("thinggroup/")?;
            GroupName::parse(group).ok().map(Target::Group)
        }
    }
}

/// Profile and behaviour names follow the rule of group names.
fn is_name(text: &str) -> bool {
    GroupName::parse(text).is_ok()
}
