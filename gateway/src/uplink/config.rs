//! Settings of the uplink.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::Uri;
use portcullis_core::limits::PUT_RECORDS_TIMEOUT;
use serde::{Deserialize, de::IgnoredAny};

use crate::document::Section;

/// A file of the outbox.
const OUTBOX_FILE_BYTES_MAX: u64 = 64 * MIB;
/// All files of the outbox.
const OUTBOX_BYTES_MAX: u64 = 1024 * MIB;
const MIB: u64 = 1024 * 1024;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// NDJSON files.
    Outbox(OutboxConfig),
    /// A Kinesis data stream.
    Kinesis(KinesisConfig),
}

/// Validated settings of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxConfig {
    /// `data/outbox`.
    pub dir: PathBuf,
    /// A file is closed at this size.
    pub file_bytes_max: u64,
    /// All files together; then the oldest is removed and counted.
    pub bytes_max: u64,
}

/// Validated settings of the Kinesis sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KinesisConfig {
    /// Name of the stream.
    pub stream: String,
    /// AWS region.
    pub region: String,
    /// Only for emulators and private endpoints.
    pub endpoint: Option<String>,
    /// Time for one request, connection included. Not in the file: what a link does not carry in
    /// it, it gets in smaller requests.
    pub request_timeout: Duration,
}

/// `[uplink]` as it is written; its tables are read one by one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct UplinkToml {
    outbox: Option<IgnoredAny>,
    kinesis: Option<IgnoredAny>,
    /// See [`super::cloudwatch::Config`].
    cloudwatch: Option<IgnoredAny>,
    cloudwatch_logs: Option<IgnoredAny>,
}

/// `[uplink.outbox]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct OutboxToml {
    file_bytes_max: u64,
    bytes_max: u64,
}

impl Default for OutboxToml {
    fn default() -> Self {
        Self {
            file_bytes_max: OUTBOX_FILE_BYTES_MAX,
            bytes_max: OUTBOX_BYTES_MAX,
        }
    }
}

/// `[uplink.kinesis]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct KinesisToml {
    stream: String,
    region: String,
    endpoint: Option<String>,
}

impl Config {
    /// Reads `[uplink]`; the outbox is under `data_dir`. A Kinesis stream wins: the outbox's keys
    /// may stay beside it, checked and unused.
    pub(crate) fn read(section: &mut Section<'_, '_>, data_dir: &Path) -> Option<Self> {
        section.read::<UplinkToml>();
        let outbox = OutboxConfig::read(&mut section.section("outbox"), data_dir);
        let mut kinesis = section.section("kinesis");
        if kinesis.is_present() {
            KinesisConfig::read(&mut kinesis).map(Self::Kinesis)
        } else {
            Some(Self::Outbox(outbox))
        }
    }
}

impl OutboxConfig {
    fn read(section: &mut Section<'_, '_>, data_dir: &Path) -> Self {
        let toml: OutboxToml = section.read().unwrap_or_default();
        let file_bytes_max = section.within("file-bytes-max", toml.file_bytes_max, MIB, 1024 * MIB);
        let bytes_max = section.within("bytes-max", toml.bytes_max, MIB, 1024 * 1024 * MIB);
        if bytes_max < file_bytes_max {
            section.problem(
                "bytes-max",
                "`bytes-max` is less than one file",
                format!("write at least {file_bytes_max}, or a smaller `file-bytes-max`"),
            );
        }
        Self {
            dir: data_dir.join("outbox"),
            file_bytes_max,
            bytes_max,
        }
    }
}

impl KinesisConfig {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let toml: KinesisToml = section.read()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let is_name = |name: &str| (1..=128).contains(&name.len()) && name.chars().all(plain);
        if !is_name(&toml.stream) {
            section.problem(
                "stream",
                format!("`{}` is no name of a Kinesis stream", toml.stream),
                "use 1 to 128 letters, digits and `_.-`",
            );
        }
        if !is_name(&toml.region) {
            section.problem(
                "region",
                format!("`{}` is no AWS region", toml.region),
                "write one like \"eu-central-1\"",
            );
        }
        if let Some(endpoint) = &toml.endpoint
            && !is_endpoint(endpoint)
        {
            section.problem(
                "endpoint",
                format!("`{endpoint}` is no endpoint"),
                "write a URL such as \"https://kinesis.example:4566\", or remove it",
            );
        }
        Some(Self {
            stream: toml.stream,
            region: toml.region,
            endpoint: toml.endpoint,
            request_timeout: PUT_RECORDS_TIMEOUT,
        })
    }
}

pub(super) fn is_endpoint(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        has_scheme
            && uri.authority().is_some_and(|authority| {
                // `Uri` takes any text for a port, and then has none.
                let has_good_port =
                    authority.port().is_some() || authority.as_str().ends_with(authority.host());
                !authority.host().is_empty() && has_good_port
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        for good in [
            "http://127.0.0.1:4566",
            "https://kinesis.example",
            "https://[::1]:4566/path",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "",
            "kinesis.example",
            "ftp://kinesis.example",
            "http://",
            "https://:4566",
            "http://a b",
            "http://h:port",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }
}
