//! Which metrics of the gateway go to CloudWatch, and under which names. AWS charges for each
//! combination of a name and dimensions, so this is a choice: what an operator of a fleet puts on a
//! dashboard or an alarm. The whole of it is at `/metrics`. The table in `gateway/docs/metrics.md` is
//! held to this one by a test.

use portcullis_core::cloudwatch::{Minute, Series, metrics::Unit};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use std::collections::BTreeMap;

/// A metric of the registry that goes to CloudWatch.
struct Entry {
    /// In the registry.
    family: &'static str,
    /// At CloudWatch.
    name: Name,
    unit: Unit,
    /// Labels that become dimensions; a series without one has no such dimension. Those that differ in
    /// other labels alone are added up.
    dimensions: &'static [(&'static str, &'static str)],
}

enum Name {
    Is(&'static str),
    /// The value of this label says which; others do not go.
    By(&'static str, &'static [(&'static str, &'static str)]),
    /// The value of this label is the name.
    Of(&'static str),
}

const fn entry(family: &'static str, name: &'static str, unit: Unit) -> Entry {
    Entry {
        family,
        name: Name::Is(name),
        unit,
        dimensions: &[],
    }
}

impl Entry {
    const fn by(self, dimensions: &'static [(&'static str, &'static str)]) -> Self {
        Self { dimensions, ..self }
    }
}

/// AWS IoT Device Defender publishes these names in `AWS/IoT`; here they stand in our namespace.
const VIOLATIONS: &[(&str, &str)] = &[
    ("in-alarm", "Violations"),
    ("alarm-cleared", "ViolationsCleared"),
    ("alarm-invalidated", "ViolationsInvalidated"),
];

const CATALOGUE: &[Entry] = &[
    entry("portcullis_broker_connections", "Connections", Unit::COUNT),
    entry(
        "portcullis_broker_connected_total",
        "ConnectionsAccepted",
        Unit::COUNT,
    ),
    entry(
        "portcullis_broker_refused_total",
        "ConnectionsRefused",
        Unit::COUNT,
    )
    .by(&[("reason", "Reason")]),
    entry(
        "portcullis_broker_denied_total",
        "RequestsDenied",
        Unit::COUNT,
    )
    .by(&[("action", "Action"), ("reason", "Reason")]),
    entry(
        "portcullis_broker_publishes_total",
        "Publishes",
        Unit::COUNT,
    ),
    entry(
        "portcullis_broker_publish_bytes_total",
        "PublishBytes",
        Unit::BYTES,
    ),
    entry(
        "portcullis_broker_delivery_dropped_total",
        "DeliveriesDropped",
        Unit::COUNT,
    )
    .by(&[("reason", "Reason")]),
    entry(
        "portcullis_pipeline_dropped_total",
        "EventsDropped",
        Unit::COUNT,
    )
    .by(&[("plugin", "Plugin")]),
    Entry {
        family: "portcullis_violations_total",
        name: Name::By("type", VIOLATIONS),
        unit: Unit::COUNT,
        dimensions: &[
            ("profile", "SecurityProfileName"),
            ("behavior", "BehaviorName"),
        ],
    },
    entry("portcullis_defend_alarms_open", "AlarmsOpen", Unit::COUNT),
    entry(
        "portcullis_buffer_depth_records",
        "BufferRecords",
        Unit::COUNT,
    )
    .by(&[("lane", "Lane"), ("sink", "Sink")]),
    entry("portcullis_buffer_disk_bytes", "BufferBytes", Unit::BYTES).by(&[("lane", "Lane")]),
    entry("portcullis_buffer_age_seconds", "BufferAge", Unit::SECONDS)
        .by(&[("lane", "Lane"), ("sink", "Sink")]),
    entry(
        "portcullis_buffer_dropped_records_total",
        "RecordsDropped",
        Unit::COUNT,
    )
    .by(&[("lane", "Lane"), ("sink", "Sink"), ("reason", "Reason")]),
    entry(
        "portcullis_buffer_lost_records_total",
        "RecordsLost",
        Unit::COUNT,
    )
    .by(&[("lane", "Lane")]),
    entry("portcullis_uplink_online", "UplinkOnline", Unit::NONE).by(&[("sink", "Sink")]),
    entry("portcullis_uplink_lag_seconds", "UplinkLag", Unit::SECONDS).by(&[("sink", "Sink")]),
    entry(
        "portcullis_uplink_sent_records_total",
        "RecordsDelivered",
        Unit::COUNT,
    )
    .by(&[("sink", "Sink")]),
    entry(
        "portcullis_uplink_dead_letter_records_total",
        "RecordsSetAside",
        Unit::COUNT,
    )
    .by(&[("sink", "Sink"), ("reason", "Reason")]),
    Entry {
        family: "portcullis_plugin_counter_total",
        name: Name::Of("name"),
        unit: Unit::NONE,
        dimensions: &[("plugin", "Plugin"), ("group", "Group")],
    },
    Entry {
        family: "portcullis_plugin_gauge",
        name: Name::Of("name"),
        unit: Unit::NONE,
        dimensions: &[("plugin", "Plugin"), ("group", "Group"), ("shard", "Shard")],
    },
];

/// Which of the families are sampled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counters,
    Gauges,
}

/// Samples what the catalogue has of these families.
pub(super) fn sample(families: &[MetricFamily], kind: Kind, minute: &mut Minute) {
    let wanted = match kind {
        Kind::Counters => MetricType::COUNTER,
        Kind::Gauges => MetricType::GAUGE,
    };
    for entry in CATALOGUE {
        let family = families.iter().find(|family| family.name() == entry.family);
        let Some(family) = family.filter(|family| family.get_field_type() == wanted) else {
            continue;
        };
        let mut sums: BTreeMap<Series, f64> = BTreeMap::new();
        for metric in family.get_metric() {
            if let Some(series) = entry.series(metric) {
                *sums.entry(series).or_default() += match kind {
                    Kind::Counters => metric.get_counter().get_value(),
                    Kind::Gauges => metric.get_gauge().get_value(),
                };
            }
        }
        for (series, value) in sums {
            match kind {
                Kind::Counters => minute.counter(series, value),
                Kind::Gauges => minute.gauge(series, value),
            }
        }
    }
}

impl Entry {
    fn series(&self, metric: &Metric) -> Option<Series> {
        let label = |name: &str| {
            let found = metric.get_label().iter().find(|label| label.name() == name);
            found.map(|label| label.value())
        };
        let name = match &self.name {
            Name::Is(name) => *name,
            Name::By(by, names) => {
                let value = label(by)?;
                names.iter().find(|(known, _)| *known == value)?.1
            }
            Name::Of(of) => label(of)?,
        };
        // An empty value is none that CloudWatch takes.
        let dimensions = self.dimensions.iter().filter_map(|(from, to)| {
            let value = label(from).filter(|value| !value.is_empty())?;
            Some(((*to).to_owned(), value.to_owned()))
        });
        Some(Series {
            name: name.to_owned(),
            dimensions: dimensions.collect(),
            unit: self.unit,
        })
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::cloudwatch::metrics::Reading;
    use prometheus::Registry;

    use super::*;
    use crate::telemetry::Registrar;

    /// Name, dimensions and value of everything that is told.
    fn told(registry: &Registry, kind: Kind) -> Vec<(String, String, f64)> {
        let mut minute = Minute::new(100);
        sample(&registry.gather(), kind, &mut minute);
        let data = minute.take().into_iter();
        data.map(|datum| {
            let dimensions = datum.dimensions.iter().map(|(n, v)| format!("{n}={v}"));
            let dimensions = dimensions.collect::<Vec<_>>().join(" ");
            let Reading::Values(values) = datum.reading else {
                panic!("few values")
            };
            (datum.name, dimensions, values[0].0)
        })
        .collect()
    }

    #[test]
    fn violations_have_the_names_of_aws() {
        let registry = Registry::new();
        let labels = ["profile", "behavior", "type"];
        let violations = Registrar(&registry).counters("portcullis_violations_total", "h", &labels);
        for (change, times) in [("in-alarm", 3), ("alarm-cleared", 2), ("other", 9)] {
            let counter = violations.with_label_values(&["baseline", "messages", change]);
            counter.inc_by(times);
        }
        let dimensions = "SecurityProfileName=baseline BehaviorName=messages".to_owned();
        assert_eq!(
            told(&registry, Kind::Counters),
            [
                ("Violations".to_owned(), dimensions.clone(), 3.0),
                ("ViolationsCleared".to_owned(), dimensions, 2.0),
            ]
        );
    }

    #[test]
    fn labels_that_are_no_dimension_are_added_up() {
        let registry = Registry::new();
        let name = "portcullis_broker_publishes_total";
        let publishes = Registrar(&registry).counters(name, "h", &["qos"]);
        publishes.with_label_values(&["0"]).inc_by(2);
        publishes.with_label_values(&["1"]).inc_by(5);
        let told = told(&registry, Kind::Counters);
        assert_eq!(told, [("Publishes".to_owned(), String::new(), 7.0)]);
    }

    #[test]
    fn what_plugins_count_has_the_names_that_they_give() {
        let registry = Registry::new();
        let labels = ["plugin", "group", "shard", "name"];
        let gauges = Registrar(&registry).float_gauges("portcullis_plugin_gauge", "h", &labels);
        gauges.with_label_values(&["p", "g", "0", "level"]).set(4.5);
        let dimensions = "Plugin=p Group=g Shard=0".to_owned();
        assert_eq!(
            told(&registry, Kind::Gauges),
            [("level".to_owned(), dimensions, 4.5)]
        );
        assert_eq!(told(&registry, Kind::Counters), []);
    }

    #[test]
    fn the_documented_list_is_this_one() {
        let page = include_str!("../../../docs/metrics.md");
        let (registry_part, list) = page.split_once("## To CloudWatch").unwrap();
        for entry in CATALOGUE {
            let row = |line: &&str| line.contains(&format!("`{}`", entry.family));
            let line = list.lines().find(row);
            let line = line.unwrap_or_else(|| panic!("{} is not listed", entry.family));
            let names: Vec<_> = match &entry.name {
                Name::Is(name) => vec![*name],
                Name::By(_, names) => names.iter().map(|(_, name)| *name).collect(),
                Name::Of(_) => vec![],
            };
            let dimensions = entry.dimensions.iter().map(|(_, dimension)| *dimension);
            for word in names.into_iter().chain(dimensions) {
                assert!(line.contains(&format!("`{word}`")), "{word} in {line}");
            }
        }
        let rows = list.lines().filter(|line| line.starts_with("| `"));
        // And the heartbeat, which no metric of the registry tells.
        assert_eq!(rows.count(), CATALOGUE.len() + 1);
        assert!(!registry_part.is_empty());
    }
}
