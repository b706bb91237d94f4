//! What a filled-in template changes in the registry, and whether it may.

use std::collections::{BTreeMap, btree_map::Entry};

use portcullis_core::{
    identity::{CertificateId, GroupName},
    limits::GROUPS_PER_THING_MAX,
    provisioning::{Existing, FillError, InitialStatus, Outcome, Plan, PlannedThing, Way},
    registry::{Change, Origin, Registry, State, StateCertificate, StateThing, Status},
    timestamp::Timestamp,
};

use crate::identity::{JournalError, Snapshot, config::Room};

/// Why a device does not get what it asks for: for it, for the log, and as a metric label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) status: u16,
    /// AWS's `errorCode`.
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) label: &'static str,
}

impl Denied {
    pub(super) fn new(
        status: u16,
        code: &'static str,
        label: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            label,
        }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", "internal", message)
    }

    pub(super) fn pending_full() -> Self {
        let message = "as many certificates as there may be wait for approval";
        Self::new(429, "LimitExceeded", "pending-full", message)
    }

    pub(super) fn no_template(name: &str) -> Self {
        let message = format!("the template `{name}` does not exist");
        Self::new(404, "ResourceNotFound", "no-template", message)
    }

    fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, "ResourceConflict", "conflict", message)
    }
}

impl From<FillError> for Denied {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Conflict { .. } => Self::conflict(error.to_string()),
            _ => Self::new(400, "InvalidParameters", "parameters", error.to_string()),
        }
    }
}

impl From<JournalError> for Denied {
    fn from(error: JournalError) -> Self {
        let text = crate::chain::chain(&error);
        tracing::error!(error = %text, "A certificate could not be registered.");
        match error {
            JournalError::Full { .. } => {
                Self::new(429, "LimitExceeded", "journal-full", "the registry is full")
            }
            JournalError::Damaged { .. } => Self::new(
                503,
                "ServiceUnavailable",
                "journal-damaged",
                "the registry is damaged",
            ),
            _ => Self::internal("the registry could not be written"),
        }
    }
}

pub(super) fn status(status: InitialStatus) -> Status {
    match status {
        InitialStatus::Active => Status::Active,
        InitialStatus::Inactive => Status::Inactive,
    }
}

/// A plan for one certificate.
pub(super) struct Grant<'a> {
    pub(super) way: Way,
    pub(super) plan: &'a Plan,
    pub(super) certificate: CertificateId,
    pub(super) ca: Option<CertificateId>,
    /// The claim certificate under which it is asked for.
    pub(super) claim: Option<CertificateId>,
    pub(super) room: Room,
    pub(super) why: &'a str,
    pub(super) at: Timestamp,
}

impl Grant<'_> {
    /// The changes, thing first; `state` is newer than what `snapshot` knows of it.
    pub(super) fn changes(
        &self,
        snapshot: &Snapshot,
        state: &State,
    ) -> Result<Vec<Change>, Denied> {
        let registry = snapshot.registry();
        let wanted = &self.plan.thing;
        self.check_owner(registry, state)?;
        self.check_room(state)?;
        for policy in &self.plan.policies {
            if !snapshot.policies().contains_key(policy) {
                let message = format!("the policy `{policy}` does not exist");
                return Err(Denied::new(404, "ResourceNotFound", "no-policy", message));
            }
        }
        let of_file = registry
            .thing(wanted.name.as_str())
            .filter(|thing| thing.origin == Origin::File);
        let of_state = state.thing(wanted.name.as_str());
        let mut changes = Vec::new();
        match (of_file, of_state) {
            (Some(known), _) => {
                let mut groups = known.direct_groups.clone();
                let memberships = state.memberships(wanted.name.as_str());
                groups.extend(memberships.iter().map(|known| known.group.clone()));
                let existing = Existing {
                    thing_type: known.thing.thing_type.as_ref(),
                    attributes: &known.thing.attributes,
                    groups: &groups,
                };
                // Its type and attributes are the file's to say; it may be put into more groups.
                if let Outcome::Becomes(next) = self.plan.over(&existing)? {
                    check_groups(registry, &next.groups)?;
                    let new = next.groups.into_iter().filter(|g| !groups.contains(g));
                    changes.extend(new.map(|group| Change::Member {
                        thing: wanted.name.clone(),
                        group,
                        why: self.why.to_owned(),
                        at: self.at,
                    }));
                }
            }
            (None, Some(known)) => {
                let existing = Existing {
                    thing_type: known.thing_type.as_ref(),
                    attributes: &known.attributes,
                    groups: &known.groups,
                };
                if let Outcome::Becomes(next) = self.plan.over(&existing)? {
                    changes.push(self.thing(registry, &next)?);
                }
            }
            (None, None) => changes.push(self.thing(registry, wanted)?),
        }
        let mut certificate = StateCertificate::new(
            self.certificate,
            status(self.plan.status),
            self.at,
            self.why,
        );
        certificate.things = vec![wanted.name.clone()];
        certificate.policies.clone_from(&self.plan.policies);
        certificate.ca = self.ca;
        certificate.under = self.claim;
        changes.push(Change::Certificate(certificate));
        Ok(changes)
    }

    fn thing(&self, registry: &Registry, next: &PlannedThing) -> Result<Change, Denied> {
        check_groups(registry, &next.groups)?;
        if let Some(wanted) = &next.thing_type
            && !registry.types.is_empty()
            && !registry.types.iter().any(|known| known.name == *wanted)
        {
            let message = format!("the thing type `{wanted}` does not exist");
            return Err(Denied::new(404, "ResourceNotFound", "no-type", message));
        }
        Ok(Change::Thing(StateThing {
            name: next.name.clone(),
            thing_type: next.thing_type.clone(),
            attributes: next.attributes.clone(),
            groups: next.groups.clone(),
            at: self.at,
            why: self.why.to_owned(),
        }))
    }

    /// Each grant is one certificate and at most one thing, so certificates bound both.
    fn check_room(&self, state: &State) -> Result<(), Denied> {
        let denied = |label, max: usize, setting, whose| {
            let message = format!("{max} devices registered{whose} already (`{setting}`)");
            Err(Denied::new(429, "LimitExceeded", label, message))
        };
        let max = self.room.devices_per_claim_max;
        if self.claim.is_some() && state.provisioned(self.claim) >= max {
            let setting = "devices-per-claim-max";
            return denied("claim-full", max, setting, " under this claim certificate");
        }
        let max = self.room.devices_max;
        if state.provisioned(None) >= max {
            return denied("devices-full", max, "devices-max", "");
        }
        Ok(())
    }

    /// A thing that has a certificate, or had one, is somebody's: who was shut out does not come back
    /// by asking again. A CA may give it another one while one of its own is in force and none is shut
    /// out: that is how devices of that CA are renewed. A thing of `registry.toml` is for devices to
    /// take only if it says so.
    fn check_owner(&self, registry: &Registry, state: &State) -> Result<(), Denied> {
        let thing = &self.plan.thing.name;
        if let Some(known) = registry.thing(thing.as_str())
            && known.origin == Origin::File
            && !known.provisionable
        {
            let message = format!(
                "the thing `{thing}` is in the registry and not marked `provisionable = true`"
            );
            return Err(Denied::conflict(message));
        }
        let mut held: BTreeMap<CertificateId, Held> = BTreeMap::new();
        let listed = registry.certificates.iter();
        for known in listed.filter(|known| known.is_attached_to(thing.as_str())) {
            let is_over = known.until.is_some_and(|until| until <= self.at);
            let (status, ca) = (known.status, None);
            held.insert(
                known.id,
                Held {
                    status,
                    is_over,
                    ca,
                },
            );
        }
        for known in state.certificates() {
            let is_over = known.until.is_some_and(|until| until <= self.at);
            let (status, ca) = (known.status, known.ca);
            let one = Held {
                status,
                is_over,
                ca,
            };
            match held.entry(known.id) {
                Entry::Occupied(mut other) => {
                    let other = other.get_mut();
                    other.status = other.status.max(status);
                    other.is_over |= is_over;
                    other.ca = ca;
                }
                Entry::Vacant(place) if known.things.contains(thing) => {
                    place.insert(one);
                }
                Entry::Vacant(_) => {}
            }
        }
        let is_renewal = || {
            let own = |held: &Held| held.ca.is_some() && held.ca == self.ca;
            held.values()
                .all(|held| own(held) && held.status == Status::Active)
                && held.values().any(|held| !held.is_over)
        };
        if held.is_empty() || (self.way == Way::JustInTime && is_renewal()) {
            return Ok(());
        }
        let message = format!(
            "the thing `{thing}` has or had a certificate; only `cert issue` or `cert import` gives it another one"
        );
        Err(Denied::conflict(message))
    }
}

/// A certificate of a thing, as it was at the time.
struct Held {
    status: Status,
    /// Past its `until`.
    is_over: bool,
    ca: Option<CertificateId>,
}

/// As the registry takes them (specification A.10): they exist, there are not too many, and no two
/// are of one hierarchy.
fn check_groups(registry: &Registry, groups: &[GroupName]) -> Result<(), Denied> {
    if groups.len() > GROUPS_PER_THING_MAX {
        let message = format!("the thing would be in more than {GROUPS_PER_THING_MAX} groups");
        return Err(Denied::new(400, "InvalidParameters", "groups", message));
    }
    let mut roots: BTreeMap<GroupName, &GroupName> = BTreeMap::new();
    for group in groups {
        let mut next = registry.group(group.as_str());
        if next.is_none() {
            let message = format!("the group `{group}` does not exist");
            return Err(Denied::new(404, "ResourceNotFound", "no-group", message));
        }
        let mut root = group.clone();
        while let Some(found) = next {
            root = found.name.clone();
            let parent = found.parent.as_ref();
            next = parent.and_then(|parent| registry.group(parent.as_str()));
        }
        if let Some(other) = roots.insert(root, group) {
            let message = format!("the groups `{other}` and `{group}` are of one hierarchy");
            return Err(Denied::new(400, "InvalidParameters", "groups", message));
        }
    }
    Ok(())
}
