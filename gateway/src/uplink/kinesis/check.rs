//! What is looked at before and while a stream is written to: that it is there, and its shards. Only
//! advice comes of it; nothing here stops the gateway or keeps a record from being sent.

use portcullis_core::{
    limits::SHARDS_MAX,
    upstream::shards::{SHARD_RECORDS_PER_SECOND, Shard},
};
use tracing::{info, warn};

use super::client::{Client, Described, Refusal};
use crate::uplink::{StreamConfig, state::Failure};

/// How the stream is, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// All, and say so.
    Whole,
    /// The shards alone.
    Shards,
}

/// The open shards; `None` if nobody says.
pub(super) async fn look(
    client: Client,
    config: StreamConfig,
    sink: String,
    depth: Depth,
) -> Option<Vec<Shard>> {
    if depth == Depth::Whole {
        match client.describe().await {
            Ok(described) => tell(&described, &config, &sink),
            Err(refusal) => complain(&refusal, &config, &sink),
        }
    }
    match client.shards(SHARDS_MAX).await {
        Ok(shards) => {
            if depth == Depth::Whole {
                tell_shards(shards.len(), &config, &sink);
            }
            (shards.len() < SHARDS_MAX).then_some(shards)
        }
        Err(refusal) => {
            if depth == Depth::Whole {
                complain(&refusal, &config, &sink);
            }
            None
        }
    }
}

fn tell(described: &Described, config: &StreamConfig, sink: &str) {
    let stream = config.stream.as_str();
    if !described.is_active {
        warn!(
            sink,
            stream, "The stream is not active yet; records wait until it is."
        );
    }
    if described.is_encrypted {
        info!(
            sink,
            stream,
            advice = "the credentials need `kms:GenerateDataKey` for its key",
            "The stream is encrypted with a key of KMS."
        );
    }
    if described.on_demand {
        info!(
            sink,
            stream, "The stream has capacity on demand: its shards may change at any time."
        );
    }
}

fn tell_shards(shards: usize, config: &StreamConfig, sink: &str) {
    let stream = config.stream.as_str();
    let shards = u64::try_from(shards).unwrap_or(u64::MAX);
    let takes = shards
        .saturating_mul(SHARD_RECORDS_PER_SECOND)
        .saturating_mul(u64::from(config.share_permille))
        / 1000;
    info!(
        sink,
        stream,
        shards,
        records_per_second = takes,
        "The stream is there."
    );
    if let Some(expected) = config.expected_records_per_second
        && expected > takes
        && !config.aggregate
    {
        let needed = expected.div_ceil((takes / shards.max(1)).max(1));
        let advice = format!("give the stream {needed} shards, or set `aggregate = true`");
        warn!(
            sink,
            stream,
            shards,
            expected,
            takes,
            advice,
            "The stream is too small for what is expected."
        );
    }
}

fn complain((failure, detail): &Refusal, config: &StreamConfig, sink: &str) {
    let (stream, region) = (config.stream.as_str(), config.region.as_str());
    let reason = failure.reason();
    let advice = advice(*failure, stream, region);
    warn!(
        sink,
        stream, region, reason, detail, advice, "The stream could not be looked at."
    );
}

fn advice(failure: Failure, stream: &str, region: &str) -> String {
    match failure {
        Failure::StreamMissing => format!(
            "create it with `aws kinesis create-stream --stream-name {stream} --region {region}`, \
             or correct `stream` and `region`: a stream of another region is not seen"
        ),
        Failure::Credentials => "give the gateway credentials that may kinesis:PutRecords, \
             kinesis:DescribeStreamSummary and kinesis:ListShards on the stream, and check the clock"
            .to_owned(),
        Failure::Connectivity | Failure::TimedOut => {
            "check the link, the name service, and that `region` and `endpoint` exist".to_owned()
        }
        _ => "nothing is lost; records are sent all the same".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_what_to_type() {
        let missing = advice(Failure::StreamMissing, "site", "eu-west-1");
        assert!(missing.contains("--stream-name site --region eu-west-1"));
        assert!(advice(Failure::Credentials, "s", "r").contains("kinesis:ListShards"));
        assert!(advice(Failure::Connectivity, "s", "r").contains("`region`"));
    }
}
