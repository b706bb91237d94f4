//! What was measured, as tables and as JSON.

use serde_json::{Value, json};

use crate::{load::Outcome, process::as_f64, rows::Row};

/// All runs of a row at the two brokers.
pub(crate) struct Measured {
    pub(crate) row: Row,
    pub(crate) portcullis: Outcome,
    pub(crate) mosquitto: Outcome,
}

/// The mean of all runs; latencies of all.
pub(crate) fn together(outcomes: Vec<Outcome>) -> Outcome {
    let runs = as_f64(u64::try_from(outcomes.len()).unwrap_or(1).max(1));
    let mut all = Outcome::default();
    for outcome in outcomes {
        all.rate += outcome.rate / runs;
        all.delivered_share += outcome.delivered_share / runs;
        all.cpu_per_million += outcome.cpu_per_million / runs;
        all.generator_share += outcome.generator_share / runs;
        all.rss_peak_kib = all.rss_peak_kib.max(outcome.rss_peak_kib);
        all.latencies.extend(outcome.latencies);
    }
    all.latencies.sort_unstable();
    all
}

/// Microseconds below which this part of the latencies is.
fn percentile(outcome: &Outcome, percent: usize) -> f64 {
    let all = &outcome.latencies;
    let at = (all.len() * percent / 100).min(all.len().saturating_sub(1));
    all.get(at).map_or(0.0, |&nanos| as_f64(nanos) / 1000.0)
}

fn mib(kib: u64) -> f64 {
    as_f64(kib) / 1024.0
}

pub(crate) const RATE_HEAD: &str = "\
| row | Portcullis msg/s | mosquitto msg/s | ratio | delivered % | CPU s/M | RSS MiB |
|---|--:|--:|--:|--:|--:|--:|";
pub(crate) const LATENCY_HEAD: &str = "\
| row | Portcullis p50 / p99 µs | mosquitto p50 / p99 µs | ratio p50 / p99 | CPU s/M | RSS MiB |
|---|--:|--:|--:|--:|--:|";

impl Measured {
    /// A line of the table; of two figures Portcullis' is the first.
    pub(crate) fn line(&self) -> String {
        let Self {
            row,
            portcullis: own,
            mosquitto: other,
        } = self;
        let name = row.name();
        let (_, name) = name.split_once('/').unwrap_or_default();
        let common = format!(
            "{:.1} / {:.1} | {:.0} / {:.0} |",
            own.cpu_per_million,
            other.cpu_per_million,
            mib(own.rss_peak_kib),
            mib(other.rss_peak_kib)
        );
        if row.is_fixed_rate {
            let (p50, p99) = (percentile(own, 50), percentile(own, 99));
            let (other50, other99) = (percentile(other, 50), percentile(other, 99));
            return format!(
                "| {name} | {p50:.0} / {p99:.0} | {other50:.0} / {other99:.0} | {:.2} / {:.2} | {common}",
                p50 / other50,
                p99 / other99
            );
        }
        format!(
            "| {name} | {:.0} | {:.0} | {:.2} | {:.0} / {:.0} | {common}",
            own.rate,
            other.rate,
            own.rate / other.rate,
            own.delivered_share * 100.0,
            other.delivered_share * 100.0
        )
    }

    pub(crate) fn json(&self) -> Value {
        let one = |outcome: &Outcome| {
            json!({
                "messagesPerSecond": outcome.rate,
                "deliveredShare": outcome.delivered_share,
                "cpuSecondsPerMillion": outcome.cpu_per_million,
                "rssPeakKib": outcome.rss_peak_kib,
                "generatorCoreShare": outcome.generator_share,
                "p50Micros": percentile(outcome, 50),
                "p99Micros": percentile(outcome, 99),
            })
        };
        json!({
            "row": self.row.name(),
            "portcullis": one(&self.portcullis),
            "mosquitto": one(&self.mosquitto),
        })
    }
}
