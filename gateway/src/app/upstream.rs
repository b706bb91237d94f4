//! The way upstream: the buffer, what is appended to it beside events, and the sinks.

use portcullis_core::{
    record::{Draft, Lane},
    upstream::Routes,
};
use prometheus::Registry;
use tokio::{sync::mpsc, task::spawn_blocking};
use tracing::error;
use uuid::Uuid;

use super::{BuildError, source::Source};
use crate::{
    buffer::{self, Buffer, Stamp},
    config::Config,
    identity::SnapshotWatch,
    supervisor::{Stage, Supervisor, TaskResult},
    uplink::{self, Uplink, cloudwatch},
};

/// Metrics and log events on their way to the buffer; then whoever has them waits or drops them.
const BULK_QUEUE: usize = 256;

/// Recovers the buffer, for the sinks that are configured: those of the uplink first.
pub(super) async fn open_buffer(
    config: &Config,
    registry: &Registry,
) -> Result<(Buffer, buffer::Writer), BuildError> {
    let stamp = Stamp {
        gateway_id: config.gateway_id.clone(),
        boot_id: Uuid::new_v4().to_string(),
    };
    let metrics = buffer::Metrics::register(registry);
    let settings = config.buffer.clone();
    let cloudwatch = config.cloudwatch.sinks();
    let cloudwatch = cloudwatch.into_iter().map(|name| buffer::Sink {
        name: name.to_owned(),
        lanes: vec![Lane::Bulk],
    });
    let sinks: Vec<_> = config
        .uplink
        .sinks()
        .into_iter()
        .map(|sink| buffer::Sink {
            name: sink.name,
            lanes: sink.lanes,
        })
        .chain(cloudwatch)
        .collect();
    spawn_blocking(move || Buffer::open(&settings, &sinks, stamp, metrics))
        .await
        .map_err(BuildError::Thread)?
        .map_err(BuildError::Buffer)
}

/// Ships what the buffer has, and what the gateway says about itself.
pub(super) fn ship(
    config: &Config,
    buffer: &Buffer,
    metrics: uplink::Metrics,
    registry: &Registry,
    supervisor: &mut Supervisor,
) {
    let dead_letters = config.data_dir.join("dead-letter");
    let sinks = config.uplink.sinks().len();
    let sources = (0..sinks).map(|sink| Source(buffer.reader(sink))).collect();
    let uplink = Uplink::new(config.uplink.clone(), dead_letters, sources, metrics);
    supervisor.spawn(Stage::Uplink, "uplink", |stop| uplink.run(stop));
    if config.cloudwatch.sinks().is_empty() {
        return;
    }
    // Its own way to the buffer: while the bulk lane has no room, violations do not wait.
    let (bulk, drafts) = mpsc::channel(BULK_QUEUE);
    cloudwatch::start(
        &config.cloudwatch,
        &config.gateway_id,
        sinks,
        registry,
        &bulk,
        |sink| Source(buffer.reader(sink)),
        supervisor,
    );
    let buffer = buffer.clone();
    supervisor.spawn(Stage::Pipeline, "bulk", |_| append_bulk(drafts, buffer));
}

/// Ends when nobody has anything to say any more.
async fn append_bulk(mut drafts: mpsc::Receiver<Draft>, buffer: Buffer) -> TaskResult {
    while let Some(draft) = drafts.recv().await {
        buffer.append(vec![draft], None).await?;
    }
    Ok(())
}

/// Which sinks get what is found about a thing.
pub(super) struct Routing {
    routes: Routes,
    snapshots: SnapshotWatch,
}

impl Routing {
    pub(super) fn new(config: &Config, snapshots: SnapshotWatch) -> Self {
        Self {
            routes: config.uplink.routes(),
            snapshots,
        }
    }
}

/// Ends when defend is gone and what it found is appended.
pub(super) async fn append_violations(
    mut drafts: mpsc::Receiver<Draft>,
    buffer: Buffer,
    Routing { routes, snapshots }: Routing,
) -> TaskResult {
    while let Some(mut draft) = drafts.recv().await {
        let thing = snapshots.borrow().thing(&draft.partition_key).cloned();
        let groups = thing.map(|thing| thing.groups.clone());
        let groups = groups.as_deref().unwrap_or_default();
        draft.sinks = routes.select(draft.kind, groups, None);
        if let Err(error) = buffer.append(vec![draft], None).await {
            error!(%error, "A violation could not be kept.");
            return Err(error.into());
        }
    }
    Ok(())
}
