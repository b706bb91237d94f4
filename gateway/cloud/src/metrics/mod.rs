//! CloudWatch metrics: `PutMetricData` with its limits, and as much of `ListMetrics` and
//! `GetMetricStatistics` as shows what arrived. What is not here: percentiles, alarms, dashboards.

mod cbor;
mod put;

pub use put::{Datum, Measured};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use crate::{
    counters::Counters,
    http::Reply,
    refusal::Refusal,
    settings::{Keep, Seen, Settings},
};

/// Of a request, before and after its compression.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The service.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    datums: VecDeque<Datum>,
    kept_bytes: u64,
}

/// What a call needs besides the service.
#[derive(Debug)]
pub(crate) struct Calling<'a> {
    pub(crate) request: u64,
    pub(crate) now_micros: u64,
    pub(crate) settings: &'a Settings,
    pub(crate) counters: &'a mut Counters,
}

impl Metrics {
    pub(crate) fn call(
        &mut self,
        operation: &str,
        input: &Value,
        calling: Calling<'_>,
    ) -> Result<Value, Refusal> {
        match operation {
            "PutMetricData" => {
                let now_millis = calling.now_micros / 1000;
                let datums = put::parse(input, calling.request, now_millis)?;
                calling.counters.datums += u64::try_from(datums.len()).unwrap_or(u64::MAX);
                for datum in datums {
                    if let Some(observer) = &calling.settings.observer {
                        observer.tell(Seen::Datum(&datum));
                    }
                    self.remember(datum, calling.settings.keep);
                }
                Ok(Value::Null)
            }
            "ListMetrics" => Ok(self.list_metrics(input)),
            "GetMetricStatistics" => self.get_metric_statistics(input),
            _ => Err(Refusal::bad("UnknownOperationException", "")),
        }
    }

    pub(crate) fn datums(&self) -> Vec<Datum> {
        self.datums.iter().cloned().collect()
    }

    fn remember(&mut self, datum: Datum, keep: Keep) {
        if keep == Keep::None {
            return;
        }
        self.kept_bytes += datum.weight();
        self.datums.push_back(datum);
        while keep.is_over(self.kept_bytes)
            && let Some(oldest) = self.datums.pop_front()
        {
            self.kept_bytes -= oldest.weight();
        }
    }

    fn list_metrics(&self, input: &Value) -> Value {
        let (namespace, name) = (input["Namespace"].as_str(), input["MetricName"].as_str());
        let matching = self.datums.iter().filter(|datum| {
            namespace.is_none_or(|own| *own == datum.namespace)
                && name.is_none_or(|own| *own == datum.name)
        });
        let metrics: BTreeSet<_> = matching
            .map(|datum| (&datum.namespace, &datum.name, &datum.dimensions))
            .collect();
        let metric = |(namespace, name, dimensions): (&String, &String, &Vec<(String, String)>)| {
            let dimensions: Vec<_> = dimensions
                .iter()
                .map(|(name, value)| json!({ "Name": name, "Value": value }))
                .collect();
            json!({ "Namespace": namespace, "MetricName": name, "Dimensions": dimensions })
        };
        json!({ "Metrics": metrics.into_iter().map(metric).collect::<Vec<_>>() })
    }

    fn get_metric_statistics(&self, input: &Value) -> Result<Value, Refusal> {
        let text = |name: &str| input[name].as_str().ok_or_else(|| put::missing(name));
        let number = |name: &str| input[name].as_f64().ok_or_else(|| put::missing(name));
        let (namespace, name) = (text("Namespace")?, text("MetricName")?);
        let (from, to) = (number("StartTime")?, number("EndTime")?);
        let period = input["Period"].as_u64().filter(|secs| *secs > 0);
        let period = period.ok_or_else(|| put::missing("Period"))?;
        let mut wanted = put::dimensions(&input["Dimensions"], "Dimensions")?;
        wanted.sort();
        let unit = input["Unit"].as_str();
        let mut periods: BTreeMap<u64, Statistics> = BTreeMap::new();
        for datum in &self.datums {
            let mut dimensions = datum.dimensions.clone();
            dimensions.sort();
            let at_secs = datum.at_millis / 1000;
            let is_wanted = datum.namespace == namespace
                && datum.name == name
                && dimensions == wanted
                && unit.is_none_or(|unit| *unit == datum.unit)
                && (from..to).contains(&seconds(at_secs));
            if is_wanted {
                let period = periods.entry(at_secs - at_secs % period).or_default();
                period.add(&datum.measured);
            }
        }
        let points = periods.into_iter().map(|(at_secs, of)| {
            json!({
                "Timestamp": seconds(at_secs),
                "SampleCount": of.count,
                "Sum": of.sum,
                "Minimum": of.minimum,
                "Maximum": of.maximum,
                "Average": of.sum / of.count,
                "Unit": unit.unwrap_or("None"),
            })
        });
        Ok(json!({ "Label": name, "Datapoints": points.collect::<Vec<_>>() }))
    }
}

#[derive(Debug)]
struct Statistics {
    count: f64,
    sum: f64,
    minimum: f64,
    maximum: f64,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            count: 0.0,
            sum: 0.0,
            minimum: f64::INFINITY,
            maximum: f64::NEG_INFINITY,
        }
    }
}

impl Statistics {
    fn add(&mut self, measured: &Measured) {
        let mut take = |count: f64, sum: f64, minimum: f64, maximum: f64| {
            self.count += count;
            self.sum += sum;
            self.minimum = self.minimum.min(minimum);
            self.maximum = self.maximum.max(maximum);
        };
        match measured {
            Measured::Values(values) => {
                for (value, count) in values {
                    take(*count, value * count, *value, *value);
                }
            }
            Measured::Statistics {
                count,
                sum,
                minimum,
                maximum,
            } => take(*count, *sum, *minimum, *maximum),
        }
    }
}

fn seconds(secs: u64) -> f64 {
    f64::from(u32::try_from(secs).unwrap_or(u32::MAX))
}

/// How a client speaks to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// JSON 1.0, with `X-Amz-Target`.
    Json,
    /// Smithy's rpc-v2-cbor.
    Cbor,
}

impl Protocol {
    pub(crate) fn read(self, body: &[u8]) -> Result<Value, Refusal> {
        let value = match self {
            _ if body.is_empty() => Some(json!({})),
            Self::Json => serde_json::from_slice(body).ok(),
            Self::Cbor => cbor::to_json(body),
        };
        value
            .filter(Value::is_object)
            .ok_or_else(|| Refusal::serialization("The body is not a structure"))
    }

    pub(crate) fn answer(self, value: &Value) -> Reply {
        let mut reply = match self {
            Self::Json => {
                let body = if value.is_null() {
                    "{}".into()
                } else {
                    value.to_string()
                };
                Reply::new(200, "application/x-amz-json-1.0", body)
            }
            Self::Cbor => Reply::new(200, "application/cbor", cbor::from_json(value)),
        };
        if self == Self::Cbor {
            if value.is_null() {
                // An operation without output has neither a body nor a type of one.
                reply.body.clear();
                reply.content_type = None;
            }
            reply
                .headers
                .push(("smithy-protocol", "rpc-v2-cbor".to_owned()));
        }
        reply
    }

    pub(crate) fn refuse(self, refusal: &Refusal) -> Reply {
        let (code, message) = (&*refusal.code, &*refusal.message);
        // Faults of the service and of AWS's front door have names of their own.
        let of_the_service = code.starts_with("Invalid") || code.starts_with("MissingRequired");
        let shape = match of_the_service {
            true => format!("com.amazonaws.cloudwatch#{code}"),
            false => format!("com.amazon.coral.service#{code}"),
        };
        let document = json!({ "__type": shape, "message": message });
        let mut reply = match self {
            Self::Json => Reply::new(
                refusal.status,
                "application/x-amz-json-1.0",
                document.to_string(),
            ),
            Self::Cbor => Reply::new(
                refusal.status,
                "application/cbor",
                cbor::from_json(&document),
            ),
        };
        let fault = if refusal.status < 500 {
            "Sender"
        } else {
            "Receiver"
        };
        // What the error was called before there were shapes.
        let name = match code {
            "MissingRequiredParameterException" => "MissingParameter",
            code => code.strip_suffix("Exception").unwrap_or(code),
        };
        reply
            .headers
            .push(("x-amzn-query-error", format!("{name};{fault}")));
        if self == Self::Cbor {
            reply
                .headers
                .push(("smithy-protocol", "rpc-v2-cbor".to_owned()));
        }
        reply
    }
}
