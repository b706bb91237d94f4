//! What defend counts.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_with_registry,
};

const UNIQUE: &str = "metric names are unique";

/// Metrics of this module.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) violations: IntCounterVec,
    pub(super) activities: IntCounter,
    pub(super) dropped: IntCounter,
    pub(super) devices: IntGauge,
    pub(super) alarms: IntGauge,
    pub(super) evicted: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            violations: register_int_counter_vec_with_registry!(
                "portcullis_violations_total",
                "Changes of alarms, by profile, behaviour and type (in-alarm, alarm-cleared, alarm-invalidated).",
                &["profile", "behavior", "type"],
                registry
            )
            .expect(UNIQUE),
            activities: register_int_counter_with_registry!(
                "portcullis_defend_activities_total",
                "Activities of devices that detection has seen.",
                registry
            )
            .expect(UNIQUE),
            dropped: register_int_counter_with_registry!(
                "portcullis_defend_activities_dropped_total",
                "Activities that detection has not seen, because its queue was full.",
                registry
            )
            .expect(UNIQUE),
            devices: register_int_gauge_with_registry!(
                "portcullis_defend_devices",
                "Devices with windows.",
                registry
            )
            .expect(UNIQUE),
            alarms: register_int_gauge_with_registry!(
                "portcullis_defend_alarms_open",
                "Alarms that are open: one for each device and behaviour.",
                registry
            )
            .expect(UNIQUE),
            evicted: register_int_counter_with_registry!(
                "portcullis_defend_devices_evicted_total",
                "Devices that were forgotten, because a table was full.",
                registry
            )
            .expect(UNIQUE),
        }
    }
}
