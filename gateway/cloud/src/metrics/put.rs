//! What is in a `PutMetricData`, and every reason to refuse it: one wrong datum refuses all.

use serde_json::Value;

use crate::refusal::Refusal;

const DATUMS_MAX: usize = 1000;
const VALUES_MAX: usize = 150;
const DIMENSIONS_MAX: usize = 30;
const NAME_CHARS_MAX: usize = 255;
const DIMENSION_VALUE_CHARS_MAX: usize = 1024;
const PAST_MILLIS_MAX: f64 = 14.0 * 24.0 * 3600.0 * 1000.0;
const FUTURE_MILLIS_MAX: f64 = 2.0 * 3600.0 * 1000.0;
/// 2 to the power of 360.
const VALUE_EXPONENT_MAX: i32 = 360;

const UNITS: &[&str] = &[
    "Seconds",
    "Microseconds",
    "Milliseconds",
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
    "Percent",
    "Count",
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
    "None",
];

/// A data point that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// The number of the request that brought it.
    pub request: u64,
    /// Of the request.
    pub namespace: String,
    /// The metric's.
    pub name: String,
    /// As sent, in this order.
    pub dimensions: Vec<(String, String)>,
    /// Its timestamp, or when it came.
    pub at_millis: u64,
    /// What.
    pub measured: Measured,
    /// `None` if it has none.
    pub unit: String,
    /// 1 or 60.
    pub resolution_secs: u64,
}

/// The three ways in which a datum is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// `Value`, or `Values` with `Counts`: value and count.
    Values(Vec<(f64, f64)>),
    /// `StatisticValues`.
    Statistics {
        /// `SampleCount`.
        count: f64,
        /// `Sum`.
        sum: f64,
        /// `Minimum`.
        minimum: f64,
        /// `Maximum`.
        maximum: f64,
    },
}

impl Datum {
    pub(super) fn weight(&self) -> u64 {
        let dimensions = self.dimensions.iter();
        let dimensions: usize = dimensions
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let values = match &self.measured {
            Measured::Values(values) => values.len() * 16,
            Measured::Statistics { .. } => 32,
        };
        let bytes = self.namespace.len() + self.name.len() + dimensions + values;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

pub(super) fn missing(name: &str) -> Refusal {
    Refusal::bad(
        "MissingRequiredParameterException",
        format!("The parameter {name} is required."),
    )
}

fn invalid(message: String) -> Refusal {
    Refusal::bad("InvalidParameterValueException", message)
}

/// All datums of a request, or why it is refused.
pub(super) fn parse(input: &Value, request: u64, now_millis: u64) -> Result<Vec<Datum>, Refusal> {
    let namespace = input["Namespace"]
        .as_str()
        .ok_or_else(|| missing("Namespace"))?;
    let chars = namespace.chars().count();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_/#:".contains(c);
    if !(1..=NAME_CHARS_MAX).contains(&chars)
        || namespace.starts_with(':')
        || !namespace.chars().all(is_allowed)
    {
        return Err(invalid(format!(
            "The value {namespace} for parameter Namespace is invalid."
        )));
    }
    if namespace.starts_with("AWS/") {
        return Err(invalid(
            "The value AWS/ for parameter Namespace is invalid.".to_owned(),
        ));
    }
    let mut tried: Vec<&Value> = list(&input["MetricData"]).collect();
    for entity in list(&input["EntityMetricData"]) {
        tried.extend(list(&entity["MetricData"]));
    }
    if tried.is_empty() {
        return Err(missing("MetricData"));
    }
    if tried.len() > DATUMS_MAX {
        return Err(invalid(format!(
            "The collection MetricData must not have a size greater than {DATUMS_MAX}."
        )));
    }
    let mut datums = Vec::with_capacity(tried.len());
    for (at, value) in tried.into_iter().enumerate() {
        let place = format!("MetricData.member.{}", at + 1);
        let mut datum = datum(value, &place, now_millis)?;
        datum.request = request;
        namespace.clone_into(&mut datum.namespace);
        datums.push(datum);
    }
    Ok(datums)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn datum(value: &Value, place: &str, now_millis: u64) -> Result<Datum, Refusal> {
    let name_place = format!("{place}.MetricName");
    let name = value["MetricName"]
        .as_str()
        .ok_or_else(|| missing(&name_place))?;
    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) || !is_plain(name) {
        return Err(invalid(format!(
            "The value {name} for parameter {name_place} is invalid."
        )));
    }
    let unit = value["Unit"].as_str().unwrap_or("None");
    if !UNITS.contains(&unit) {
        return Err(invalid(format!(
            "The value {unit} for parameter {place}.Unit is invalid."
        )));
    }
    let resolution = &value["StorageResolution"];
    let resolution_secs = if resolution.is_null() {
        60
    } else {
        let secs = resolution.as_u64().filter(|secs| matches!(secs, 1 | 60));
        secs.ok_or_else(|| {
            invalid(format!(
                "The parameter {place}.StorageResolution must be 1 or a multiple of 60."
            ))
        })?
    };
    Ok(Datum {
        request: 0,
        namespace: String::new(),
        name: name.to_owned(),
        dimensions: dimensions(&value["Dimensions"], &format!("{place}.Dimensions"))?,
        at_millis: timestamp(&value["Timestamp"], place, now_millis)?,
        measured: measured(value, place)?,
        unit: unit.to_owned(),
        resolution_secs,
    })
}

fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii() && !c.is_control())
}

/// Checked names and values.
pub(super) fn dimensions(value: &Value, place: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut dimensions: Vec<(String, String)> = Vec::new();
    for (at, dimension) in list(value).enumerate() {
        let place = format!("{place}.member.{}", at + 1);
        let part = |part: &str| {
            let text = dimension[part].as_str();
            text.ok_or_else(|| missing(&format!("{place}.{part}")))
        };
        let (name, value) = (part("Name")?, part("Value")?);
        let wrong = |part: &str, text: &str| {
            Err(invalid(format!(
                "The value {text} for parameter {place}.{part} is invalid."
            )))
        };
        let is_text = |text: &str, most: usize| {
            (1..=most).contains(&text.chars().count()) && is_plain(text) && !text.trim().is_empty()
        };
        if !is_text(name, NAME_CHARS_MAX) || name.starts_with(':') {
            return wrong("Name", name);
        }
        if !is_text(value, DIMENSION_VALUE_CHARS_MAX) {
            return wrong("Value", value);
        }
        if dimensions.iter().any(|(other, _)| other == name) {
            return Err(invalid(format!("The dimension {name} is given twice.")));
        }
        dimensions.push((name.to_owned(), value.to_owned()));
    }
    if dimensions.len() > DIMENSIONS_MAX {
        return Err(invalid(format!(
            "The collection {place} must not have a size greater than {DIMENSIONS_MAX}."
        )));
    }
    Ok(dimensions)
}

fn timestamp(value: &Value, place: &str, now_millis: u64) -> Result<u64, Refusal> {
    if value.is_null() {
        return Ok(now_millis);
    }
    let place = format!("{place}.Timestamp");
    let secs = value.as_f64();
    let secs = secs.ok_or_else(|| invalid(format!("The parameter {place} is not a timestamp.")))?;
    let millis = secs * 1000.0;
    let age = exact(now_millis) - millis;
    if age > PAST_MILLIS_MAX {
        return Err(invalid(format!(
            "The parameter {place} must specify a time no more than two weeks in the past."
        )));
    }
    if -age > FUTURE_MILLIS_MAX {
        return Err(invalid(format!(
            "The parameter {place} must specify a time no more than two hours in the future."
        )));
    }
    Ok(u64::try_from(std::time::Duration::from_secs_f64(secs.max(0.0)).as_millis()).unwrap_or(0))
}

/// Milliseconds of Unix time are far below the 53 bits that are exact.
fn exact(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64() * 1000.0
}

/// A number, also one that JSON writes as text.
fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    }
}

fn in_range(value: &Value, place: &str) -> Result<f64, Refusal> {
    let float = float(value).ok_or_else(|| missing(place))?;
    if !float.is_finite() || float.abs() > 2_f64.powi(VALUE_EXPONENT_MAX) {
        return Err(invalid(format!(
            "The value {float} for parameter {place} is invalid."
        )));
    }
    Ok(float)
}

fn measured(value: &Value, place: &str) -> Result<Measured, Refusal> {
    let (one, many, statistics) = (&value["Value"], &value["Values"], &value["StatisticValues"]);
    let given = [one, many, statistics].into_iter().filter(|v| !v.is_null());
    match given.count() {
        0 => {
            return Err(missing(&format!(
                "{place}.Value, {place}.Values or {place}.StatisticValues"
            )));
        }
        1 => {}
        _ => {
            return Err(Refusal::bad(
                "InvalidParameterCombinationException",
                format!(
                    "The parameters {place}.Value, {place}.Values and {place}.StatisticValues are mutually exclusive and you have specified more than one."
                ),
            ));
        }
    }
    if !one.is_null() {
        return Ok(Measured::Values(vec![(
            in_range(one, &format!("{place}.Value"))?,
            1.0,
        )]));
    }
    if !statistics.is_null() {
        let part = |name: &str| {
            in_range(
                &statistics[name],
                &format!("{place}.StatisticValues.{name}"),
            )
        };
        let (count, sum) = (part("SampleCount")?, part("Sum")?);
        let (minimum, maximum) = (part("Minimum")?, part("Maximum")?);
        if count <= 0.0 || minimum > maximum {
            return Err(invalid(format!(
                "The value for parameter {place}.StatisticValues is invalid."
            )));
        }
        return Ok(Measured::Statistics {
            count,
            sum,
            minimum,
            maximum,
        });
    }
    weighed(many, &value["Counts"], place).map(Measured::Values)
}

fn weighed(values: &Value, counts: &Value, place: &str) -> Result<Vec<(f64, f64)>, Refusal> {
    let (values, counts): (Vec<_>, Vec<_>) = (list(values).collect(), list(counts).collect());
    if values.is_empty() {
        return Err(missing(&format!("{place}.Values")));
    }
    if values.len() > VALUES_MAX {
        return Err(invalid(format!(
            "The collection {place}.Values must not have a size greater than {VALUES_MAX}."
        )));
    }
    if !counts.is_empty() && counts.len() != values.len() {
        return Err(invalid(format!(
            "The parameters {place}.Values and {place}.Counts must be of the same length."
        )));
    }
    let mut weighed = Vec::with_capacity(values.len());
    for (at, value) in values.into_iter().enumerate() {
        let count_place = format!("{place}.Counts.member.{}", at + 1);
        let count = counts.get(at).map(|count| in_range(count, &count_place));
        let count = count.transpose()?.unwrap_or(1.0);
        if count <= 0.0 {
            return Err(invalid(format!(
                "The value {count} for parameter {count_place} is invalid."
            )));
        }
        weighed.push((
            in_range(value, &format!("{place}.Values.member.{}", at + 1))?,
            count,
        ));
    }
    Ok(weighed)
}
