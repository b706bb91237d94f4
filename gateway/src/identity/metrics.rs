//! Metrics of the identity module.

use prometheus::{IntCounterVec, IntGauge, Registry};

use crate::telemetry::Registrar;

/// Its own metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) reloads: IntCounterVec,
    pub(super) generation: IntGauge,
    pub(super) things: IntGauge,
    pub(super) stale: IntGauge,
    pub(super) narrowed_things: IntGauge,
    pub(super) narrowed_certificates: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        let reloads = metrics.counters(
            "portcullis_identity_reloads_total",
            "Changes of registry, policies or certificates, applied or refused.",
            &["outcome"],
        );
        for outcome in ["applied", "refused"] {
            reloads.with_label_values(&[outcome]).reset();
        }
        Self {
            reloads,
            generation: metrics.gauge(
                "portcullis_identity_generation",
                "Grows with every applied change of registry, policies or certificates.",
            ),
            things: metrics.gauge(
                "portcullis_identity_things",
                "Things in the registry in force.",
            ),
            stale: metrics.gauge(
                "portcullis_identity_stale",
                "1 while the files hold a change that was refused, else 0.",
            ),
            narrowed_things: metrics.gauge(
                "portcullis_identity_narrowed_things",
                "Things that a refused change has taken away.",
            ),
            narrowed_certificates: metrics.gauge(
                "portcullis_identity_narrowed_certificates",
                "Certificates that a refused change has taken away.",
            ),
        }
    }
}
