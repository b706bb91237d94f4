//! `PutLogEvents`, `CreateLogGroup` and `CreateLogStream` as signed calls of our own: JSON 1.1, one
//! attempt each.
//!
//! The SDK's crate for CloudWatch Logs is the largest of all that the gateway would build (a hundred
//! operations in one unit that takes 1.4 GB to compile) for these three; the signature and the
//! credentials are still the SDK's.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use aws_config::SdkConfig;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};
use portcullis_core::{
    cloudwatch::logs::RejectedInfo, limits::LOG_ANSWER_BYTES_MAX, timestamp::Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    LogsConfig,
    link::{Failed, Failure},
};
use crate::{
    chain::chain,
    clock::now,
    uplink::aws::{self, Http},
};

/// Credentials are asked for again so long before they end.
const CREDENTIALS_MARGIN: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    provider: Option<SharedCredentialsProvider>,
    credentials: Option<Credentials>,
    region: String,
    endpoint: String,
    group: String,
    stream: String,
    timeout: Duration,
}

/// An event of a call.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct InputEvent<'a> {
    timestamp: u64,
    message: &'a str,
}

impl<'a> InputEvent<'a> {
    pub(super) const fn new(at: Timestamp, message: &'a str) -> Self {
        Self {
            timestamp: at.as_millis(),
            message,
        }
    }
}

impl Client {
    /// Opens no connection.
    pub(super) async fn new(
        config: &LogsConfig,
        stream: String,
        http: &Http,
        timeout: Duration,
    ) -> Self {
        let endpoint = config.endpoint.as_deref();
        let settings: SdkConfig = aws::load(http, &config.region, endpoint, timeout).await;
        Self {
            http: http.clone(),
            provider: settings.credentials_provider(),
            credentials: None,
            endpoint: endpoint.map_or_else(|| default_endpoint(&config.region), str::to_owned),
            region: config.region.clone(),
            group: config.group.clone(),
            stream,
            timeout,
        }
    }

    /// One attempt; the events are sorted by their times and within all limits.
    pub(super) async fn put_events(
        &mut self,
        events: &[InputEvent<'_>],
    ) -> Result<RejectedInfo, Failed> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Call<'a> {
            log_group_name: &'a str,
            log_stream_name: &'a str,
            log_events: &'a [InputEvent<'a>],
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Answer {
            rejected_log_events_info: Option<RejectedInfo>,
        }
        let call = Call {
            log_group_name: &self.group,
            log_stream_name: &self.stream,
            log_events: events,
        };
        let body = serde_json::to_vec(&call).expect("texts and numbers are written as JSON");
        let answer = self.call("PutLogEvents", body).await?;
        // A success without a body, or with one that says something else, rejected nothing.
        let answer: Answer = serde_json::from_slice(&answer).unwrap_or_default();
        Ok(answer.rejected_log_events_info.unwrap_or_default())
    }

    /// Makes the stream, and the group if that is missing too; success if they are there already. In
    /// this order, for who made the group may have left us no right to.
    pub(super) async fn create(&mut self) -> Result<(), Failed> {
        match self.create_stream().await {
            Err(failed) if failed.failure == Failure::Missing => {
                let group = BTreeMap::from([("logGroupName", self.group.as_str())]);
                let body = serde_json::to_vec(&group).expect("texts are written as JSON");
                ignore_existing(self.call("CreateLogGroup", body).await)?;
                self.create_stream().await
            }
            outcome => outcome,
        }
    }

    async fn create_stream(&mut self) -> Result<(), Failed> {
        let names = BTreeMap::from([
            ("logGroupName", self.group.as_str()),
            ("logStreamName", self.stream.as_str()),
        ]);
        let body = serde_json::to_vec(&names).expect("texts are written as JSON");
        ignore_existing(self.call("CreateLogStream", body).await)
    }

    async fn call(&mut self, operation: &str, body: Vec<u8>) -> Result<Vec<u8>, Failed> {
        let limit = self.timeout;
        let called = timeout(limit, self.signed_call(operation, body)).await;
        let answer = called.unwrap_or_else(|_| {
            Err(Failed {
                failure: Failure::Unanswered,
                detail: format!("no answer in {limit:?}"),
            })
        });
        if let Err(failed) = &answer
            && failed.failure == Failure::Credentials
        {
            // Perhaps there are new ones.
            self.credentials = None;
        }
        answer
    }

    async fn signed_call(&mut self, operation: &str, body: Vec<u8>) -> Result<Vec<u8>, Failed> {
        let request = self.request(operation, body).await?;
        let response = self.http.call(request).await.map_err(|error| Failed {
            failure: Failure::of_connection(&error),
            detail: chain(&error),
        })?;
        let status = response.status().as_u16();
        let error_header = response
            .headers()
            .get("x-amzn-errortype")
            .map(str::to_owned);
        let answer = read(response.into_body()).await?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let (code, message) = error_of(&answer, error_header.as_deref());
        Err(Failed {
            failure: Failure::of_answer(status, &code),
            detail: format!("{operation}: {status} {code}: {message}"),
        })
    }

    async fn request(&mut self, operation: &str, body: Vec<u8>) -> Result<HttpRequest, Failed> {
        let identity = self.credentials().await?.into();
        let target = format!("Logs_20140328.{operation}");
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target.as_str()),
        ];
        let wrong = |error: &dyn std::error::Error| Failed {
            failure: Failure::Refused,
            detail: chain(error),
        };
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("logs")
            .time(UNIX_EPOCH + Duration::from_millis(now().as_millis()))
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| wrong(&error))?
            .into();
        let signable = SignableRequest::new(
            "POST",
            self.endpoint.as_str(),
            headers.into_iter(),
            SignableBody::Bytes(&body),
        );
        let signed = sign(signable.map_err(|error| wrong(&error))?, &params);
        let (instructions, _) = signed.map_err(|error| wrong(&error))?.into_parts();
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST").map_err(|error| wrong(&error))?;
        let uri = self.endpoint.as_str();
        request.set_uri(uri).map_err(|error| wrong(&error))?;
        for (name, value) in headers.into_iter().chain(instructions.headers()) {
            let (name, value) = (name.to_owned(), value.to_owned());
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    async fn credentials(&mut self) -> Result<Credentials, Failed> {
        let soon = UNIX_EPOCH + Duration::from_millis(now().as_millis()) + CREDENTIALS_MARGIN;
        if let Some(known) = &self.credentials
            && known.expiry().is_none_or(|end| end > soon)
        {
            return Ok(known.clone());
        }
        let none = |detail: String| Failed {
            failure: Failure::Credentials,
            detail,
        };
        let provider = self.provider.as_ref();
        let provider = provider.ok_or_else(|| none("there is no credentials provider".into()))?;
        let provided = provider.provide_credentials().await;
        let credentials = provided.map_err(|error| none(chain(&error)))?;
        self.credentials = Some(credentials.clone());
        Ok(credentials)
    }
}

fn default_endpoint(region: &str) -> String {
    let suffix = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    format!("https://logs.{region}.{suffix}/")
}

async fn read(body: SdkBody) -> Result<Vec<u8>, Failed> {
    let mut answer = Vec::new();
    let mut body = ByteStream::new(body);
    while let Some(bytes) = body.next().await {
        // The call was sent; only its outcome is not known.
        let bytes = bytes.map_err(|error| Failed {
            failure: Failure::Unanswered,
            detail: chain(&error),
        })?;
        let room = LOG_ANSWER_BYTES_MAX - answer.len();
        answer.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    Ok(answer)
}

/// Code and message of an error, from the body or, without one, from the header.
fn error_of(body: &[u8], header: Option<&str>) -> (String, String) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        #[serde(rename = "__type")]
        code: Option<String>,
        #[serde(alias = "Message")]
        message: String,
    }
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let code = body.code.as_deref().or(header).unwrap_or_default();
    // `namespace#Code:http://…`
    let code = code.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default();
    (code.to_owned(), body.message)
}

fn ignore_existing(outcome: Result<Vec<u8>, Failed>) -> Result<(), Failed> {
    match outcome {
        Err(failed) if failed.detail.contains("ResourceAlreadyExistsException") => Ok(()),
        outcome => outcome.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errors_code_is_found_wherever_it_stands() {
        let code = |body: &str, header| error_of(body.as_bytes(), header).0;
        let expected = "ResourceNotFoundException";
        assert_eq!(
            code(r#"{"__type":"ResourceNotFoundException"}"#, None),
            expected
        );
        let long = r#"{"__type":"com.amazonaws.logs#ResourceNotFoundException","message":"m"}"#;
        assert_eq!(code(long, None), expected);
        let header = Some("ResourceNotFoundException:http://internal.amazon.com/");
        assert_eq!(code("<html>", header), expected);
        assert_eq!(code("", None), "");
        assert_eq!(error_of(br#"{"Message":"m"}"#, None).1, "m");
    }

    #[test]
    fn each_partition_has_its_endpoint() {
        assert_eq!(
            default_endpoint("eu-central-1"),
            "https://logs.eu-central-1.amazonaws.com/"
        );
        assert_eq!(
            default_endpoint("cn-north-1"),
            "https://logs.cn-north-1.amazonaws.com.cn/"
        );
    }
}
