//! What all clients of AWS services share: one HTTP client on the one TLS stack of the house (rustls on
//! ring; it takes plain `http://` as well), the credentials chain, timeouts. No retries: whoever calls
//! has its own, and two nested back-offs would multiply.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kinesis::config::StalledStreamProtectionConfig;
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpConnector, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use portcullis_core::limits::UPLINK_CONNECT_TIMEOUT;

/// The HTTP client; a clone uses the same connections.
#[derive(Clone, Debug)]
pub(super) struct Http(SharedHttpConnector);

impl Http {
    /// A client without connections. They belong to the runtime on which they are opened.
    pub(super) fn new() -> Self {
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(UPLINK_CONNECT_TIMEOUT)
            .build();
        let connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .connector_settings(settings)
            .build();
        Self(SharedHttpConnector::new(connector))
    }

    /// As the SDK wants it.
    fn client(&self) -> SharedHttpClient {
        let connector = self.0.clone();
        http_client_fn(move |_, _| connector.clone())
    }

    /// One request, signed already; no timeout but that of the connection.
    pub(super) async fn call(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        self.0.call(request).await
    }
}

/// Settings of a client with the default credentials chain. Opens no connection.
pub(super) async fn load(
    http: &Http,
    region: &str,
    endpoint: Option<&str>,
    timeout: Duration,
) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.client())
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(UPLINK_CONNECT_TIMEOUT)
                .operation_timeout(timeout)
                .build(),
        )
        // The operation's timeout covers it, and it would count a slow uplink as a fault.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}
