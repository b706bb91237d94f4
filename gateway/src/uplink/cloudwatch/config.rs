//! `[uplink.cloudwatch]` and `[uplink.cloudwatch-logs]`.

use std::collections::BTreeMap;

use portcullis_core::{
    cloudwatch::metrics::{is_dimension_value, is_name},
    limits::CONFIGURED_DIMENSIONS_MAX,
};
use serde::Deserialize;
use tracing::Level;

use crate::{document::Section, uplink::config::is_endpoint};

/// The dimension that every metric has.
pub(super) const GATEWAY_DIMENSION: &str = "GatewayId";

/// What goes to CloudWatch; nothing unless its section is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Metrics once a minute.
    pub metrics: Option<MetricsConfig>,
    /// The gateway's own log.
    pub logs: Option<LogsConfig>,
}

/// Validated settings of the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where the metrics are found.
    pub namespace: String,
    /// AWS region.
    pub region: String,
    /// Only for emulators and private endpoints.
    pub endpoint: Option<String>,
    /// Of every metric, beside the gateway's id.
    pub dimensions: BTreeMap<String, String>,
}

/// Validated settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsConfig {
    /// The log group.
    pub group: String,
    /// The log stream; without one the gateway's id.
    pub stream: Option<String>,
    /// AWS region.
    pub region: String,
    /// Only for emulators and private endpoints.
    pub endpoint: Option<String>,
    /// From which level on events are sent.
    pub level: Level,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MetricsToml {
    #[serde(default = "namespace")]
    namespace: String,
    region: String,
    endpoint: Option<String>,
    #[serde(default)]
    dimensions: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct LogsToml {
    group: String,
    stream: Option<String>,
    region: String,
    endpoint: Option<String>,
    #[serde(default)]
    level: LevelToml,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LevelToml {
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}

fn namespace() -> String {
    "Portcullis".to_owned()
}

impl Config {
    /// Reads both sections below `[uplink]`.
    pub(crate) fn read(uplink: &mut Section<'_, '_>) -> Self {
        let mut metrics = uplink.section("cloudwatch");
        let metrics = match metrics.is_present() {
            true => MetricsConfig::read(&mut metrics),
            false => None,
        };
        let mut logs = uplink.section("cloudwatch-logs");
        let logs = match logs.is_present() {
            true => LogsConfig::read(&mut logs),
            false => None,
        };
        Self { metrics, logs }
    }
}

impl MetricsConfig {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let toml: MetricsToml = section.read()?;
        if !is_name(&toml.namespace) || toml.namespace.starts_with("AWS/") {
            section.problem(
                "namespace",
                format!("`{}` is no namespace for metrics", toml.namespace),
                "use 1 to 255 ASCII characters that do not begin with `:` or `AWS/`",
            );
        }
        check_place(section, &toml.region, toml.endpoint.as_deref());
        let bad = toml.dimensions.iter().find(|(name, value)| {
            !is_name(name) || !is_dimension_value(value) || *name == GATEWAY_DIMENSION
        });
        if let Some((name, value)) = bad {
            section.problem(
                "dimensions",
                format!("`{name}` = `{value}` is no dimension"),
                format!(
                    "use ASCII: a name of 1 to 255 characters other than `{GATEWAY_DIMENSION}` that does not begin with `:`, a value of 1 to 1024"
                ),
            );
        }
        if toml.dimensions.len() > CONFIGURED_DIMENSIONS_MAX {
            section.problem(
                "dimensions",
                format!("{} dimensions are too many", toml.dimensions.len()),
                format!("keep {CONFIGURED_DIMENSIONS_MAX} at most; every metric has them all"),
            );
        }
        Some(Self {
            namespace: toml.namespace,
            region: toml.region,
            endpoint: toml.endpoint,
            dimensions: toml.dimensions,
        })
    }
}

impl LogsConfig {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let toml: LogsToml = section.read()?;
        let in_group = |c: char| c.is_ascii_alphanumeric() || "_-/.#".contains(c);
        if !(1..=512).contains(&toml.group.len()) || !toml.group.chars().all(in_group) {
            section.problem(
                "group",
                format!("`{}` is no name of a log group", toml.group),
                "use 1 to 512 letters, digits and `_-/.#`",
            );
        }
        if let Some(stream) = &toml.stream
            && (!(1..=512).contains(&stream.len()) || stream.contains([':', '*']))
        {
            section.problem(
                "stream",
                format!("`{stream}` is no name of a log stream"),
                "use 1 to 512 characters without `:` and `*`, or remove it: then it is the gateway's id",
            );
        }
        check_place(section, &toml.region, toml.endpoint.as_deref());
        Some(Self {
            group: toml.group,
            stream: toml.stream,
            region: toml.region,
            endpoint: toml.endpoint,
            level: match toml.level {
                LevelToml::Error => Level::ERROR,
                LevelToml::Warn => Level::WARN,
                LevelToml::Info => Level::INFO,
                LevelToml::Debug => Level::DEBUG,
                LevelToml::Trace => Level::TRACE,
            },
        })
    }

    /// The stream of the gateway `gateway_id`, whose name may have a colon; a stream's may not.
    pub(super) fn stream_of(&self, gateway_id: &str) -> String {
        let named = self.stream.clone();
        named.unwrap_or_else(|| gateway_id.replace(':', "_"))
    }
}

fn check_place(section: &mut Section<'_, '_>, region: &str, endpoint: Option<&str>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !(1..=128).contains(&region.len()) || !region.chars().all(plain) {
        section.problem(
            "region",
            format!("`{region}` is no AWS region"),
            "write one like \"eu-central-1\"",
        );
    }
    if let Some(endpoint) = endpoint
        && !is_endpoint(endpoint)
    {
        section.problem(
            "endpoint",
            format!("`{endpoint}` is no endpoint"),
            "write a URL such as \"https://monitoring.example:4566\", or remove it",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::document::Document;

    fn read(text: &str) -> (Config, Vec<String>) {
        let mut document = Document::parse(Path::new("gateway.toml"), text);
        let config = Config::read(&mut document.section("uplink"));
        let problems = document.into_problems().into_iter();
        let told = problems.map(|problem| {
            let line = problem.place.map_or(0, |place| place.line);
            format!("{line}: {}", problem.message)
        });
        (config, told.collect())
    }

    #[test]
    fn without_the_sections_nothing_goes_to_cloudwatch() {
        assert_eq!(read(""), (Config::default(), vec![]));
    }

    #[test]
    fn sections_have_defaults() {
        let (config, problems) = read(
            "[uplink.cloudwatch]\nregion = \"eu-central-1\"\n[uplink.cloudwatch-logs]\ngroup = \"/edge/gw\"\nregion = \"eu-central-1\"\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let metrics = config.metrics.unwrap();
        assert_eq!(metrics.namespace, "Portcullis");
        assert_eq!(metrics.dimensions, BTreeMap::new());
        let logs = config.logs.unwrap();
        assert_eq!(logs.level, Level::WARN);
        assert_eq!(logs.stream_of("gw:1"), "gw_1");
    }

    #[test]
    fn every_mistake_has_its_line() {
        let (_, problems) = read(concat!(
            "[uplink.cloudwatch]\n",
            "namespace = \"AWS/IoT\"\n",
            "region = \"eu central\"\n",
            "endpoint = \"monitoring\"\n",
            "dimensions = { GatewayId = \"x\" }\n",
            "[uplink.cloudwatch-logs]\n",
            "group = \"a b\"\n",
            "stream = \"a:b\"\n",
            "region = \"\"\n",
        ));
        assert_eq!(
            problems,
            [
                "2: `AWS/IoT` is no namespace for metrics",
                "3: `eu central` is no AWS region",
                "4: `monitoring` is no endpoint",
                "5: `GatewayId` = `x` is no dimension",
                "7: `a b` is no name of a log group",
                "8: `a:b` is no name of a log stream",
                "9: `` is no AWS region",
            ]
        );
        let many: Vec<_> = (0..11).map(|n| format!("d{n} = \"v\"")).collect();
        let (_, problems) = read(&format!(
            "[uplink.cloudwatch]\nregion = \"r\"\ndimensions = {{ {} }}\n",
            many.join(", ")
        ));
        assert_eq!(problems, ["3: 11 dimensions are too many"]);
    }
}
