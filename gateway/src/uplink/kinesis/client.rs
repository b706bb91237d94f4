//! The SDK's client, its retries off (two nested back-offs would multiply), and what its errors mean
//! (specification D.2).

use std::error::Error;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kinesis::{
    config::StalledStreamProtectionConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::put_records::PutRecordsError,
    primitives::Blob,
    types::PutRecordsRequestEntry,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use portcullis_core::{limits::UPLINK_CONNECT_TIMEOUT, record::Record};

use crate::{
    chain::chain,
    uplink::{KinesisConfig, state::Failure},
};

#[derive(Debug)]
pub(super) struct Client {
    kinesis: aws_sdk_kinesis::Client,
    stream: String,
}

/// What became of one record of a request.
#[derive(Debug)]
pub(super) enum RecordOutcome {
    Accepted,
    Failed { failure: Failure, detail: String },
}

impl Client {
    /// A client with the default credentials chain. Opens no connection.
    pub(super) async fn new(config: &KinesisConfig) -> Self {
        // The one TLS stack of the house: rustls on ring. It takes plain `http://` as well.
        let http = Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(config.region.clone()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(UPLINK_CONNECT_TIMEOUT)
                    .operation_timeout(config.request_timeout)
                    .build(),
            )
            // The operation's timeout covers it, and it would count a slow uplink as a fault.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Self {
            kinesis: aws_sdk_kinesis::Client::new(&loader.load().await),
            stream: config.stream.clone(),
        }
    }

    /// One attempt; an outcome for each record in order, or why the whole request failed.
    pub(super) async fn put_records(
        &self,
        batch: &[&Record],
    ) -> Result<Vec<RecordOutcome>, (Failure, String)> {
        let mut request = self.kinesis.put_records().stream_name(&self.stream);
        for record in batch {
            let entry = PutRecordsRequestEntry::builder()
                .partition_key(&*record.partition_key)
                .data(Blob::new(record.body.to_vec()))
                .build()
                .map_err(|error| (Failure::Refused, error.to_string()))?;
            request = request.records(entry);
        }
        let answer = request
            .send()
            .await
            .map_err(|error| (classify(&error), chain(&error)))?;
        if answer.records().len() != batch.len() {
            let detail = format!(
                "{} outcomes for {} records",
                answer.records().len(),
                batch.len()
            );
            return Err((Failure::Service, detail));
        }
        let outcomes = answer.records().iter().map(|entry| {
            match (entry.error_code(), entry.sequence_number()) {
                (None, Some(_)) => RecordOutcome::Accepted,
                (code, _) => RecordOutcome::Failed {
                    failure: classify_record(code.unwrap_or_default()),
                    detail: format!(
                        "{}: {}",
                        code.unwrap_or("no sequence number"),
                        entry.error_message().unwrap_or_default()
                    ),
                },
            }
        });
        Ok(outcomes.collect())
    }
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

fn classify(error: &SdkError<PutRecordsError>) -> Failure {
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
