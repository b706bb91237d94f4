//! Metrics of certificates that register themselves.

use prometheus::{IntCounterVec, IntGauge, Registry};

use crate::telemetry::Registrar;

/// Its own metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) introductions: IntCounterVec,
    pub(super) requests: IntCounterVec,
    pub(super) tokens: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Registrar(registry);
        Self {
            introductions: metrics.counters(
                "portcullis_identity_introductions_total",
                "Connections with a certificate that nobody has listed or that waits for approval.",
                &["outcome"],
            ),
            requests: metrics.counters(
                "portcullis_identity_provisioning_requests_total",
                "Requests of devices under a claim certificate.",
                &["outcome"],
            ),
            tokens: metrics.gauge(
                "portcullis_identity_ownership_tokens",
                "Certificates given out under a claim and not provisioned yet.",
            ),
        }
    }
}
