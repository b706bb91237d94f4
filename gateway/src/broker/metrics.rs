//! What the broker counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::bus;
use crate::telemetry::Registrar;

/// Counters and gauges of listeners and sessions.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Connections that sent an accepted CONNECT and are still there.
    pub(super) connections: IntGauge,
    pub(super) sessions: IntGauge,
    pub(super) subscriptions: IntGauge,
    pub(super) queued_bytes: IntGauge,
    pub(super) retained: IntGauge,
    pub(super) retained_bytes: IntGauge,
    pub(super) packets_received: IntCounter,
    pub(super) packets_sent: IntCounter,
    pub(super) bytes_received: IntCounter,
    pub(super) bytes_sent: IntCounter,
    pub(super) connected: IntCounterVec,
    pub(super) refused: IntCounterVec,
    pub(super) disconnected: IntCounterVec,
    pub(super) denied: IntCounterVec,
    pub(super) denials_unlogged: IntCounter,
    pub(super) lifecycle: IntCounterVec,
    pub(super) reauthorized: IntCounterVec,
    pub(super) publishes: IntCounterVec,
    pub(super) publish_bytes: IntCounter,
    pub(super) publish_paced: IntCounterVec,
    pub(super) beyond: IntCounterVec,
    pub(super) acknowledged: IntCounter,
    pub(super) unacknowledged: IntCounter,
    pub(super) quota_exceeded: IntCounter,
    pub(super) deliveries: IntCounterVec,
    /// Of each QoS, as those below: they are counted for every message.
    pub(super) deliveries_of: [IntCounter; 3],
    pub(super) publishes_of: [IntCounter; 3],
    pub(super) delivery_dropped: IntCounterVec,
    pub(super) retained_refused: IntCounter,
    pub(super) bus: bus::Metrics,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &Registry) -> Self {
        let (metrics, bus) = (Registrar(registry), bus::Metrics::register(registry));
        let [publishes, deliveries] = of_messages(&metrics);
        let [packets_received, packets_sent, bytes_received, bytes_sent] = of_traffic(&metrics);
        let [
            sessions,
            subscriptions,
            queued_bytes,
            retained,
            retained_bytes,
        ] = of_sessions(&metrics);
        Self {
            bus,
            packets_received,
            packets_sent,
            bytes_received,
            bytes_sent,
            connections: metrics.gauge("portcullis_broker_connections", "Connected clients."),
            sessions,
            subscriptions,
            queued_bytes,
            retained,
            retained_bytes,
            connected: metrics.counters(
                "portcullis_broker_connected_total",
                "Accepted CONNECTs, by protocol version and whether the client id was taken over.",
                &["version", "takeover"],
            ),
            refused: metrics.counters(
                "portcullis_broker_refused_total",
                "Connections refused before they were served, by reason.",
                &["reason"],
            ),
            disconnected: metrics.counters(
                "portcullis_broker_disconnected_total",
                "Ended connections, by reason.",
                &["reason"],
            ),
            denied: metrics.counters(
                "portcullis_broker_denied_total",
                "Requests that no policy allows, by action and reason.",
                &["action", "reason"],
            ),
            denials_unlogged: metrics.counter(
                "portcullis_broker_denials_unlogged_total",
                "Refusals and denials without a log line of their own, because there were too many.",
            ),
            lifecycle: metrics.counters(
                "portcullis_broker_lifecycle_events_total",
                "Lifecycle events, by kind and whether the stream took them.",
                &["kind", "fate"],
            ),
            reauthorized: metrics.counters(
                "portcullis_broker_reauthorized_total",
                "Sessions that looked at a new configuration, by what it meant for them.",
                &["outcome"],
            ),
            publishes_of: of_each_qos(&publishes),
            publishes,
            publish_bytes: metrics.counter(
                "portcullis_broker_publish_bytes_total",
                "Payload bytes of admitted publishes.",
            ),
            publish_paced: metrics.counters(
                "portcullis_broker_publish_paced_total",
                "Publishes beyond their client's or group's rate, by what became of them.",
                &["fate"],
            ),
            beyond: metrics.counters(
                "portcullis_broker_beyond_total",
                "What clients said beyond a bound on sizes and numbers, by the bound.",
                &["bound"],
            ),
            acknowledged: metrics.counter(
                "portcullis_broker_acknowledged_total",
                "QoS 1 and 2 publishes acknowledged after their commit.",
            ),
            unacknowledged: metrics.counter(
                "portcullis_broker_unacknowledged_total",
                "QoS 1 and 2 publishes whose commit failed; the client was not told a success.",
            ),
            quota_exceeded: metrics.counter(
                "portcullis_broker_quota_exceeded_total",
                "QoS 1 and 2 publishes answered 0x97, because the buffer takes no more.",
            ),
            deliveries_of: of_each_qos(&deliveries),
            deliveries,
            delivery_dropped: metrics.counters(
                "portcullis_broker_delivery_dropped_total",
                "Messages not delivered to a local subscriber, by reason.",
                &["reason"],
            ),
            retained_refused: metrics.counter(
                "portcullis_broker_retained_refused_total",
                "Messages not retained because the bound on retained messages is reached.",
            ),
        }
    }
}

/// Publishes and deliveries.
fn of_messages(metrics: &Registrar<'_>) -> [IntCounterVec; 2] {
    [
        metrics.counters(
            "portcullis_broker_publishes_total",
            "Admitted publishes, by QoS.",
            &["qos"],
        ),
        metrics.counters(
            "portcullis_broker_deliveries_total",
            "Messages delivered to local subscribers, by QoS.",
            &["qos"],
        ),
    ]
}

fn of_each_qos(counters: &IntCounterVec) -> [IntCounter; 3] {
    ["0", "1", "2"].map(|qos| counters.with_label_values(&[qos]))
}

/// Packets and bytes, each received and sent.
fn of_traffic(metrics: &Registrar<'_>) -> [IntCounter; 4] {
    let packets = metrics.counters(
        "portcullis_broker_packets_total",
        "MQTT packets, by direction.",
        &["direction"],
    );
    let bytes = metrics.counters(
        "portcullis_broker_bytes_total",
        "Bytes of MQTT, without what TLS adds, by direction.",
        &["direction"],
    );
    [
        packets.with_label_values(&["received"]),
        packets.with_label_values(&["sent"]),
        bytes.with_label_values(&["received"]),
        bytes.with_label_values(&["sent"]),
    ]
}

/// Sessions, subscriptions, queued bytes, retained messages and their bytes.
fn of_sessions(metrics: &Registrar<'_>) -> [IntGauge; 5] {
    [
        metrics.gauge(
            "portcullis_broker_sessions",
            "Sessions, those of clients that are away included.",
        ),
        metrics.gauge(
            "portcullis_broker_subscriptions",
            "Subscriptions of all sessions.",
        ),
        metrics.gauge(
            "portcullis_broker_queued_bytes",
            "Messages of QoS 1 and 2 that wait for clients or are in flight to them.",
        ),
        metrics.gauge("portcullis_broker_retained", "Retained messages."),
        metrics.gauge(
            "portcullis_broker_retained_bytes",
            "What the retained messages take.",
        ),
    ]
}
