//! The consumer's side of a stream.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_kinesis::types::{ShardIteratorType, StreamStatus};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

pub(crate) const STREAM: &str = "site-events";
pub(crate) const REGION: &str = "eu-central-1";

/// The SDK as the gateway sets it up, with the credentials of the environment.
pub(crate) async fn client(endpoint: &str) -> aws_sdk_kinesis::Client {
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .load()
        .await;
    aws_sdk_kinesis::Client::new(&config)
}

/// Makes the stream and waits until it takes records.
pub(crate) async fn create_stream(client: &aws_sdk_kinesis::Client, shards: i32) {
    let create = client
        .create_stream()
        .stream_name(STREAM)
        .shard_count(shards);
    create.send().await.unwrap();
    loop {
        let describe = client.describe_stream_summary().stream_name(STREAM);
        let summary = describe.send().await.unwrap();
        let summary = summary.stream_description_summary().unwrap();
        if *summary.stream_status() == StreamStatus::Active {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything in the stream, shard after shard.
pub(crate) async fn read_stream(client: &aws_sdk_kinesis::Client) -> Vec<(String, Vec<u8>)> {
    let shards = client
        .list_shards()
        .stream_name(STREAM)
        .send()
        .await
        .unwrap();
    let mut all = Vec::new();
    for shard in shards.shards() {
        let start = client
            .get_shard_iterator()
            .stream_name(STREAM)
            .shard_id(shard.shard_id())
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let mut iterator = start.send().await.unwrap().shard_iterator;
        while let Some(at) = iterator {
            let page = client.get_records().shard_iterator(at).limit(5000);
            let page = page.send().await.unwrap();
            let records = page.records().iter();
            all.extend(records.map(|record| {
                (
                    record.partition_key().unwrap().to_owned(),
                    record.data().as_ref().to_vec(),
                )
            }));
            let at_tip = page.records().is_empty() && page.millis_behind_latest() == Some(0);
            iterator = page.next_shard_iterator.filter(|_| !at_tip);
        }
    }
    all
}
