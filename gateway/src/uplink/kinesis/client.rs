//! The SDK's client over what all clients of AWS share, and what its errors mean (specification D.2).

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use aws_sdk_kinesis::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
    primitives::{Blob, DateTime, DateTimeFormat},
    types::PutRecordsRequestEntry,
};
use portcullis_core::upstream::shards::Shard;

use super::request::Body;
use crate::{
    chain::chain,
    clock,
    uplink::{
        StreamConfig,
        aws::{self, Http},
        state::Failure,
    },
};

/// A handle; clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    kinesis: aws_sdk_kinesis::Client,
    stream: Arc<str>,
    skew: Skew,
}

/// What became of one record of a request.
#[derive(Debug)]
pub(super) enum RecordOutcome {
    Accepted { shard: String },
    Failed { failure: Failure, detail: String },
}

/// What the service says about a stream.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) is_active: bool,
    pub(super) is_encrypted: bool,
    pub(super) on_demand: bool,
}

/// Why a call failed.
pub(super) type Refusal = (Failure, String);

/// By how many seconds the service's clock was ahead of ours at its last answer; the service looks at
/// ours when it checks a signature.
#[derive(Clone, Debug, Default)]
pub(super) struct Skew(Arc<AtomicI64>);

impl Skew {
    pub(super) fn secs(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Intercept for Skew {
    fn name(&self) -> &'static str {
        "clock skew"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let theirs = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(theirs) = theirs {
            let ours = i64::try_from(clock::now().as_secs()).unwrap_or(i64::MAX);
            self.0.store(theirs.secs() - ours, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Client {
    /// A client with the default credentials chain. Opens no connection.
    pub(super) async fn new(config: &StreamConfig, skew: Skew) -> Self {
        let (region, endpoint) = (&config.region, config.endpoint.as_deref());
        let shared = aws::load(&Http::new(), region, endpoint, config.request_timeout).await;
        let config_of_service = aws_sdk_kinesis::config::Builder::from(&shared)
            .interceptor(skew.clone())
            .build();
        Self {
            kinesis: aws_sdk_kinesis::Client::from_conf(config_of_service),
            stream: config.stream.as_str().into(),
            skew,
        }
    }

    /// See [`Skew`].
    pub(super) fn skew(&self) -> &Skew {
        &self.skew
    }

    /// One attempt; an outcome for each record in order, or why the whole request failed.
    pub(super) async fn put_records(&self, body: Body) -> Result<Vec<RecordOutcome>, Refusal> {
        let (count, bytes) = (body.count(), body.finish(&self.stream));
        let content_bytes = bytes.len().to_string();
        // The SDK's own way copies every record three times and costs most of the processor; it
        // checks that there is one and signs what is put in its place.
        let entry = PutRecordsRequestEntry::builder()
            .partition_key("-")
            .data(Blob::new([]))
            .build()
            .map_err(|error| (Failure::Refused, error.to_string()))?;
        let request = self.kinesis.put_records();
        let answer = request
            .stream_name(&*self.stream)
            .records(entry)
            .customize()
            .mutate_request(move |request| {
                *request.body_mut() = bytes.clone().into();
                request
                    .headers_mut()
                    .insert("content-length", content_bytes.clone());
            })
            .send()
            .await
            .map_err(|error| (classify(&error), chain(&error)))?;
        if answer.records().len() != count {
            let outcomes = answer.records().len();
            let detail = format!("{outcomes} outcomes for {count} records");
            return Err((Failure::Service, detail));
        }
        let outcomes = answer.records.into_iter().map(|entry| {
            match (entry.error_code, entry.sequence_number) {
                (None, Some(_)) => RecordOutcome::Accepted {
                    shard: entry.shard_id.unwrap_or_default(),
                },
                (code, _) => RecordOutcome::Failed {
                    failure: classify_record(code.as_deref().unwrap_or_default()),
                    detail: format!(
                        "{}: {}",
                        code.as_deref().unwrap_or("no sequence number"),
                        entry.error_message.as_deref().unwrap_or_default()
                    ),
                },
            }
        });
        Ok(outcomes.collect())
    }

    /// What the stream is like.
    pub(super) async fn describe(&self) -> Result<Described, Refusal> {
        let request = self.kinesis.describe_stream_summary();
        let answer = request
            .stream_name(&*self.stream)
            .send()
            .await
            .map_err(|error| (classify(&error), chain(&error)))?;
        let summary = answer.stream_description_summary();
        let is = |of: Option<&str>, what: &str| of == Some(what);
        Ok(Described {
            is_active: summary
                .is_some_and(|s| ["ACTIVE", "UPDATING"].contains(&s.stream_status().as_str())),
            is_encrypted: summary
                .is_some_and(|s| is(s.encryption_type().map(|t| t.as_str()), "KMS")),
            on_demand: summary
                .and_then(|s| s.stream_mode_details())
                .is_some_and(|mode| mode.stream_mode().as_str() == "ON_DEMAND"),
        })
    }

    /// The open shards; `at_most` of them and no more pages.
    pub(super) async fn shards(&self, at_most: usize) -> Result<Vec<Shard>, Refusal> {
        let (mut shards, mut next) = (Vec::new(), None);
        loop {
            let request = self.kinesis.list_shards();
            // A page is named by its token alone.
            let request = match next.take() {
                Some(token) => request.next_token(token),
                None => request.stream_name(&*self.stream),
            };
            let page = request
                .send()
                .await
                .map_err(|error| (classify(&error), chain(&error)))?;
            shards.extend(page.shards().iter().filter_map(open_shard));
            match page.next_token {
                Some(token) if shards.len() < at_most => next = Some(token),
                _ => return Ok(shards),
            }
        }
    }
}

/// A shard that is written to; those that were split or merged have an end.
fn open_shard(shard: &aws_sdk_kinesis::types::Shard) -> Option<Shard> {
    let numbers = shard.sequence_number_range();
    if numbers.is_some_and(|range| range.ending_sequence_number().is_some()) {
        return None;
    }
    let range = shard.hash_key_range()?;
    Some(Shard {
        id: shard.shard_id().to_owned(),
        first: range.starting_hash_key().parse().ok()?,
        last: range.ending_hash_key().parse().ok()?,
    })
}

fn classify_record(code: &str) -> Failure {
    match code {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "KMSThrottlingException" => Failure::Throttled,
        "InternalFailure" | "InternalFailureException" | "ServiceUnavailable" | "" => {
            Failure::Service
        }
        _ => Failure::Refused,
    }
}

fn classify<E>(error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            classify_answer(status, service.err().code())
        }
        SdkError::ResponseError(response) => {
            classify_answer(response.raw().status().as_u16(), None)
        }
        SdkError::DispatchFailure(dispatch)
            if !dispatch.is_io() && !dispatch.is_timeout() && names_credentials(error) =>
        {
            Failure::Credentials
        }
        SdkError::TimeoutError(_) => Failure::TimedOut,
        SdkError::DispatchFailure(_) => Failure::Connectivity,
        _ if names_credentials(error) => Failure::Credentials,
        _ => Failure::Refused,
    }
}

fn classify_answer(status: u16, code: Option<&str>) -> Failure {
    match code.unwrap_or_default() {
        "ProvisionedThroughputExceededException"
        | "KMSThrottlingException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException" => Failure::Throttled,
        "InternalFailureException" | "InternalFailure" | "InternalServerError" => Failure::Service,
        "ResourceNotFoundException" => Failure::StreamMissing,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => Failure::Credentials,
        "InvalidArgumentException" | "ValidationException" | "SerializationException" => {
            Failure::Invalid
        }
        _ => match status {
            413 => Failure::Invalid,
            429 => Failure::Throttled,
            // A success that could not be read: what was sent may have arrived.
            200..=299 | 500.. => Failure::Service,
            _ => Failure::Refused,
        },
    }
}

/// The SDK reports missing credentials as a failure to dispatch, with the reason in its sources.
fn names_credentials(error: &dyn Error) -> bool {
    chain(error).contains("credential")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_classified_as_the_specification_says() {
        for (status, code, failure) in [
            (
                400,
                "ProvisionedThroughputExceededException",
                Failure::Throttled,
            ),
            (400, "KMSThrottlingException", Failure::Throttled),
            (400, "LimitExceededException", Failure::Throttled),
            (500, "InternalFailureException", Failure::Service),
            (503, "", Failure::Service),
            (400, "ResourceNotFoundException", Failure::StreamMissing),
            (400, "AccessDeniedException", Failure::Credentials),
            (403, "InvalidSignatureException", Failure::Credentials),
            (400, "ExpiredTokenException", Failure::Credentials),
            (400, "KMSDisabledException", Failure::Credentials),
            (400, "InvalidArgumentException", Failure::Invalid),
            (400, "ValidationException", Failure::Invalid),
            (400, "SerializationException", Failure::Invalid),
            (413, "", Failure::Invalid),
            (400, "SomethingNew", Failure::Refused),
        ] {
            assert_eq!(classify_answer(status, Some(code)), failure, "{code}");
        }
        assert_eq!(classify_record("InternalFailure"), Failure::Service);
        assert_eq!(
            classify_record("ProvisionedThroughputExceededException"),
            Failure::Throttled
        );
        assert_eq!(
            classify_record("InvalidArgumentException"),
            Failure::Refused
        );
    }
}
