//! What attackers try, with real clients against the real binary: each attempt is refused, named in
//! the log and counted, and nobody else notices.

mod certificates;
mod client_ids;
mod revocation;
mod rotation;
mod tls;
mod topics;

use crate::served::{Served, eventually};

/// The attempt is in the log, on a line that holds all of `named`, and in the metric.
fn is_named_and_counted(served: &Served, metric: &str, label: &str, count: f64, named: &[&str]) {
    eventually(label, || {
        served.log().lines().any(|line| {
            line.contains("WARN")
                && line.contains(label)
                && named.iter().all(|name| line.contains(name))
        })
    });
    let labelled = format!("=\"{label}\"");
    eventually("it is counted", || {
        served.metric(metric, &[&labelled]) >= count
    });
    assert_eq!(served.metric(metric, &[&labelled]), count, "{label}");
}

const REFUSED: &str = "portcullis_broker_refused_total";
const DENIED: &str = "portcullis_broker_denied_total";
