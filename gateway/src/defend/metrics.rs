//! What defend counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use crate::telemetry::Registrar;

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
        let metrics = Registrar(registry);
        Self {
            violations: metrics.counters(
                "portcullis_violations_total",
                "Changes of alarms, by profile, behaviour and type (in-alarm, alarm-cleared, alarm-invalidated).",
                &["profile", "behavior", "type"]),
            activities: metrics.counter(
                "portcullis_defend_activities_total",
                "Activities of devices that detection has seen."),
            dropped: metrics.counter(
                "portcullis_defend_activities_dropped_total",
                "Activities that detection has not seen, because its queue was full."),
            devices: metrics.gauge(
                "portcullis_defend_devices",
                "Devices with windows."),
            alarms: metrics.gauge(
                "portcullis_defend_alarms_open",
                "Alarms that are open: one for each device and behaviour."),
            evicted: metrics.counter(
                "portcullis_defend_devices_evicted_total",
                "Devices that were forgotten, because a table was full."),
        }
    }
}
