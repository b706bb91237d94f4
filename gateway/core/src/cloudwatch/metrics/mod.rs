//! Data points: their bodies in records, what the service takes of them, and how they share a call.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::members;
use crate::{
    limits::{
        DIMENSION_VALUE_BYTES_MAX, METRIC_DIMENSIONS_MAX, METRIC_NAME_BYTES_MAX, METRIC_PERIOD,
        METRIC_VALUES_MAX, PUT_METRIC_DATA_BYTES_MAX, PUT_METRIC_DATA_MAX,
    },
    timestamp::Timestamp,
};

/// All data points of one minute: what a record of `portcullis.metric/1` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Where the metrics are found at CloudWatch.
    pub namespace: String,
    /// The beginning of the minute.
    pub at: Timestamp,
    /// Data points; each has all its dimensions.
    pub data: Vec<Datum>,
}

/// One metric in one minute.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// Its name.
    pub name: String,
    /// Names and values; the metric is another one with others.
    pub dimensions: Vec<(String, String)>,
    /// What the values are in.
    pub unit: Unit,
    /// What was measured.
    pub reading: Reading,
}

/// What was measured in a minute.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Different values and how often each was seen: CloudWatch has percentiles of it.
    Values(Vec<(f64, f64)>),
    /// Where there were too many values to tell them apart.
    Statistics {
        /// How many.
        count: f64,
        /// Of all.
        sum: f64,
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
}

/// A unit by CloudWatch's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit(&'static str);

const UNITS: [&str; 27] = [
    "None",
    "Count",
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Percent",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
];

impl Unit {
    /// Numbers of nothing in particular.
    pub const NONE: Self = Self("None");
    /// Things that are counted.
    pub const COUNT: Self = Self("Count");
    /// Bytes.
    pub const BYTES: Self = Self("Bytes");
    /// Seconds.
    pub const SECONDS: Self = Self("Seconds");

    /// The unit of that name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        UNITS.into_iter().find(|unit| *unit == name).map(Self)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// The largest absolute value that CloudWatch takes: 2^360.
fn value_max() -> f64 {
    2_f64.powi(360)
}

/// Whether `name` may be a namespace, the name of a metric or that of a dimension.
pub fn is_name(name: &str) -> bool {
    is_text(name, METRIC_NAME_BYTES_MAX) && !name.starts_with(':')
}

/// Whether `value` may be that of a dimension.
pub fn is_dimension_value(value: &str) -> bool {
    is_text(value, DIMENSION_VALUE_BYTES_MAX)
}

fn is_text(text: &str, bytes_max: usize) -> bool {
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    (1..=bytes_max).contains(&text.len())
        && text.bytes().all(plain)
        && !text.bytes().all(|byte| byte == b' ')
}

impl Datum {
    /// Whether the service takes it. One that it does not take would have the whole call refused.
    pub fn is_fit(&self) -> bool {
        let mut names: Vec<_> = self.dimensions.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        is_name(&self.name)
            && self.dimensions.len() <= METRIC_DIMENSIONS_MAX
            && names.len() == self.dimensions.len()
            && self
                .dimensions
                .iter()
                .all(|(name, value)| is_name(name) && is_dimension_value(value))
            && self.reading.is_fit()
    }

    /// At least what it takes in a call before compression, in the service's binary form.
    pub fn wire_bytes(&self) -> usize {
        // Names of members, heads of texts and lists, the time and the unit.
        const FIXED: usize = 160;
        const DIMENSION: usize = 32;
        const NUMBER: usize = 9;
        let dimensions = self.dimensions.iter();
        let dimensions: usize = dimensions
            .map(|(name, value)| DIMENSION + name.len() + value.len())
            .sum();
        let numbers = match &self.reading {
            Reading::Values(values) => 2 * values.len(),
            Reading::Statistics { .. } => 16,
        };
        FIXED + self.name.len() + self.unit.0.len() + dimensions + NUMBER * numbers
    }
}

impl Reading {
    /// One value, seen once.
    pub fn one(value: f64) -> Self {
        Self::Values(vec![(value, 1.0)])
    }

    fn is_fit(&self) -> bool {
        let takes = |value: f64| value.is_finite() && value.abs() <= value_max();
        match self {
            Self::Values(values) => {
                (1..=METRIC_VALUES_MAX).contains(&values.len())
                    && values
                        .iter()
                        .all(|(value, count)| takes(*value) && takes(*count) && *count > 0.0)
            }
            Self::Statistics {
                count,
                sum,
                min,
                max,
            } => [*count, *sum, *min, *max].into_iter().all(takes) && *count > 0.0 && min <= max,
        }
    }
}

/// What one call may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Minutes.
    pub points_max: usize,
    /// Data points.
    pub data_max: usize,
    /// Bytes before compression.
    pub bytes_max: usize,
}

impl CallLimits {
    /// Those of the service.
    pub const SERVICE: Self = Self {
        points_max: usize::MAX,
        data_max: PUT_METRIC_DATA_MAX,
        bytes_max: PUT_METRIC_DATA_BYTES_MAX,
    };
}

/// How much one call takes from the front of a queue of minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many minutes, whole.
    Points(usize),
    /// The first minute is more than a call: so many of its data points.
    Part(usize),
}

/// The next call of what waits in `points`, oldest first: whole minutes of one namespace as long as
/// they fit. A minute is divided only if it does not fit a call alone. `None` if there are none.
pub fn first<'a>(points: impl IntoIterator<Item = &'a Point>, limits: CallLimits) -> Option<Taken> {
    let mut points = points.into_iter().peekable();
    let namespace = &points.peek()?.namespace;
    let envelope = 64 + namespace.len();
    let (mut taken, mut data, mut bytes) = (0, 0, envelope);
    for point in points {
        let of_point: usize = point.data.iter().map(Datum::wire_bytes).sum();
        let fits =
            data + point.data.len() <= limits.data_max && bytes + of_point <= limits.bytes_max;
        if taken == 0 && !fits {
            return Some(Taken::Part(part(point, envelope, limits)));
        }
        if !fits || taken >= limits.points_max.max(1) || point.namespace != *namespace {
            break;
        }
        taken += 1;
        data += point.data.len();
        bytes += of_point;
    }
    Some(Taken::Points(taken))
}

/// How many data points of a minute fit: one at least, for a fit one is far below a call.
fn part(point: &Point, envelope: usize, limits: CallLimits) -> usize {
    let mut bytes = envelope;
    let fitting = point.data.iter().take(limits.data_max).take_while(|datum| {
        bytes += datum.wire_bytes();
        bytes <= limits.bytes_max
    });
    fitting.count().max(1)
}

/// The body of a record, as far as this module writes it.
#[derive(Serialize, Deserialize)]
struct Body {
    at: String,
    period_seconds: u64,
    namespace: String,
    /// Those of every metric here.
    dimensions: BTreeMap<String, String>,
    metrics: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    unit: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    dimensions: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    counts: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statistics: Option<Statistics>,
}

#[derive(Serialize, Deserialize)]
struct Statistics {
    count: f64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Point {
    /// The members of a record's body, behind those of the envelope. `common` are the dimensions of
    /// every metric, beside those that each has; data that the service would not take stay away.
    pub fn members(&self, common: &BTreeMap<String, String>) -> Bytes {
        let fit = self.data.iter().filter(|datum| datum.is_fit());
        members(&Body {
            at: self.at.to_string(),
            period_seconds: METRIC_PERIOD.as_secs(),
            namespace: self.namespace.clone(),
            dimensions: common.clone(),
            metrics: fit.map(Entry::of).collect(),
        })
    }

    /// Reads a record's body.
    pub fn read(body: &[u8]) -> Option<Self> {
        let body: Body = serde_json::from_slice(body).ok()?;
        let common = body.dimensions;
        let data = body.metrics.into_iter();
        Some(Self {
            at: Timestamp::parse_rfc3339(&body.at)?,
            namespace: is_name(&body.namespace).then_some(body.namespace)?,
            data: data
                .map(|entry| entry.into_datum(&common))
                .collect::<Option<_>>()?,
        })
    }
}

impl Entry {
    fn of(datum: &Datum) -> Self {
        let mut entry = Self {
            name: datum.name.clone(),
            unit: datum.unit.0.to_owned(),
            dimensions: datum.dimensions.iter().cloned().collect(),
            value: None,
            values: Vec::new(),
            counts: Vec::new(),
            statistics: None,
        };
        match &datum.reading {
            Reading::Values(values) => match values.as_slice() {
                [(value, 1.0)] => entry.value = Some(*value),
                values => (entry.values, entry.counts) = values.iter().copied().unzip(),
            },
            &Reading::Statistics {
                count,
                sum,
                min,
                max,
            } => {
                entry.statistics = Some(Statistics {
                    count,
                    sum,
                    min,
                    max,
                });
            }
        }
        entry
    }

    fn into_datum(self, common: &BTreeMap<String, String>) -> Option<Datum> {
        let mut dimensions = common.clone();
        dimensions.extend(self.dimensions);
        let reading = match (self.value, self.statistics) {
            (Some(value), None) => Reading::one(value),
            (None, Some(s)) => Reading::Statistics {
                count: s.count,
                sum: s.sum,
                min: s.min,
                max: s.max,
            },
            (None, None) if self.values.len() == self.counts.len() => {
                Reading::Values(self.values.into_iter().zip(self.counts).collect())
            }
            _ => return None,
        };
        Some(Datum {
            name: self.name,
            dimensions: dimensions.into_iter().collect(),
            unit: Unit::parse(&self.unit)?,
            reading,
        })
    }
}

#[cfg(test)]
mod tests;
