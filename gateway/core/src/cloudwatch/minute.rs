//! A minute of samples becomes one data point for each metric.
//!
//! Counters go upstream as what they grew by in the minute, not as totals: their sum over any time is
//! what an alarm or a graph asks for, and a restart of the gateway is no step down. The price is that
//! nothing may be sent twice, for CloudWatch adds up: the sink prefers the loss of a minute, and counts
//! it. A counter that stands still is told as 0, so that an alarm can tell quiet from absent.
//! Gauges are looked at several times a minute and told as values with counts, of which CloudWatch
//! has minimum, maximum, average and percentiles.

use std::collections::BTreeMap;

use super::metrics::{Datum, Reading, Unit};
use crate::limits::METRIC_VALUES_MAX;

/// A metric as CloudWatch tells metrics apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// See [`Datum::name`].
    pub name: String,
    /// See [`Datum::dimensions`].
    pub dimensions: Vec<(String, String)>,
    /// See [`Datum::unit`].
    pub unit: Unit,
}

/// What was sampled since the last data points were taken.
#[derive(Debug)]
pub struct Minute {
    series_max: usize,
    counters: BTreeMap<Series, Total>,
    gauges: BTreeMap<Series, Gauge>,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Total {
    told: f64,
    now: f64,
}

#[derive(Debug)]
struct Gauge {
    values: Vec<(f64, f64)>,
    count: f64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Minute {
    /// Knows so many metrics at once; samples of further ones are left out.
    pub const fn new(series_max: usize) -> Self {
        Self {
            series_max,
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// A counter stands at `total`, which counts from the start of the process.
    pub fn counter(&mut self, series: Series, total: f64) {
        if !total.is_finite() {
            return;
        }
        if self.is_known_or_fits(self.counters.contains_key(&series)) {
            self.counters.entry(series).or_default().now = total;
        }
    }

    /// A gauge stands at `value`.
    pub fn gauge(&mut self, series: Series, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.is_known_or_fits(self.gauges.contains_key(&series)) {
            self.gauges.entry(series).or_insert(Gauge::NONE).add(value);
        }
    }

    fn is_known_or_fits(&mut self, is_known: bool) -> bool {
        let fits = is_known || self.counters.len() + self.gauges.len() < self.series_max;
        self.left_out += u64::from(!fits);
        fits
    }

    /// How many samples were left out since this was last asked.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// The data points since they were last taken. Counters stay known; gauges that are not there any
    /// more are forgotten.
    pub fn take(&mut self) -> Vec<Datum> {
        let counters = self.counters.iter_mut().map(|(series, total)| {
            // A total that went back began anew.
            let grown = if total.now < total.told {
                total.now
            } else {
                total.now - total.told
            };
            total.told = total.now;
            series.datum(Reading::one(grown))
        });
        let mut data: Vec<_> = counters.collect();
        let gauges = std::mem::take(&mut self.gauges).into_iter();
        data.extend(gauges.map(|(series, gauge)| series.datum(gauge.reading())));
        data
    }
}

impl Series {
    fn datum(&self, reading: Reading) -> Datum {
        Datum {
            name: self.name.clone(),
            dimensions: self.dimensions.clone(),
            unit: self.unit,
            reading,
        }
    }
}

impl Gauge {
    const NONE: Self = Self {
        values: Vec::new(),
        count: 0.0,
        sum: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
    };

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if let Some((_, count)) = self.values.iter_mut().find(|(seen, _)| *seen == value) {
            *count += 1.0;
        } else if self.values.len() <= METRIC_VALUES_MAX {
            // One beyond the limit says that there are too many.
            self.values.push((value, 1.0));
        }
    }

    fn reading(self) -> Reading {
        if self.values.len() <= METRIC_VALUES_MAX {
            return Reading::Values(self.values);
        }
        Reading::Statistics {
            count: self.count,
            sum: self.sum,
            min: self.min,
            max: self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(name: &str) -> Series {
        Series {
            name: name.to_owned(),
            dimensions: vec![("Reason".to_owned(), name.to_owned())],
            unit: Unit::COUNT,
        }
    }

    fn readings(minute: &mut Minute) -> Vec<(String, Reading)> {
        let data = minute.take().into_iter();
        data.map(|datum| (datum.name, datum.reading)).collect()
    }

    #[test]
    fn a_counter_is_told_as_what_it_grew_by_and_as_nothing_when_it_stands() {
        let mut minute = Minute::new(10);
        let mut grown = Vec::new();
        for total in [5.0, 12.0, 12.0, 3.0] {
            minute.counter(series("Publishes"), total - 1.0);
            minute.counter(series("Publishes"), total);
            grown.extend(readings(&mut minute));
        }
        let told = |value| ("Publishes".to_owned(), Reading::one(value));
        assert_eq!(grown, [told(5.0), told(7.0), told(0.0), told(3.0)]);
    }

    #[test]
    fn a_counter_that_is_not_seen_any_more_is_told_as_standing() {
        let mut minute = Minute::new(10);
        minute.counter(series("Publishes"), 5.0);
        minute.take();
        assert_eq!(
            readings(&mut minute),
            [("Publishes".to_owned(), Reading::one(0.0))]
        );
    }

    #[test]
    fn a_gauge_is_told_as_its_values_and_forgotten_when_it_is_gone() {
        let mut minute = Minute::new(10);
        for value in [3.0, 4.0, 3.0, f64::NAN] {
            minute.gauge(series("Connections"), value);
        }
        let values = Reading::Values(vec![(3.0, 2.0), (4.0, 1.0)]);
        assert_eq!(readings(&mut minute), [("Connections".to_owned(), values)]);
        assert_eq!(readings(&mut minute), []);
    }

    #[test]
    fn metrics_beyond_the_bound_are_left_out_and_counted() {
        let mut minute = Minute::new(2);
        minute.counter(series("A"), 1.0);
        minute.gauge(series("B"), 1.0);
        minute.counter(series("C"), 1.0);
        minute.gauge(series("D"), 1.0);
        minute.counter(series("A"), 2.0);
        let names: Vec<_> = readings(&mut minute).into_iter().map(|r| r.0).collect();
        assert_eq!(names, ["A", "B"]);
        assert_eq!(minute.take_left_out(), 2);
        assert_eq!(minute.take_left_out(), 0);
    }

    proptest! {
        #[test]
        fn many_values_become_statistics_that_agree_with_them(
            values in proptest::collection::vec(-50_i16..150, 1..600)
        ) {
            let mut minute = Minute::new(1);
            for value in &values {
                minute.gauge(series("G"), f64::from(*value));
            }
            let datum = minute.take().remove(0);
            prop_assert!(datum.is_fit());
            let (count, sum) = match &datum.reading {
                Reading::Values(values) => (
                    values.iter().map(|(_, count)| count).sum::<f64>(),
                    values.iter().map(|(value, count)| value * count).sum::<f64>(),
                ),
                Reading::Statistics { count, sum, min, max } => {
                    let least = values.iter().min().unwrap();
                    let most = values.iter().max().unwrap();
                    prop_assert_eq!((*min, *max), (f64::from(*least), f64::from(*most)));
                    (*count, *sum)
                }
            };
            let all: f64 = values.iter().map(|value| f64::from(*value)).sum();
            prop_assert_eq!(sum, all);
            prop_assert_eq!(count, values.iter().fold(0.0, |count, _| count + 1.0));
        }
    }
}
