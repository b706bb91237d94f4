//! How a module makes its metrics: named, described, registered, in one step.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, core::Collector,
};

/// Makes metrics on one registry. A name that is no metric name, or is taken, is a mistake of the
/// code that every start would show, so it panics.
#[derive(Clone, Copy, Debug)]
pub struct Registrar<'r>(pub &'r Registry);

impl Registrar<'_> {
    /// A counter.
    pub fn counter(self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::new(name, help))
    }

    /// A counter for each combination of values of `labels`.
    pub fn counters(self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge.
    pub fn gauge(self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::new(name, help))
    }

    /// A gauge of fractions.
    pub fn float_gauge(self, name: &str, help: &str) -> Gauge {
        self.keep(Gauge::new(name, help))
    }

    /// A gauge of fractions for each combination of values of `labels`.
    pub fn float_gauges(self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.keep(GaugeVec::new(Opts::new(name, help), labels))
    }

    /// A histogram.
    pub fn histogram(self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.keep(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(buckets),
        ))
    }

    /// A histogram for each combination of values of `labels`.
    pub fn histograms(
        self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> HistogramVec {
        self.keep(HistogramVec::new(
            HistogramOpts::new(name, help).buckets(buckets),
            labels,
        ))
    }

    fn keep<C: Collector + Clone + 'static>(self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("names and labels are constants that Prometheus takes");
        self.0
            .register(Box::new(collector.clone()))
            .expect("metric names are unique");
        collector
    }
}
