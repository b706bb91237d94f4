//! `[uplink.kinesis]` and its routes.

use std::{collections::BTreeSet, time::Duration};

use axum::http::Uri;
use portcullis_core::{
    backoff::Backoff,
    identity::GroupName,
    limits::{
        PUT_RECORDS_BYTES_HARD_MAX, PUT_RECORDS_BYTES_MAX, REQUESTS_IN_FLIGHT,
        REQUESTS_IN_FLIGHT_MAX, ROUTES_MAX, UPLINK_LINGER,
    },
    problem::nearest,
    record::{Kind, Lane},
    topic::TopicFilter,
};
use serde::{Deserialize, de::IgnoredAny};

use super::{KinesisConfig, MIB, Order, Ordering, Pace, RouteConfig, StreamConfig, Waits};
use crate::document::Section;

/// The default of `share` where each byte costs.
const SHARE_METERED_PERMILLE: u32 = 800;
const YEAR_SECS: u64 = 366 * 24 * 60 * 60;
/// The default of `retry-max-secs` is the limit itself.
const RETRY_MAX_SECS: u64 = 3600;

/// `[uplink.kinesis]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct KinesisToml {
    stream: String,
    region: String,
    endpoint: Option<String>,
    #[serde(default)]
    ordering: Ordering,
    #[serde(default)]
    order: Order,
    requests_in_flight: Option<usize>,
    batch_bytes_max: Option<usize>,
    linger_ms: Option<u64>,
    #[serde(default)]
    aggregate: bool,
    max_age_secs: Option<u64>,
    #[serde(default)]
    metered: bool,
    share: Option<f64>,
    records_per_second_max: Option<u64>,
    bytes_per_second_max: Option<u64>,
    bytes_per_day_max: Option<u64>,
    expected_records_per_second: Option<u64>,
    retry_max_secs: Option<u64>,
    #[serde(default)]
    route: Vec<IgnoredAny>,
}

/// `[[uplink.kinesis.route]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RouteToml {
    name: String,
    stream: String,
    region: Option<String>,
    endpoint: Option<String>,
    max_age_secs: Option<u64>,
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    also_default: bool,
}

impl KinesisConfig {
    pub(super) fn read(section: &mut Section<'_, '_>, groups: Option<&[&str]>) -> Option<Self> {
        let toml: KinesisToml = section.read()?;
        let default = read_default(section, &toml);
        if toml.route.len() > ROUTES_MAX {
            let message = format!("there are {} routes", toml.route.len());
            section.problem("route", message, format!("keep at most {ROUTES_MAX}"));
        }
        let mut names = BTreeSet::new();
        let routes = (0..toml.route.len())
            .filter_map(|index| {
                let mut section = section.section_at("route", index);
                RouteConfig::read(&mut section, &default, groups, &mut names)
            })
            .collect();
        Some(Self { default, routes })
    }
}

fn read_default(section: &mut Section<'_, '_>, toml: &KinesisToml) -> StreamConfig {
    check_names(
        section,
        &toml.stream,
        Some(&toml.region),
        toml.endpoint.as_deref(),
    );
    if toml.ordering == Ordering::Strict && toml.order == Order::LiveFirst {
        section.problem(
            "order",
            "with `ordering = \"strict\"` nothing may go before what is older",
            "write \"backlog-first\", or `ordering = \"relaxed\"`",
        );
    }
    let in_flight = toml.requests_in_flight.unwrap_or(REQUESTS_IN_FLIGHT);
    let batch = toml.batch_bytes_max.unwrap_or(PUT_RECORDS_BYTES_MAX);
    let linger = toml.linger_ms.map_or(UPLINK_LINGER, Duration::from_millis);
    let waits = Waits::default();
    let retry_max = toml
        .retry_max_secs
        .unwrap_or(waits.unreachable.cap.as_secs());
    let retry_max = section.within("retry-max-secs", retry_max, 1, RETRY_MAX_SECS);
    StreamConfig {
        endpoint: toml.endpoint.clone(),
        ordering: toml.ordering,
        order: toml.order,
        requests_in_flight: section.within(
            "requests-in-flight",
            in_flight,
            1,
            REQUESTS_IN_FLIGHT_MAX,
        ),
        batch_bytes_max: section.within(
            "batch-bytes-max",
            batch,
            64 * 1024,
            PUT_RECORDS_BYTES_HARD_MAX,
        ),
        linger: Duration::from_millis(section.within(
            "linger-ms",
            u64::try_from(linger.as_millis()).unwrap_or(u64::MAX),
            0,
            60_000,
        )),
        aggregate: toml.aggregate,
        max_age: max_age(section, toml.max_age_secs),
        share_permille: share(section, toml),
        pace: Pace {
            records_per_second_max: at_least(
                section,
                "records-per-second-max",
                toml.records_per_second_max,
                1,
            ),
            bytes_per_second_max: at_least(
                section,
                "bytes-per-second-max",
                toml.bytes_per_second_max,
                1024,
            ),
            bytes_per_day_max: at_least(section, "bytes-per-day-max", toml.bytes_per_day_max, MIB),
        },
        expected_records_per_second: toml.expected_records_per_second,
        waits: Waits {
            unreachable: Backoff {
                cap: Duration::from_secs(retry_max),
                ..waits.unreachable
            },
            ..waits
        },
        ..StreamConfig::new(&toml.stream, &toml.region)
    }
}

fn at_least(section: &mut Section<'_, '_>, key: &str, value: Option<u64>, min: u64) -> Option<u64> {
    value.map(|value| section.within(key, value, min, 1 << 40))
}

fn max_age(section: &mut Section<'_, '_>, secs: Option<u64>) -> Option<Duration> {
    let secs = secs?;
    let secs = section.within("max-age-secs", secs, 60, YEAR_SECS);
    Some(Duration::from_secs(secs))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is within the bounds"
)]
fn share(section: &mut Section<'_, '_>, toml: &KinesisToml) -> u32 {
    match toml.share {
        Some(share) => (section.within("share", share, 0.01, 1.5) * 1000.0) as u32,
        None if toml.metered => SHARE_METERED_PERMILLE,
        None => 1000,
    }
}

fn check_names(
    section: &mut Section<'_, '_>,
    stream: &str,
    region: Option<&str>,
    endpoint: Option<&str>,
) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let is_name = |name: &str| (1..=128).contains(&name.len()) && name.chars().all(plain);
    if !is_name(stream) {
        section.problem(
            "stream",
            format!("`{stream}` is no name of a Kinesis stream"),
            "use 1 to 128 letters, digits and `_.-`",
        );
    }
    if let Some(region) = region
        && !is_name(region)
    {
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
            "write a URL such as \"https://kinesis.example:4566\", or remove it",
        );
    }
}

impl RouteConfig {
    fn read(
        section: &mut Section<'_, '_>,
        default: &StreamConfig,
        groups: Option<&[&str]>,
        names: &mut BTreeSet<String>,
    ) -> Option<Self> {
        let toml: RouteToml = section.read()?;
        check_names(
            section,
            &toml.stream,
            toml.region.as_deref(),
            toml.endpoint.as_deref(),
        );
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=32).contains(&toml.name.len()) || !toml.name.chars().all(plain) {
            section.problem(
                "name",
                format!("`{}` is no name of a route", toml.name),
                "use 1 to 32 lower-case letters, digits and `-`",
            );
        }
        if !names.insert(toml.name.clone()) {
            let message = format!("there is a route `{}` already", toml.name);
            section.problem("name", message, "give it another name");
        }
        let region = toml.region.as_deref().unwrap_or(&default.region);
        let stream = StreamConfig {
            stream: toml.stream.clone(),
            region: region.to_owned(),
            endpoint: toml.endpoint.clone().or_else(|| default.endpoint.clone()),
            max_age: max_age(section, toml.max_age_secs).or(default.max_age),
            expected_records_per_second: None,
            ..default.clone()
        };
        Some(Self {
            stream,
            kinds: each(section, "kinds", &toml.kinds, parse_kind),
            groups: each(section, "groups", &toml.groups, |name| {
                parse_group(name, groups)
            }),
            topics: each(section, "topics", &toml.topics, |text| {
                TopicFilter::parse(text).map_err(|error| {
                    let message = format!("`{text}` is no topic filter: {error}");
                    (message, "correct it".to_owned())
                })
            }),
            also_default: toml.also_default,
            name: toml.name,
        })
    }
}

/// Every element of a list as what it means; a problem for each that means nothing.
fn each<T>(
    section: &mut Section<'_, '_>,
    key: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, (String, String)>,
) -> Vec<T> {
    let mut all = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(value) => all.push(value),
            Err((message, remedy)) => section.problem_at(key, index, message, remedy),
        }
    }
    all
}

/// A kind by the middle of its schema: `portcullis.NAME/1`.
fn parse_kind(name: &str) -> Result<Kind, (String, String)> {
    let routed = || {
        Kind::ALL
            .into_iter()
            .filter(|kind| kind.lane() != Lane::Bulk)
    };
    routed().find(|kind| name_of(*kind) == name).ok_or_else(|| {
        let names: Vec<_> = routed().map(name_of).collect();
        let remedy = match nearest(name, names.iter().copied()) {
            Some(near) => format!("write `{near}`"),
            None => format!("write one of {}", names.join(", ")),
        };
        (format!("`{name}` is no kind of record"), remedy)
    })
}

fn name_of(kind: Kind) -> &'static str {
    let schema = kind.schema();
    let middle = schema.split_once('.').map_or(schema, |(_, rest)| rest);
    middle.split_once('/').map_or(middle, |(name, _)| name)
}

fn parse_group(name: &str, groups: Option<&[&str]>) -> Result<GroupName, (String, String)> {
    let known = groups.is_none_or(|groups| groups.contains(&name));
    match GroupName::parse(name) {
        Ok(group) if known => Ok(group),
        _ => {
            let near = nearest(name, groups.unwrap_or_default().iter().copied());
            let remedy = match near {
                Some(near) => format!("write `{near}`"),
                None => "add it to registry.toml, or remove it here".to_owned(),
            };
            Err((format!("the group `{name}` does not exist"), remedy))
        }
    }
}

pub(crate) fn is_endpoint(text: &str) -> bool {
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
    use std::path::Path;

    use super::*;
    use crate::{document::Document, uplink::Config};

    fn read(text: &str) -> (Option<Config>, Vec<String>) {
        let mut document = Document::parse(Path::new("f"), text);
        let groups = ["pumps", "valves"];
        let section = &mut document.section("uplink");
        let config = Config::read(section, Path::new("data"), Some(&groups));
        let problems = document.into_problems();
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn routes_share_the_settings_of_the_default_stream_and_have_sinks_of_their_own() {
        let (config, problems) = read(
            r#"[uplink.kinesis]
stream = "site"
region = "eu-central-1"
ordering = "strict"
metered = true
max-age-secs = 3600
[[uplink.kinesis.route]]
name = "alarms"
stream = "site-alarms"
kinds = ["violation", "finding"]
[[uplink.kinesis.route]]
name = "pumps"
stream = "pumps"
region = "eu-west-1"
groups = ["pumps"]
topics = ["dt/+/pressure"]
also-default = true
max-age-secs = 60
"#,
        );
        assert_eq!(problems, Vec::<String>::new());
        let config = config.unwrap();
        let names: Vec<_> = config.sinks().into_iter().map(|sink| sink.name).collect();
        assert_eq!(names, ["kinesis", "kinesis-alarms", "kinesis-pumps"]);
        let Config::Kinesis(config) = config else {
            panic!("it is Kinesis");
        };
        let KinesisConfig { default, routes } = *config;
        assert_eq!(default.share_permille, 800);
        assert_eq!(routes[0].kinds, [Kind::Violation, Kind::Finding]);
        assert_eq!(routes[0].stream.max_age, Some(Duration::from_secs(3600)));
        assert_eq!(routes[1].stream.max_age, Some(Duration::from_secs(60)));
        assert_eq!(routes[1].stream.region, "eu-west-1");
        assert_eq!(routes[1].stream.ordering, Ordering::Strict);
        assert!(routes[1].also_default);
    }

    #[test]
    fn every_mistake_has_its_line_and_a_remedy() {
        let (_, problems) = read(
            r#"[uplink.kinesis]
stream = "site"
region = "eu-central-1"
ordering = "strict"
order = "live-first"
requests-in-flight = 99
share = 7.0
[[uplink.kinesis.route]]
name = "A b"
stream = "x y"
kinds = ["event", "metric"]
groups = ["pumbs"]
topics = ["a/#/b"]
[[uplink.kinesis.route]]
name = "A b"
stream = "z"
"#,
        );
        let starts = [
            "f:5:9: with `ordering = \"strict\"` nothing may go before what is older; write \"backlog-first\"",
            "f:6:22: `requests-in-flight` is 99, out of its range; write a number from 1 to 16",
            "f:7:9: `share` is 7, out of its range; write a number from 0.01 to 1.5",
            "f:9:8: `A b` is no name of a route; use 1 to 32",
            "f:10:10: `x y` is no name of a Kinesis stream",
            "f:11:19: `metric` is no kind of record; write",
            "f:12:11: the group `pumbs` does not exist; write `pumps`",
            "f:13:11: `a/#/b` is no topic filter",
            "f:15:8: `A b` is no name of a route",
            "f:15:8: there is a route `A b` already; give it another name",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for start in starts {
            let found = problems.iter().any(|problem| problem.starts_with(start));
            assert!(found, "{start} in {problems:#?}");
        }
    }

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
