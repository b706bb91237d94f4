//! Security profiles as values: what is normal for which devices (specification B.3).
//!
//! They come from the `parse` module alone, so that one that exists is valid; [`together`] makes of
//! them what is in force.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use crate::{identity::GroupName, limits::PROFILES_PER_TARGET_MAX, problem::Problem};

/// All security profiles in force.
#[derive(Clone, Debug, Default)]
pub struct Profiles(Arc<[SecurityProfile]>);

/// A set of behaviours and the devices to which they apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityProfile {
    /// `securityProfileName`.
    pub name: Arc<str>,
    /// `securityProfileDescription`.
    pub description: Option<String>,
    /// What is normal.
    pub behaviors: Vec<Arc<Behavior>>,
    /// For whom.
    pub targets: Vec<Target>,
}

/// One statement about what is normal. A violation is that it does not hold (specification B.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// Its name, unique in the profile.
    pub name: Arc<str>,
    /// What is measured.
    pub metric: Metric,
    /// What the measure has to be.
    pub criteria: Criteria,
    /// `suppressAlerts`: violations are recorded and counted, but nobody is called.
    pub suppress_alerts: bool,
}

/// A static criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Criteria {
    /// `comparisonOperator`.
    pub comparison: Comparison,
    /// `value.count`.
    pub count: u64,
    /// `durationSeconds`; `None` where each message is judged by itself.
    pub duration_secs: Option<u32>,
    /// `consecutiveDatapointsToAlarm`.
    pub datapoints_to_alarm: u8,
    /// `consecutiveDatapointsToClear`.
    pub datapoints_to_clear: u8,
}

/// How a measure is compared with `value.count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `less-than`.
    LessThan,
    /// `less-than-equals`.
    LessThanEquals,
    /// `greater-than`.
    GreaterThan,
    /// `greater-than-equals`.
    GreaterThanEquals,
}

/// What can be measured by this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Payload of one message that the device publishes.
    MessageByteSize,
    /// Messages that the device published.
    NumMessagesSent,
    /// Messages that were delivered to the device.
    NumMessagesReceived,
    /// Requests of the device that were refused.
    NumAuthorizationFailures,
    /// CONNECTs, successful or not.
    NumConnectionAttempts,
    /// Ended connections.
    NumDisconnects,
    /// Ours: different peer addresses that proved to hold one certificate.
    CertificateSourceAddresses,
}

/// Devices to which a profile applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `all/things`: every device.
    AllThings,
    /// `all/registered-things`.
    RegisteredThings,
    /// `all/unregistered-things`.
    UnregisteredThings,
    /// `thinggroup/<name>`: the things of the group and of its descendants.
    Group(GroupName),
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::MessageByteSize,
        Self::NumMessagesSent,
        Self::NumMessagesReceived,
        Self::NumAuthorizationFailures,
        Self::NumConnectionAttempts,
        Self::NumDisconnects,
        Self::CertificateSourceAddresses,
    ];

    /// The name in profiles and violations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessageByteSize => "aws:message-byte-size",
            Self::NumMessagesSent => "aws:num-messages-sent",
            Self::NumMessagesReceived => "aws:num-messages-received",
            Self::NumAuthorizationFailures => "aws:num-authorization-failures",
            Self::NumConnectionAttempts => "aws:num-connection-attempts",
            Self::NumDisconnects => "aws:num-disconnects",
            Self::CertificateSourceAddresses => "portcullis:certificate-source-addresses",
        }
    }

    /// Whether each message is a datapoint by itself, so that there is no window.
    pub const fn is_judged_per_message(self) -> bool {
        matches!(self, Self::MessageByteSize)
    }
}

impl Comparison {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::LessThan,
        Self::LessThanEquals,
        Self::GreaterThan,
        Self::GreaterThanEquals,
    ];

    /// The name in profiles and violations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LessThan => "less-than",
            Self::LessThanEquals => "less-than-equals",
            Self::GreaterThan => "greater-than",
            Self::GreaterThanEquals => "greater-than-equals",
        }
    }

    /// Whether normal has an upper bound, so that a count that grows can only become worse.
    pub const fn is_upper_bound(self) -> bool {
        matches!(self, Self::LessThan | Self::LessThanEquals)
    }

    /// Whether `value` is normal.
    pub const fn holds(self, value: u64, count: u64) -> bool {
        match self {
            Self::LessThan => value < count,
            Self::LessThanEquals => value <= count,
            Self::GreaterThan => value > count,
            Self::GreaterThanEquals => value >= count,
        }
    }
}

impl Criteria {
    /// Whether `value` is normal.
    pub const fn conforms(&self, value: u64) -> bool {
        self.comparison.holds(value, self.count)
    }
}

impl Target {
    /// Whether a device with these groups is meant.
    pub fn covers(&self, registered: bool, groups: &[GroupName]) -> bool {
        match self {
            Self::AllThings => true,
            Self::RegisteredThings => registered,
            Self::UnregisteredThings => !registered,
            Self::Group(group) => groups.contains(group),
        }
    }
}

impl Profiles {
    /// These and no others.
    pub fn new(profiles: Vec<SecurityProfile>) -> Self {
        Self(profiles.into())
    }

    /// In the order of their files.
    pub fn iter(&self) -> std::slice::Iter<'_, SecurityProfile> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// As in the profile, without the ARN's account.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllThings => f.write_str("all/things"),
            Self::RegisteredThings => f.write_str("all/registered-things"),
            Self::UnregisteredThings => f.write_str("all/unregistered-things"),
            Self::Group(group) => write!(f, "thinggroup/{group}"),
        }
    }
}

impl SecurityProfile {
    /// Whether any target means a device with these groups.
    pub fn covers(&self, registered: bool, groups: &[GroupName]) -> bool {
        self.targets
            .iter()
            .any(|target| target.covers(registered, groups))
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
