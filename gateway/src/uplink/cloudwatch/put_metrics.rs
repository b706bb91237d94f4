//! `PutMetricData` by way of the SDK, one attempt.

use std::time::Duration;

use aws_sdk_cloudwatch::{
    error::{ProvideErrorMetadata, SdkError},
    operation::put_metric_data::PutMetricDataError,
    primitives::DateTime,
    types::{Dimension, MetricDatum, StandardUnit, StatisticSet},
};
use portcullis_core::{
    cloudwatch::metrics::{Datum, Reading},
    timestamp::Timestamp,
};

use super::{
    MetricsConfig,
    link::{Failed, Failure},
};
use crate::{
    chain::chain,
    uplink::aws::{self, Http},
};

#[derive(Debug)]
pub(super) struct Client(aws_sdk_cloudwatch::Client);

impl Client {
    /// Opens no connection.
    pub(super) async fn new(config: &MetricsConfig, http: &Http, timeout: Duration) -> Self {
        let endpoint = config.endpoint.as_deref();
        let settings = aws::load(http, &config.region, endpoint, timeout).await;
        Self(aws_sdk_cloudwatch::Client::new(&settings))
    }

    /// One attempt. The limits of a call are the caller's.
    pub(super) async fn put(
        &self,
        namespace: &str,
        data: Vec<(Timestamp, Datum)>,
    ) -> Result<(), Failed> {
        let data = data
            .into_iter()
            .map(|(at, datum)| wire(at, datum))
            .collect();
        let call = self.0.put_metric_data().namespace(namespace);
        let answer = call.set_metric_data(Some(data)).send().await;
        answer.map(drop).map_err(|error| Failed {
            failure: classify(&error),
            detail: chain(&error),
        })
    }
}

fn wire(at: Timestamp, datum: Datum) -> MetricDatum {
    let dimensions = datum.dimensions.into_iter();
    let dimensions =
        dimensions.map(|(name, value)| Dimension::builder().name(name).value(value).build());
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let wire = MetricDatum::builder()
        .metric_name(datum.name)
        .set_dimensions(Some(dimensions.collect()))
        .timestamp(DateTime::from_millis(millis))
        .unit(StandardUnit::from(datum.unit.name()));
    let wire = match datum.reading {
        Reading::Values(values) => match values.as_slice() {
            [(value, 1.0)] => wire.value(*value),
            values => {
                let (values, counts) = values.iter().copied().unzip();
                wire.set_values(Some(values)).set_counts(Some(counts))
            }
        },
        Reading::Statistics {
            count,
            sum,
            min,
            max,
        } => wire.statistic_values(
            StatisticSet::builder()
                .sample_count(count)
                .sum(sum)
                .minimum(min)
                .maximum(max)
                .build(),
        ),
    };
    wire.build()
}

fn classify(error: &SdkError<PutMetricDataError>) -> Failure {
    match error {
        SdkError::ServiceError(answer) => Failure::of_answer(
            answer.raw().status().as_u16(),
            answer.err().code().unwrap_or_default(),
        ),
        SdkError::ResponseError(answer) => Failure::of_answer(answer.raw().status().as_u16(), ""),
        // The SDK reports missing credentials as a failure to dispatch.
        SdkError::DispatchFailure(dispatch)
            if !dispatch.is_io() && !dispatch.is_timeout() && names_credentials(error) =>
        {
            Failure::Credentials
        }
        SdkError::DispatchFailure(_) => Failure::of_connection(error),
        // Waiting for credentials may take the whole of the time as well; then nothing was sent. It
        // is not told which, and a minute of metrics is the smaller loss.
        SdkError::TimeoutError(_) => Failure::Unanswered,
        _ if names_credentials(error) => Failure::Credentials,
        _ => Failure::Refused,
    }
}

fn names_credentials(error: &SdkError<PutMetricDataError>) -> bool {
    chain(error).contains("credential")
}
