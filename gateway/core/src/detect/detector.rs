//! All devices and what is watched on each: the state of detection.
//!
//! State lives in memory: after a restart windows start empty, and an episode that was open opens
//! again, under a new id, if the device still misbehaves.
//!
//! The clock is the wall clock, which steps: a board without a battery learns the time hours after
//! it started. A step forward by more than [`DETECT_STEP_MIN`] makes all windows start over; what
//! seems to be a long silence is none.

use std::{collections::HashMap, sync::Arc};

use super::{
    activity::Activity,
    profile::Profiles,
    violation::{Violation, ViolationIds},
    watch::{Change, NewId, Watch},
};
use crate::{
    identity::GroupName,
    limits::{DETECT_SILENCE_MAX, DETECT_STEP_MIN, DETECT_THINGS_MAX, DETECT_UNREGISTERED_MAX},
    timestamp::Timestamp,
};

/// Bounds of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`DETECT_THINGS_MAX`].
    pub things_max: usize,
    /// See [`DETECT_UNREGISTERED_MAX`].
    pub unregistered_max: usize,
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Devices with windows.
    pub devices: usize,
    /// Open episodes.
    pub alarms: usize,
    /// Devices that were forgotten because a table was full.
    pub evicted: u64,
}

/// Judges activities against profiles.
#[derive(Debug)]
pub struct Detector {
    profiles: Profiles,
    things: Table,
    unregistered: Table,
    /// When it was ticked last.
    ticked: Option<Timestamp>,
}

#[derive(Debug)]
struct Table {
    devices: HashMap<Arc<str>, Device>,
    registered: bool,
    devices_max: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Device {
    groups: Arc<[GroupName]>,
    last_seen: Timestamp,
    watches: Vec<Watch>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            things_max: DETECT_THINGS_MAX,
            unregistered_max: DETECT_UNREGISTERED_MAX,
        }
    }
}

impl Detector {
    /// Knows no device yet.
    pub fn new(profiles: Profiles, limits: Limits) -> Self {
        Self {
            profiles,
            things: Table::new(true, limits.things_max),
            unregistered: Table::new(false, limits.unregistered_max),
            ticked: None,
        }
    }

    /// Takes in what a device did.
    pub fn observe(&mut self, activity: &Activity, new_id: NewId<'_>) -> Vec<Violation> {
        self.watch_clock(activity.at);
        let mut violations = Vec::new();
        let table = if activity.registered {
            &mut self.things
        } else {
            &mut self.unregistered
        };
        table.make_room_for(activity, new_id, &mut violations);
        let mut changes = Vec::new();
        let device = table.device(&self.profiles, activity, &mut changes);
        device.last_seen = activity.at;
        for watch in &mut device.watches {
            for _ in 0..activity.times {
                watch.observe(activity, new_id, &mut changes);
            }
        }
        report(
            &activity.device,
            activity.at,
            changes,
            new_id,
            &mut violations,
        );
        violations
    }

    /// Takes the datapoints that are due, and forgets who has been silent for too long. Call it
    /// about once a second.
    pub fn tick(&mut self, now: Timestamp, new_id: NewId<'_>) -> Vec<Violation> {
        self.watch_clock(now);
        self.ticked = Some(now);
        let mut violations = Vec::new();
        for table in [&mut self.things, &mut self.unregistered] {
            table.tick(now, new_id, &mut violations);
        }
        violations
    }

    /// Starts windows over if the clock stepped forward since the last tick.
    fn watch_clock(&mut self, now: Timestamp) {
        let Some(ticked) = self.ticked else { return };
        let step = now.millis_since(ticked);
        if step > DETECT_STEP_MIN.as_secs() * 1000 {
            self.ticked = Some(now);
            for table in [&mut self.things, &mut self.unregistered] {
                table.start_over(now, step);
            }
        }
    }

    /// Takes other profiles into force. Windows and alarms of behaviours that stay as they were
    /// go on.
    pub fn replace_profiles(
        &mut self,
        profiles: Profiles,
        now: Timestamp,
        new_id: NewId<'_>,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        for table in [&mut self.things, &mut self.unregistered] {
            for (name, device) in &mut table.devices {
                let mut changes = Vec::new();
                device.retarget(&profiles, table.registered, now, &mut changes);
                report(name, now, changes, new_id, &mut violations);
            }
        }
        self.profiles = profiles;
        violations
    }

    /// For metrics.
    pub fn stats(&self) -> Stats {
        let tables = [&self.things, &self.unregistered];
        let watches = tables
            .iter()
            .flat_map(|table| table.devices.values())
            .flat_map(|device| &device.watches);
        Stats {
            devices: tables.iter().map(|table| table.devices.len()).sum(),
            alarms: watches.filter(|watch| watch.is_in_alarm()).count(),
            evicted: tables.iter().map(|table| table.evicted).sum(),
        }
    }
}

impl Table {
    fn new(registered: bool, devices_max: usize) -> Self {
        Self {
            devices: HashMap::new(),
            registered,
            devices_max,
            evicted: 0,
        }
    }

    /// The device of `activity`, watched as its groups ask.
    fn device(
        &mut self,
        profiles: &Profiles,
        activity: &Activity,
        changes: &mut Vec<Change>,
    ) -> &mut Device {
        let (registered, now) = (self.registered, activity.at);
        let device = self
            .devices
            .entry(activity.device.clone())
            .or_insert_with(|| {
                let mut device = Device {
                    groups: activity.groups.clone(),
                    last_seen: now,
                    watches: Vec::new(),
                };
                device.retarget(profiles, registered, now, changes);
                device
            });
        if !Arc::ptr_eq(&device.groups, &activity.groups) {
            let moved = device.groups != activity.groups;
            device.groups = activity.groups.clone();
            if moved {
                device.retarget(profiles, registered, now, changes);
            }
        }
        device
    }

    /// Forgets an eighth of a full table at once, so that the search for who was quiet longest is
    /// paid for by many newcomers.
    fn make_room_for(
        &mut self,
        activity: &Activity,
        new_id: NewId<'_>,
        violations: &mut Vec<Violation>,
    ) {
        if self.devices.len() < self.devices_max || self.devices.contains_key(&activity.device) {
            return;
        }
        let mut by_age: Vec<_> = self
            .devices
            .iter()
            .map(|(name, device)| (device.last_seen, name.clone()))
            .collect();
        let count = (self.devices_max / 8).max(1);
        by_age.select_nth_unstable(count - 1);
        for (_, name) in by_age.into_iter().take(count) {
            self.forget(&name, activity.at, new_id, violations);
            self.evicted += 1;
        }
    }

    fn tick(&mut self, now: Timestamp, new_id: NewId<'_>, violations: &mut Vec<Violation>) {
        let mut silent = Vec::new();
        let silence_millis = DETECT_SILENCE_MAX.as_secs() * 1000;
        for (name, device) in &mut self.devices {
            if now.millis_since(device.last_seen) > silence_millis {
                silent.push(name.clone());
                continue;
            }
            let mut changes = Vec::new();
            for watch in &mut device.watches {
                watch.tick(now, new_id, &mut changes);
            }
            report(name, now, changes, new_id, violations);
        }
        for name in silent {
            self.forget(&name, now, new_id, violations);
        }
    }

    /// See [`Watch::start_over`]; silences last as long as they did before the clock stepped.
    fn start_over(&mut self, now: Timestamp, step_millis: u64) {
        for device in self.devices.values_mut() {
            device.last_seen = device.last_seen.plus_millis(step_millis);
            for watch in &mut device.watches {
                watch.start_over(now);
            }
        }
    }

    fn forget(
        &mut self,
        name: &Arc<str>,
        now: Timestamp,
        new_id: NewId<'_>,
        violations: &mut Vec<Violation>,
    ) {
        if let Some(device) = self.devices.remove(name) {
            let ended = device
                .watches
                .into_iter()
                .filter_map(|watch| watch.end(now));
            report(name, now, ended.collect(), new_id, violations);
        }
    }
}

impl Device {
    /// Watches what `profiles` ask for; goes on with what is watched already.
    fn retarget(
        &mut self,
        profiles: &Profiles,
        registered: bool,
        now: Timestamp,
        changes: &mut Vec<Change>,
    ) {
        let mut before = std::mem::take(&mut self.watches);
        for profile in profiles.iter() {
            if !profile.covers(registered, &self.groups) {
                continue;
            }
            for behavior in &profile.behaviors {
                let same = before
                    .iter()
                    .position(|watch| watch.is_of(profile, behavior));
                self.watches.push(match same {
                    Some(at) => before.swap_remove(at),
                    None => Watch::new(profile, behavior, now),
                });
            }
        }
        changes.extend(before.into_iter().filter_map(|watch| watch.end(now)));
    }
}

fn report(
    device: &Arc<str>,
    at: Timestamp,
    changes: Vec<Change>,
    new_id: NewId<'_>,
    violations: &mut Vec<Violation>,
) {
    violations.extend(changes.into_iter().map(|change| Violation {
        ids: ViolationIds {
            event_id: new_id(),
            violation_id: change.violation_id,
        },
        event_type: change.event_type,
        at,
        device: device.clone(),
        cause: change.cause,
    }));
}
