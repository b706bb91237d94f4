//! Metrics of the identity module.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Its own metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) reloads: IntCounterVec,
    pub(super) generation: IntGauge,
    pub(super) things: IntGauge,
    pub(super) stale: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Self {
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help).expect("the name is valid");
            registry
                .register(Box::new(gauge.clone()))
                .expect("metric names are unique");
            gauge
        };
        let opts = Opts::new(
            "portcullis_identity_reloads_total",
            "Changes of registry, policies or certificates, applied or refused.",
        );
        let reloads = IntCounterVec::new(opts, &["outcome"]).expect("the name is valid");
        registry
            .register(Box::new(reloads.clone()))
            .expect("metric names are unique");
        for outcome in ["applied", "refused"] {
            reloads.with_label_values(&[outcome]).reset();
        }
        Self {
            reloads,
            generation: gauge(
                "portcullis_identity_generation",
                "Grows with every applied change of registry, policies or certificates.",
            ),
            things: gauge(
                "portcullis_identity_things",
                "Things in the registry in force.",
            ),
            stale: gauge(
                "portcullis_identity_stale",
                "1 while the files hold a change that was refused, else 0.",
            ),
        }
    }
}
