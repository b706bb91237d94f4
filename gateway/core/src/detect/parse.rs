//! Reads security profiles: AWS's `CreateSecurityProfile` shape (specification B.3) plus `targets`.
//!
//! What AWS takes and this version does not evaluate is refused by name. A behaviour that looks
//! enforced and is not would be worse than none.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    json::Node,
    profile::{Behavior, Comparison, Criteria, Metric, Profiles, SecurityProfile, Target},
};
use crate::{
    identity::GroupName,
    limits::{
        BEHAVIORS_PER_PROFILE_MAX, CONSECUTIVE_DATAPOINTS_MAX, DETECT_DURATIONS_SECS,
        NAME_BYTES_MAX, PROFILE_DESCRIPTION_MAX, PROFILES_PER_TARGET_MAX,
    },
    problem::{Place, Problem},
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
/// AWS's other operators.
const COMPARISONS_NOT_YET: &[&str] = &[
    "in-cidr-set",
    "not-in-cidr-set",
    "in-port-set",
    "not-in-port-set",
    "in-set",
    "not-in-set",
];

/// Reads one profile; or says everything that is wrong with it.
pub fn parse(file: &Path, text: &str) -> Result<SecurityProfile, Vec<Problem>> {
    let mut reader = Reader {
        file,
        text,
        problems: Vec::new(),
    };
    let profile = reader.profile();
    match profile {
        Some(profile) if reader.problems.is_empty() => Ok(profile),
        _ => Err(reader.problems),
    }
}

/// Checks what no profile can know alone: that names differ, and that no target has too many.
pub fn together(profiles: Vec<(PathBuf, SecurityProfile)>) -> Result<Profiles, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut names = BTreeMap::new();
    let mut targets = BTreeMap::<String, usize>::new();
    for (file, profile) in &profiles {
        let mut report = |message: String, remedy: String| {
            problems.push(Problem {
                file: file.clone(),
                place: None,
                message,
                remedy,
            });
        };
        if let Some(other) = names.insert(&profile.name, file) {
            report(
                format!(
                    "the name `{}` is that of the profile in `{}` too",
                    profile.name,
                    other.display()
                ),
                "give one of them another `securityProfileName`".into(),
            );
        }
        for target in &profile.targets {
            let count = targets.entry(target.to_string()).or_default();
            *count += 1;
            if *count == PROFILES_PER_TARGET_MAX + 1 {
                report(
                    format!(
                        "more than {PROFILES_PER_TARGET_MAX} profiles have the target `{target}`"
                    ),
                    "put their behaviours into fewer profiles".into(),
                );
            }
        }
    }
    if problems.is_empty() {
        let profiles = profiles.into_iter().map(|(_, profile)| profile).collect();
        Ok(Profiles::new(profiles))
    } else {
        Err(problems)
    }
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
}

type Members<'a> = BTreeMap<String, Node<'a>>;

impl<'a> Reader<'a> {
    fn profile(&mut self) -> Option<SecurityProfile> {
        let root = match Node::parse(self.text) {
            Ok(root) => root,
            Err(error) => {
                self.problems.push(Problem {
                    file: self.file.into(),
                    place: Some(Place {
                        line: error.line().max(1),
                        column: error.column().max(1),
                    }),
                    message: format!("not JSON: {}", without_place(&error)),
                    remedy: "write a security profile as `CreateSecurityProfile` takes it".into(),
                });
                return None;
            }
        };
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
        let text: Option<String> = node.scalar();
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

    fn behaviors(&mut self, node: Node<'a>) -> Option<Vec<Arc<Behavior>>> {
        let Some(items) = node.array().filter(|items| !items.is_empty()) else {
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

    fn behavior(&mut self, node: Node<'a>) -> Option<Behavior> {
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

    fn metric(&mut self, node: Node<'a>) -> Option<Metric> {
        let name: String = node.scalar().unwrap_or_default();
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

    fn criteria(&mut self, node: Node<'a>, metric: Option<Metric>) -> Option<Criteria> {
        let known = [
            "comparisonOperator",
            "value",
            "durationSeconds",
            "consecutiveDatapointsToAlarm",
            "consecutiveDatapointsToClear",
            "statisticalThreshold",
            "mlDetectionConfig",
        ];
        let members = self.object(node, "`criteria`", &known)?;
        let to_alarm = self.datapoints(&members, "consecutiveDatapointsToAlarm");
        let to_clear = self.datapoints(&members, "consecutiveDatapointsToClear");
        for kind in ["statisticalThreshold", "mlDetectionConfig"] {
            if let Some(member) = members.get(kind) {
                self.not_yet(*member, &format!("the criterion `{kind}`"));
                return None;
            }
        }
        let duration_secs = self.duration(&members, node, metric);
        let comparison = self
            .required(&members, node, "comparisonOperator")
            .and_then(|node| self.comparison(node));
        let count = self
            .required(&members, node, "value")
            .and_then(|node| self.count(node));
        Some(Criteria {
            comparison: comparison?,
            count: count?,
            duration_secs,
            datapoints_to_alarm: to_alarm,
            datapoints_to_clear: to_clear,
        })
    }

    fn comparison(&mut self, node: Node<'a>) -> Option<Comparison> {
        let name: String = node.scalar().unwrap_or_default();
        let comparison = Comparison::ALL.into_iter().find(|c| c.name() == name);
        if comparison.is_none() {
            let ours = Comparison::ALL.map(Comparison::name).join("`, `");
            if COMPARISONS_NOT_YET.contains(&name.as_str()) {
                self.not_yet(node, &format!("the operator `{name}`"));
            } else {
                self.report(
                    node,
                    format!("unknown operator {}", node.text()),
                    format!("use one of `{ours}`"),
                );
            }
        }
        comparison
    }

    fn count(&mut self, node: Node<'a>) -> Option<u64> {
        let known = ["count", "cidrs", "ports", "number", "numbers", "strings"];
        let members = self.object(node, "`value`", &known)?;
        let count = members.get("count").and_then(|count| count.scalar());
        if count.is_none() || members.len() > 1 {
            self.report(
                node,
                "the value of this metric is a count",
                "write `\"value\": {\"count\": N}` with a whole number N of 0 or more",
            );
        }
        count
    }

    fn duration(
        &mut self,
        members: &Members<'a>,
        criteria: Node<'a>,
        metric: Option<Metric>,
    ) -> Option<u32> {
        let per_message = metric?.is_judged_per_message();
        let allowed = DETECT_DURATIONS_SECS
            .map(|secs| secs.to_string())
            .join(", ");
        match members.get("durationSeconds") {
            None if per_message => None,
            None => {
                self.report(
                    criteria,
                    "`durationSeconds` is missing",
                    format!("add it: one of {allowed}"),
                );
                None
            }
            Some(node) if per_message => {
                self.report(
                    *node,
                    "`durationSeconds` for a metric that is judged message by message",
                    "remove it",
                );
                None
            }
            Some(node) => {
                let secs = node
                    .scalar()
                    .filter(|secs| DETECT_DURATIONS_SECS.contains(secs));
                if secs.is_none() {
                    self.report(
                        *node,
                        format!("`durationSeconds` of {}", node.text()),
                        format!("use one of {allowed}"),
                    );
                }
                secs
            }
        }
    }

    fn datapoints(&mut self, members: &Members<'a>, name: &str) -> u8 {
        let Some(node) = members.get(name) else {
            return 1;
        };
        let count: Option<u8> = node.scalar();
        match count {
            Some(count) if (1..=CONSECUTIVE_DATAPOINTS_MAX).contains(&count) => count,
            _ => {
                self.report(
                    *node,
                    format!("`{name}` of {}", node.text()),
                    format!("write a number from 1 to {CONSECUTIVE_DATAPOINTS_MAX}"),
                );
                1
            }
        }
    }

    fn targets(&mut self, node: Node<'a>) -> Option<Vec<Target>> {
        let Some(items) = node.array().filter(|items| !items.is_empty()) else {
            self.report(
                node,
                "`targets` names nobody",
                "write a list like `[\"all/registered-things\"]`",
            );
            return None;
        };
        let mut targets = Vec::new();
        for item in items {
            let target = item.scalar::<String>().and_then(|text| target(&text));
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

    fn name(&mut self, node: Node<'a>, member: &str) -> Option<Arc<str>> {
        let name = node.scalar::<String>().filter(|name| is_name(name));
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
        node.scalar().unwrap_or_else(|| {
            self.report(
                *node,
                format!("`{name}` is no bool"),
                "write `true` or `false`",
            );
            false
        })
    }

    fn object(&mut self, node: Node<'a>, what: &str, known: &[&str]) -> Option<Members<'a>> {
        let Some(members) = node.object() else {
            self.report(node, format!("{what} is no object"), "write `{ … }`");
            return None;
        };
        let mut map = BTreeMap::new();
        for (key, value) in members {
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
        within: Node<'a>,
        name: &str,
    ) -> Option<Node<'a>> {
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

    fn not_yet_unless_empty(&mut self, name: &str, node: Node<'a>) {
        let empty = node.object().is_some_and(|members| members.is_empty())
            || node.array().is_some_and(|items| items.is_empty());
        if !empty {
            self.not_yet(node, &format!("`{name}`"));
        }
    }

    fn not_yet(&mut self, node: Node<'a>, what: &str) {
        self.report(
            node,
            format!("{what} is not evaluated yet"),
            "remove it until it is; nothing is enforced by halves",
        );
    }

    fn report(&mut self, node: Node<'a>, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem {
            file: self.file.into(),
            place: Some(Place::of_offset(self.text, node.offset)),
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

/// serde_json appends ` at line L column C`, which the problem's place says already.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}
