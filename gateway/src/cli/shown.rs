//! A thing as `thing show` shows it: its groups and where each comes from, quarantine, and what the
//! gateway would make of its certificates.

use std::path::Path;

use portcullis_core::{
    identity::{GroupName, ThingTypeName},
    limits::GROUPS_PER_THING_MAX,
    registry::{
        Membership, Origin, Provenance, QUARANTINE, RegisteredCertificate, RegisteredThing, State,
        query::Subject,
    },
    timestamp::Timestamp,
};
use serde_json::{Value, json};

use super::{
    Failure, ask,
    outcome::{say, say_json},
};
use crate::{
    admin, config,
    identity::{
        self, Registry,
        edit::EditError,
        effective::{Effective, Examiner},
        runtime,
    },
};

/// Registry and journal, and what else is asked about things.
pub(super) struct Known {
    pub(super) registry: Registry,
    state: State,
    identity: identity::Config,
}

impl Known {
    pub(super) fn read(config: &Path) -> Result<Self, Failure> {
        let identity = config::identity(config);
        let journal = config::journal(config);
        Ok(Self {
            registry: runtime::in_force(&super::thing::registry_file(config)?, &journal)?,
            state: journal.read().map_err(EditError::from)?,
            identity,
        })
    }

    pub(super) fn examiner(&self) -> Examiner<'_> {
        Examiner::new(&self.identity, &self.registry, &self.state)
    }
}

/// A dynamic group that the thing is in, or may be in.
struct Found<'r> {
    group: &'r GroupName,
    query: &'r str,
    /// Whether it hangs on what only the gateway sees.
    is_live: bool,
    /// `None`: nobody has decided it.
    is_member: Option<bool>,
}

/// The groups of a thing by the running gateway's word; `None` if none answers.
pub(super) struct Live(Option<Vec<String>>);

impl Live {
    /// Nobody is asked.
    pub(super) const NOT_ASKED: Self = Self(None);

    /// Asks the gateway with these settings, if a query needs its answer.
    pub(super) fn ask(config: &Path, registry: &Registry, thing: &str) -> Self {
        if registry.dynamic_groups.is_empty() {
            return Self::NOT_ASKED;
        }
        let path = format!("{}/{thing}", admin::THINGS_PATH);
        let answer = ask::address(config)
            .ok()
            .and_then(|address| ask::ask(address, &path).ok());
        let answer = answer.filter(|answer| answer["thingName"] == thing);
        Self(answer.map(|answer| {
            let groups = answer["groups"].as_array().into_iter().flatten();
            let names = groups.filter_map(|group| group["group"].as_str());
            names.map(str::to_owned).collect()
        }))
    }
}

/// Those that the thing is in, and those of which that is not known.
fn dynamic<'r>(
    registry: &'r Registry,
    registered: &RegisteredThing,
    live: &Live,
) -> Vec<Found<'r>> {
    let alarms = std::collections::BTreeSet::new();
    let subject = Subject {
        thing: &registered.thing,
        is_connected: false,
        alarms: &alarms,
    };
    // A thing is in so many groups at most, and the older ones come first.
    let direct = registered.direct_groups.len() + registered.memberships.len();
    let room = GROUPS_PER_THING_MAX.saturating_sub(direct);
    let (mut sure, mut open) = (0, 0);
    let groups = registry.dynamic_groups.iter().map(|group| {
        let is_live = group.query.is_live();
        let is_member = match &live.0 {
            Some(names) => Some(names.iter().any(|name| name == group.name.as_str())),
            None if sure >= room => Some(false),
            None if is_live => None,
            None if !group.query.finds(&subject) => Some(false),
            None if sure + open >= room => None,
            None => Some(true),
        };
        sure += usize::from(is_member == Some(true));
        open += usize::from(is_member.is_none());
        Found {
            group: &group.name,
            query: group.query.text(),
            is_live,
            is_member,
        }
    });
    groups
        .filter(|found| found.is_member != Some(false))
        .collect()
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::File => Provenance::File.to_string(),
        Origin::RunTime { why, .. } => Provenance::RunTime(why).to_string(),
    }
}

fn certificates<'r>(
    registry: &'r Registry,
    registered: &'r RegisteredThing,
) -> impl Iterator<Item = &'r RegisteredCertificate> {
    let name = registered.thing.name.as_str();
    let certificates = registry.certificates.iter();
    certificates.filter(move |certificate| certificate.is_attached_to(name))
}

/// Its quarantine, if it is in it.
struct Quarantine<'r> {
    /// Since when and why; `None`: `registry.toml` says so.
    decided: Option<(Timestamp, &'r str)>,
    /// There is no group that says what it may still do.
    is_shut_out: bool,
}

fn quarantine<'r>(registry: &Registry, registered: &'r RegisteredThing) -> Option<Quarantine<'r>> {
    let is_it = |membership: &&Membership| membership.group.as_str() == QUARANTINE;
    let membership = registered.memberships.iter().find(is_it);
    let mut direct = registered.direct_groups.iter();
    let in_file = direct.any(|group| group.as_str() == QUARANTINE);
    if membership.is_none() && !in_file {
        return None;
    }
    Some(Quarantine {
        decided: membership.map(|membership| (membership.at, &*membership.why)),
        is_shut_out: membership.is_some() && registry.group(QUARANTINE).is_none(),
    })
}

pub(super) fn show(known: &Known, registered: &RegisteredThing, live: &Live, as_json: bool) {
    let examiner = known.examiner();
    if as_json {
        return say_json(&to_json(&known.registry, registered, live, &examiner));
    }
    for line in lines(&known.registry, registered, live, &examiner) {
        say(&line);
    }
}

fn lines(
    registry: &Registry,
    registered: &RegisteredThing,
    live: &Live,
    examiner: &Examiner<'_>,
) -> Vec<String> {
    let thing = &registered.thing;
    let mut lines = vec![format!("thing         {}", thing.name)];
    if registered.origin != Origin::File {
        lines.push(format!("from          {}", origin(&registered.origin)));
    }
    if let Some(thing_type) = &thing.thing_type {
        lines.push(format!("type          {thing_type}"));
    }
    for (name, value) in &thing.attributes {
        lines.push(format!("attribute     {name} = {value}"));
    }
    if let Some(quarantine) = quarantine(registry, registered) {
        lines.push(quarantine_line(&quarantine));
    }
    for (group, from) in registry.provenance(registered) {
        lines.push(format!("group         {group}  ({from})"));
    }
    for found in dynamic(registry, registered, live) {
        let from = Provenance::Dynamic(found.query);
        let open = match found.is_member {
            None => "; undecided while the gateway is stopped",
            Some(_) => "",
        };
        lines.push(format!("group         {}  ({from}{open})", found.group));
    }
    for certificate in certificates(registry, registered) {
        let effective = examiner.examine(certificate).effective;
        lines.push(certificate_line(certificate, &effective));
    }
    lines
}

fn quarantine_line(quarantine: &Quarantine<'_>) -> String {
    let mut line = "quarantine    ".to_owned();
    line += &match quarantine.decided {
        Some((since, why)) => format!("since {since}: {why}"),
        None => "by registry.toml".to_owned(),
    };
    if quarantine.is_shut_out {
        line += &format!("; there is no group `{QUARANTINE}`, so it may not even connect");
    }
    line
}

fn certificate_line(certificate: &RegisteredCertificate, effective: &Effective) -> String {
    let mut line = format!("certificate   {} {effective}", certificate.id);
    if let Some(until) = certificate.until {
        line += &format!(" until {until}");
    }
    format!("{line}  ({})", origin(&certificate.status_origin))
}

pub(super) fn to_json(
    registry: &Registry,
    registered: &RegisteredThing,
    live: &Live,
    examiner: &Examiner<'_>,
) -> Value {
    let thing = &registered.thing;
    let certificates: Vec<Value> = certificates(registry, registered)
        .map(|certificate| {
            let effective = examiner.examine(certificate).effective;
            json!({
                "certificateId": certificate.id.to_string(),
                "status": certificate.status.as_str(),
                "effectiveStatus": effective.outcome.as_str(),
                "why": effective.why,
                "reason": certificate.reason,
                "until": certificate.until.map(|until| until.to_string()),
                "from": origin(&certificate.origin),
                "statusFrom": origin(&certificate.status_origin),
            })
        })
        .collect();
    let provenance = registry.provenance(registered);
    let memberships: Vec<Value> = provenance
        .iter()
        .map(|(group, from)| json!({ "group": group.as_str(), "from": from.to_string() }))
        .collect();
    let dynamic: Vec<Value> = dynamic(registry, registered, live)
        .iter()
        .map(|found| {
            json!({
                "group": found.group.as_str(),
                "from": Provenance::Dynamic(found.query).to_string(),
                "decidedByGateway": found.is_live,
                "member": found.is_member,
            })
        })
        .collect();
    let quarantine = quarantine(registry, registered).map(|quarantine| {
        let decided = quarantine.decided;
        json!({
            "since": decided.map(|(since, _)| since.to_string()),
            "why": decided.map(|(_, why)| why),
            "shutOut": quarantine.is_shut_out,
        })
    });
    json!({
        "thingName": thing.name.as_str(),
        "thingTypeName": thing.thing_type.as_ref().map(ThingTypeName::as_str),
        "attributes": thing.attributes,
        "from": origin(&registered.origin),
        "quarantine": quarantine,
        "thingGroups": names(&registered.direct_groups),
        "thingGroupsWithAncestors": names(&thing.groups),
        "memberships": memberships,
        "dynamicGroups": dynamic,
        "certificates": certificates,
    })
}

pub(super) fn names(groups: &[GroupName]) -> Vec<&str> {
    groups.iter().map(GroupName::as_str).collect()
}
