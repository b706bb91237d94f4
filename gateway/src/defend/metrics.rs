//! What defend counts.

use prometheus::{
    IntCounter, IntCounterVec, Registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry,
};

const UNIQUE: &str = "metric names are unique";

/// Metrics of this module.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) violations: IntCounterVec,
    pub(super) activities: IntCounter,
    pub(super) dropped: IntCounter,
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
        }
    }
}
