//! What the bus counts.

use prometheus::{IntCounter, IntCounterVec, Registry};

use crate::telemetry::Registrar;

/// Counters of the bus.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Metrics {
    rebuilds: IntCounterVec,
    lost: IntCounterVec,
}

/// Why the router was built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rebuild {
    /// What it keeps and never frees has reached its bound.
    Growth,
    /// It panicked.
    Panic,
}

/// Why a subscription did not get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It was overwritten before the session asked for it.
    Slow,
    /// The router is full and was built anew too often lately: the message was not taken.
    Full,
}

impl Metrics {
    /// Registers everything.
    pub(in crate::broker) fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        Self {
            rebuilds: metrics.counters(
                "portcullis_bus_rebuilds_total",
                "How often the bus built its router anew, by reason.",
                &["reason"],
            ),
            lost: metrics.counters(
                "portcullis_bus_lost_total",
                "QoS 0 messages that the bus lost, by reason.",
                &["reason"],
            ),
        }
    }

    /// Counts for nobody.
    pub(super) fn detached() -> Self {
        Self::register(&Registry::new())
    }

    pub(super) fn rebuilt(&self, reason: Rebuild) -> IntCounter {
        self.rebuilds.with_label_values(&[match reason {
            Rebuild::Growth => "growth",
            Rebuild::Panic => "panic",
        }])
    }

    pub(super) fn lost(&self, reason: Loss) -> IntCounter {
        self.lost.with_label_values(&[match reason {
            Loss::Slow => "slow",
            Loss::Full => "full",
        }])
    }
}
